"""Forcings and infusions of an ODE as functions of time."""

from typing import Any

import jax.numpy as jnp

from ..data.forcings import AbstractForcing, Step
from ..data.layer_inputs import Inputs
from ..random import Module
from .scheduled import AbstractSchedule

# A share of the times of a solve. Jumps in this last share end no step, because Diffrax ends its
# last step there.
_LAST_PART = 1e-12


class Forced(Module):
    """Forcings as one function of time, which gives the argument `u` of a vector field.

    Args:
        forcings: the interpolated forcings by name.
        schedule: the doses of the solve, whose infusions add to the rates; None for no doses.
        last: the time after which infusion rates stay constant.
    """

    forcings: dict[str, AbstractForcing]
    schedule: AbstractSchedule | None = None
    last: Any = jnp.inf

    def __call__(self, t: Any) -> dict[str, Any]:
        return {name: force(t) for name, force in self.forcings.items()}

    def infused(self, t: Any, rates: dict[str, Any]) -> dict[str, Any]:
        """Return the rates of the states at time `t`, plus the rates of infusions."""
        more = self.schedule.rates(t, self.last) if self.schedule is not None else {}
        return {name: rate + more[name] if name in more else rate for name, rate in rates.items()}

    def up_to(self, last: Any) -> "Forced":
        """Return forcings whose steps and infusions do not change after the time `last`.

        The last stage of the solver would otherwise see a change at the end of the solve.
        """

        # A step forcing after `last` is moved to infinity, so that its last value holds.
        def until_last(force):
            return Step(jnp.where(force.times > last, jnp.inf, force.times), force.values)

        forcings = {
            name: until_last(f) if isinstance(f, Step) else f for name, f in self.forcings.items()
        }
        return Forced(forcings, self.schedule, last)


def last_part(inputs: Inputs) -> Any:
    """Return a time just before the end of a solve; jumps after it do not end a step."""
    start, end = inputs.start, inputs.times[-1]
    return end - _LAST_PART * (jnp.abs(start) + jnp.abs(end))

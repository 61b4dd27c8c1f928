"""Forcings and infusions of an ODE as functions of time."""

from typing import Any

import jax.numpy as jnp

from ..data.forcings import AbstractForcing, Step
from ..data.layer_inputs import Inputs
from ..random import Module
from .scheduled import AbstractSchedule

# In this last part of a solve no step ends for a jump, because Diffrax ends its last step there.
_LAST_PART = 1e-12


class Forced(Module):
    """All forcings as one function of time, the `u` of a vector field, and infusions."""

    forcings: dict[str, AbstractForcing]
    schedule: AbstractSchedule | None = None
    last: Any = jnp.inf

    def __call__(self, t: Any) -> dict[str, Any]:
        return {name: force(t) for name, force in self.forcings.items()}

    def infused(self, t: Any, rates: dict[str, Any]) -> dict[str, Any]:
        """Rates of states plus the rates of infusions."""
        more = self.schedule.rates(t, self.last) if self.schedule is not None else {}
        return {name: rate + more[name] if name in more else rate for name, rate in rates.items()}

    def up_to(self, last: Any) -> "Forced":
        """Forcings without changes after `last`, which the last stage of a solve would see."""

        # A step forcing after `last` is moved to infinity, so that its last value holds.
        def until_last(force):
            return Step(jnp.where(force.times > last, jnp.inf, force.times), force.values)

        forcings = {
            name: until_last(f) if isinstance(f, Step) else f for name, f in self.forcings.items()
        }
        return Forced(forcings, self.schedule, last)


def last_part(inputs: Inputs) -> Any:
    """Time just before the end of a solve, after which no step may end for a jump."""
    start, end = inputs.start, inputs.times[-1]
    return end - _LAST_PART * (jnp.abs(start) + jnp.abs(end))

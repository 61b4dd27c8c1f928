"""What drives an equation along its solve: forcings, and infusions of which it need not know."""

from typing import Any

import jax.numpy as jnp

from ..data.forcings import AbstractForcing, Step
from ..data.layer_inputs import Inputs
from ..random import Module
from .scheduled import AbstractSchedule

# Of a solve, the last part in which no step ends for a jump: Diffrax's own steps end there with the
# solve.
_LAST_PART = 1e-12


class Forced(Module):
    """The forcings as one function of time: the `u` of a vector field; and infusions until a `last`
    time.
    """

    forcings: dict[str, AbstractForcing]
    schedule: AbstractSchedule | None = None
    last: Any = jnp.inf

    def __call__(self, t: Any) -> dict[str, Any]:
        return {name: force(t) for name, force in self.forcings.items()}

    def infused(self, t: Any, rates: dict[str, Any]) -> dict[str, Any]:
        """Rates of states with those of infusions."""
        more = self.schedule.rates(t, self.last) if self.schedule is not None else {}
        return {name: rate + more[name] if name in more else rate for name, rate in rates.items()}

    def up_to(self, last: Any) -> "Forced":
        """The same without what changes after a time:
        the last stage of the last step would see it.
        """

        def held(force):
            return Step(jnp.where(force.times > last, jnp.inf, force.times), force.values)

        forcings = {
            name: held(f) if isinstance(f, Step) else f for name, f in self.forcings.items()
        }
        return Forced(forcings, self.schedule, last)


def last_part(inputs: Inputs) -> Any:
    start, end = inputs.start, inputs.times[-1]
    return end - _LAST_PART * (jnp.abs(start) + jnp.abs(end))

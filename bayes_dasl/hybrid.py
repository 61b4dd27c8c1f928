"""Ways to join a scientific model and a network."""

import equinox as eqx

from ._errors import ModelError
from ._types import Values, VectorField
from .random import Module


class Residual(Module):
    r"""A scientific vector field plus a learned correction.

    $f(t, y, u) + g(t, y, u)$, or $f(t, y, u) + y \odot g(t, y, u)$ if `relative`

    The closure $g$ may correct some of the states only. With `relative` it corrects the rate per unit of
    state, so that a state that starts positive stays positive.
    Raises: ModelError when called, if the closure corrects a state that the science does not have.
    """

    science: VectorField
    closure: VectorField
    relative: bool = eqx.field(default=False, static=True)

    def __call__(self, t, y: Values, u: Values) -> Values:
        rates, corrections = dict(self.science(t, y, u)), self.closure(t, y, u)
        for name, correction in corrections.items():
            if name not in rates:
                raise ModelError(f"the closure corrects '{name}'; the science has {', '.join(rates)}")
            rates[name] = rates[name] + (y[name] * correction if self.relative else correction)
        return rates

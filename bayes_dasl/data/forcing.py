"""Known inputs that vary in time, and how they run between their data."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import DataError


class AbstractForcing(eqx.Module):
    """A function of time, known at `times` and held constant outside them."""

    times: eqx.AbstractVar[Float[Array, " knots"]]

    @abstractmethod
    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """The value at one time."""


class Linear(AbstractForcing):
    """Straight lines between the data."""

    times: Float[Array, " knots"]
    values: Float[Array, " knots"]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.interp(t, self.times, self.values)


class Step(AbstractForcing):
    """Each datum holds from its time until the next one."""

    times: Float[Array, " knots"]
    values: Float[Array, " knots"]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        at = jnp.searchsorted(self.times, t, side="right") - 1
        return self.values[jnp.clip(at, 0, len(self.values) - 1)]


class Cubic(AbstractForcing):
    """A cubic spline with two continuous derivatives (not-a-knot at the ends)."""

    times: Float[Array, " knots"]
    coefficients: Float[Array, "4 pieces"]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        t = jnp.clip(t, self.times[0], self.times[-1])
        piece = jnp.clip(jnp.searchsorted(self.times, t, side="right") - 1, 0, len(self.times) - 2)
        return jnp.polyval(self.coefficients[:, piece], t - self.times[piece])


KINDS = ("linear", "step", "cubic")


def interpolated(
    times: Float[np.ndarray, " knots"], values: Float[np.ndarray, " knots"], kind: str = "linear"
) -> AbstractForcing:
    """A forcing through known values.

    Raises: DataError for an unknown kind, or a spline through a single value.
    """
    if kind not in KINDS:
        raise DataError(f"a forcing is interpolated by one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "cubic":
        if len(times) < 2:
            raise DataError("a cubic forcing needs at least two values")
        from scipy.interpolate import CubicSpline

        return Cubic(jnp.asarray(times), jnp.asarray(CubicSpline(times, values).c))
    return {"linear": Linear, "step": Step}[kind](jnp.asarray(times), jnp.asarray(values))

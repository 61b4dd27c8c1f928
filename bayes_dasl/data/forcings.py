"""Forcings: functions of time that interpolate data linearly, in steps or by a cubic spline."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class AbstractForcing(eqx.Module):
    """A function of time, known at `times` and constant outside them."""

    times: eqx.AbstractVar[Float[Array, " knots"]]

    @abstractmethod
    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """Return the value at one time."""

    def since(self, time: float) -> "AbstractForcing":
        """Drop the knots before a time, except the last of them.

        Only `Linear` and `Step` support this, because all their arrays run along the knots.

        Args:
            time: the first time at which the forcing will be evaluated.

        Returns:
            The shorter forcing.
        """
        first = max(int(np.searchsorted(np.asarray(self.times), time, side="right")) - 1, 0)
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[first:]), self)


class Linear(AbstractForcing):
    """Linear interpolation."""

    times: Float[Array, " knots"]
    values: Float[Array, " knots"]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.interp(t, self.times, self.values)


class Step(AbstractForcing):
    """Piecewise constant: each value applies until the next time."""

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
        # Polynomial of piece i: sum_k c[k, i] (t - t_i)^(3 - k), as SciPy stores it.
        t = jnp.clip(t, self.times[0], self.times[-1])
        piece = jnp.clip(jnp.searchsorted(self.times, t, side="right") - 1, 0, len(self.times) - 2)
        return jnp.polyval(self.coefficients[:, piece], t - self.times[piece])


KINDS = ("linear", "step", "cubic")


def interpolated(
    times: Float[np.ndarray, " knots"], values: Float[np.ndarray, " knots"], kind: str = "linear"
) -> AbstractForcing:
    """Return a forcing that interpolates known values by one of `KINDS`."""
    if kind == "cubic":
        from scipy.interpolate import CubicSpline

        return Cubic(jnp.asarray(times), jnp.asarray(CubicSpline(times, values).c))
    return {"linear": Linear, "step": Step}[kind](jnp.asarray(times), jnp.asarray(values))

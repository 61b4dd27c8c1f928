"""What drives a model: times, forcings and how they run between their data, places, and what was observed before."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import DataError


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


class Past(eqx.Module):
    """Observations that a filtering layer has seen before it is asked; NaN where missing."""

    times: Float[Array, " past"]
    values: dict[str, Float[Array, " past"]]


class Inputs(eqx.Module):
    """What a layer is driven by: the start, the times at which it is asked, and the forcings.

    Args:
        start: the time of the initial state.
        times: the values of the data's index, `(time,)`: times, or the rows of a layer that knows no time.
        forcings: functions of one time, by name.
        coordinates: those of the data's other dimensions, `(place,)` by name, such as the places at which a field was
            observed.
        past: observations that a filtering layer looks back at; none for other layers.
        per_datum: what the noise reads of each datum, `(time, …)` by the name of the data's variable.
    """

    start: Float[Array, ""]
    times: Float[Array, " time"]
    forcings: dict[str, AbstractForcing]
    coordinates: dict[str, Float[Array, " place"]] = eqx.field(default_factory=dict)
    past: Past | None = None
    per_datum: dict[str, Float[Array, "time ..."]] = eqx.field(default_factory=dict)

    def forced(self, t: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
        """The forcings at one time, by name: the `u` of a vector field.

        Args:
            t: a time, in the units of the index.
        """
        return {name: force(t) for name, force in self.forcings.items()}

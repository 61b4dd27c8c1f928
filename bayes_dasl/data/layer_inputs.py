"""What drives a model: times, forcings and how they run between their data, places, and what was observed before."""

import dataclasses
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

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
    """Observations that a filtering layer, or correlated noise, looks back at; NaN where missing.

    Args:
        times: when, which rise.
        values: those of each observable, `(past, …)`.
        same: whether the times that are asked for are these.
    """

    times: Float[Array, " past"]
    values: dict[str, Float[Array, "past ..."]]
    same: bool = eqx.field(default=False, static=True)


class OwnTimes(eqx.Module):
    """The times at which each member of a population was observed: its solve need look at no others.

    Args:
        times: those of each, `(member, row)`; of members that were observed less often the last one is repeated.
        row: which of them is the last one up to each time of the data, `(time, member)`.
    """

    times: Float[Array, "member row"]
    row: Int[Array, "time member"]

    def at_all(self, values: Float[Array, "row ... member"]) -> Float[Array, "time ... member"]:
        """Values at the times of the data, from those at each member's own: where it has none, those of the last one.

        Args:
            values: those at each member's own times.
        """
        row = self.row.reshape(len(self.row), *[1] * (values.ndim - 2), -1)
        return jnp.take_along_axis(values, row, axis=0)


class Inputs(eqx.Module):
    """What a layer is driven by: the start, the times at which it is asked, and the forcings.

    Args:
        start: the time of the initial state.
        times: the values of the data's index, `(time,)`: times, or the rows of a layer that knows no time.
        forcings: functions of one time, by name.
        coordinates: those of the data's other dimensions, `(place,)` by name, such as the places at which a field was
            observed; of the members of a population which they are, from zero.
        past: observations that a filtering layer, or correlated noise, looks back at; none for others.
        own_times: when each member of a population was observed, where others do not matter; none where all do.
        own_forcings: the forcings that differ between the members of a population, by name; arrays in them have the
            member as their first dimension.
        per_datum: what the noise reads of each datum, `(time, …)` by the name of the data's variable.
    """

    start: Float[Array, ""]
    times: Float[Array, " time"]
    forcings: dict[str, AbstractForcing]
    coordinates: dict[str, Float[Array, " place"] | Int[Array, " member"]] = eqx.field(default_factory=dict)
    past: Past | None = None
    own_times: OwnTimes | None = None
    own_forcings: dict[str, AbstractForcing] = eqx.field(default_factory=dict)
    per_datum: dict[str, Float[Array, "time ..."]] = eqx.field(default_factory=dict)

    def forced(self, t: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
        """The forcings at one time, by name: the `u` of a vector field.

        Args:
            t: a time, in the units of the index.
        """
        return {name: force(t) for name, force in self.forcings.items()}

    def forced_of_members(self) -> dict[str, Float[Array, "time member"]]:
        """The forcings that differ between the members of a population, at all times."""

        def over_times(force: AbstractForcing) -> Array:
            return jax.vmap(lambda one: jax.vmap(one)(self.times), out_axes=1)(force)

        return {name: over_times(force) for name, force in self.own_forcings.items()}

    def with_past(self) -> "tuple[Inputs, Any, Any]":
        """Inputs at the times asked for and those of the past, and where each of these lie among them."""
        if self.past is None or self.past.same:
            return self, slice(None), slice(None)
        both = [self.times, self.past.times]
        if any(isinstance(times, Tracer) for times in both):
            every = jnp.unique(jnp.concatenate(both), size=sum(t.size for t in both), fill_value=jnp.inf)
            every = jnp.where(jnp.isinf(every), jnp.max(jnp.concatenate(both)), every)
        else:
            # Known while a program is traced too, for layers that go by steps.
            with jax.ensure_compile_time_eval():
                every = jnp.asarray(np.unique(np.concatenate([np.asarray(times) for times in both])))
        at, then = (jnp.searchsorted(every, times) for times in both)
        return dataclasses.replace(self, times=every), at, then

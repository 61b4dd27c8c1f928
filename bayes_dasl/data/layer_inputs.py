"""What drives a model: times, forcings, places, and what was observed before."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from .forcings import AbstractForcing

NEVER = 1e30
"""A time that no solve reaches, of what only fills an array."""


class Past(eqx.Module):
    """Observations that a filtering layer, or correlated noise, looks back at; NaN where missing.

    Args:
        times: when, which rise.
        values: those of each observable, `(past, …)`.
        same: whether the times that are asked for are these.
        per_datum: what the noise reads of each of these data, `(past, …)` by the name of the data's
            variable.
    """

    times: Float[Array, " past"]
    values: dict[str, Float[Array, "past ..."]]
    same: bool = eqx.field(default=False, static=True)
    per_datum: dict[str, Float[Array, "past ..."]] = eqx.field(default_factory=dict)


type Seen = Mapping[str, Float[Array, "time ... member"]]


class OwnRows(eqx.Module):
    """At which rows of the data each member of a population was observed: nothing need be known of
    it at others.

    Args:
        index: which rows, `(row, member)`, in their order; of members with fewer of them the last
            one is repeated.
        own: whether that is one of its rows, and no repetition.
    """

    index: Int[np.ndarray, "row member"]
    own: Bool[np.ndarray, "row member"]

    def of(self, values: Float[Array, "time ... member"]) -> Float[Array, "row ... member"]:
        """Values at each member's own rows.

        Args:
            values: those at all rows of the data.
        """
        index = self.index.reshape(len(self.index), *[1] * (values.ndim - 2), -1)
        return jnp.take_along_axis(values, jnp.asarray(index), axis=0)

    def seen(self, observed: Seen) -> dict[str, Float[Array, "row ... member"]]:
        """Data at each member's own rows, NaN where these are repeated, so that none counts twice.

        Args:
            observed: those at all rows of the data, by name.
        """
        own = {
            v.ndim: self.own.reshape(len(self.own), *[1] * (v.ndim - 2), -1)
            for v in observed.values()
        }
        return {name: jnp.where(own[v.ndim], self.of(v), jnp.nan) for name, v in observed.items()}

    def places(
        self, times: Int[np.ndarray, " datum"], members: Int[np.ndarray, " datum"]
    ) -> Int[np.ndarray, " datum"]:
        """Which of a member's rows some data are, by which rows of the data and which members
        theirs are.

        Args:
            times: rows of the data.
            members: places among the members.
        """
        each = 1 + int(self.index.max())
        number = self.own.sum(axis=0)
        keys = (np.arange(number.size) * each + self.index).T[self.own.T]  # they rise
        return np.searchsorted(keys, members * each + times) - (np.cumsum(number) - number)[members]


class Assumed(NamedTuple):
    """What was assumed of inputs that were made without the layer that they are for.

    Args:
        start: the first time of the data, as the start of the layer; none where a start was given.
        linear: the forcings that are linear between their data because nothing else was said.
        unread: coordinates of the data that are no places of the inputs.
    """

    start: float | None
    linear: tuple[str, ...]
    unread: tuple[str, ...]


class Inputs(eqx.Module):
    """What a layer is driven by: the start, the times at which it is asked, and the forcings.

    Args:
        start: the time of the initial state.
        times: the values of the data's index, `(time,)`: times, or the rows of a layer that knows
            no time. Of the members of a population each may have its own, `(row, member)`.
        forcings: functions of one time, by name.
        coordinates: those of the data's other dimensions, `(place,)` by name, such as the places at
            which a field was observed; of the members of a population which they are, from zero.
        past: observations that a filtering layer, or correlated noise, looks back at; none for
            others.
        own_forcings: the forcings that differ between the members of a population, by name; arrays
            in them have the member as their first dimension.
        per_datum: what the noise reads of each datum, `(time, …)` by the name of the data's
            variable.
        assumed: what was assumed of the layer; none where it is known. A layer that says otherwise
            refuses such inputs.
    """

    start: Float[Array, ""]
    times: Float[Array, "time ..."]
    forcings: dict[str, AbstractForcing]
    coordinates: dict[str, Float[Array, " place"] | Int[Array, " member"]] = eqx.field(
        default_factory=dict
    )
    past: Past | None = None
    own_forcings: dict[str, AbstractForcing] = eqx.field(default_factory=dict)
    per_datum: dict[str, Float[Array, "time ..."]] = eqx.field(default_factory=dict)
    assumed: Assumed | None = eqx.field(default=None, static=True)

    def forced(self, t: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
        """The forcings at one time, by name: the `u` of a vector field.

        Args:
            t: a time, in the units of the index.
        """
        return {name: force(t) for name, force in self.forcings.items()}

    def forced_at_times(self) -> dict[str, Float[Array, "time ..."]]:
        """All forcings at the times; with the members as last dimension where they, or the times,
        are those of each.
        """
        of_each = 1 if self.times.ndim > 1 else None

        def of_members(force: AbstractForcing) -> Array:
            at_times = lambda one, times: jax.vmap(one)(times)  # noqa: E731
            return jax.vmap(at_times, in_axes=(0, of_each), out_axes=1)(force, self.times)

        common = {
            name: jax.vmap(force)(jnp.ravel(self.times)) for name, force in self.forcings.items()
        }
        shaped = {name: value.reshape(self.times.shape) for name, value in common.items()}
        return shaped | {name: of_members(force) for name, force in self.own_forcings.items()}

    def at_rows(self, rows: OwnRows) -> "Inputs":
        """Inputs at the rows of each member of a population.

        Args:
            rows: those of each.
        """
        read = {name: rows.of(values) for name, values in self.per_datum.items()}
        return dataclasses.replace(self, times=self.times[rows.index], per_datum=read)

    def with_past(self) -> "tuple[Inputs, Any, Any]":
        """Inputs at the times asked for and those of the past, and where each of these lie among
        them.
        """
        if self.past is None or self.past.same:
            return self, slice(None), slice(None)
        both = [self.times, self.past.times]
        if any(isinstance(times, Tracer) for times in both):
            every = jnp.unique(
                jnp.concatenate(both), size=sum(t.size for t in both), fill_value=jnp.inf
            )
            every = jnp.where(jnp.isinf(every), jnp.max(jnp.concatenate(both)), every)
        else:
            # Known while a program is traced too, for layers that go by steps.
            with jax.ensure_compile_time_eval():
                every = jnp.asarray(
                    np.unique(np.concatenate([np.asarray(times) for times in both]))
                )
        at, then = (jnp.searchsorted(every, times) for times in both)
        # A layer reads nothing of each datum, and none is known of at every time.
        return dataclasses.replace(self, times=every, per_datum={}), at, then

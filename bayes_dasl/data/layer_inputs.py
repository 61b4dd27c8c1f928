"""Inputs of a layer: times, forcings, places, and earlier observations."""

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
"""A time after every solve, which pads arrays."""


class Past(eqx.Module):
    """Earlier observations for a filtering layer or correlated noise; NaN where missing.

    Args:
        times: the increasing times of the observations.
        values: the observations by observable, `(past, …)`.
        same: whether the times to predict are the times of these observations.
        per_datum: the variables that the noise reads for each datum, `(past, …)` by name.
    """

    times: Float[Array, " past"]
    values: dict[str, Float[Array, "past ..."]]
    same: bool = eqx.field(default=False, static=True)
    per_datum: dict[str, Float[Array, "past ..."]] = eqx.field(default_factory=dict)


type Seen = Mapping[str, Float[Array, "time ... member"]]


class OwnRows(eqx.Module):
    """The rows of the data at which each subject was observed.

    Args:
        index: the increasing numbers of these rows, `(row, subject)`. A subject with fewer rows
            repeats its last row as padding.
        own: flags `(row, subject)`; False for a repeated row.
    """

    index: Int[np.ndarray, "row member"]
    own: Bool[np.ndarray, "row member"]

    def of(self, values: Float[Array, "time ... member"]) -> Float[Array, "row ... member"]:
        """Select values at the rows of each subject.

        Args:
            values: values at all rows of the data, `(time, …, subject)`.

        Returns:
            The values, `(row, …, subject)`.
        """
        # Broadcast over the dimensions between row and subject, such as places.
        index = self.index.reshape(len(self.index), *[1] * (values.ndim - 2), -1)
        return jnp.take_along_axis(values, jnp.asarray(index), axis=0)

    def seen(self, observed: Seen) -> dict[str, Float[Array, "row ... member"]]:
        """Select data at the rows of each subject; padding becomes NaN.

        So each datum counts once.

        Args:
            observed: data at all rows, `(time, …, subject)` by name.

        Returns:
            The data, `(row, …, subject)` by name.
        """
        own = {
            v.ndim: self.own.reshape(len(self.own), *[1] * (v.ndim - 2), -1)
            for v in observed.values()
        }
        return {name: jnp.where(own[v.ndim], self.of(v), jnp.nan) for name, v in observed.items()}

    def places(
        self, times: Int[np.ndarray, " datum"], members: Int[np.ndarray, " datum"]
    ) -> Int[np.ndarray, " datum"]:
        """Return the position of each datum among the rows of its subject.

        Args:
            times: the row of each datum in the data.
            members: the number of the subject of each datum.

        Returns:
            The positions, from 0.
        """
        # Key of a row: subject · (number of rows) + row. Without padding, keys increase.
        rows = 1 + int(self.index.max())
        number = self.own.sum(axis=0)
        keys = (np.arange(number.size) * rows + self.index).T[self.own.T]
        first = np.cumsum(number) - number
        return np.searchsorted(keys, members * rows + times) - first[members]


class Assumed(NamedTuple):
    """Assumptions about a layer, made when its inputs are built without knowing the layer.

    Args:
        start: the first time of the data, which serves as start; None if a start was given.
        linear: the forcings for which linear interpolation is assumed.
        unread: coordinates of the data that the inputs leave out.
    """

    start: float | None
    linear: tuple[str, ...]
    unread: tuple[str, ...]


class Inputs(eqx.Module):
    """The inputs of a layer: the start, the times to predict, and the forcings.

    Args:
        start: the time of the initial state.
        times: the index, `(time,)`: times, or the rows of a layer without time. In a population
            each subject may have other times, `(row, subject)`.
        forcings: functions of time, by name.
        coordinates: the coordinates of other dimensions by name, such as places. For a population
            they hold the numbers of the subjects, from 0.
        past: earlier observations, for a filtering layer or correlated noise only.
        own_forcings: the forcings that differ between subjects; the first dimension of their
            arrays is the subject.
        per_datum: the variables that the noise reads for each datum, `(time, …)` by name.
        assumed: assumptions about the layer, if the inputs were built without it; else None. A
            layer that contradicts an assumption refuses the inputs.
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
        """Return the forcings at one time, by name: the `u` of a vector field.

        Args:
            t: a time, in the units of the index.

        Returns:
            One value by forcing.
        """
        return {name: force(t) for name, force in self.forcings.items()}

    def forced_at_times(self) -> dict[str, Float[Array, "time ..."]]:
        """Return all forcings at `times`, by name.

        A forcing has the shape of `times`. If it differs between subjects, the last dimension is
        the subject.
        """
        of_each = 1 if self.times.ndim > 1 else None

        def of_subjects(force: AbstractForcing) -> Array:
            at_times = lambda one, times: jax.vmap(one)(times)  # noqa: E731
            return jax.vmap(at_times, in_axes=(0, of_each), out_axes=1)(force, self.times)

        found = {}
        for name, force in self.forcings.items():
            found[name] = jax.vmap(force)(jnp.ravel(self.times)).reshape(self.times.shape)
        return found | {name: of_subjects(force) for name, force in self.own_forcings.items()}

    def at_rows(self, rows: OwnRows) -> "Inputs":
        """Return inputs in which each subject has its own times.

        Args:
            rows: the rows of each subject.

        Returns:
            Inputs with times `(row, subject)`.
        """
        read = {name: rows.of(values) for name, values in self.per_datum.items()}
        return dataclasses.replace(self, times=self.times[rows.index], per_datum=read)

    def with_past(self) -> "tuple[Inputs, Any, Any]":
        """Return inputs whose times are the times to predict and the past times together.

        Returns:
            The inputs; the positions of the times to predict among the joint times; and the
            positions of the past times. Both positions are a full slice if no times are added.
        """
        if self.past is None or self.past.same:
            return self, slice(None), slice(None)
        both = [self.times, self.past.times]
        if any(isinstance(times, Tracer) for times in both):
            # Shapes are static under `jit`: pad to the full size, with the last time.
            every = jnp.concatenate(both)
            distinct = jnp.unique(every, size=every.size, fill_value=jnp.inf)
            every = jnp.where(jnp.isinf(distinct), jnp.max(every), distinct)
        else:
            # Layers that step from time to time need concrete times, also under `jit`.
            with jax.ensure_compile_time_eval():
                known = [np.asarray(times) for times in both]
                every = jnp.asarray(np.unique(np.concatenate(known)))
        at, then = (jnp.searchsorted(every, times) for times in both)
        # Layers read no variable for each datum, and it is unknown at the joint times anyway.
        return dataclasses.replace(self, times=every, per_datum={}), at, then

"""`Each`: one layer for all members of a population, with parameters that vary between them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._jax.tree import dotted
from ..data.layer_inputs import Inputs, OwnRows
from ..errors import DataError, ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers.layer import AbstractPopulation, of_members
from ..layers.scheduled import AbstractScheduled
from ..random import is_random, paths, shape_of
from .population_and_varying import Over, expanded, varies

_WASTE = 0.3
"""Largest number of padded rows, as a share of the needed rows, to give members one shape."""


class Each(AbstractPopulation):
    """One layer for each member of a population, such as a subject or a site.

    All members are solved together. Parameters made by `bd.population` or `bd.varying`, in the
    layer or in the noise of the model, have one value for each member. All other parameters are
    shared. Predictions and data have one more dimension, as in `(time, subject)`. Data are NaN
    where a member was not observed. Forcings may have this dimension too; forcings along time alone
    are the same for all members.

    Args:
        layer: the layer of one member.
        members: the names or numbers of the members, such as `data["subject"].values`.
        dim: the name of the dimension of members in the data.

    Raises:
        ModelError: if the layer is a filter, if members are not distinct names or numbers, or if no
            parameter varies. Also if known numbers of members have another length, or doses belong
            to other members.
    """

    layer: AbstractLayer
    members: tuple[Any, ...] = eqx.field(static=True)
    dim: str = eqx.field(static=True)
    varied: tuple[str, ...] = eqx.field(static=True, metadata={"hidden": True})

    def __init__(self, layer: Any, members: Sequence[Any] | np.ndarray, dim: str = "subject"):
        if not isinstance(layer, AbstractLayer) or isinstance(layer, AbstractFilter):
            raise ModelError(f"Each takes a layer such as bd.ODE, not {type(layer).__name__}")
        names = np.asarray(members)
        if names.ndim != 1 or not names.size or names.dtype.kind not in "iufUOT":
            raise ModelError(
                f"members must be numbers or names, such as data['{dim}'].values, not {members!r}"
            )
        self.members, self.dim = tuple(names.tolist()), dim
        _refuse_doses_of_others(layer, self.members)
        for name in self.members:
            if self.members.count(name) > 1 or not isinstance(name, (int, float, str)):
                raise ModelError(
                    f"members must be different numbers or names: {name!r} is no such one"
                )
        self.layer, self.varied = self.over_members(layer)
        if not self.varied:
            raise ModelError("nothing in the layer is varying: its members would all be the same")

    def over_members(self, tree: Any) -> tuple[Any, tuple[str, ...]]:
        """Expand varying parameters to arrays with one value for each member.

        Args:
            tree: the layer of one member, or a noise.

        Returns:
            The tree with these arrays, and the dotted paths of the arrays.

        Raises:
            ModelError: if groups have the name of another dimension.
        """
        # Find the paths of parameters that vary, and expand each parameter.
        held = jtu.tree_flatten_with_path(tree, is_leaf=is_random)[0]
        varied = tuple(dotted(path) for path, leaf in held if varies(leaf))
        every = Over(len(self.members))
        over_all = lambda leaf: expanded(leaf, every) if varies(leaf) else leaf  # noqa: E731
        found = jax.tree.map(over_all, tree, is_leaf=is_random)
        for dim in {dim for leaf in paths(found).values() for dim in leaf.dims} & {
            self.dim,
            "chain",
            "draw",
        }:
            raise ModelError(
                f"groups cannot be called '{dim}', which has another meaning: rename them in by="
            )
        return found, varied

    def positions(self, names: Any) -> np.ndarray:
        """Return the positions of some members in `members`.

        Args:
            names: the names of the members, `(member,)`.

        Returns:
            The position of each, from 0.

        Raises:
            DataError: if a name is no member.
        """
        known = {name: i for i, name in enumerate(self.members)}
        for name in np.asarray(names).tolist():
            if name not in known:
                raise DataError(
                    f"{self.dim} {name} is no member of the model, which has {len(known)}, from "
                    f"{self.members[0]} to "
                    f"{self.members[-1]}: for one that the fit has not seen, make the model with "
                    "it among the members"
                )
        return np.asarray([known[name] for name in np.asarray(names).tolist()])

    @property
    def states(self) -> int:
        return len(self.members) * self._one.states

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._one.outputs

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        inner = self._one.dims
        return {name: (*inner.get(name, ()), self.dim) for name in self.outputs}

    def __leaf_dims__(self, path: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
        """Return the dimension of a random leaf that varies between members.

        Args:
            path: the names of fields and keys from this layer to the leaf.

        Returns:
            `{dim: members}`, or an empty dict for a shared leaf.
        """
        return {self.dim: self.members} if ".".join(path[1:]) in self.varied else {}

    @property
    def _one(self) -> AbstractLayer:
        """The layer of the first member, with ones in place of varying random leaves."""

        def first(path, leaf):
            if dotted(path) not in self.varied:
                return leaf
            return jnp.ones(shape_of(leaf)[1:]) if is_random(leaf) else jnp.asarray(leaf)[0]

        return jtu.tree_map_with_path(first, self.layer, is_leaf=is_random)

    def own_rows(self, observed: Mapping[str, Array]) -> OwnRows | None:
        """Return the rows of the data at which each member was observed.

        Args:
            observed: the data by name, `(time, …, member)`, NaN where missing.

        Returns:
            The rows. None if the layer needs all times, or if solving only these rows would save
            little.
        """
        if not self._one.pointwise:
            return None
        # 1. Flag the rows `(time, member)` that hold any observation.
        each = (~np.isnan(np.asarray(values)) for values in observed.values())
        seen = np.any([one.any(axis=tuple(range(1, one.ndim - 1))) for one in each], axis=0)
        seen[-1, ~seen.any(0)] = True  # a member without observations has a solve too
        most = seen.sum(0).max()
        little = bool(self._one.trajectories) or seen.size <= (1 + _WASTE) * seen.sum()
        if most == len(seen) and little:
            return None
        # 2. Row numbers of each member, padded to one length; padding repeats the last row.
        index = np.stack([np.resize(np.flatnonzero(one), most) for one in seen.T], axis=1)
        own = np.arange(most)[:, None] < seen.sum(0)
        return OwnRows(np.maximum.accumulate(index, axis=0), own)

    def __call__(self, inputs: Inputs) -> Prediction:
        # Inputs that all members have in common.
        at = inputs.coordinates.get(self.dim, jnp.arange(len(self.members)))
        others = {name: places for name, places in inputs.coordinates.items() if name != self.dim}
        common = dataclasses.replace(inputs, coordinates=others, own_forcings={})

        def one(member, times, forcings):
            drives = dataclasses.replace(common, times=times, forcings=common.forcings | forcings)
            found = of_members(self.layer, self.varied, member)(drives)
            return found.values, found.ok, found.stats, found.constraint_residuals, found.variances

        values, ok, stats, constraint_residuals, variances = self._of_all(
            one, at, inputs.times, inputs.own_forcings
        )

        # The dimension of members is the last one in the data.
        def over_members(values):
            return {name: jnp.moveaxis(value, 0, -1) for name, value in values.items()}

        return Prediction(
            over_members(values),
            jnp.all(ok),
            {name: jnp.max(value) for name, value in stats.items()},
            constraint_residuals,
            over_members(variances),
        )

    def _of_all(
        self, one: Callable[..., tuple], at: Array, times: Array, forcings: Any
    ) -> tuple[Any, ...]:
        """Predict all members by `jax.vmap`, in buckets of members with similar numbers of rows.

        Buckets reduce padding. They are used for layers without a solver, whose cost is
        proportional to the rows. A solver takes the same steps for any number of rows, and each
        bucket would compile another program. So layers with a solver have a single bucket.

        Args:
            one: a function (position of a member, times, own forcings) that returns the fields of
                its prediction.
            at: the positions of the members.
            times: the times, `(time,)` for all members or `(row, member)`.
            forcings: the forcings that differ between members, with members along the first axis.

        Returns:
            The fields of the predictions, with members along the first axis.
        """
        if times.ndim == 1:
            return jax.vmap(one, in_axes=(0, None, 0))(at, times, forcings)
        if isinstance(times, Tracer) or self._one.trajectories:
            return jax.vmap(one, in_axes=(0, 1, 0))(at, times, forcings)
        # Predict bucket by bucket, then restore the order of the members.
        parts, order = [], []
        for members, rows in buckets(np.asarray(times)):
            of_these = (
                at[members],
                times[:rows, members],
                jax.tree.map(lambda f, of=members: f[of], forcings),
            )
            values, *others, variances = jax.vmap(one, in_axes=(0, 1, 0))(*of_these)
            # Pad the values to the number of rows of the longest member, as times are.
            filled = np.minimum(np.arange(len(times)), rows - 1)
            values, variances = jax.tree.map(lambda v, at=filled: v[:, at], (values, variances))
            parts.append((values, *others, variances))
            order.append(members)
        back = np.argsort(np.concatenate(order))
        return jax.tree.map(lambda *of: jnp.concatenate(of)[back], *parts)


def buckets(times: Float[np.ndarray, "row member"]) -> list[tuple[np.ndarray, int]]:
    """Group members into buckets by their number of rows, so that little padding is needed.

    In each bucket, padded rows are at most 30 % of the needed rows.

    Args:
        times: the times of each member. A member with fewer rows repeats its last time.

    Returns:
        For each bucket the positions of its members, and their largest number of rows.
    """
    # Starting from the member with the most rows, a bucket takes as many members as padding allows.
    rows = np.arange(1, len(times))[:, None]
    needed = 1 + np.max(rows * (times[1:] != times[:-1]), axis=0, initial=0)
    found, order = [], np.argsort(needed, kind="stable")
    while order.size:
        rows = needed[order[-1]]
        filled = np.cumsum(needed[order[::-1]])
        fits = rows * np.arange(1, order.size + 1) <= (1 + _WASTE) * filled
        number = int(np.flatnonzero(fits)[-1]) + 1
        found.append((np.sort(order[-number:]), int(rows)))
        order = order[:-number]
    return found


def _refuse_doses_of_others(layer: Any, members: tuple[Any, ...]) -> None:
    """Raise ModelError unless doses in the layer belong to the same members in the same order."""
    are_doses = lambda node: isinstance(node, AbstractScheduled)  # noqa: E731
    for doses in filter(are_doses, jax.tree.leaves(layer, is_leaf=are_doses)):
        if doses.members and doses.members != members:
            without, beside = (
                ", ".join(str(name) for name in one if name not in other) or "none"
                for one, other in ((members, doses.members), (doses.members, members))
            )
            raise ModelError(
                "the members are not those of the doses, in their order: give bd.Each(layer, "
                "doses.members), with "
                f"doses of them alone; members without doses: {without}; doses of others: {beside}"
            )

"""One model for each subject, tank or catchment, with numbers that differ between them."""

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
"""So many rows, beside those that are needed, may be solved for the sake of one shape for all."""


class Each(AbstractPopulation):
    """One layer for each member of a population, all of them solved at once.

    What is `varying` in the layer, or in the noise of the model, has a number for each member, all
    else is common to them. The predictions have one more dimension: data are `(time, subject)`,
    with NaN where a member was not observed. So may forcings be; those along time alone are the
    same for all.

    Args:
        layer: that of one member.
        members: what they are called in the data, such as the values of `data["subject"]`: numbers
            or names.
        dim: the dimension that they form.

    Raises:
        ModelError: for a layer that looks back at observations, members that are no numbers or
            names or not different ones, nothing that varies, or known numbers or doses of others
            than these members.
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
        """A tree with a number of each member wherever one is `varying`, and the paths at which it
        is.

        Args:
            tree: a layer, or noise.
        """
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
        """Which of the members some are.

        Args:
            names: what they are called, `(member,)`.

        Raises:
            DataError: for one that is no member.
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
        """The dimension of a random leaf that differs between members.

        Args:
            path: the names on the way from here to the leaf.
        """
        return {self.dim: self.members} if ".".join(path[1:]) in self.varied else {}

    @property
    def _one(self) -> AbstractLayer:
        """The layer of the first member, with ones in place of what is unknown and varies."""

        def first(path, leaf):
            if dotted(path) not in self.varied:
                return leaf
            return jnp.ones(shape_of(leaf)[1:]) if is_random(leaf) else jnp.asarray(leaf)[0]

        return jtu.tree_map_with_path(first, self.layer, is_leaf=is_random)

    def own_rows(self, observed: Mapping[str, Array]) -> OwnRows | None:
        """Where each member was observed; none where its layer looks at all times, or where that
        would save little.

        Args:
            observed: the data by name, `(time, …, member)`, NaN where missing.
        """
        if not self._one.pointwise:
            return None
        each = (~np.isnan(np.asarray(values)) for values in observed.values())
        seen = np.any([one.any(axis=tuple(range(1, one.ndim - 1))) for one in each], axis=0)
        seen[-1, ~seen.any(0)] = True  # one who was never observed has a solve too
        most = seen.sum(0).max()
        little = bool(self._one.trajectories) or seen.size <= (1 + _WASTE) * seen.sum()
        if most == len(seen) and little:
            return None
        index = np.stack([np.resize(np.flatnonzero(one), most) for one in seen.T], axis=1)
        own = np.arange(most)[:, None] < seen.sum(0)
        return OwnRows(np.maximum.accumulate(index, axis=0), own)

    def __call__(self, inputs: Inputs) -> Prediction:
        at = inputs.coordinates.get(self.dim, jnp.arange(len(self.members)))
        others = {name: places for name, places in inputs.coordinates.items() if name != self.dim}
        common = dataclasses.replace(inputs, coordinates=others, own_forcings={})

        def one(member, times, forcings):
            drives = dataclasses.replace(common, times=times, forcings=common.forcings | forcings)
            found = of_members(self.layer, self.varied, member)(drives)
            return found.values, found.ok, found.stats, found.mismatches, found.variances

        values, ok, stats, mismatches, variances = self._of_all(
            one, at, inputs.times, inputs.own_forcings
        )

        def over_members(values):
            return {name: jnp.moveaxis(value, 0, -1) for name, value in values.items()}

        return Prediction(
            over_members(values),
            jnp.all(ok),
            {name: jnp.max(value) for name, value in stats.items()},
            mismatches,
            over_members(variances),
        )

    def _of_all(
        self, one: Callable[..., tuple], at: Array, times: Array, forcings: Any
    ) -> tuple[Any, ...]:
        """The predictions of all members, in one `vmap`, or in one for all that have about as many
        rows of their own.

        A row costs what solves nothing; a solver's steps are the same however many of them are
        looked at, and a second program of it takes as long again to compile.
        """
        if times.ndim == 1:
            return jax.vmap(one, in_axes=(0, None, 0))(at, times, forcings)
        if isinstance(times, Tracer) or self._one.trajectories:
            return jax.vmap(one, in_axes=(0, 1, 0))(at, times, forcings)
        parts, order = [], []
        for members, rows in buckets(np.asarray(times)):
            of_these = (
                at[members],
                times[:rows, members],
                jax.tree.map(lambda f, of=members: f[of], forcings),
            )
            values, *others, variances = jax.vmap(one, in_axes=(0, 1, 0))(*of_these)
            # Each has as many rows as the longest: the last is repeated, as its time is.
            filled = np.minimum(np.arange(len(times)), rows - 1)
            values, variances = jax.tree.map(lambda v, at=filled: v[:, at], (values, variances))
            parts.append((values, *others, variances))
            order.append(members)
        back = np.argsort(np.concatenate(order))
        return jax.tree.map(lambda *of: jnp.concatenate(of)[back], *parts)


def buckets(times: Float[np.ndarray, "row member"]) -> list[tuple[np.ndarray, int]]:
    """Members that have about as many rows, and how many at most: padding is less than a third of
    what is needed.

    Args:
        times: of each member, in their order; of one with fewer rows the last is repeated.
    """
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
    """Raise ModelError for doses of other members, or of these in another order: arrays hold them
    by place.
    """
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

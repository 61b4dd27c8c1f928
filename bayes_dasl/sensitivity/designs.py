"""Designs over the prior: draws in which one unknown is changed at a time."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ..errors import ModelError
from ..model import Model
from ..prediction.datatree import names
from ..random import Dependent, RandomLeaf, Shared, paths

type Draws = dict[str, np.ndarray]

_EDGE = 1e-9  # uniform numbers stay inside (0, 1), where quantiles are finite


class Unknowns(NamedTuple):
    """The unknowns of a model that are independent under the prior: the paths of each, by its name
    in results.
    """

    leaves: dict[str, RandomLeaf]
    of: dict[str, list[str]]

    @property
    def sizes(self) -> list[int]:
        """How many numbers each leaf has, in the order of the leaves."""
        return [int(np.prod(leaf.shape)) for leaf in self.leaves.values()]

    def numbers(self) -> list[str]:
        """The name of the unknown that each number belongs to."""
        owner = {path: name for name, members in self.of.items() for path in members}
        return [
            owner[path]
            for path, size in zip(self.leaves, self.sizes, strict=True)
            for _ in range(size)
        ]


def unknowns_of(model: Model) -> Unknowns:
    """Those of a model: a number is one with all that its prior depends on.

    Raises:
        ModelError: where nothing is unknown.
    """
    leaves, short = paths(model), names(model)
    if not leaves:
        raise ModelError(
            "nothing in the model is unknown: put a distribution where a number may vary"
        )
    group = {path: path for path in leaves}
    before: dict[str, Array] = {}
    for path, leaf in leaves.items():
        for other in before if isinstance(leaf.distribution, Dependent) else ():
            if _needs(leaf, other, before):
                first, second = group[other], group[path]
                group = {p: first if g == second else g for p, g in group.items()}
        before[path] = jnp.full(leaf.shape, 0.1)
    of: dict[str, list[str]] = {}
    for path, first in group.items():
        of.setdefault(first, []).append(path)
    return Unknowns(
        leaves, {", ".join(short[path] for path in members): members for members in of.values()}
    )


def _needs(leaf: RandomLeaf, other: str, values: Mapping[str, Array]) -> bool:
    """Whether the prior of a leaf depends on another."""
    try:
        leaf.given({path: value for path, value in values.items() if path != other})
    except KeyError:
        return True
    return False


def uniform(rows: int, columns: int, *, key: int) -> Float[np.ndarray, "row column"]:
    """A scrambled Sobol sequence; beyond its 21201 dimensions random numbers."""
    from scipy.stats import qmc  # a second of every import

    if columns > qmc.Sobol.MAXDIM:
        return np.random.default_rng(key).random((rows, columns))
    sequence = qmc.Sobol(columns, rng=np.random.default_rng(key))
    return sequence.random_base2(int(np.ceil(np.log2(rows))))[:rows]


def prior_at(
    unknowns: Unknowns, u: Float[np.ndarray, "row number"], *, key: Array, strict: bool = False
) -> Draws:
    """Draws of the prior at quantiles, path → `(row, …)`, one column of them for each number.

    A prior without quantiles, such as a Dirichlet or a gamma distribution, is drawn from instead.

    Raises:
        ModelError: for such a prior if `strict`.
    """
    ends = np.cumsum(unknowns.sizes)[:-1]

    def one(u: Array, key: Array) -> dict[str, Array]:
        values: dict[str, Array] = {}
        keys = jax.random.split(key, len(unknowns.leaves))
        for (path, leaf), own, key in zip(
            unknowns.leaves.items(), jnp.split(u, ends), keys, strict=True
        ):
            prior = leaf.given(values)
            found = _quantile(prior, own.reshape(leaf.shape))
            if found is None and strict:
                kind = type(prior).__name__
                raise ModelError(
                    f"the prior of '{path}', {kind}, has no quantiles to step along: take "
                    "method='sobol'"
                )
            values[path] = prior.sample(key) if found is None else found
        return values

    inside = np.clip(u, _EDGE, 1 - _EDGE)
    found = jax.jit(jax.vmap(one))(jnp.asarray(inside), jax.random.split(key, len(u)))
    return {path: np.asarray(values) for path, values in found.items()}


def _quantile(prior: Any, u: Array) -> Array | None:
    """The quantiles of the independent numbers of a distribution; none where there are no formulas
    of them.
    """
    while isinstance(prior, (dist.Independent, dist.ExpandedDistribution, Shared)):
        prior = prior.unknown if isinstance(prior, Shared) else prior.base_dist
    if prior.event_shape:
        return None
    try:
        return jnp.broadcast_to(prior.icdf(u), u.shape)
    except (NotImplementedError, ImportError):
        return None


def exchanged(unknowns: Unknowns, first: Draws, second: Draws) -> Draws:
    """For each row the first draw, those with one unknown after the other of the second, and the
    second.

    Path → `(row · (unknown + 2), …)`.
    """
    found, number = {}, len(unknowns.of)
    for i, members in enumerate(unknowns.of.values()):
        for path in members:
            rows = np.repeat(first[path][:, None], number + 2, axis=1)
            rows[:, i + 1], rows[:, -1] = second[path], second[path]
            found[path] = rows.reshape(-1, *rows.shape[2:])
    return {path: found[path] for path in unknowns.leaves}

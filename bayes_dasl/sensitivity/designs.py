"""Sampling designs over the prior, in which one parameter is changed at a time."""

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

# Uniform numbers stay inside (0, 1), where quantiles are finite.
_EDGE = 1e-9


class Unknowns(NamedTuple):
    """Groups of parameters; different groups are independent under the prior.

    Args:
        leaves: all random leaves, by path.
        of: the paths of the leaves in each group, by the name of the group in results.
    """

    leaves: dict[str, RandomLeaf]
    of: dict[str, list[str]]

    @property
    def sizes(self) -> list[int]:
        """The number of scalars in each leaf, in the order of the leaves."""
        return [int(np.prod(leaf.shape)) for leaf in self.leaves.values()]

    def numbers(self) -> list[str]:
        """The name of the group of each scalar, in the order of the leaves.

        Returns:
            One name for each scalar.
        """
        owner = {path: name for name, members in self.of.items() for path in members}
        return np.repeat([owner[path] for path in self.leaves], self.sizes).tolist()


def unknowns_of(model: Model) -> Unknowns:
    """Group each parameter of a model with those that its prior depends on.

    Args:
        model: the model.

    Returns:
        The groups, which are independent under the prior.

    Raises:
        ModelError: if the model has no random leaf.
    """
    leaves, short = paths(model), names(model)
    if not leaves:
        raise ModelError(
            "nothing in the model is unknown: put a distribution where a number may vary"
        )
    # 1. Each leaf starts as its own group. Two groups merge where one prior depends on the other.
    group = {path: path for path in leaves}
    before: dict[str, Array] = {}
    for path, leaf in leaves.items():
        for other in before if isinstance(leaf.distribution, Dependent) else ():
            if _depends_on(leaf, other, before):
                first, second = group[other], group[path]
                group = {p: first if g == second else g for p, g in group.items()}
        # The value does not matter, only whether a later prior reads it.
        before[path] = jnp.full(leaf.shape, 0.1)
    # 2. Collect the paths of each group, and name the group after all of them.
    of: dict[str, list[str]] = {}
    for path, first in group.items():
        of.setdefault(first, []).append(path)
    named = {", ".join(short[path] for path in members): members for members in of.values()}
    return Unknowns(leaves, named)


def _depends_on(leaf: RandomLeaf, other: str, values: Mapping[str, Array]) -> bool:
    """Whether the prior of a leaf depends on the leaf with path `other`.

    `values` holds a value of each earlier leaf, by path.
    """
    try:
        leaf.given({path: value for path, value in values.items() if path != other})
    except KeyError:
        return True
    return False


def uniform(rows: int, columns: int, *, key: int) -> Float[np.ndarray, "row column"]:
    """Return a scrambled Sobol sequence, or random points in more than 21201 dimensions.

    Args:
        rows: the number of points.
        columns: the dimension.
        key: the seed.

    Returns:
        Points in the unit cube.
    """
    # Importing SciPy's statistics takes a second, so only where it is needed.
    from scipy.stats import qmc

    if columns > qmc.Sobol.MAXDIM:
        return np.random.default_rng(key).random((rows, columns))
    sequence = qmc.Sobol(columns, rng=np.random.default_rng(key))
    return sequence.random_base2(int(np.ceil(np.log2(rows))))[:rows]


def prior_at(
    unknowns: Unknowns, u: Float[np.ndarray, "row number"], *, key: Array, strict: bool = False
) -> Draws:
    """Return prior draws at given quantiles.

    A prior without a quantile function, such as a Dirichlet or a gamma distribution, is sampled at
    random instead.

    Args:
        unknowns: the parameters.
        u: the quantiles between 0 and 1, with one column for each scalar parameter.
        key: random seed for priors without a quantile function.
        strict: whether such a prior is an error.

    Returns:
        Draws `(row, …)` by path.

    Raises:
        ModelError: if `strict` and a prior has no quantile function.
    """
    ends = np.cumsum(unknowns.sizes)[:-1]

    def draw(u: Array, key: Array) -> dict[str, Array]:
        values: dict[str, Array] = {}
        keys = jax.random.split(key, len(unknowns.leaves))
        for (path, leaf), own, key in zip(
            unknowns.leaves.items(), jnp.split(u, ends), keys, strict=True
        ):
            # A leaf comes after all leaves on which its prior depends.
            prior = leaf.given(values)
            found = _prior_quantile(prior, own.reshape(leaf.shape))
            if found is None and strict:
                kind = type(prior).__name__
                raise ModelError(
                    f"the prior of '{path}', {kind}, has no quantiles to step along: take "
                    "method='sobol'"
                )
            values[path] = prior.sample(key) if found is None else found
        return values

    inside = np.clip(u, _EDGE, 1 - _EDGE)
    found = jax.jit(jax.vmap(draw))(jnp.asarray(inside), jax.random.split(key, len(u)))
    return {path: np.asarray(values) for path, values in found.items()}


def _prior_quantile(prior: Any, u: Array) -> Array | None:
    """Return the quantiles of a prior over independent scalars at `u`.

    The result is None for other priors, or if there is no formula for the quantiles.
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
    """Return the pick-freeze design of Saltelli et al. (2010).

    Each row of draws gives several draws in this order: the first draw; for each group i, the first
    draw with group i taken from the second draw; the second draw.

    Args:
        unknowns: the groups of parameters.
        first: draws `(row, …)` by path.
        second: independent draws in the same form.

    Returns:
        Draws `(row · (group + 2), …)` by path.
    """
    found, number = {}, len(unknowns.of)
    for i, members in enumerate(unknowns.of.values()):
        for path in members:
            rows = np.repeat(first[path][:, None], number + 2, axis=1)
            rows[:, [i + 1, -1]] = second[path][:, None]
            found[path] = rows.reshape(-1, *rows.shape[2:])
    # Restore the order of the leaves, which may differ from the order by group.
    return {path: found[path] for path in unknowns.leaves}

"""Draws of random effects for groups of a population that have no data in the fit."""

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from ..random import RandomLeaf


def of_members(
    leaf: RandomLeaf, held: xr.DataArray, draws: Mapping[str, Float[np.ndarray, "draw ..."]]
) -> Float[np.ndarray, "draw member ..."]:
    """Return draws of a random effect for the groups of a model.

    Groups of the fit keep their draws. Draws for new groups come from the prior, given the
    hyperparameters of the same draw. They are the same in every call.

    Args:
        leaf: the random leaf of the effect.
        held: its draws in the posterior, `(chain, draw, member, …)`.
        draws: draws of its hyperparameters, for the groups of the model, by path.

    Returns:
        The draws, all chains one after the other.
    """
    ((dim, members),) = leaf.dims.items()
    values = held.values.reshape(-1, *held.shape[2:])
    position = {member: i for i, member in enumerate(held[dim].values.tolist())}
    # New groups take the draws of the first group as placeholder.
    known = np.asarray([member in position for member in members])
    kept = values[:, [position.get(member, 0) for member in members]]
    if known.all():
        return kept
    # The seed depends on the path alone, so that all calls agree.
    seed = zlib.crc32(leaf.path.encode())
    keys = jax.random.split(jax.random.key(seed), len(values))
    anew = jax.jit(jax.vmap(lambda key, given: leaf.given(given).sample(key)))
    drawn = anew(keys, {path: jnp.asarray(value) for path, value in draws.items()})
    seen = known.reshape(-1, *[1] * (kept.ndim - 2))
    return np.where(seen, kept, np.asarray(drawn))


def differ(leaves: Mapping[str, RandomLeaf], held: xr.Dataset) -> bool:
    """Return whether model and posterior have different groups, or the same in another order.

    Args:
        leaves: the random leaves of the model, by path.
        held: draws of the posterior.

    Returns:
        True if a dimension has other names in the model than in the posterior.
    """
    dims = {dim: members for leaf in leaves.values() for dim, members in leaf.dims.items()}
    both = [dim for dim in dims if dim in held.dims]
    return any(tuple(held[dim].values.tolist()) != dims[dim] for dim in both)


def as_unseen(post: xr.DataTree, leaves: Mapping[str, RandomLeaf]) -> xr.DataTree:
    """Rename the fitted groups of a posterior, so that a forecast draws all groups anew.

    The fitted data become missing, since new groups have no past. Hyperparameters and other shared
    parameters keep their draws.

    Args:
        post: the result of `fit`.
        leaves: the random leaves of the model, by path.

    Returns:
        A posterior whose groups have names such as `fitted 3`.
    """
    groups = {str(name): group.to_dataset() for name, group in post.children.items()}
    drawn = groups["posterior"]
    dims = {dim for leaf in leaves.values() for dim in leaf.dims}
    dims &= {*map(str, drawn.dims)}
    renamed = {dim: [f"fitted {name}" for name in drawn[dim].values] for dim in dims}
    groups["posterior"] = drawn.assign_coords(renamed)
    for name in {"observed_data", "fitted_data"} & {*groups}:
        groups[name] = xr.full_like(groups[name], np.nan, float)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(post.attrs)
    return tree

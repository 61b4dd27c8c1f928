"""Draws for members of a population that are others than those of the fit."""

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
    """Draws of a number for the members of a model, one after another for each draw of the
    posterior.

    Members that the fit has seen keep their draws; those of new ones are drawn from the prior,
    given what it depends on in the same draw: the same numbers whenever they are asked for.

    Args:
        leaf: what is known of the number.
        held: its draws in the posterior, `(chain, draw, member, …)`.
        draws: those of the numbers that it depends on, for these members, by path.
    """
    ((dim, members),) = leaf.dims.items()
    values = held.values.reshape(-1, *held.shape[2:])
    position = {member: i for i, member in enumerate(held[dim].values.tolist())}
    known = np.asarray([member in position for member in members])
    kept = values[:, [position.get(member, 0) for member in members]]
    if known.all():
        return kept
    keys = jax.random.split(jax.random.key(zlib.crc32(leaf.path.encode())), len(values))
    anew = jax.jit(jax.vmap(lambda key, given: leaf.given(given).sample(key)))
    drawn = anew(keys, {path: jnp.asarray(value) for path, value in draws.items()})
    return np.where(known.reshape(-1, *[1] * (kept.ndim - 2)), kept, np.asarray(drawn))


def differ(leaves: Mapping[str, RandomLeaf], held: xr.Dataset) -> bool:
    """Whether the members of a model are others than those of a posterior, or in another order.

    Args:
        leaves: the random leaves of the model, by path.
        held: draws of the posterior.
    """
    dims = {dim: members for leaf in leaves.values() for dim, members in leaf.dims.items()}
    return any(
        tuple(held[dim].values.tolist()) != members
        for dim, members in dims.items()
        if dim in held.dims
    )


def as_unseen(post: xr.DataTree, leaves: Mapping[str, RandomLeaf]) -> xr.DataTree:
    """A posterior as if its fit had seen other members, so that a forecast draws all of them, and
    groups, anew.

    Nothing is known of their past either. Draws of what all members share stay.

    Args:
        post: what `fit` returned.
        leaves: the random leaves of the model, by path.
    """
    groups = {str(name): group.to_dataset() for name, group in post.children.items()}
    drawn = groups["posterior"]
    dims = {dim for leaf in leaves.values() for dim in leaf.dims} & {*map(str, drawn.dims)}
    groups["posterior"] = drawn.assign_coords(
        {dim: [f"fitted {name}" for name in drawn[dim].values] for dim in dims}
    )
    for name in {"observed_data", "fitted_data"} & {*groups}:
        groups[name] = groups[name].map(
            lambda values: xr.full_like(values, np.nan, float), keep_attrs=True
        )
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(post.attrs)
    return tree

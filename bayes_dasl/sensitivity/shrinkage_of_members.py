"""How far the numbers of members are drawn to those of the population."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import MismatchError, ModelError
from ..inference.sites import sites_of
from ..model import Model
from ..prediction.datatree import names
from ..prediction.new_members import differ
from ..prediction.posterior import draws_of
from ..random import paths


def shrinkage(model: Model, post: xr.DataTree) -> xr.Dataset:
    r"""How far the numbers of the members of a population are drawn to what is typical.

    $1 - \mathrm{sd}_i(\mathrm{E}[z_i])$, where $z_i$ is how many spreads the number of member i is
    from what is typical for it: 0 where the data say what each one is, 1 where they say nothing, so
    that all of them are typical. Where it is above about 0.3, figures of members' numbers over
    covariates mislead.

    Args:
        model: the model of the fit, with `bd.Each`.
        post: what `fit` returned.

    Returns:
        One number for each one that differs between members, by its name in results; of a vector,
        one for each of its numbers.

    Source: Savic & Karlsson (2009).

    Raises:
        ModelError: where nothing differs between members by a prior with a location and a scale.
        MismatchError: for a posterior of another model, or of other members.
    """
    leaves, draws, short = paths(model), draws_of(model, post), names(model)
    if differ(leaves, post["posterior"].to_dataset()):
        raise MismatchError(
            "this says what the data say of each member of the fit: give the model of the fit"
        )
    sites, _ = sites_of(leaves)
    found = {}
    for path, leaf in leaves.items():
        if leaf.dims and sites[path].standardised is not None:
            standard = jax.jit(
                jax.vmap(lambda values, path=path: sites[path].flat(values[path], values))
            )
            z = np.asarray(standard({name: jnp.asarray(v) for name, v in draws.items()}))
            members = z.mean(0).reshape(leaf.shape[0], -1)
            own = 1 - np.std(members, axis=0, ddof=1)
            dims = () if own.size == 1 else (f"{short[path]}_dim_0",)
            found[short[path]] = (dims, own if dims else own[0], {"path": path})
    if not found:
        raise ModelError(
            "nothing differs between members by a prior with a location and a scale, as "
            "bd.population has"
        )
    return xr.Dataset(found)

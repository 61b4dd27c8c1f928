"""Shrinkage of random effects towards the mean of the population."""

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
    r"""Shrinkage of random effects: how close the posterior keeps them to their mean.

    $1 - \mathrm{sd}_i(\mathrm{E}[z_i])$, where $z_i$ is the standardised random effect of group i

    E is the posterior mean and $\mathrm{sd}_i$ the standard deviation over groups. Shrinkage is 0
    if the data determine each random effect, and 1 if they contain no information about them. Above
    about 0.3, plots of random effects against covariates are misleading.

    Args:
        model: the model of the fit, with `bd.Each`.
        post: the result of `fit`.

    Returns:
        A dataset with a variable for each random effect, by its name in results: one value, or for
        a vector one value per element.

    Source: Savic & Karlsson (2009).

    Raises:
        ModelError: if no parameter differs between groups by a prior with a location and a scale.
        MismatchError: if the posterior is of another model, or of other groups.
    """
    leaves = paths(model)
    draws = draws_of(model, post)
    short = names(model)
    if differ(leaves, post["posterior"].to_dataset()):
        raise MismatchError(
            "this says what the data say of each member of the fit: give the model of the fit"
        )
    sites, _ = sites_of(leaves)
    found = {}
    for path, leaf in leaves.items():
        if leaf.dims and sites[path].standardised is not None:
            # 1. z of each draw: the distance of the unconstrained value from its mean, in standard
            #    deviations of the population.
            standard = jax.jit(
                jax.vmap(lambda values, path=path: sites[path].flat(values[path], values))
            )
            z = np.asarray(standard({name: jnp.asarray(v) for name, v in draws.items()}))
            # 2. The posterior mean of each group, and the standard deviation between groups.
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

"""How well each member of a population is predicted by the others."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Array
from scipy.special import logsumexp

from .._jax.devices import prepare
from .._jax.keys import as_key
from .._statistics.convergence import thinned
from ..errors import ModelError
from ..inference import pose
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..prediction.identity import check_same_posterior
from ..prediction.posterior import fitted_data
from .conditioning import candidates, of_members

_DRAWS = 1000  # of the posterior: what all members share needs no more


def loo_members(model: Model, post: xr.DataTree, *, copies: int = 1000, key: int | Array = 0) -> Any:
    r"""Leave-one-member-out cross-validation of a population, without another fit.

    $\log p(y_m \mid y_{-m})$ by Pareto-smoothed importance sampling with the likelihood
    $p(y_m \mid \theta) = \int p(y_m \mid b)\, p(b \mid \theta)\, db$ of all data of a member. The random effects b are
    integrated out by draws from the fitted population: given its own random effects a member's data would hardly ever
    be left out reliably.

    `print(bd.loo_members(model, post))`

    Args:
        model: the model of the fit, of a population.
        post: what `fit` returned.
        copies: how many draws of the random effects each of up to 1000 posterior draws takes. Too few of them show as
            k-hats above 0.7: members far from typical ones are then met by hardly any.
        key: a whole number or a JAX random key, for these draws.

    Returns: ArviZ's `ELPDData`, one value for each member in `elpd_i`, and its k-hat in `pareto_k`.
    Raises: ModelError for a model of no population, or fewer than one copy; MismatchError for a posterior of another
    model.
    Source: Merkle, Furr & Rabe-Hesketh (2019), Bayesian comparison of latent variable models; Vehtari, Gelman & Gabry
    (2017) for the smoothing.
    """
    from arviz_stats import loo

    prepare()
    layer = model.layer
    if not isinstance(layer, AbstractPopulation):
        raise ModelError("members are left out of a population, bd.Each(layer, members)")
    if copies < 1:
        raise ModelError(f"copies must be at least 1, not {copies}")
    check_same_posterior(model, post)
    problem = pose(model, fitted_data(post))
    held = post["posterior"].to_dataset()
    held = held.isel(draw=thinned(held.sizes["draw"], max(_DRAWS // held.sizes["chain"], 1)))
    chains, draws = held.sizes["chain"], held.sizes["draw"]
    drawn = candidates(model, xr.DataTree.from_dict({"posterior": held}), copies, key=as_key(key))
    likelihood = of_members(problem, drawn).reshape(chains, draws, copies, -1)
    integrated = logsumexp(likelihood, axis=2) - np.log(copies)
    dims = ("chain", "draw", layer.dim)
    coords = {"chain": np.arange(chains), "draw": np.arange(draws), layer.dim: np.asarray(layer.members)}
    groups = {
        "posterior": held,
        "log_likelihood": xr.Dataset({"all_data": (dims, integrated)}, coords),
    }
    return loo(xr.DataTree.from_dict(groups), pointwise=True)

"""Leave-one-group-out cross-validation of a population."""

import warnings
from numbers import Integral
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from scipy.special import logsumexp

from .._jax.devices import prepare
from .._jax.keys import as_key
from .._statistics.convergence import thinned
from ..errors import ModelError
from ..inference import Problem, pose
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..prediction.identity import check_same_posterior
from ..prediction.posterior import draws_of, fitted_data
from ..prediction.predictive import Draws
from ..random import paths
from ..updating.conditioning import candidates, differs, of_members
from .moment_matching import left_out

# Largest number of posterior draws, which suffice for the common parameters.
_DRAWS = 1000
_BATCH = 50


def loo_members(
    model: Model, post: xr.DataTree, *, copies: int = 1000, key: int | Array = 0
) -> Any:
    r"""Leave-one-group-out cross-validation of a population, without another fit.

    The result is $\log p(y_m \mid y_{-m})$ for each group m: the log density of its data $y_m$
    given the data $y_{-m}$ of all other groups. It is computed by Pareto-smoothed importance
    sampling. The likelihood of all data of a group integrates out its random effects b,

    $p(y_m \mid \theta) = \int p(y_m \mid b)\, p(b \mid \theta)\, db$,

    by draws of b given the common parameters $\theta$. Weights conditional on the group's fitted
    random effects would hardly ever be reliable.

    If the $\hat k$ of a group is too large, moment matching moves the posterior draws to the
    posterior without that group. Each iteration solves all groups once per draw. Then the integral
    for that group is computed again.

    `print(bd.weighting.loo_members(model, post))`

    Args:
        model: the model of the fit, of a population.
        post: the result of `fit`.
        copies: the number of draws of the random effects for each of up to 1000 posterior draws. A
            $\hat k$ above 0.7 may mean that there are too few copies, since few come near the data
            of an unusual group.
        key: a whole number or a JAX random key, for the draws of random effects.

    Returns:
        ArviZ's `ELPDData`, with one value per group in `elpd_i`, and its $\hat k$ in `pareto_k`.
        The $\hat k$ before moment matching is in `influence_pareto_k`; `log_weights` are also from
        before it.

    Raises:
        ModelError: if the layer is no population, or `copies` is no positive whole number.
        MismatchError: if the posterior is of another model.

    Source: Merkle, Furr & Rabe-Hesketh (2019), Bayesian comparison of latent variable models;
    Vehtari, Gelman & Gabry (2017) for the smoothing; Paananen et al. (2021), Implicitly adaptive
    importance sampling, for moment matching.
    """
    from arviz_stats import loo

    prepare()
    layer = model.layer
    if not isinstance(layer, AbstractPopulation):
        raise ModelError("members are left out of a population, bd.Each(layer, members)")
    if not isinstance(copies, Integral) or copies < 1:
        raise ModelError(f"copies must be a whole number of at least 1, not {copies!r}")
    check_same_posterior(model, post)
    data, key = fitted_data(post), as_key(key)
    problem = pose(model, data)
    # 1. Up to a thousand posterior draws, with random effects integrated out.
    posterior = post["posterior"].to_dataset()
    posterior = posterior.isel(
        draw=thinned(posterior.sizes["draw"], max(_DRAWS // posterior.sizes["chain"], 1))
    )
    chains = posterior.sizes["chain"]
    draws = posterior.sizes["draw"]
    chosen = post.copy()
    chosen["posterior"] = xr.DataTree(posterior)
    held = draws_of(model, chosen)
    integrated = _integrated(problem, held, copies, key=key)
    dims = ("chain", "draw", layer.dim)
    coords = {
        "chain": np.arange(chains),
        "draw": np.arange(draws),
        layer.dim: np.asarray(layer.members),
    }
    of_data = xr.Dataset({"all_data": (dims, integrated.reshape(chains, draws, -1))}, coords)
    # 2. Pareto-smoothed weights; k-hats before moment matching give no warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found: Any = loo(
            xr.DataTree.from_dict({"posterior": posterior, "log_likelihood": of_data}),
            pointwise=True,
        )
    found.influence_pareto_k = found.pareto_k.copy()
    # 3. Moment matching of groups with a high k-hat.
    for m in np.flatnonzero(~(found.pareto_k <= found.good_k)):
        key_m = jax.random.fold_in(key, m)
        alone = pose(model, data.isel({layer.dim: [m]}))
        elpd, pareto_k = _moments_matched(
            problem, alone, held, int(m), integrated[:, m], copies, key=key_m
        )
        if pareto_k < found.pareto_k[m]:
            found.elpd_i[m], found.pareto_k[m] = elpd, pareto_k
    # 4. The summary with the new values.
    seen = logsumexp(integrated, axis=0) - np.log(len(integrated))
    found.elpd, found.se, found.p, _ = found.elpd_i.azstats.loo_summary(seen - found.elpd_i)
    bad = np.flatnonzero(~(found.pareto_k <= found.good_k))
    found.warning = bool(bad.size)
    if found.warning:
        named = ", ".join(str(layer.members[m]) for m in bad)
        warnings.warn(
            f"the k-hat of {layer.dim} {named} is above {found.good_k:.2f}: take more copies, or "
            "fit without them",
            stacklevel=2,
        )
    return found


def _integrated(
    problem: Problem, held: Draws, copies: int, *, key: Array
) -> Float[np.ndarray, "draw member"]:
    """Return the log likelihood of each group by draw, with random effects integrated out.

    Args:
        problem: the model with its data.
        held: posterior draws by path of the parameter.
        copies: number of draws of the random effects for each posterior draw.
        key: random key of these draws.
    """
    likelihood = of_members(problem, candidates(problem.model, held, copies, key=key))
    return logsumexp(likelihood.reshape(-1, copies, likelihood.shape[-1]), axis=1) - np.log(copies)


def _moments_matched(
    problem: Problem,
    alone: Problem,
    held: Draws,
    m: int,
    integrated: Float[np.ndarray, " draw"],
    copies: int,
    *,
    key: Array,
) -> tuple[float, float]:
    """Compute the log predictive density of the data of one group by moment matching.

    The random effects of the group are drawn again given the common parameters, so that they do not
    depend on its data. The log density of such a draw is that of the model without the data of the
    group, plus the integrated log likelihood of these data.

    Args:
        problem: the model with the data of all groups.
        alone: the model with the data of this group alone.
        held: posterior draws by path of the parameter.
        m: index of the group.
        integrated: the integrated log likelihood of the group, by draw.
        copies: number of draws of the random effects for each posterior draw.
        key: random key.

    Returns:
        The log predictive density, and the k-hat of its weights.
    """
    # 1. Draws with new random effects of this group.
    key_effects, key_copies = jax.random.split(key)
    anew = candidates(problem.model, held, 1, key=key_effects)
    draws = dict(held)
    for path, leaf in paths(problem.model).items():
        if differs(problem.model, leaf):
            draws[path] = np.array(held[path])
            draws[path][:, m] = anew[path][:, m]
    # 2. The log density without the data of the group, which are set to missing.
    unseen = {
        name: jnp.asarray(values).at[..., m].set(jnp.nan)
        for name, values in problem.observed.items()
    }
    rest = eqx.tree_at(lambda problem: problem.observed, problem, unseen)
    log_rest = jax.jit(
        lambda x: jax.lax.map(lambda one: sum(rest.terms(one)), x, batch_size=_BATCH)
    )
    # 3. Match moments on the unconstrained scale.
    constrain, unconstrain = (
        jax.jit(jax.vmap(way)) for way in (problem.constrain, problem.unconstrain)
    )
    return left_out(
        np.asarray(unconstrain(draws)),
        integrated,
        lambda x: np.asarray(log_rest(x)),
        lambda x: _integrated(
            alone, jax.tree.map(np.asarray, constrain(x)), copies, key=key_copies
        )[:, 0],
    )

"""The posterior of new groups of a population, given their data and the fit of other groups."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float
from scipy.special import logsumexp

from .._findings import Finding, add_finding
from .._jax.keys import as_key
from .._statistics.importance import Weights, as_rows, earlier_log_weights, resample_stats, weigh
from ..errors import DataError, MismatchError
from ..fitting.groups import data_groups, ordered
from ..inference import Problem, pose
from ..inference.problem import log_priors_of
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..prediction.datatree import draws_dataset, log_prior_group, said_of_data
from ..prediction.posterior import check_belongs, draws_of, fitted_observables, in_units_of_fit
from ..prediction.predictive import Draws, push
from ..random import RandomLeaf, paths
from .revised import UPDATE, kept_attributes, update_attributes

CONDITIONED = "conditioned_on"
# Number of candidates for each draw at first, and the largest number for all draws together.
_FIRST, _MOST = 16, 2**18


def new_members(model: Model, post: xr.DataTree) -> tuple[object, ...]:
    """Return the groups of a population that the fit has not seen.

    Args:
        model: the model.
        post: the result of `fit`.

    Returns:
        The names of the groups; empty if there are none, or if the model has no population.

    Raises:
        MismatchError: if the model has both new and fitted groups.
    """
    layer, seen = model.layer, fitted_observables(post)
    if not isinstance(layer, AbstractPopulation) or layer.dim not in seen.coords:
        return ()
    known = {*seen[layer.dim].values.tolist()}
    new = tuple(member for member in layer.members if member not in known)
    if new and len(new) < len(layer.members):
        named = ", ".join(map(str, new))
        raise MismatchError(
            f"the fit has not seen {layer.dim} {named}: give a model of these alone, with their "
            "data"
        )
    return new


def conditioned(
    model: Model, post: xr.DataTree, data: xr.Dataset, *, key: int | Array
) -> xr.DataTree:
    r"""Posterior draws for new groups, given the fitted population and the data of the new groups.

    1. For each posterior draw $\theta_i$ of the population and each new group m, draw candidates
       $b_{imk} \sim p(b_m \mid \theta_i)$ of its random effects.
    2. Weight $\theta_i$ by $\prod_m \hat p(y_m \mid \theta_i)$. Here $y_m$ are the data of group m,
       and $\hat p$ is the mean likelihood of the candidates.
    3. Resample $\theta_i$ by these weights, and for each group one candidate by its likelihood.

    Groups are independent given $\theta$, so the candidates of each group are resampled separately.
    The number of candidates doubles until all weights are reliable.

    Args:
        model: a model of the new groups alone.
        post: the posterior of the fitted groups.
        data: the data of the new groups.
        key: random seed.

    Returns:
        A tree as from `fit`, of the new groups.

    Raises:
        DataError: if the weights stay unreliable.
        MismatchError: if the posterior is of another model.
    """
    check_belongs(model, post)
    data = in_units_of_fit(model, post, data)
    problem = pose(model, data)
    key_candidates, key_choice, key_predict = jax.random.split(as_key(key), 3)
    number = post["posterior"].sizes["chain"] * post["posterior"].sizes["draw"]
    copies = _FIRST
    while True:
        # 1. Candidates for the random effects of each posterior draw.
        drawn = candidates(model, draws_of(model, post), copies, key=key_candidates)
        likelihood = of_members(problem, drawn).reshape(number, copies, -1)
        # 2. Weights of draws, and of the candidates of each group.
        # log p̂(y_m | θ_i) = log mean_k p(y_m | b_imk).
        of_member = logsumexp(likelihood, axis=1) - np.log(copies)
        log_weights = of_member.sum(axis=1)
        common = {
            path: v[::copies] for path, v in drawn.items() if not differs(model, paths(model)[path])
        }
        weights = weigh(log_weights, as_rows(common), earlier_log_weights(post))
        # For a candidate of group m, its own likelihood replaces the mean likelihood of the group.
        of_candidates = [
            weigh(
                (log_weights[:, None] + likelihood[..., m] - of_member[:, m, None]).ravel(),
                _rows_of_member(model, drawn, m),
            )
            for m in range(likelihood.shape[-1])
        ]
        if weights.may_replace(number) and all(
            w.trusted and w.effective >= 0.1 * number for w in of_candidates
        ):
            break
        copies *= 2
        if copies * number > _MOST:
            worst = max((weights, *of_candidates), key=lambda w: w.pareto_k)
            raise DataError(
                f"the new data cannot be taken in by weights (PSIS k-hat {worst.pareto_k:.2f}, "
                f"{min(w.effective for w in (weights, *of_candidates)):.0f} effective draws of "
                f"{number}): fit all "
                "members together"
            )
    # 3. Resample draws, and choose one candidate for each group.
    taken = weights.resample(number, key=key_choice)
    chosen = _chosen_candidates(
        likelihood[taken], np.random.default_rng(np.asarray(jax.random.key_data(key_choice)))
    )
    rows = taken[:, None] * copies + chosen
    members = np.arange(chosen.shape[1])
    draws = {
        path: drawn[path][rows, members] if differs(model, leaf) else drawn[path][taken * copies]
        for path, leaf in paths(model).items()
    }
    return _tree_of_members(
        model,
        post,
        data,
        problem,
        draws,
        log_weights,
        taken,
        (weights, *of_candidates),
        key=key_predict,
    )


def candidates(model: Model, held: Draws, copies: int, *, key: Array) -> dict[str, np.ndarray]:
    """Repeat draws of a population, each time with new random effects.

    Args:
        model: a model of the new groups.
        held: draws of all parameters, by path.
        copies: the number of repetitions of each draw.
        key: random seed.

    Returns:
        Draws `(draw · copy, …)` by path.
    """
    size = len(next(iter(held.values())))
    draws: dict[str, np.ndarray] = {}
    for path, leaf in paths(model).items():
        key, own = jax.random.split(key)
        # Random effects are drawn given the values of earlier leaves, such as hyperparameters.
        if differs(model, leaf):
            given = {name: jnp.asarray(value) for name, value in draws.items()}
            keys = jax.random.split(own, size * copies)
            sample = jax.jit(jax.vmap(lambda key, given, leaf=leaf: leaf.given(given).sample(key)))
            draws[path] = np.asarray(sample(keys, given))
        else:
            draws[path] = np.repeat(np.asarray(held[path]), copies, axis=0)
    return draws


def differs(model: Model, leaf: RandomLeaf) -> bool:
    """Whether a random leaf has one value for each group of the population.

    Args:
        model: a model of a population.
        leaf: the random leaf.

    Returns:
        False for a leaf that a set of groups or the whole population shares.
    """
    layer: Any = model.layer  # a population
    return layer.dim in leaf.dims


def of_members(problem: Problem, draws: Draws) -> Float[np.ndarray, "draw member"]:
    """Return the log likelihood of the data of each group, for each draw.

    Args:
        problem: the posterior of the groups.
        draws: the draws, by path.

    Returns:
        The log likelihoods; −∞ if the solver failed for the draw.
    """
    pushed = push(problem.model, problem.inputs, draws, observed=problem.observed)
    total = sum(
        np.nansum(values.reshape(len(values), -1, values.shape[-1]), axis=1)
        for values in pushed.log_likelihood.values()
    )
    return np.where(pushed.ok[:, None], total, -np.inf)


def _rows_of_member(model: Model, draws: Draws, member: int) -> Float[np.ndarray, "draw numbers"]:
    """Return the common parameters and those of one group, as a matrix with one row per draw."""
    return as_rows(
        {
            path: draws[path][:, member] if differs(model, leaf) else draws[path]
            for path, leaf in paths(model).items()
        }
    )


def _chosen_candidates(
    likelihood: Float[np.ndarray, "draw copy member"], rng: np.random.Generator
) -> np.ndarray:
    """Choose one candidate for each draw and group, with probability ∝ its likelihood.

    Args:
        likelihood: the log likelihood of each candidate.
        rng: the random number generator.

    Returns:
        The numbers of the candidates, `(draw, member)`.
    """
    # Sample by inversion of the cumulative sum.
    share = np.cumsum(np.exp(likelihood - likelihood.max(axis=1, keepdims=True)), axis=1)
    at = rng.uniform(size=(len(share), 1, share.shape[-1])) * share[:, -1:]
    return np.minimum((share < at).sum(axis=1), share.shape[1] - 1)


def _tree_of_members(
    model: Model,
    post: xr.DataTree,
    data: xr.Dataset,
    problem: Problem,
    draws: Mapping[str, np.ndarray],
    log_weights: np.ndarray,
    taken: np.ndarray,
    weights: tuple[Weights, ...],
    *,
    key: Array,
) -> xr.DataTree:
    """Return the posterior of the new groups, as a tree like that of `fit`.

    Args:
        model: the model of the new groups.
        post: the posterior of the fitted groups.
        data: the data of the new groups.
        problem: the posterior density of the new groups.
        draws: the resampled draws, by path.
        log_weights: the log weight of each draw of the population.
        taken: the indices of the resampled draws.
        weights: all weights; the least reliable ones are reported.
        key: random seed of simulated data.
    """
    # 1. Draws by chain, their prior densities, and predictions of the data.
    shape = tuple(post["posterior"].sizes[d] for d in ("chain", "draw"))
    by_chain = {path: v.reshape(*shape, *v.shape[1:]) for path, v in draws.items()}
    log_prior = jax.jit(jax.vmap(jax.vmap(lambda values: log_priors_of(model, values))))(by_chain)
    pushed = push(model, problem.inputs, draws, observed=problem.observed, key=key)
    # 2. Groups.
    groups = {"posterior": draws_dataset(model, by_chain)}
    groups["log_prior"] = log_prior_group(model, jax.tree.map(np.asarray, log_prior))
    if "sample_stats" in post.children:
        groups["sample_stats"] = resample_stats(
            post["sample_stats"].to_dataset(), log_weights, taken
        )
    groups |= said_of_data(pushed, slice(None), groups, ordered(model, data), problem.own_rows)
    tree = xr.DataTree.from_dict(groups | data_groups(model, data, float(problem.inputs.start)))
    # 3. Attributes and the finding, for the least reliable of all weights.
    pareto_k = max(w.pareto_k for w in weights)
    effective = min(w.effective for w in weights)
    layer: Any = model.layer  # a population
    named = ", ".join(map(str, layer.members))
    said = Finding(
        "good",
        UPDATE,
        f"{layer.dim} {named} taken in by importance weights: PSIS k-hat {pareto_k:.2f}, "
        f"{effective:.0f} "
        "effective draws",
    )
    tree.attrs = kept_attributes(post, problem, data)
    tree.attrs |= update_attributes(post, "importance weights", pareto_k, effective, key=key)
    tree.attrs[CONDITIONED] = f"{layer.dim} {named}, given the fit of others"
    add_finding(tree, said)
    return tree

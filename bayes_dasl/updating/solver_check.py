"""Check of the solver of a fit: posterior draws are solved again with tighter tolerances."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array

from .._jax.devices import keep_programs
from .._jax.keys import as_key
from .._statistics.convergence import moving_quantities, rhat, thinned
from .._statistics.importance import (
    FEWEST,
    Weights,
    as_rows,
    earlier_log_weights,
    largest_pareto_k,
    stored_log_likelihood,
    weigh,
)
from ..errors import ModelError
from ..inference import Problem, pose
from ..model import Model
from ..prediction.identity import check_same_posterior
from ..prediction.posterior import (
    draws_of,
    fitted_data,
    fitted_observables,
)
from ..prediction.predictive import Pushed, push
from ..scores.draws_at_data import merged
from .revised import resampled_groups
from .tighter_tolerances import tightened, tolerances

# If R-hat is larger, the chains disagree, which weights of draws cannot correct.
_APART = 1.1


def check_solver(
    model: Model,
    post: xr.DataTree,
    *,
    draws: int = 200,
    factor: float = 100.0,
    correct: bool = False,
    key: int | Array = 0,
) -> xr.DataTree:
    r"""Solve posterior draws again with tighter tolerances, and compare the posteriors.

    $\log w = \log p_{tight}(y \mid \theta) - \log p_{fit}(y \mid \theta)$

    w is the weight of a draw θ, and y are the data. If the Pareto $\hat k$ of the weights is below
    0.7 (less for fewer than 2200 draws: 0.57 for 200), weighted draws represent the posterior of
    the tight solver. The shift between both posteriors then estimates the effect of solver errors.

    Args:
        model: the model of the fit.
        post: the result of `fit`; it is never changed.
        draws: the number of draws to solve again, 25 or more, evenly spaced over all chains. With
            `correct`, all draws are solved again.
        factor: the factor by which tolerances are tightened, more than 1.
        correct: whether to resample all draws by their smoothed weights. So a coarse solver can be
            used for sampling. The result is the posterior of `tightened(model, factor)`, which must
            be used with the result from then on.
        key: a whole number or a JAX random key, for the resampling.

    Returns:
        The posterior with a group `solver_check`. The group has `log_weight`, `chain` and `draw` of
        each draw that was solved again (dimension `check_draw`). Its attributes include `pareto_k`,
        the tight `rtol` and `atol`, and `failures`, the number of draws for which the tight solver
        failed. `largest_shift_sd` is the largest change of the mean or standard deviation of a
        scientific parameter, in posterior standard deviations. `parameter` is the name of this
        parameter.

    Raises:
        ModelError: if no part of the model has tolerances. With `correct`, also if $\hat k$ is too
            large, the effective sample size is less than a tenth of the draws, or chains disagree
            (R-hat above 1.1). A single chain is split in halves for R-hat.
        MismatchError: if the posterior is of another model.

    Source: Timonen et al. (2023), An importance sampling approach for reliable and efficient
    inference in Bayesian ordinary differential equation models.
    """
    if not isinstance(draws, int) or draws < FEWEST or not 1 < factor < math.inf:
        raise ModelError(
            f"draws must be at least {FEWEST} and factor more than 1, not {draws!r} and {factor!r}"
        )
    check_same_posterior(model, post)
    keep_programs()
    # 1. Solve all or some draws again.
    problem = pose(tightened(model, factor), fitted_data(post))
    total = post["posterior"].sizes["chain"] * post["posterior"].sizes["draw"]
    index = np.arange(total) if correct else thinned(total, draws)
    earlier = earlier_log_weights(post) if correct else None
    again = _solve_again(
        problem, post, index, earlier, key=jax.random.fold_in(as_key(key), 1) if correct else None
    )
    # 2. Shifts of the posterior under the weights.
    found = {
        "pareto_k": again.weights.pareto_k,
        **_largest_shift(post, again),
        **tolerances(problem.model),
        "failures": int((~again.pushed.ok).sum()),
        "draws": len(index),
        "factor": float(factor),
        "corrected": int(correct),
        "effective_draws": again.weights.effective,
    }
    # 3. Resample draws if asked for.
    tree = post.copy()
    if correct:
        _correct(tree, again, problem, key=as_key(key))
        tree.attrs["posterior_sha256"] = problem.fingerprint()
    tree["solver_check"] = xr.DataTree(_solver_group(post, again, found))
    return tree


@dataclass(frozen=True)
class _Again:
    """Posterior draws that were solved again with the tight solver.

    Args:
        index: the number of each draw, counted over all chains.
        pushed: the predictions of the tight solver.
        log_weights: the log weight of each draw.
        weights: the smoothed weights.
    """

    index: np.ndarray
    pushed: Pushed
    log_weights: np.ndarray
    weights: Weights


def _solve_again(
    problem: Problem,
    post: xr.DataTree,
    index: np.ndarray,
    earlier: np.ndarray | None,
    *,
    key: Array | None,
) -> _Again:
    """Solve posterior draws with the tight solver.

    Args:
        problem: the posterior density with tight tolerances.
        post: the posterior of the fit.
        index: the number of each draw to solve, counted over all chains.
        earlier: log weights of earlier updates of all draws. The Pareto k-hat then also covers
            these.
        key: random seed of simulated data; None to simulate no data.
    """
    draws = {path: values[index] for path, values in draws_of(problem.model, post).items()}
    before = stored_log_likelihood(post)[index]
    pushed = push(problem.model, problem.inputs, draws, observed=problem.observed, key=key)
    earlier = None if earlier is None else earlier[index]
    # log w = log p_tight(y | θ) - log p_fit(y | θ)
    log_weights = pushed.log_weight(problem.observed) - before
    return _Again(index, pushed, log_weights, weigh(log_weights, as_rows(draws), earlier))


def _largest_shift(post: xr.DataTree, again: _Again) -> dict[str, float | str]:
    """Return the largest shift of a mean or standard deviation under the weights.

    Returns:
        A dict of `largest_shift_sd`, in posterior standard deviations, and `parameter`, the name of
        the parameter.
    """
    shifts = {"none": 0.0}
    weights = again.weights.values
    for name, variable in _science_draws(post).items():
        every = variable.values.reshape(-1, math.prod(variable.shape[2:]))
        spread, some = every.std(axis=0), every[again.index]
        # Compare mean and standard deviation with those of the same draws without weights.
        weighted = some[again.weights.first]
        mean = weights @ weighted
        deviation = np.sqrt(weights @ (weighted - mean) ** 2)
        moved = np.maximum(np.abs(mean - some.mean(axis=0)), np.abs(deviation - some.std(axis=0)))
        # Constant parameters have no shift.
        shifts[name] = float(np.max(moved / np.where(spread > 0, spread, np.inf)))
    worst = max(shifts, key=lambda name: shifts[name])
    return {"largest_shift_sd": shifts[worst], "parameter": worst}


def _science_draws(post: xr.DataTree) -> dict[str, xr.DataArray]:
    """Return draws of the scientific parameters by name, or of all if none is scientific."""
    draws = post["posterior"].to_dataset().transpose("chain", "draw", ...)
    every = {str(name): v for name, v in draws.data_vars.items()}
    science = {name: v for name, v in every.items() if v.attrs.get("group", "science") == "science"}
    return science or every


def _largest_rhat(post: xr.DataTree) -> float:
    """Return the largest R-hat of the scientific parameters that vary; 1 if none varies."""
    science = _science_draws(post)
    columns = as_rows({name: merged(variable) for name, variable in science.items()})
    by_chain = columns.reshape(post["posterior"].sizes["chain"], -1, columns.shape[1])
    return float(rhat(by_chain[..., moving_quantities(by_chain)]).max(initial=1.0))


def _correct(tree: xr.DataTree, again: _Again, problem: Problem, *, key: Array) -> None:
    """Replace the draws of `tree` by resampled draws with predictions of the tight solver.

    Args:
        tree: the posterior, which is changed in place.
        again: all draws in the tight solver.
        problem: the posterior density with tight tolerances.
        key: random seed of the resampling.

    Raises:
        ModelError: if the weights are not reliable, or chains (or the halves of a single one)
            disagree.
    """
    weights, total = again.weights, len(again.index)
    if not weights.may_replace(total):
        raise ModelError(
            "the solver of the fit is too coarse to be corrected by weights: their k-hat is "
            f"{weights.pareto_k:.2f}, "
            f"which must be below {largest_pareto_k(len(weights.values)):.2f}, and they are worth "
            f"{weights.effective:.0f} of {total} draws, which must be a tenth; fit again with rtol "
            "and atol ten times "
            "tighter"
        )
    chains_apart = _largest_rhat(tree)
    if chains_apart > _APART:
        raise ModelError(
            "the chains of this posterior, or the halves of its only one, disagree "
            f"(R-hat {chains_apart:.3g}), which no weights can mend: fit again with rtol and atol "
            "ten times tighter"
        )
    taken = weights.resample(total, key=key)
    groups = resampled_groups(
        tree, problem, again.pushed, again.log_weights, taken, fitted_observables(tree)
    )
    for name, group in groups.items():
        tree[name] = xr.DataTree(group)
    tree.attrs |= {"corrected_by": "importance weights", "effective_draws": again.weights.effective}


def _solver_group(post: xr.DataTree, again: _Again, found: dict[str, Any]) -> xr.Dataset:
    """Return the group `solver_check`, with the values in `found` as attributes."""
    posterior = post["posterior"].to_dataset()
    chain, draw = np.divmod(again.index, posterior.sizes["draw"])
    columns = {
        "log_weight": again.log_weights,
        "chain": posterior["chain"].values[chain],
        "draw": posterior["draw"].values[draw],
    }
    return xr.Dataset(
        {name: ("check_draw", values) for name, values in columns.items()}, attrs=found
    )

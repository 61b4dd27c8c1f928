"""Pareto-smoothed importance weights of posterior draws, and resampling with these weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int
from scipy.special import softmax

from ..errors import MismatchError

_LARGEST_PARETO_K = 0.7
# The least effective share of draws. A tenth of 4 × 1000 draws is 100 for each chain, the least
# number for a good verdict on a fit.
_SMALLEST_SHARE = 0.1
# Weights that differ by less than this share of the largest move means by at most 0.05 standard
# deviations.
_EQUAL = 0.1
FEWEST = 25
"""The fewest draws to smooth: the tail is a fifth of them, and a Pareto fit needs five values."""
# Log densities whose range is at most the second number count as equal, and get jitter of the size
# of the first.
_SPREAD, _SAME = 1e-9, 1e-10


def largest_pareto_k(draws: int) -> float:
    """Return the Pareto k̂ from which importance-weighted means are unreliable.

    Args:
        draws: the number of draws.

    Returns:
        The limit, at most 0.7.

    Source: Vehtari et al. (2024), section 3.2.4.
    """
    return float(min(_LARGEST_PARETO_K, 1 - 1 / np.log10(max(draws, FEWEST))))


@dataclass(frozen=True)
class Weights:
    """Smoothed weights of the distinct draws, which sum to one.

    Equal consecutive draws count as one draw with several times the weight. Such copies come from
    rejected proposals or an earlier resampling.

    Args:
        first: the index of each distinct draw among all draws.
        values: the weights.
        pareto_k: the shape k̂ of the tail of the weights.
    """

    first: Int[np.ndarray, " distinct"]
    values: Float[np.ndarray, " distinct"]
    pareto_k: float

    @property
    def effective(self) -> float:
        """The effective sample size of the weights."""
        return float(1 / np.sum(self.values**2))

    @property
    def trusted(self) -> bool:
        """Whether means under the weights are reliable, by k̂."""
        return self.pareto_k < largest_pareto_k(len(self.values))

    def may_replace(self, draws: int) -> bool:
        """Return whether a sample drawn with these weights may replace the draws.

        Args:
            draws: the number of draws.

        Returns:
            True if k̂ is small and the effective size is at least a tenth of the draws.
        """
        return self.trusted and self.effective >= _SMALLEST_SHARE * draws

    def resample(self, draws: int, *, key: Array) -> Int[np.ndarray, " draws"]:
        """Draw an equally weighted sample by systematic resampling.

        A draw with weight w is taken `draws` · w times, rounded up or down. The order is kept, so
        that copies are neighbours and autocorrelation accounts for them.

        Args:
            draws: the size of the sample.
            key: the random seed.

        Returns:
            The indices of the draws, ascending.
        """
        at = (np.arange(draws) + float(jax.random.uniform(key))) / draws
        chosen = np.searchsorted(np.cumsum(self.values), at, side="right")
        return self.first[np.minimum(chosen, len(self.first) - 1)]


def weigh(
    log_weights: Float[np.ndarray, " draws"],
    draws: Float[np.ndarray, "draws numbers"],
    earlier: Float[np.ndarray, " draws"] | None = None,
) -> Weights:
    r"""Smooth the weights of draws by a Pareto distribution fitted to their tail.

    A weight that is NaN counts as zero. $\hat k$ is 0 if all weights lie within ten per cent of the
    largest. It is infinite if no tail can be fitted: for fewer than 25 distinct draws, or hardly
    any with a positive weight.

    Args:
        log_weights: the log weight of each draw.
        draws: all parameters of each draw in a row, to find equal draws.
        earlier: the log weights of an earlier resampling. $\hat k$ is then the larger of two
            values: for `log_weights`, and for their sum with `earlier`. So many small steps do not
            look reliable.

    Returns:
        The weights of the distinct draws.

    Source: Vehtari et al. (2024), Pareto smoothed importance sampling.
    """
    # 1. Distinct draws, with the number of copies of each.
    new = np.any(draws[1:] != draws[:-1], axis=1)
    starts = np.flatnonzero(np.concatenate([[True], new]))
    repeats = np.diff(np.append(starts, len(draws)))
    log_weights = np.where(np.isnan(log_weights), -np.inf, log_weights)[starts]
    # 2. Smooth the tail of the weights of distinct draws.
    smoothed, pareto_k = _smoothed(log_weights)
    if earlier is not None:
        pareto_k = max(pareto_k, _smoothed(log_weights + earlier[starts])[1])
    if not np.isfinite(log_weights.max()):
        return Weights(starts, repeats / repeats.sum(), pareto_k)
    # 3. Multiply weights by the number of copies after smoothing, so that no equal weights disturb
    #    the fit of the tail.
    return Weights(starts, softmax(smoothed + np.log(repeats)), pareto_k)


def _smoothed(
    log_weights: Float[np.ndarray, " distinct"],
) -> tuple[Float[np.ndarray, " distinct"], float]:
    """Return the log weights with their tail smoothed, and the shape k̂ of the tail."""
    from arviz_stats.base.array import array_stats

    if not np.isfinite(log_weights.max()):
        return log_weights, np.inf
    # Nearly equal weights need no smoothing; a fit to them would describe rounding errors.
    if np.ptp(np.exp(log_weights - log_weights.max())) < _EQUAL:
        return log_weights, 0.0
    if len(log_weights) < FEWEST:
        return log_weights, np.inf
    with np.errstate(all="ignore"):
        try:
            smoothed, shape = array_stats.psislw(-log_weights)
        except ValueError:
            # A tail of equal weights.
            return log_weights, np.inf
    return (smoothed, float(shape)) if np.isfinite(shape) else (log_weights, np.inf)


def jittered_constants(log_density: Float[np.ndarray, "draw ..."]) -> Float[np.ndarray, "draw ..."]:
    """Add 1e-9 jitter to constant columns of log densities, which PSIS cannot fit.

    A column is constant if, for instance, a known state predicts the datum.

    Returns:
        The log densities, in the same shape; the same array if no column is constant.
    """
    # Infinite values stay infinite.
    with np.errstate(invalid="ignore"):
        same = np.ptp(log_density, axis=0) <= _SAME
    if not np.any(same):
        return log_density
    draws = len(log_density)
    steps = np.random.default_rng(0).permutation(draws) / draws - 0.5
    jitter = _SPREAD * steps.reshape(-1, *[1] * np.ndim(same))
    return log_density + np.where(same, jitter, 0.0)


def as_rows(draws: Mapping[str, np.ndarray]) -> Float[np.ndarray, "draws numbers"]:
    """Return draws of all parameters as one matrix.

    Args:
        draws: draws `(draw, …)` by path.

    Returns:
        A row of numbers for each draw.
    """
    return np.column_stack([values.reshape(len(values), -1) for values in draws.values()])


def total_log_likelihood(
    of_each: Mapping[str, np.ndarray], observed: Mapping[str, Any]
) -> Float[np.ndarray, " draws"]:
    """Sum the log likelihoods of all data that are not missing (NaN).

    Args:
        of_each: log likelihoods `(draw, time, …)` by observable.
        observed: the data, `(time, …)` by observable.

    Returns:
        One number for each draw.
    """
    total = np.zeros(())
    for name, log_likelihoods in of_each.items():
        seen = ~np.isnan(np.asarray(observed[name]))
        total = total + log_likelihoods[:, seen].sum(axis=1)
    return total


def stored_log_likelihood(post: xr.DataTree) -> Float[np.ndarray, " draws"]:
    """Return the log likelihood of all data and constraints that a posterior stores.

    Returns:
        One number for each draw, all chains one after the other.

    Raises:
        MismatchError: if the posterior has no group `log_likelihood`.
    """
    if "log_likelihood" not in post.children:
        raise MismatchError(
            "this posterior has no group 'log_likelihood', which its draws are weighed by; fit it "
            "again"
        )
    of_data = np.zeros(())
    for variable in post["log_likelihood"].data_vars.values():
        values = variable.transpose("chain", "draw", ...).values
        number = values.shape[0] * values.shape[1]
        of_data = of_data + values.reshape(number, -1).sum(axis=1)
    of_constraints = _statistic_of_draws(post, "log_factor")
    return of_data + (0.0 if of_constraints is None else of_constraints)


def _statistic_of_draws(post: xr.DataTree, name: str) -> Float[np.ndarray, " draws"] | None:
    """Return a sampling statistic of each draw, all chains one after the other; None without it."""
    if "sample_stats" not in post.children or name not in post["sample_stats"]:
        return None
    return post["sample_stats"][name].transpose("chain", "draw").values.ravel()


def earlier_log_weights(post: xr.DataTree) -> Float[np.ndarray, " draws"] | None:
    """Return the log weights with which the draws of a posterior were resampled before.

    Returns:
        One number for each draw; None if they were not resampled.
    """
    return _statistic_of_draws(post, "log_weight")


def resample_draws(group: xr.Dataset, index: Int[np.ndarray, " draws"]) -> xr.Dataset:
    """Select draws of a group by their index over all chains.

    Args:
        group: a dataset over `chain` and `draw`.
        index: as many indices as there are draws of all chains.

    Returns:
        The group with the same number of chains and draws as before.
    """
    taken = {}
    for name, variable in group.variables.items():
        if not {"chain", "draw"} <= {*variable.dims}:
            continue
        ordered = variable.transpose("chain", "draw", ...)
        flat = ordered.values.reshape(-1, *ordered.shape[2:])
        taken[name] = (ordered.dims, flat[index].reshape(ordered.shape), variable.attrs)
    # Coordinates may hold a number for each draw, too.
    beside = {name: values for name, values in taken.items() if name in group.coords}
    variables = {name: values for name, values in taken.items() if name not in beside}
    return group.assign_coords(beside).assign(variables)


def resample_groups(tree: xr.DataTree, index: Int[np.ndarray, " draws"]) -> dict[str, xr.Dataset]:
    """Resample the groups that depend on draws alone, not on data.

    Args:
        tree: the posterior.
        index: the indices of the draws over all chains.

    Returns:
        `posterior`, `vector_field` and `log_prior`, as far as the tree has them.
    """
    return {
        name: resample_draws(tree[name].to_dataset(), index)
        for name in ("posterior", "vector_field", "log_prior")
        if name in tree.children
    }


def resample_stats(
    stats: xr.Dataset, log_weights: Float[np.ndarray, " draws"], index: Int[np.ndarray, " draws"]
) -> xr.Dataset:
    """Return the sampling statistics of resampled draws.

    `lp` becomes the new log density, and `log_weight` the sum of log weights over all resamplings.
    `energy` is dropped, since it belongs to the old density.

    Args:
        stats: the sampling statistics of the draws before.
        log_weights: the log weight of each draw before.
        index: the indices of the resampled draws over all chains.

    Returns:
        The statistics of the resampled draws.
    """
    shape = stats.sizes["chain"], stats.sizes["draw"]
    if "log_weight" not in stats:
        stats = stats.assign(log_weight=(("chain", "draw"), np.zeros(shape)))
    for name in {"lp", "log_weight"} & {*stats.data_vars}:
        before = stats[name].transpose("chain", "draw")
        after = before + log_weights.reshape(shape)
        stats = stats.assign({name: after.assign_attrs(before.attrs)})
    return resample_draws(stats.drop_vars("energy", errors="ignore"), index)

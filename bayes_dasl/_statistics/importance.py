"""Pareto-smoothed importance weights of posterior draws, and resampling by them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from ..errors import MismatchError

_LARGEST_PARETO_K = 0.7


def largest_pareto_k(draws: int) -> float:
    """From here on an importance-weighted mean of so many draws may be far from the truth: at most
    0.7.

    Source: Vehtari et al. (2024), section 3.2.4.
    """
    return float(min(_LARGEST_PARETO_K, 1 - 1 / np.log10(max(draws, FEWEST))))


# A tenth of 4 × 1000 draws is 100 for each chain, the least with which the verdict on a fit is
# good.
_SMALLEST_SHARE = 0.1

_EQUAL = 0.1
"""Weights that differ by less than this share of the largest move no mean by more than 0.05
standard deviations.
"""
# The tail that is smoothed is a fifth of them, and five are the least that a Pareto fit takes.
FEWEST = 25

_SPREAD, _SAME = 1e-9, 1e-10


@dataclass(frozen=True)
class Weights:
    """Smoothed weights, summing to one, of the distinct draws; `first` says where each stands among
    all draws.

    A draw that stands several times in a row, as a chain that stood still or an earlier resampling
    leaves it, is one draw with several times the weight.
    """

    first: Int[np.ndarray, " distinct"]
    values: Float[np.ndarray, " distinct"]
    pareto_k: float

    @property
    def effective(self) -> float:
        """The number of equally weighted draws that are worth as much."""
        return float(1 / np.sum(self.values**2))

    @property
    def trusted(self) -> bool:
        """Whether means under the weights can be relied on."""
        return self.pareto_k < largest_pareto_k(len(self.values))

    def may_replace(self, draws: int) -> bool:
        """Whether so many draws can be replaced by a sample by weight: trusted, and worth a tenth
        of the draws.
        """
        return self.trusted and self.effective >= _SMALLEST_SHARE * draws

    def resample(self, draws: int, *, key: Array) -> Int[np.ndarray, " draws"]:
        """Which draws make an equally weighted sample of a given size, in their order.

        Systematic: a draw of weight w is taken the whole numbers next to `draws` · w times. Order
            is kept, so that
        copies stand together and an effective sample size by autocorrelation counts them as what
        they are.
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

    A weight that is NaN counts as zero. $\hat k$ is 0 where all weights lie within ten per cent of
    the largest, and infinite where nothing can be fitted: fewer than 25 distinct draws, or hardly
    any of positive weight. `earlier` are the log weights by which the draws were resampled before:
    $\hat k$ is then that of both together, so that many small steps are not taken for reliable
    because each of them is.

    Source: Vehtari et al. (2024), Pareto smoothed importance sampling.
    """
    starts = np.flatnonzero(np.concatenate([[True], np.any(draws[1:] != draws[:-1], axis=1)]))
    repeats = np.diff(np.append(starts, len(draws)))
    log_weights = np.where(np.isnan(log_weights), -np.inf, log_weights)[starts]
    smoothed, pareto_k = _smoothed(log_weights)
    if earlier is not None:
        pareto_k = max(pareto_k, _smoothed(log_weights + earlier[starts])[1])
    if not np.isfinite(log_weights.max()):
        return Weights(starts, repeats / repeats.sum(), pareto_k)
    # How often a draw stands there is no part of the tail: it would clump.
    return Weights(starts, _normalised(smoothed + np.log(repeats)), pareto_k)


def _smoothed(
    log_weights: Float[np.ndarray, " distinct"],
) -> tuple[Float[np.ndarray, " distinct"], float]:
    """The log weights with their tail smoothed, and its shape."""
    from arviz_stats.base.array import array_stats

    if not np.isfinite(log_weights.max()):
        return log_weights, np.inf
    # Bounded weights need no tail; its shape would be that of rounding errors.
    if np.ptp(np.exp(log_weights - log_weights.max())) < _EQUAL:
        return log_weights, 0.0
    if len(log_weights) < FEWEST:
        return log_weights, np.inf
    with np.errstate(all="ignore"):
        try:
            smoothed, shape = array_stats.psislw(-log_weights)
        except ValueError:  # a tail of equal weights
            return log_weights, np.inf
    return (smoothed, float(shape)) if np.isfinite(shape) else (log_weights, np.inf)


def told_apart(log_density: Float[np.ndarray, "draw ..."]) -> Float[np.ndarray, "draw ..."]:
    """Log densities of which none is the same in all draws: those that were are a billionth apart.

    That of a datum which a known state predicts is. ArviZ fits a distribution to the tail of the
    draws, and refuses one without any spread.
    """
    with np.errstate(invalid="ignore"):  # those that are infinite stay so
        same = np.ptp(log_density, axis=0) <= _SAME
    if not np.any(same):
        return log_density
    draws = len(log_density)
    steps = np.random.default_rng(0).permutation(draws) / draws - 0.5
    return log_density + np.where(same, _SPREAD * steps.reshape(-1, *[1] * np.ndim(same)), 0.0)


def _normalised(log_weights: np.ndarray) -> np.ndarray:
    weights = np.exp(log_weights - np.max(log_weights))
    return weights / weights.sum()


def as_rows(draws: Mapping[str, np.ndarray]) -> Float[np.ndarray, "draws numbers"]:
    """Draws of every random leaf, path → `(draws, …)`, as one row of numbers each."""
    return np.column_stack([values.reshape(len(values), -1) for values in draws.values()])


def total_log_likelihood(
    of_each: Mapping[str, np.ndarray], observed: Mapping[str, Any]
) -> Float[np.ndarray, " draws"]:
    """The log likelihood of all data from that of each, `(draws, time, …)`; a missing datum (NaN)
    does not count.
    """
    return sum(
        (v[:, ~np.isnan(np.asarray(observed[name]))].sum(axis=1) for name, v in of_each.items()),
        np.zeros(()),
    )


def stored_log_likelihood(post: xr.DataTree) -> Float[np.ndarray, " draws"]:
    """The log likelihood of all data, and of the constraints, that a posterior holds for each of
    its draws.

    Raises:
        MismatchError: if it holds none.
    """
    if "log_likelihood" not in post.children:
        raise MismatchError(
            "this posterior has no group 'log_likelihood', which its draws are weighed by; fit it "
            "again"
        )
    each = [
        v.transpose("chain", "draw", ...).values for v in post["log_likelihood"].data_vars.values()
    ]
    of_data = sum((v.reshape(v.shape[0] * v.shape[1], -1).sum(axis=1) for v in each), np.zeros(()))
    stats = post["sample_stats"].to_dataset() if "sample_stats" in post.children else xr.Dataset()
    of_constraints = (
        stats["log_factor"].transpose("chain", "draw").values.ravel()
        if "log_factor" in stats
        else 0.0
    )
    return of_data + of_constraints


def earlier_log_weights(post: xr.DataTree) -> Float[np.ndarray, " draws"] | None:
    """The log weights by which the draws of a posterior were resampled before; none if they were
    not.
    """
    if "sample_stats" not in post.children or "log_weight" not in post["sample_stats"]:
        return None
    return post["sample_stats"]["log_weight"].transpose("chain", "draw").values.ravel()


def resample_draws(group: xr.Dataset, index: Int[np.ndarray, " draws"]) -> xr.Dataset:
    """A group of posterior draws made of draws `index`, counted over all chains, in chains as
    before.
    """
    taken = {}
    for name, variable in group.variables.items():
        if not {"chain", "draw"} <= {*variable.dims}:
            continue
        ordered = variable.transpose("chain", "draw", ...)
        flat = ordered.values.reshape(-1, *ordered.shape[2:])
        taken[name] = (ordered.dims, flat[index].reshape(ordered.shape), variable.attrs)
    # Coordinates too may hold a number for each draw.
    beside = {name: values for name, values in taken.items() if name in group.coords}
    return group.assign_coords(beside).assign({n: v for n, v in taken.items() if n not in beside})


def resample_groups(tree: xr.DataTree, index: Int[np.ndarray, " draws"]) -> dict[str, xr.Dataset]:
    """The groups that hold draws and what follows from them alone, whatever is observed,
    resampled.
    """
    return {
        name: resample_draws(tree[name].to_dataset(), index)
        for name in ("posterior", "vector_field", "log_prior")
        if name in tree.children
    }


def resample_stats(
    stats: xr.Dataset, log_weights: Float[np.ndarray, " draws"], index: Int[np.ndarray, " draws"]
) -> xr.Dataset:
    """The statistics of resampled draws.

    `lp` is that of the new density; `log_weight` is added up over all times that the draws were
    resampled; `energy`, which is none of the new density, is dropped.
    """
    if "log_weight" not in stats:
        stats = stats.assign(
            log_weight=(
                ("chain", "draw"),
                np.zeros(tuple(stats.sizes[d] for d in ("chain", "draw"))),
            )
        )
    for name in {"lp", "log_weight"} & {*map(str, stats.data_vars)}:
        before = stats[name].transpose("chain", "draw")
        stats = stats.assign(
            {name: (before + log_weights.reshape(before.shape)).assign_attrs(before.attrs)}
        )
    return resample_draws(stats.drop_vars("energy", errors="ignore"), index)

"""Predictive entropy of counts, split into an aleatoric and an epistemic part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import special

from .._statistics.blocks import blocks_of, draws_at
from .._statistics.convergence import thinned
from ..errors import MismatchError
from ..scores.decomposition import block_shape, chosen, labelled, put, whole_draws
from ..scores.matching import check_forecast

MEANINGS = {
    "total": "entropy of the forecast",
    "aleatoric": "mean entropy of the observation given the draw",
    "epistemic": "mutual information of the observation and the draw",
}
# The largest number of draws that are used, and the probability that is ignored in each tail.
_MOST_DRAWS = 500
_TAIL = 1e-9
# Neighbouring counts of nearly equal probability are grouped in a cell: the number of cells over
# the range of each draw, and over each doubling of counts.
_CELLS, _CELLS_A_DOUBLING = 512, 64
# The smallest overdispersion: below it, a negative binomial is Poisson to seven digits.
_LEAST_EXCESS = 1e-7
_SMALLEST = 1e-12
# The number of cells that are processed together, which limits the memory.
_BLOCK = 2**20


def decompose_entropy(fc: xr.DataTree, observables: Sequence[str] | None = None) -> xr.Dataset:
    r"""Split the predictive entropy of each count at each time, in nats.

    $H[E_\theta\, p(y \mid \theta)] = E_\theta H[p(y \mid \theta)] + I(y; \theta)$

    Here y is a count, θ the parameters, H the entropy and I the mutual information. The left side
    is `total`. The first term on the right is `aleatoric`, due to chance. The second term is
    `epistemic`: the entropy that knowledge of the parameters would remove. Entropy is a better
    measure than variance for counts that are often zero. For the variance see `decompose`.

    At most 500 evenly spaced draws are used. Failed draws are left out and counted in
    `attrs["failed_draws"]`. A single draw gives only the aleatoric part; the other parts are then
    NaN. Sums over counts ignore a probability of 1e-9 in each tail of each draw.

    Args:
        fc: the result of `forecast`.
        observables: the names of counts with the same dimensions. By default all observables whose
            noise is `PoissonNoise` or `NegativeBinomialNoise`, or has `counts_by_moments`.

    Returns:
        A dataset with the variables `total`, `aleatoric` and `epistemic`.

    Shapes: each variable is `(observable, time, …)`. Units: nat.

    Raises:
        MismatchError: if `fc` is no forecast, or an observable is unknown or no count.

    Source: Depeweg et al. (2018), Decomposition of uncertainty in Bayesian deep learning.
    """
    check_forecast(fc, "conditional_mean", "conditional_variance")
    everything = fc["conditional_mean"].to_dataset()
    # An attribute of each observable says whether its noise has `counts_by_moments`.
    others = {
        str(name): v.attrs.get("noise", "")
        for name, v in everything.data_vars.items()
        if not v.attrs.get("counts_by_moments", 0)
    }
    names = [str(n) for n in everything if n not in others]
    if observables is not None:
        names = list(observables)
    for name in names:
        if name in others:
            raise MismatchError(
                f"'{name}' is no count whose law follows from its moments ({others[name]}): its "
                "uncertainty is split "
                "by decompose(fc)"
            )
    if not names:
        raise MismatchError(
            "the forecast has no counts whose law follows from their moments: see decompose(fc)"
        )
    means = chosen(everything, names)
    variances = fc["conditional_variance"].to_dataset()
    parts = {part: np.empty(block_shape(means)) for part in MEANINGS}
    failed = 0
    for row, (name, mean) in enumerate(means.data_vars.items()):
        # 1. Draws that are finite at all times, thinned.
        ok = whole_draws(mean, variances[name], np.isfinite)
        failed = max(failed, int((~ok).sum()))
        some = np.flatnonzero(ok)[thinned(int(ok.sum()), _MOST_DRAWS)]
        # 2. Entropies of each element, one block of times after the other.
        for at in blocks_of(mean):
            moments = (draws_at(moment, at)[some].T for moment in (mean, variances[name]))
            values = np.array([split(*pair) for pair in zip(*moments, strict=True)])
            for part, numbers in zip(MEANINGS, values.T, strict=True):
                put(parts[part][row], at, numbers)
    attrs = {part: {"long_name": meaning, "units": "nat"} for part, meaning in MEANINGS.items()}
    return labelled(parts, means, failed, attrs)


def split(mean: np.ndarray, variance: np.ndarray) -> tuple[float, float, float]:
    r"""Entropy of a mixture of count distributions, their mean entropy, and the difference.

    A distribution is Poisson if its variance equals its mean, and negative binomial if the variance
    is larger.

    Args:
        mean: the mean of the count in each draw, `(draw,)`.
        variance: the variance of the count in each draw, `(draw,)`.

    Returns:
        $H[\bar p]$, $\bar H$ and $H[\bar p] - \bar H$ in nats, where $\bar p$ is the mixture and
        $\bar H$ the mean entropy; NaN where unknown.
    """
    from scipy.stats import nbinom

    if not len(mean):
        return np.nan, np.nan, np.nan
    # 1. Negative binomials NB(m / e, 1 / (1 + e)) by their moments, with e = var / m - 1.
    mean = np.maximum(mean, _SMALLEST)
    excess = np.maximum(variance / mean - 1, _LEAST_EXCESS)
    size, share = mean / excess, 1 / (1 + excess)
    # 2. Cells of counts over the range of all draws, and the cells of each draw.
    low = nbinom.ppf(_TAIL, size, share)
    high = nbinom.isf(_TAIL, size, share)
    first, width = _cells(low, high)
    middle = first + np.floor((width - 1) / 2)
    begin = np.searchsorted(first, low)
    number = np.searchsorted(first, high, side="right") - begin
    # 3. H = -Σ p log p of each draw, and the mean p of all draws, by blocks of draws.
    each = np.zeros(len(mean))
    mixture = np.zeros(len(first))
    for some in np.array_split(np.arange(len(mean)), -(-number.sum() // _BLOCK)):
        draw = np.repeat(some, number[some])
        ends = number[some].cumsum()
        cell = np.arange(ends[-1]) + np.repeat(begin[some] + number[some] - ends, number[some])
        p = nbinom.pmf(middle[cell], size[draw], share[draw])
        each += np.bincount(draw, width[cell] * special.entr(p), len(mean))
        mixture += np.bincount(cell, p, len(first))
    # 4. The parts: mean entropy, entropy of the mixture, and their difference.
    aleatoric = float(each.mean())
    if len(mean) < 2:
        return np.nan, aleatoric, np.nan
    total = float(width @ special.entr(mixture / len(mean)))
    return total, aleatoric, total - aleatoric


def _cells(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group counts in cells that cover the ranges of all draws.

    The range of each draw begins and ends at the edge of a cell. The probabilities of all draws
    change little within a cell.

    Args:
        low: the smallest relevant count of each draw.
        high: the largest relevant count of each draw.

    Returns:
        The first count of each cell, and the number of counts in it.
    """
    # 1. Edges at the ends of ranges and at powers of two, and the draws that cover each.
    doublings = 2.0 ** np.arange(np.ceil(np.log2(high.max() + 2)))
    edges = np.unique(np.concatenate([low, high + 1, doublings]))
    inside = (low[:, None] <= edges) & (edges <= high[:, None])
    finest = np.where(inside, ((high - low) / _CELLS)[:, None], np.inf).min(axis=0)
    # 2. The width after each edge suits the narrowest of its draws. Odd widths have a middle count.
    width = 1 + 2 * np.floor(np.maximum(np.minimum(finest, edges / _CELLS_A_DOUBLING) - 1, 0) / 2)
    # 3. Cut each interval between edges into cells of its width; the last cell may be shorter.
    first, widths = [], []
    for i in np.flatnonzero(inside.any(axis=0)):
        first.append(np.arange(edges[i], edges[i + 1], width[i]))
        widths.append(np.diff(first[-1], append=edges[i + 1]))
    return np.concatenate(first), np.concatenate(widths)

"""How much of what a forecast of counts does not know is chance, and how much could be learned."""

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
_MOST_DRAWS = 500
_TAIL = 1e-9
# Counts of which no draw tells one from the next are taken together: cells of a draw, and of each
# doubling of counts.
_CELLS, _CELLS_A_DOUBLING = 512, 64
_LEAST_EXCESS = 1e-7  # of a variance over its mean, as a share: a Poisson law to as many digits
_SMALLEST = 1e-12
_BLOCK = 2**20


def decompose_entropy(fc: xr.DataTree, observables: Sequence[str] | None = None) -> xr.Dataset:
    r"""Split the predictive entropy of each count at each time, in nats.

    $H[E_\theta\, p(y \mid \theta)] = E_\theta H[p(y \mid \theta)] + I(y; \theta)$: `total`, what
    chance makes of it (`aleatoric`) and what knowing the parameters would remove (`epistemic`, the
    mutual information). Where a count is often zero its variance is a poor measure, and this is the
    better one; for the variance see `decompose`.

    Of more than 500 draws 500 evenly spaced ones are taken; failed ones are left out
    (`attrs["failed_draws"]`). Where one draw is left only the aleatoric part is known, and where
    none is left nothing: what is not known is NaN. Sums leave out 1e-9 of the mass of each draw at
    either end.

    Args:
        fc: what `forecast` returned.
        observables: some that are counts and have the same dimensions; unless given all whose noise
            is `PoissonNoise` or `NegativeBinomialNoise`, or says that data are `counts_by_moments`.

    Shapes: each variable is `(observable, time, …)`. Units: nat.

    Raises:
        MismatchError: for what is no forecast, an unknown observable, or one that is no count.

    Source: Depeweg et al. (2018), Decomposition of uncertainty in Bayesian deep learning.
    """
    check_forecast(fc, "conditional_mean", "conditional_variance")
    everything = fc["conditional_mean"].to_dataset()
    others = {
        str(name): v.attrs.get("noise", "")
        for name, v in everything.data_vars.items()
        if not _are_counts(v)
    }
    names = (
        [str(n) for n in everything if n not in others]
        if observables is None
        else list(observables)
    )
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
        ok = whole_draws(mean, variances[name], np.isfinite)
        failed = max(failed, int((~ok).sum()))
        some = np.flatnonzero(ok)[thinned(int(ok.sum()), _MOST_DRAWS)]
        for at in blocks_of(mean):
            moments = (draws_at(moment, at)[some].T for moment in (mean, variances[name]))
            values = np.array([split(*pair) for pair in zip(*moments, strict=True)])
            for part, numbers in zip(MEANINGS, values.T, strict=True):
                put(parts[part][row], at, numbers)
    attrs = {part: {"long_name": meaning, "units": "nat"} for part, meaning in MEANINGS.items()}
    return labelled(parts, means, failed, attrs)


def _are_counts(variable: xr.DataArray) -> bool:
    return bool(variable.attrs.get("counts_by_moments", 0))


def split(mean: np.ndarray, variance: np.ndarray) -> tuple[float, float, float]:
    """Entropy of the mixture of counts with these moments, their mean entropy, and the difference.

    Counts whose variance is their mean are Poisson, those of a larger one negative binomial.

    Shapes: both `(draw,)`. NaN where there is no draw; of one draw only the mean entropy is known.
    """
    from scipy.stats import nbinom

    if not len(mean):
        return np.nan, np.nan, np.nan
    mean = np.maximum(mean, _SMALLEST)
    excess = np.maximum(variance / mean - 1, _LEAST_EXCESS)
    size, share = mean / excess, 1 / (1 + excess)
    low, high = nbinom.ppf(_TAIL, size, share), nbinom.isf(_TAIL, size, share)
    first, width = _cells(low, high)
    middle = first + np.floor((width - 1) / 2)
    begin, number = np.searchsorted(first, low), np.searchsorted(first, high, side="right")
    number -= begin
    each, mixture = np.zeros(len(mean)), np.zeros(len(first))
    for some in np.array_split(np.arange(len(mean)), -(-number.sum() // _BLOCK)):
        draw = np.repeat(some, number[some])
        ends = number[some].cumsum()
        cell = np.arange(ends[-1]) + np.repeat(begin[some] + number[some] - ends, number[some])
        p = nbinom.pmf(middle[cell], size[draw], share[draw])
        each += np.bincount(draw, width[cell] * special.entr(p), len(mean))
        mixture += np.bincount(cell, p, len(first))
    aleatoric = float(each.mean())
    if len(mean) < 2:
        return np.nan, aleatoric, np.nan
    total = float(width @ special.entr(mixture / len(mean)))
    return total, aleatoric, total - aleatoric


def _cells(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of counts that cover the ranges of all draws, ends included: their first counts and
    their widths.

    A range begins and ends with a cell. Within a cell the law of no draw that reaches there changes
    much.
    """
    doublings = 2.0 ** np.arange(np.ceil(np.log2(high.max() + 2)))
    edges = np.unique(np.concatenate([low, high + 1, doublings]))
    inside = (low[:, None] <= edges) & (edges <= high[:, None])
    finest = np.where(inside, ((high - low) / _CELLS)[:, None], np.inf).min(axis=0)
    # Odd numbers of counts have one in their middle.
    width = 1 + 2 * np.floor(np.maximum(np.minimum(finest, edges / _CELLS_A_DOUBLING) - 1, 0) / 2)
    first, widths = [], []
    for i in np.flatnonzero(inside.any(axis=0)):
        first.append(np.arange(edges[i], edges[i + 1], width[i]))
        widths.append(np.diff(first[-1], append=edges[i + 1]))
    return np.concatenate(first), np.concatenate(widths)

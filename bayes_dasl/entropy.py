"""How much of what a forecast of counts does not know is chance, and how much could be learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import special, stats

from ._errors import MismatchError
from ._thinning import thinned
from .decompose import chosen, labelled, stacked
from .noise import NegativeBinomialNoise, PoissonNoise

MEANINGS = {
    "total": "entropy of the forecast",
    "aleatoric": "mean entropy of the observation given the draw",
    "epistemic": "mutual information of the observation and the draw",
}
FAMILIES = (PoissonNoise.__name__, NegativeBinomialNoise.__name__)
_MOST_DRAWS = 500
_TAIL = 1e-9
_BLOCK = 4096
_LARGEST = 2**20


def decompose_entropy(fc: xr.DataTree, observables: Sequence[str] | None = None) -> xr.Dataset:
    r"""Split the predictive entropy of each count at each time, in nats.

    $H[E_\theta\, p(y \mid \theta)] = E_\theta H[p(y \mid \theta)] + I(y; \theta)$: `total`, what chance makes of it
    (`aleatoric`) and what knowing the parameters would remove (`epistemic`, the mutual information). Where a count is
    often zero its variance is a poor measure, and this is the better one; for the variance see `decompose`.

    By default all observables whose noise is `PoissonNoise` or `NegativeBinomialNoise`. Of more than 500 draws 500
    evenly spaced ones are taken; failed ones are left out (`attrs["failed_draws"]`). Sums end where all draws together
    have 1e-9 of their mass left.

    Shapes: each variable is `(observable, time, …)`. Units: nat.
    Raises: MismatchError for an unknown observable, or one that is no count.
    Source: Depeweg et al. (2018), Decomposition of uncertainty in Bayesian deep learning.
    """
    everything = fc["conditional_mean"].to_dataset()
    families = {str(name): str(v.attrs.get("noise", "")) for name, v in everything.data_vars.items()}
    names = [n for n, family in families.items() if family in FAMILIES] if observables is None else list(observables)
    for name in names:
        if families.get(name, FAMILIES[0]) not in FAMILIES:
            raise MismatchError(f"'{name}' is no count ({families[name]}): its uncertainty is split by decompose(fc)")
    if not names:
        raise MismatchError(f"the forecast has no counts ({', '.join(FAMILIES)}): see decompose(fc)")
    means = chosen(everything, names)
    mean, variance = (stacked(fc[group].to_dataset(), means) for group in ("conditional_mean", "conditional_variance"))
    ok = np.all(np.isfinite(mean) & np.isfinite(variance), axis=2)
    parts = {part: np.empty(mean.shape[1:]) for part in MEANINGS}
    for row, kept in enumerate(ok.T):
        some = np.flatnonzero(kept)[thinned(int(kept.sum()), _MOST_DRAWS)]
        for datum, moments in enumerate(zip(mean[some, row].T, variance[some, row].T, strict=True)):
            for part, value in zip(MEANINGS, split(*moments), strict=True):
                parts[part][row, datum] = value
    attrs = {part: {"long_name": meaning, "units": "nat"} for part, meaning in MEANINGS.items()}
    return labelled(parts, means, int((~ok).sum(axis=0).max(initial=0)), attrs)


def split(mean: np.ndarray, variance: np.ndarray) -> tuple[float, float, float]:
    """Entropy of the mixture of counts with these moments, their mean entropy, and the difference.

    Counts whose variance is their mean are Poisson, those of a larger one negative binomial.
    NaN for fewer than two draws.
    """
    if len(mean) < 2:
        return np.nan, np.nan, np.nan
    excess = variance - mean
    spread = excess > 1e-9 * mean  # the others are Poisson: their negative binomial has no finite size
    size = np.where(spread, mean**2 / np.where(spread, excess, 1.0), 1.0)
    share, rate = size / (size + mean), np.where(spread, 1.0, mean)
    last = np.where(spread, stats.nbinom.isf(_TAIL, size, share), stats.poisson.isf(_TAIL, rate)).max()
    end = int(min(last, _LARGEST)) + 1
    total, each = 0.0, np.zeros(len(mean))
    for first in range(0, end, _BLOCK):
        counts = np.arange(first, min(first + _BLOCK, end))[:, None]
        p = np.where(spread, stats.nbinom.pmf(counts, size, share), stats.poisson.pmf(counts, rate))
        each += special.entr(p).sum(axis=0)
        total += float(special.entr(p.mean(axis=1)).sum())
    return total, float(each.mean()), total - float(each.mean())

"""Overconfidence of a forecast: coverage of its intervals and its CRPS on held-out data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betainc, betaincinv, ndtri

from .._findings import Finding, Level, model_finding
from .._statistics.convergence import thinned
from .._statistics.dependence import independent_hits
from ..scores.draws_at_data import Ensembles, covered, crps_at, ranks
from .residuals import ABSURD, DOUBTFUL, share_beyond

# The share of calibrated data outside the 90 % intervals.
_OUTSIDE = 0.1
# A forecast is called good if the data rule out lower coverages, with this confidence.
_LEAST, _SURE = 0.5, 0.95
# Replicates of held-out data, the most draws, and the values whose CRPS is computed.
_REPLICATES = 500
_DRAWS = 4000
_VALUES = 400
# The largest CRPS in units of its expectation. Without spread it is infinite, or negative by
# rounding.
_FARTHEST = 1e6
_GROUPS = {
    "lowest third": (0.0, 1 / 3),
    "middle third": (1 / 3, 2 / 3),
    "highest third": (2 / 3, 1.0),
    "highest 5 %": (0.95, 1.0),
}
"""Groups of values by the size of the forecast: the range of quantiles of its median."""
_SUBJECT = "held-out data"
_TOO_SURE = (
    "the errors are larger than the forecast says: look for effects that the model misses, or "
    "values that it takes as known"
)
_TOO_FEW = "hold out more data, or data over a longer time"


class _Hits(NamedTuple):
    """Counts of values inside and outside the 90 % intervals, and their effective number.

    Args:
        inside: the number of values inside, counted as by `bd.score`: an interval that ends at zero
            holds all zeros.
        number: the number of values.
        missed: the number of values outside, by the randomised PIT. So a calibrated forecast misses
            a tenth of its zeros, too.
        worth: the number of independent values with as much information.
    """

    inside: int
    number: int
    missed: int
    worth: float

    @property
    def chance(self) -> float:
        """The binomial probability that as many of `worth` values miss calibrated intervals."""
        missed = self.missed / self.number * self.worth
        return float(betainc(missed, self.worth - missed + 1, _OUTSIDE)) if missed > 0 else 1.0

    def not_below(self, worth: float) -> float:
        """Return the lower end of the one-sided 95 % confidence interval of the coverage.

        Args:
            worth: the number of independent values.

        Returns:
            The lower end.

        Source: Clopper & Pearson (1934).
        """
        held = (1 - self.missed / self.number) * worth
        return float(betaincinv(held, worth - held + 1, 1 - _SURE)) if held > 0 else 0.0

    def __str__(self) -> str:
        return f"{self.inside} of {self.number} values ({self.inside / self.number:.0%})"


def scorable(pairs: Ensembles) -> Ensembles:
    """Leave out observables with fewer than two draws, or without a value.

    Returns:
        Draws and values of the other observables.
    """
    return {name: pair for name, pair in pairs.items() if len(pair[0]) > 1 and pair[1].size}


def finite_at(draws: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep observed values, and draws that are finite at all of them.

    Args:
        draws: draws `(draw, datum)`.
        observed: the data, NaN where missing.

    Returns:
        At most 4000 draws `(draw, value)`, and the values `(value,)`.
    """
    seen = np.isfinite(observed)
    ok = np.isfinite(draws[:, seen]).all(axis=1)
    some = np.flatnonzero(ok)[thinned(int(ok.sum()), _DRAWS)]
    return draws[some][:, seen], observed[seen]


def coverage_finding(own: Ensembles, scored: Ensembles, data: Mapping[Any, Any]) -> Finding:
    r"""Test whether a forecast is overconfident, and whether these data could have shown it.

    A forecast is called overconfident if less than 1 % of calibrated forecasts are as bad in one of
    these tests:

    1. Too many values lie outside the 90 % intervals, by the PIT: among all values, or in a group
    of
       values by size of the forecast. For correlated errors, the effective number of values comes
       from the correlation of the normal scores $z = \Phi^{-1}(\mathrm{PIT})$.
    2. Too few values lie inside, or the mean CRPS is too high, compared with data simulated from
       the forecast. Their errors are as correlated as the forecast expects.

    Otherwise the forecast is good if the data rule out a coverage below one half. It is
    inconclusive if the data do not. This uses the smaller of the effective numbers of values in
    tests 1 and 2.

    Args:
        own: draws `(draw, datum)` and observations `(datum,)` by observable.
        scored: draws and values from `finite_at`, by observable.
        data: the data by observable, with time as first dimension; only their shapes are used.

    Returns:
        The finding.

    Source: Czado, Gneiting & Held (2009), Predictive model assessment for count data, for the PIT
    of counts.
    """
    # 1. Coverage of all values and of groups by size of forecast, by the PIT.
    found, *groups = _hits(own, scored, data)
    # 2. Coverage and CRPS, compared with data that the forecast simulates.
    fewer, further, ratio, worth = _beside_replicates(scored, found)
    by_own = 2 * min(fewer, further)
    name, worst = min(zip(_GROUPS, groups, strict=True), key=lambda group: group[1].chance)
    # Bonferroni: any of the groups may look odd by chance.
    by_group = len(groups) * worst.chance
    odd = min(by_own, found.chance, by_group)
    message = f"the 90 % intervals hold {found}"
    if odd >= DOUBTFUL:
        # 3. Nothing is odd: ask how low a coverage these data would have shown.
        worth = min(worth, found.worth)
        low = found.not_below(worth)
        if worth <= 0.9 * found.number:
            message += f", worth about {worth:.2g} independent ones"
        good = low >= _LEAST
        ruled = "is ruled out" if good else "is not ruled out"
        below = f"below {low:.0%}" if good else f"of {max(low, 0.01):.0%}"
        return model_finding(
            "good" if good else "inconclusive",
            _SUBJECT,
            f"{message}; a coverage {below} {ruled}",
            _TOO_FEW,
        )
    said = []
    if by_own < DOUBTFUL:
        if further < fewer:
            said.append(f"their CRPS is {ratio:.2g} times the one that the forecast expects")
        often = min(fewer, further)
        share = "none" if often < 1 / _REPLICATES else f"{often:.1%}"
        said.append(f"{share} of the data sets that the forecast simulates itself fare as badly")
    elif found.chance < DOUBTFUL:
        said.append(
            f"worth about {found.worth:.2g} independent ones, of which so many miss by chance in "
            f"{_rare(found)}"
        )
    if by_group < DOUBTFUL:
        said.append(f"at the {name} of forecasts they hold {worst}, by chance in {_rare(worst)}")
    level: Level = "bad" if odd < ABSURD or found.inside < found.number / 2 else "warning"
    return model_finding(level, _SUBJECT, "; ".join([message, *said]), _TOO_SURE)


def _hits(own: Ensembles, scored: Ensembles, data: Mapping[Any, Any]) -> Iterator[_Hits]:
    """Yield the counts of all held-out values, then of each group by size of the forecast.

    Arguments are as for `coverage_finding`.
    """
    # Importing SciPy's statistics takes a second, so only where it is needed.
    from scipy.stats import rankdata

    rng = np.random.default_rng(0)
    held, normal, size = [], [], []
    for name in scored:
        draws, observed = own[name]
        seen = np.isfinite(observed)
        grids = np.full((3, observed.size), np.nan)
        grids[0] = covered(draws, observed, 90)
        grids[1, seen] = ndtri(np.clip(ranks(*scored[name], rng), 1e-12, 1 - 1e-12))
        # The share of forecasts that are smaller; equal ones, such as zeros, stay together.
        grids[2, seen] = (rankdata(np.median(scored[name][0], axis=0)) - 0.5) / seen.sum()
        for kind, grid in zip((held, normal, size), grids, strict=True):
            kind.append(grid.reshape(data[name].shape))
    yield _hits_of(held, normal)
    for low, high in _GROUPS.values():
        inside = [(low <= share) & (share < high) for share in size]
        of_group = [np.where(*pair, np.nan) for pair in zip(inside, normal, strict=True)]
        yield _hits_of(held, of_group)


def _hits_of(held: Sequence[np.ndarray], normal: Sequence[np.ndarray]) -> _Hits:
    """Return the counts of values whose normal scores are known.

    Args:
        held: for each observable, 1 for values inside the 90 % interval and 0 for others.
        normal: for each observable, the normal scores; NaN for values that are not counted.
    """
    z = np.concatenate([grid.ravel() for grid in normal])
    known = np.isfinite(z)
    inside = int(np.nansum(np.concatenate([grid.ravel() for grid in held])[known]))
    missed = int((np.abs(z[known]) > ndtri(1 - _OUTSIDE / 2)).sum())
    return _Hits(inside, max(int(known.sum()), 1), missed, max(independent_hits(normal), 1.0))


def _beside_replicates(scored: Ensembles, found: _Hits) -> tuple[float, float, float, float]:
    """Compare data with data simulated from the forecast.

    If all values share nearly the same error, the intervals of a tenth of calibrated forecasts hold
    no value. Then only the CRPS can show overconfidence.

    Args:
        scored: draws and values from `finite_at`, by observable.
        found: the counts of all values.

    Returns:
        The share of simulated data with as few values inside; the share with as high a CRPS; the
        ratio of the CRPS to its expectation; and the number of independent values.
    """
    counts = np.zeros(min(len(draws) for draws, _ in scored.values()))
    independent = 0.0
    for draws, _ in scored.values():
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside = (low <= draws) & (draws <= high)
        # Draws are correlated in time as the forecast expects of the truth, so they show how much a
        # share varies.
        counts += inside.sum(axis=1)[: len(counts)]
        share = inside.mean(axis=0)
        independent += float((share * (1 - share)).sum())
    worth = found.number * min(independent / max(float(counts.var()), 1e-12), 1.0)
    ratio, usual = _distance(scored)
    return share_beyond(-counts, -found.inside), share_beyond(usual, ratio), ratio, max(worth, 1.0)


def _distance(scored: Ensembles) -> tuple[float, np.ndarray]:
    """Return the mean CRPS of data and of simulated data, in units of its expectation.

    Returns:
        The mean CRPS of the data, and of each simulated data set.
    """
    blocks = []
    for draws, observed in scored.values():
        some = thinned(observed.size, _VALUES)
        made = draws[thinned(len(draws), _REPLICATES)]
        targets = np.concatenate([observed[None, some], made[:, some]])
        crps = np.stack([*map(crps_at, draws[:, some].T, targets.T)], axis=1)
        # A forecast without any spread is infinitely far from a datum in such units.
        with np.errstate(over="ignore"):
            ratios = crps / np.maximum(crps[1:].mean(axis=0), 1e-300)
        blocks.append(np.clip(ratios, 0.0, _FARTHEST))
    shortest = min(map(len, blocks))
    means = np.concatenate([block[:shortest] for block in blocks], axis=1).mean(axis=1)
    # Values whose replicates are all zero add nothing to the expected CRPS, so the mean may be
    # below one.
    means /= max(float(means[1:].mean()), 1 / _FARTHEST)
    return float(means[0]), means[1:]


def _rare(hits: _Hits) -> str:
    """Return in words how often so many values miss by chance."""
    return "less than 0.1% of cases" if hits.chance < ABSURD else f"{hits.chance:.1%} of cases"

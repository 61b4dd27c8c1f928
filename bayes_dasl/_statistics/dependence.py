"""The information in dependent values: variance inflation, and standard errors of means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Upper limit of an estimated lag-one correlation.
_HIGHEST = 0.99
# The fewest independent values from which a variance can be estimated.
_FEWEST = 2.0


def error_of_mean(grids: Sequence[np.ndarray]) -> float:
    r"""Return the standard error of the mean of values that may depend on one another.

    $\hat\sigma^2 = s^2 / (n / \tau - 1)$ for $n$ values with the mean square deviation $s^2$ and
    the variance inflation $\tau$. $\tau$ is the product of factors for each axis. Each factor is
    the larger of two estimates: a first-order autoregression with bias-corrected correlation, and
    the sum of correlations up to the first that is not positive.

    Args:
        grids: one array for each observable, time as its first axis and groups or places as the
            others; NaN where there is no value. Arrays of the same shape are taken to belong to the
            same times.

    Returns:
        The standard error; infinite for fewer than two values.

    Source: Kendall (1954), Note on bias in the estimation of autocorrelation; Geyer (1992) on sums
    of correlations.
    """
    total = sum(_finite_number(grid) for grid in grids)
    if total < _FEWEST:
        return np.inf
    variance = 0.0
    for stack in _stacks([grid - np.nanmean(grid) for grid in grids if _finite_number(grid)]):
        # 1. The variance inflation is the product of those along each axis.
        number = _finite_number(stack)
        worth = 1.0
        for rows in _along_each_axis(stack):
            worth *= max(_autoregressive(rows), _summed(rows, power=1))
        independent = max(number / worth, _FEWEST)
        # 2. The variance of the mean of these grids,
        #    times (n / total)², since the mean is over all grids.
        variance += np.nansum(stack**2) / number / (independent - 1) * (number / total) ** 2
    return float(np.sqrt(variance))


def independent_hits(grids: Sequence[np.ndarray]) -> float:
    r"""Return the number of independent values that determine a coverage as well as dependent ones.

    Whether an interval holds a value depends on the absolute normal score $|z|$. For two normal
    scores with correlation $r$, these events have a correlation of at most $r^2$. So $n$ values
    have as much information as $n / (1 + 2 \sum_k r_k^2)$ independent ones, with the correlation
    $r_k$ at lag $k$. Correlations are taken about zero, the mean under a calibrated forecast. So an
    error shared by all values counts as dependence.

    Args:
        grids: normal scores, one array for each observable, as in `error_of_mean`.

    Returns:
        The number, between one and the number of values; zero without any value.
    """
    found = 0.0
    for stack in _stacks(_with_aligned_signs(grids)):
        inflation = np.prod([_summed(rows, power=2) for rows in _along_each_axis(stack)])
        # At least one value, if there is any.
        number = _finite_number(stack)
        found += max(number / float(inflation), min(number, 1))
    return found


def _with_aligned_signs(grids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Change the sign of observables that correlate negatively with the first; |z| is unchanged."""
    first = grids[0] if len(grids) else np.zeros(0)
    return [-g if g.shape == first.shape and np.nansum(g * first) < 0 else g for g in grids]


def _stacks(grids: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the arrays of each shape as one array, with the observables as last axis."""
    for shape in dict.fromkeys(grid.shape for grid in grids):
        yield np.stack([grid for grid in grids if grid.shape == shape], axis=-1)


def _along_each_axis(stack: np.ndarray) -> Iterator[np.ndarray]:
    """Yield all series along each axis in turn, as arrays `(series, position)`.

    Gaps in a series are closed, and NaN moved to its end.
    """
    for axis in range(stack.ndim):
        rows = np.moveaxis(stack, axis, -1).reshape(-1, stack.shape[axis])
        order = np.argsort(np.isnan(rows), axis=1, kind="stable")
        yield np.take_along_axis(rows, order, axis=1)


def _correlations(rows: np.ndarray) -> Iterator[tuple[float, float]]:
    """Yield the correlation about zero at lags 1, 2, …, and its number of pairs per value.

    Args:
        rows: series `(series, position)`, NaN where there is no value.
    """
    seen = np.isfinite(rows)
    values = np.where(seen, rows, 0.0)
    number = max(int(seen.sum()), 1)
    square = max((values**2).sum() / number, 1e-300)
    for lag in range(1, rows.shape[1]):
        pairs = int((seen[:, lag:] & seen[:, :-lag]).sum())
        if not pairs:
            return
        product = (values[:, lag:] * values[:, :-lag]).sum() / pairs
        yield float(np.clip(product / square, -1.0, 1.0)), pairs / number


def _summed(rows: np.ndarray, *, power: int) -> float:
    """Return the variance inflation from all correlations up to the first that is not positive.

    Args:
        rows: series `(series, position)`.
        power: the power to which correlations are raised.
    """
    inflation = 1.0
    for correlation, share in _correlations(rows):
        if correlation <= 0:
            break
        inflation += 2 * share * correlation**power
    return inflation


def _autoregressive(rows: np.ndarray) -> float:
    """Return the variance inflation of a first-order autoregression fitted to series."""
    correlation, _ = next(_correlations(rows), (0.0, 0.0))
    lengths = np.isfinite(rows).sum(axis=1)
    number = int(lengths.sum())
    # Subtracting the sample mean biases the correlation downwards (Kendall 1954).
    correlation = float(np.clip(correlation + (1 + 3 * correlation) / number, 0.0, _HIGHEST))
    lags = np.arange(1, rows.shape[1])
    # τ = 1 + 2 Σ_k (pairs at lag k / values) r^k.
    pairs = np.maximum(lengths[:, None] - lags, 0).sum(axis=0)
    return 1 + 2 * float((pairs * correlation**lags).sum()) / number


def _finite_number(grid: np.ndarray) -> int:
    """Return the number of finite values."""
    return int(np.isfinite(grid).sum())

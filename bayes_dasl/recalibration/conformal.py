"""Finite-sample quantiles of conformal prediction."""

import numpy as np
from jaxtyping import Float

FEWEST = 9
"""The fewest sizes of errors that determine the 90 % interval, which figures draw."""
BY_SIDES = 39
"""The fewest errors that determine the 95 % interval on each side by itself."""


def largest_level(number: float, *, by_sides: bool) -> float:
    """Return the largest central mass whose interval this many errors determine.

    Args:
        number: the number of independent errors of equal weight that they are worth.
        by_sides: whether each side has its own quantiles, rather than both those of sizes.

    Returns:
        The mass, below 1.
    """
    return (number - 1) / (number + 1) if by_sides else number / (number + 1)


def next_quantiles(
    errors: Float[np.ndarray, " error"],
    weights: Float[np.ndarray, " error"],
    levels: Float[np.ndarray, " level"],
    number: float,
    *,
    by_sides: bool,
) -> Float[np.ndarray, " level"]:
    r"""Quantiles of the next error, from exchangeable earlier errors.

    The next error exceeds the $k$-th smallest of $n$ errors with probability $1 - k / (n + 1)$. So
    its quantile of level $p$ is the $p (n + 1)$-th smallest error, interpolated between errors. It
    stays constant beyond the first and the last error, where nothing is known. With weights, or
    several errors of one origin, $n$ is `number`.

    Args:
        errors: the errors with their signs.
        weights: the weight of each.
        levels: levels from 0 to 1.
        number: the number of independent errors of equal weight that they are worth.
        by_sides: whether each side has its own quantiles, rather than both those of sizes.

    Returns:
        The quantile of each level.

    Source: Vovk, Gammerman & Shafer (2005), Algorithmic Learning in a Random World; Johansson et
    al. (2015), Handling small calibration sets in Mondrian inductive conformal regressors, for the
    interpolation; Barber et al. (2023), Conformal prediction beyond exchangeability, for the
    weights.
    """
    if by_sides:
        known = np.clip(levels, 1 / (number + 1), number / (number + 1))
        return _weighted_quantiles(errors, weights, known, number)
    # Symmetric quantiles: a level p belongs to the central interval of mass |2p - 1|.
    central = np.minimum(np.abs(2 * levels - 1), largest_level(number, by_sides=False))
    sizes = _weighted_quantiles(np.abs(errors), weights, central, number, least=0.0)
    return np.sign(levels - 0.5) * sizes


def _weighted_quantiles(
    values: np.ndarray,
    weights: np.ndarray,
    levels: np.ndarray,
    number: float,
    least: float | None = None,
) -> np.ndarray:
    """Interpolated weighted quantiles of the next value; `least` is a lower bound of values."""
    order = np.argsort(values, kind="stable")
    values = values[order]
    weights = weights[order]
    below = (np.cumsum(weights) - weights / 2) / weights.sum()
    # The mass below each value, with half of its own.
    if least is not None:
        # The bound is the quantile of level 0.
        values = np.append(least, values)
        below = np.append(-0.5 / number, below)
    return np.interp(levels + (levels - 0.5) / number, below, values)

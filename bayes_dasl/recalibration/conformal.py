"""Finite-sample quantiles of conformal prediction."""

import numpy as np
from jaxtyping import Float

FEWEST = 9
"""The fewest absolute errors from which the 90 % interval of figures can be computed."""
BY_SIDES = 39
"""The fewest errors from which lower and upper ends of the 95 % interval can be separate."""


def largest_level(number: float, *, by_sides: bool) -> float:
    """Return the largest central probability whose interval can be computed from the errors.

    Args:
        number: the effective number of errors.
        by_sides: whether lower and upper quantiles are computed separately from signed errors.
            Otherwise both come from absolute errors.

    Returns:
        The probability, below 1.
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
    r"""Compute quantiles of the next error from exchangeable earlier errors.

    The next error exceeds the $k$-th smallest of $n$ errors with probability $1 - k / (n + 1)$. So
    its quantile of level $p$ is the $p (n + 1)$-th smallest error, interpolated between errors. The
    quantile is constant beyond the first and the last error, where nothing is known. With weights,
    or several errors per origin, $n$ is the effective number `number`.

    Args:
        errors: the signed errors.
        weights: the weight of each error.
        levels: levels from 0 to 1.
        number: the effective number of errors: the number of independent errors of equal weight
            with the same information.
        by_sides: whether lower and upper quantiles are computed separately from signed errors.
            Otherwise both come from absolute errors, and are symmetric.

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
    """Return quantiles of the next value, interpolated between weighted earlier values.

    Args:
        values: earlier values, `(value,)`.
        weights: the weight of each value.
        levels: levels of the quantiles, from 0 to 1.
        number: the effective number of values.
        least: the lower bound of all values, which is the quantile of level 0. With None, quantiles
            of low levels are the smallest value.
    """
    order = np.argsort(values, kind="stable")
    values = values[order]
    weights = weights[order]
    below = (np.cumsum(weights) - weights / 2) / weights.sum()
    # `below` is the share of weight below each value, plus half the weight of the value.
    if least is not None:
        # The bound is the quantile of level 0.
        values = np.append(least, values)
        below = np.append(-0.5 / number, below)
    return np.interp(levels + (levels - 0.5) / number, below, values)

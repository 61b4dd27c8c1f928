"""Finite-sample quantiles of conformal prediction."""

import numpy as np
from jaxtyping import Float

FEWEST = 9
"""So many sizes of errors tell the 90 % interval, which figures draw."""
BY_SIDES = 39
"""So many errors tell the 95 % interval on each side by itself."""


def largest_level(number: float, *, by_sides: bool) -> float:
    """The mass of the largest central interval that so many errors determine.

    Args:
        number: of errors, or as how many independent ones of equal weight they count.
        by_sides: whether each side is told by itself, rather than both by the sizes of errors.
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
    r"""Quantiles of one more error, from errors that are like it.

    The next one exceeds the $k$-th smallest of $n$ exchangeable errors with probability
    $1 - k / (n + 1)$: so the quantile of level $p$ is the $p (n + 1)$-th smallest one, interpolated
    where that is no whole number. Beyond the first and the last nothing is known, and the quantile
    stays there. With weights, or several errors of one origin, the step from $p n$ to $p (n + 1)$
    is that of `number` errors.

    Args:
        errors: with their signs.
        weights: of each.
        levels: from 0 to 1.
        number: as how many independent errors of equal weight they count.
        by_sides: whether each side is told by itself; else the sizes of errors tell both.

    Source: Vovk, Gammerman & Shafer (2005), Algorithmic Learning in a Random World; Johansson et
    al. (2015), Handling small calibration sets in Mondrian inductive conformal regressors, for the
    interpolation; Barber et al. (2023), Conformal prediction beyond exchangeability, for the
    weights.
    """
    if by_sides:
        return _weighted_quantiles(
            errors, weights, np.clip(levels, 1 / (number + 1), number / (number + 1)), number
        )
    central = np.minimum(np.abs(2 * levels - 1), largest_level(number, by_sides=False))
    return np.sign(levels - 0.5) * _weighted_quantiles(
        np.abs(errors), weights, central, number, least=0.0
    )


def _weighted_quantiles(
    values: np.ndarray,
    weights: np.ndarray,
    levels: np.ndarray,
    number: float,
    least: float | None = None,
) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    below = (np.cumsum(weights) - weights / 2) / weights.sum()
    if least is not None:
        # No size can be less, at level 0.
        values, below = np.append(least, values), np.append(-0.5 / number, below)
    return np.interp(levels + (levels - 0.5) / number, below, values)

"""Draws compared with data: coverage of intervals, ranks of data among draws, and the CRPS."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from .._statistics.blocks import blocks_of, draws_at

type Ensembles = Mapping[str, tuple[np.ndarray, np.ndarray]]


def by_chain(variable: xr.DataArray) -> np.ndarray:
    """Return draws by chain, with all dimensions but chain and draw flattened.

    Args:
        variable: draws with the dimensions `chain` and `draw`.

    Returns:
        The draws `(chain, draw, value)`.
    """
    values = variable.transpose("chain", "draw", ...).values
    return values.reshape(*values.shape[:2], math.prod(values.shape[2:]))


def merged(variable: xr.DataArray) -> np.ndarray:
    """Return draws of all chains, with all other dimensions flattened.

    Args:
        variable: draws with the dimensions `chain` and `draw`.

    Returns:
        The draws `(draw, value)`, all chains one after the other.
    """
    draws = by_chain(variable)
    return draws.reshape(draws.shape[0] * draws.shape[1], draws.shape[2])


def covered(draws: np.ndarray, observed: np.ndarray, level: int) -> np.ndarray:
    """Return whether the central interval of the draws holds each datum.

    Args:
        draws: draws `(draw, datum)`.
        observed: the data, NaN where missing.
        level: the probability of the interval in per cent.

    Returns:
        1 or 0 for each datum; NaN where the datum is missing or has no finite draw.
    """
    found = np.full(observed.size, np.nan)
    for times, obs, fct in complete(draws, observed):
        low, high = central(fct, level / 100)
        found[times] = (low <= obs) & (obs <= high)
    return found


def mean_crps(draws: np.ndarray, observed: np.ndarray) -> float:
    """Return the mean fair CRPS over the data that have finite draws.

    Args:
        draws: draws `(draw, datum)`.
        observed: the data, NaN where missing.

    Returns:
        The mean; NaN without such data.
    """
    at = [fair_crps(obs, fct) for _, obs, fct in complete(draws, observed)]
    return float(np.concatenate(at).mean()) if at else np.nan


def crps_at(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Return the fair CRPS of one forecast at many values.

    $\frac{1}{m} \sum_i |x_i - y| - \frac{1}{2 m (m - 1)} \sum_{i,j} |x_i - x_j|$

    Args:
        draws: the $m$ draws $x_i$ of the forecast.
        y: the values $y$.

    Returns:
        One score for each value.
    """
    # Both sums follow from the sorted draws and their cumulative sums, without a matrix of pairs.
    ordered = np.sort(draws)
    m = len(draws)
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    below = np.searchsorted(ordered, y)
    distance = (y * (2 * below - m) + total[-1] - 2 * total[below]) / m
    weighted = ordered * (2 * np.arange(m) - m + 1)
    between = 2 * np.sum(weighted) / (m * max(m - 1, 1))
    return distance - between / 2


def ranks(draws: np.ndarray, observed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the probability integral transform (PIT) of data among draws, randomised at ties.

    Args:
        draws: finite draws `(draw, datum)`.
        observed: the data, NaN where missing.
        rng: the generator for ties.

    Returns:
        The PIT of each datum; NaN where the datum is missing or there is no draw.
    """
    below = (draws < observed).sum(axis=0)
    equal = (draws == observed).sum(axis=0)
    uniform = rng.uniform(size=observed.size)
    values = (below + uniform * (equal + 1)) / (draws.shape[0] + 1)
    return np.where(np.isfinite(observed) & (draws.shape[0] > 0), values, np.nan)


def lower_by(ours: np.ndarray, theirs: np.ndarray, number: np.ndarray) -> float:
    """Return by which share the mean scores `theirs` are lower than `ours`, averaged over all data.

    Args:
        ours: the mean score of each observable.
        theirs: the mean score of each observable in another forecast.
        number: the number of data of each observable, which weights the average.

    Returns:
        The share; NaN if a score of an observable with data is unknown or ours is not positive.
    """
    known = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0)
    if not known.any() or not known[number > 0].all():
        return np.nan
    return float(np.average(1 - theirs[known] / ours[known], weights=number[known]))


def complete(
    draws: np.ndarray, observed: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Group data that have the same finite draws.

    Args:
        draws: draws `(draw, datum)`.
        observed: the data, NaN where missing.

    Yields:
        For each group: a mask over all data; the data of the group; and its finite draws
        `(datum, draw)`. Missing data, and data without a finite draw, are in no group.
    """
    # Scores of a whole group are vectorised; most forecasts have one group.
    finite = np.isfinite(draws)
    seen = np.isfinite(observed)
    for pattern in np.unique(finite[:, seen], axis=1).T:
        times = seen & (finite == pattern[:, None]).all(axis=0)
        if pattern.any():
            yield times, observed[times], draws[pattern][:, times].T


def finite_throughout(draws: xr.DataArray) -> np.ndarray:
    """Return which draws of a forecast are finite at all data, reading block by block.

    Args:
        draws: draws `(chain, draw, …)`.

    Returns:
        A flag for each draw of all chains.
    """
    return np.all([finite(draws_at(draws, at)) for at in blocks_of(draws)], axis=0)


def finite(draws: np.ndarray) -> np.ndarray:
    """Return which draws `(draw, datum)` are finite at all data.

    Returns:
        A flag for each draw.
    """
    return np.all(np.isfinite(draws), axis=1)


def central(fct: np.ndarray, mass: float) -> np.ndarray:
    """Return the ends of the central interval of draws with a given probability mass.

    Args:
        fct: draws `(datum, draw)`.
        mass: the probability mass, between 0 and 1.

    Returns:
        The lower ends and the upper ends, `(2, datum)`.
    """
    return np.quantile(fct, [(1 - mass) / 2, (1 + mass) / 2], axis=1)


def fair_crps(obs: np.ndarray, fct: np.ndarray) -> np.ndarray:
    """Return the fair CRPS of draws at the data.

    Args:
        obs: the data, `(datum,)`.
        fct: draws `(datum, draw)`.

    Returns:
        One score for each datum.
    """
    import scoringrules

    # The fair (probability-weighted-moment) estimator divides by m - 1.
    estimator = "pwm" if fct.shape[1] > 1 else "nrg"
    return np.reshape(scoringrules.crps_ensemble(obs, fct, estimator=estimator), obs.shape)

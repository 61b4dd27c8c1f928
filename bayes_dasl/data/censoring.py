"""Censored data: the bounds of each datum, and forecasts made comparable with such data."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import DataError

ENDS = ("_low", "_high", "_least", "_most")
"""Suffixes of coordinates: lower and upper bound of a datum; lower and upper detection limit."""
BELOW = "censored_below"
ABOVE = "censored_above"
CODE = "_censored"
LIMIT = "_limit"
"""Suffixes of variables: the flag of censoring, and the other bound of an interval."""


def known_between(values: Any, code: Any, limit: Any, below: Any, above: Any) -> tuple[Any, Any]:
    """Return the bounds of each value; an uncensored value is both its lower and its upper bound.

    Args:
        values: data; a censored one holds one of its bounds.
        code: 1 for left-censored, at most the value; −1 for right-censored, at least the value.
            Others are uncensored.
        limit: the other bound of a censored value; NaN if there is none.
        below: the lower detection limit. A value at or below it is known only to be at most the
            limit.
        above: the upper detection limit. A value at or above it is known only to be at least the
            limit.

    Returns:
        Lower bounds and upper bounds, infinite where there is none.
    """
    xp = jnp if any(isinstance(v, jax.Array) for v in (values, code, limit)) else np
    left = code == 1
    right = code == -1
    low = xp.where(left, xp.where(xp.isnan(limit), -xp.inf, limit), values)
    high = xp.where(right, xp.where(xp.isnan(limit), xp.inf, limit), values)
    low = xp.where(values <= below, -xp.inf, low)
    high = xp.where(values <= below, below, high)
    return xp.where(values >= above, above, low), xp.where(values >= above, xp.inf, high)


def refuse_censored(data: xr.Dataset, observable: str, read: Collection[str]) -> None:
    """Raise DataError if data are censored and the noise does not read the flags.

    Args:
        data: a dataset, which may hold the flags `<observable>_censored`.
        observable: the observable.
        read: names of the variables that the noise of the observable reads.
    """
    name = observable + CODE
    if name not in data or name in read or data[name].dtype.kind not in "iufb":
        return
    if bool((data[name].fillna(0) != 0).any()):
        raise DataError(
            f"'{name}' says that values of '{observable}' are censored, but the noise takes them "
            "as seen: put bd.noise.Censored(…) around it, without limits of its own, or leave "
            f"'{name}' out of the data"
        )


def with_bounds(
    values: xr.DataArray, data: xr.Dataset, attributes: Mapping[str, Any]
) -> xr.DataArray:
    """Add the bounds of censored data to an observable, as coordinates.

    `<name>_low` and `<name>_high` are the bounds of each datum. `<name>_least` and `<name>_most`
    are the lower and the upper detection limit of each datum: a value beyond them would be
    censored.

    Args:
        values: the observable.
        data: a dataset with flags of censoring, or one that already has these coordinates.
        attributes: attributes of the forecast or the data. `censored_below` and `censored_above`,
            if present, are detection limits for all values.

    Returns:
        The observable with these coordinates; unchanged if nothing is censored.
    """
    name = str(values.name)
    dims = values.dims
    if name + ENDS[0] in data.variables:
        return values.assign_coords({name + end: data[name + end] for end in ENDS})
    beside = {part: data[name + part] for part in (CODE, LIMIT) if name + part in data.variables}
    of_each = {
        part: v.transpose(*dims).values for part, v in beside.items() if set(v.dims) == set(dims)
    }
    limits = attributes.get(BELOW, -np.inf), attributes.get(ABOVE, np.inf)
    code = of_each.get(CODE, 0.0)
    limit = of_each.get(LIMIT, np.nan)
    low, high = known_between(values.values, code, limit, *limits)
    if not bool(np.any((low != high) & ~np.isnan(values.values))):
        return values
    found = (low, high, *_seen_between(values.values, low, high))
    named = zip(ENDS, found, strict=True)
    return values.assign_coords({name + end: (dims, bound) for end, bound in named})


def _seen_between(
    y: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper detection limit of each datum, from the other censored data.

    The lower limit is the largest bound of left-censored data that is not above the datum. The
    upper limit is the smallest bound of right-censored data that is not below it.

    Args:
        y: data.
        low: the lower bound of each datum.
        high: the upper bound of each datum.
    """
    below = np.unique(high[np.isinf(low)])
    above = np.unique(low[np.isinf(high)])
    below = np.concatenate([[-np.inf], below])
    above = np.concatenate([above, [np.inf]])
    last = np.searchsorted(below[1:], np.nan_to_num(y), side="right")
    first = np.searchsorted(above[:-1], np.nan_to_num(y), side="left")
    return below[last], above[first]


def bounds(observed: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds of an observable, `(datum,)` each.

    If nothing is censored, both are the values of the observable.
    """
    return _coordinates_beside(observed, *ENDS[:2])


def _coordinates_beside(observed: xr.DataArray, *names: str) -> Any:
    """Return coordinates `(datum,)` of an observable by the suffixes of their names.

    An absent coordinate is replaced by the values of the observable.
    """
    values = observed.values.ravel()
    coords = observed.coords
    ends = (coords.get(f"{observed.name}{name}") for name in names)
    return tuple(
        values if end is None else end.transpose(*observed.dims).values.ravel() for end in ends
    )


def alike(draws: np.ndarray, observed: xr.DataArray) -> np.ndarray:
    """Replace draws `(draw, datum)` by the values that would be reported for them.

    A draw beyond a detection limit becomes the limit. A draw within the bounds of a censored datum
    becomes equal to the datum. Scores of the replaced draws stay proper: a correct forecast has the
    best expected score.

    Args:
        draws: the draws.
        observed: the observable, with the coordinates of `with_bounds` if data are censored.

    Returns:
        The replaced draws; the draws themselves if nothing is censored.
    """
    if f"{observed.name}{ENDS[0]}" not in observed.coords:
        return draws
    low, high, least, most = _coordinates_beside(observed, *ENDS)
    y = observed.values.ravel()
    # 1. A draw beyond a detection limit would be reported at the limit.
    draws = np.clip(draws, least, most)
    # 2. A draw within the bounds of a datum becomes the datum. Any other draw keeps its distance
    # to the nearest bound, measured from the datum.
    beyond = np.where(draws < low, y - low, 0.0) + np.where(draws > high, y - high, 0.0)
    return np.where((low <= draws) & (draws <= high), y, draws + beyond)


def completed(draws: np.ndarray, observed: xr.DataArray) -> np.ndarray:
    """Replace each censored datum by a random draw within its bounds.

    If the forecast is correct, the completed data are distributed like uncensored data. A datum
    without a draw within its bounds is unchanged.

    Args:
        draws: draws `(draw, datum)` of the forecast.
        observed: the observable, with the coordinates of `with_bounds` if data are censored.

    Returns:
        The completed data, `(datum,)`.
    """
    low, high = bounds(observed)
    values = observed.values.ravel().astype(float)
    # A fixed seed, so that the same fit gives the same verdict.
    rng = np.random.default_rng(0)
    for i in np.flatnonzero((low != high) & ~np.isnan(values)):
        inside = draws[(low[i] <= draws[:, i]) & (draws[:, i] <= high[i]), i]
        values[i] = rng.choice(inside) if inside.size else values[i]
    return values

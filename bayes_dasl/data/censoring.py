"""Censored data: bounds of each value, and forecasts and data as far as bounds can tell."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import DataError

ENDS = ("_low", "_high", "_least", "_most")
"""Suffixes of coordinates: the bounds of each datum, and the limits of what can be seen."""
BELOW = "censored_below"
ABOVE = "censored_above"
CODE = "_censored"
LIMIT = "_limit"
"""Suffixes of variables: the flag of censoring, and the other bound of an interval."""


def known_between(values: Any, code: Any, limit: Any, below: Any, above: Any) -> tuple[Any, Any]:
    """Return the bounds of values: the value itself, twice, where it was seen.

    Args:
        values: data; a censored one holds one of its bounds.
        code: 1 for left-censored, at most the value; −1 for right-censored, at least the value.
        limit: the other bound of a censored value; NaN for none.
        below: values at or below it lie anywhere there.
        above: values at or above it lie anywhere there.

    Returns:
        Lower and upper bound of each value.
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
    """Raise DataError if data are censored and the noise does not read the flags."""
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
    are the limits beyond which it would not have been seen.

    Args:
        values: the observable.
        data: a dataset with flags of censoring, or with these coordinates.
        attributes: may hold limits that apply to all values.

    Returns:
        The observable, unchanged if nothing is censored.
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
    """Return the limits of what can be seen, as far as other censored data show them.

    A datum beyond the limit at which another one is censored would be censored there too.
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

    They are the values themselves if nothing is censored.
    """
    return _coordinates_beside(observed, *ENDS[:2])


def _coordinates_beside(observed: xr.DataArray, *names: str) -> Any:
    """Return coordinates of an observable by suffix, `(datum,)`; the values where one is absent."""
    values = observed.values.ravel()
    coords = observed.coords
    ends = (coords.get(f"{observed.name}{name}") for name in names)
    return tuple(
        values if end is None else end.transpose(*observed.dims).values.ravel() for end in ends
    )


def alike(draws: np.ndarray, observed: xr.DataArray) -> np.ndarray:
    """Move draws `(draw, datum)` as far as data cannot distinguish them.

    Scores of such draws are scores of a forecast of reported values. They stay proper: a correct
    forecast has the best expected score.

    Args:
        draws: the draws.
        observed: the observable with its bounds.

    Returns:
        The moved draws.
    """
    if f"{observed.name}{ENDS[0]}" not in observed.coords:
        return draws
    low, high, least, most = _coordinates_beside(observed, *ENDS)
    y = observed.values.ravel()
    # 1. A draw beyond the limit of what can be seen would be reported at the limit.
    draws = np.clip(draws, least, most)
    # 2. A draw within the bounds of a datum equals it; others keep their distance to the bound.
    beyond = np.where(draws < low, y - low, 0.0) + np.where(draws > high, y - high, 0.0)
    return np.where((low <= draws) & (draws <= high), y, draws + beyond)


def completed(draws: np.ndarray, observed: xr.DataArray) -> np.ndarray:
    """Complete data `(datum,)`: each censored datum becomes a draw within its bounds.

    If the forecast is correct, the result is distributed like uncensored data. A datum stays as it
    is if no draw lies within its bounds.
    """
    low, high = bounds(observed)
    values = observed.values.ravel().astype(float)
    # A fixed seed, so that the same fit gives the same verdict.
    rng = np.random.default_rng(0)
    for i in np.flatnonzero((low != high) & ~np.isnan(values)):
        inside = draws[(low[i] <= draws[:, i]) & (draws[:, i] <= high[i]), i]
        values[i] = rng.choice(inside) if inside.size else values[i]
    return values

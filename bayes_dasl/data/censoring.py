"""Censored data: what variables beside an observable say of its values, and within which bounds
these then lie.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import DataError

ENDS = ("_low", "_high", "_least", "_most")
"""Of coordinates beside an observable: the bounds of each datum, and those beyond which it would
not be seen.
"""
BELOW, ABOVE = "censored_below", "censored_above"
CODE, LIMIT = "_censored", "_limit"
"""Of the variables beside an observable that say whether a value is censored, and what its other
bound is.
"""


def known_between(values: Any, code: Any, limit: Any, below: Any, above: Any) -> tuple[Any, Any]:
    """The bounds within which values lie: the value itself, twice, where it is seen.

    A value of code 1 lies at or below the one given, of −1 at or above it, and within its `limit`
    unless that is NaN; one at or below `below` lies anywhere there, and so one at or above `above`.
    """
    xp = jnp if any(isinstance(v, jax.Array) for v in (values, code, limit)) else np
    left, right = code == 1, code == -1
    low = xp.where(left, xp.where(xp.isnan(limit), -xp.inf, limit), values)
    high = xp.where(right, xp.where(xp.isnan(limit), xp.inf, limit), values)
    low, high = xp.where(values <= below, -xp.inf, low), xp.where(values <= below, below, high)
    return xp.where(values >= above, above, low), xp.where(values >= above, xp.inf, high)


def refuse_censored(data: xr.Dataset, observable: str, read: Collection[str]) -> None:
    """Raise DataError where data are censored and the noise, which reads some variables, does not
    know.
    """
    name = observable + CODE
    if name not in data or name in read or data[name].dtype.kind not in "iufb":
        return
    if bool((data[name].fillna(0) != 0).any()):
        raise DataError(
            f"'{name}' says that values of '{observable}' are censored, but the noise takes them "
            "as seen: put "
            f"bd.noise.Censored(…) around it, without limits of its own, or leave '{name}' out of "
            "the data"
        )


def with_bounds(
    values: xr.DataArray, data: xr.Dataset, attributes: Mapping[str, Any]
) -> xr.DataArray:
    """An observable with coordinates that say within which bounds its values lie, and which can be
    seen at all.

    `<name>_low` and `<name>_high` are the bounds of each datum, `<name>_least` and `<name>_most`
    those beyond which it would not have been seen. Nothing is added where nothing is censored.
    `data` has variables that say what is, or these coordinates already; `attributes` may have the
    limits of all values.
    """
    name, dims = str(values.name), values.dims
    if name + ENDS[0] in data.variables:
        return values.assign_coords({name + end: data[name + end] for end in ENDS})
    beside = {part: data[name + part] for part in (CODE, LIMIT) if name + part in data.variables}
    told = {
        part: v.transpose(*dims).values for part, v in beside.items() if set(v.dims) == set(dims)
    }
    limits = attributes.get(BELOW, -np.inf), attributes.get(ABOVE, np.inf)
    low, high = known_between(values.values, told.get(CODE, 0.0), told.get(LIMIT, np.nan), *limits)
    if not bool(np.any((low != high) & ~np.isnan(values.values))):
        return values
    found = (low, high, *_seen_between(values.values, low, high))
    return values.assign_coords(
        {name + end: (dims, each) for end, each in zip(ENDS, found, strict=True)}
    )


def _seen_between(
    y: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each datum can be seen: beyond a limit at which others are censored it would be, as far
    as it shows.
    """
    below, above = (
        np.unique(ends[np.isinf(others)]) for ends, others in ((high, low), (low, high))
    )
    below, above = np.concatenate([[-np.inf], below]), np.concatenate([above, [np.inf]])
    last = np.searchsorted(below[1:], np.nan_to_num(y), side="right")
    first = np.searchsorted(above[:-1], np.nan_to_num(y), side="left")
    return below[last], above[first]


def bounds(observed: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of an observable with them, `(datum,)` each: the values themselves where nothing
    is censored.
    """
    return _ends(observed, *ENDS[:2])


def _ends(observed: xr.DataArray, *names: str) -> Any:
    values, coords = observed.values.ravel(), observed.coords
    ends = (coords.get(f"{observed.name}{name}") for name in names)
    return tuple(
        values if end is None else end.transpose(*observed.dims).values.ravel() for end in ends
    )


def alike(draws: np.ndarray, observed: xr.DataArray) -> np.ndarray:
    """Draws `(draw, datum)` as far as data can tell them apart.

    Beyond a limit of what can be seen they are at the limit, and those within the bounds of a datum
    equal it; beyond these they keep their distance to the nearer one. So scores are those of a
    forecast of what would be reported, which is the best one if it is right.
    """
    if f"{observed.name}{ENDS[0]}" not in observed.coords:
        return draws
    low, high, least, most = _ends(observed, *ENDS)
    y = observed.values.ravel()
    draws = np.clip(draws, least, most)
    beyond = np.where(draws < low, y - low, 0.0) + np.where(draws > high, y - high, 0.0)
    return np.where((low <= draws) & (draws <= high), y, draws + beyond)


def completed(draws: np.ndarray, observed: xr.DataArray) -> np.ndarray:
    """Data `(datum,)` with a draw in place of each that is censored: one that lies within its
    bounds.

    If the draws are right then so completed data are as if all had been seen. Where no draw lies
    there the datum is as it is given.
    """
    low, high = bounds(observed)
    values = observed.values.ravel().astype(float)
    rng = np.random.default_rng(0)
    for i in np.flatnonzero((low != high) & ~np.isnan(values)):
        inside = draws[(low[i] <= draws[:, i]) & (draws[:, i] <= high[i]), i]
        values[i] = rng.choice(inside) if inside.size else values[i]
    return values

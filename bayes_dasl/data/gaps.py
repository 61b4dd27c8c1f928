"""`fill_gaps`: fill missing values of forcings by a stated rule, and record the gaps."""

import json
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from ..errors import DataError
from .datasets import FILLED, FILLED_BETWEEN, checked_index, index_of, series
from .dates import as_attribute, as_date, in_words, numbers, seconds_in

# A year, and the largest distance in the year for the mean of a climatology, in seconds.
_YEAR = 365.2425 * 86400
_SEASON = 15.5 * 86400
# Fewest known values for the mean of a climatology, so that it is not that of a single year.
_FEWEST = 3
# Numbers that often stand for a missing value.
_CODES = (-9999.0, -999.0, -99.0, -99.9, -999.9)


def missing_code(values: np.ndarray) -> float | None:
    """Return the number that stands for missing values, such as -9999; None if there is none.

    Args:
        values: numbers, with NaN where a value is known to be missing.

    Returns:
        The lowest value, if it is a usual code and all others are far above it.
    """
    known = values[np.isfinite(values)].astype(float)
    lowest = known.min(initial=np.inf)
    others = known[known != lowest]
    far = others.size > 0 and others.min() > lowest / 2
    return float(lowest) if lowest in _CODES and far else None


def fill_gaps(data: xr.Dataset, **rules: str | float) -> xr.Dataset:
    """Fill missing values (NaN) of forcings: `fill_gaps(data, rain=0.0, air="climatology")`.

    `attrs["filled"]` of a variable states the rule and the number of filled values;
    `attrs["filled_between"]` lists the gaps. `check` reports both, a fit stores both, and
    `diagnose` mentions the gaps beside residuals. Do not fill observables: NaN marks a missing
    observation, and a model with a filled observable is refused.

    Args:
        data: a dataset whose variables run along its index, numbers or dates.
        rules: the rule by variable. "interpolate" draws a straight line between the neighbours.
            "last" repeats the last value. "climatology" takes the mean, over all years, of known
            values within 15 days of the same day of the year. A number is used as it is.

    Returns:
        The data with these variables filled.

    Raises:
        DataError: if a variable or rule is unknown, or a rule cannot fill a gap at an end. A
            climatology also needs a unit of the index, and at least three known values within 15
            days of the day of the year.
    """
    for name, rule in rules.items():
        if name not in data:
            raise DataError(
                f"there is no '{name}' to fill; the data hold {', '.join(map(str, data.data_vars))}"
            )
        index = index_of(data[name])
        values = series(data, name, "forcing", (index,))
        times = checked_index(data, index)
        missing = ~np.isfinite(values)
        if not missing.any():
            continue
        if missing.all():
            raise DataError(f"'{name}' has no value at all, from which a gap could be filled")
        if not (isinstance(rule, Real) and np.isfinite(rule)) and rule not in _RULES:
            raise DataError(
                f"'{name}' is filled by one of {', '.join(_RULES)} or by a number, not by {rule!r}"
            )
        if isinstance(rule, str):
            whole = _RULES[rule](data[index], times, np.where(missing, np.nan, values))
        else:
            whole = np.full(values.shape, float(rule))
        for i in np.flatnonzero(missing & ~np.isfinite(whole))[:1]:
            raise DataError(
                f"'{name}' is missing at {index} {in_words(times[i])}, of which '{rule}' knows "
                "nothing"
            )
        filled = np.where(missing, whole, values)
        between = [[as_attribute(times[i]), as_attribute(times[j])] for i, j in _gaps(missing)]
        attributes = data[name].attrs | {
            FILLED: _fill_report(missing, rule),
            FILLED_BETWEEN: json.dumps(between),
        }
        data = data.assign({name: (index, filled, attributes)})
    return data


def _gaps(missing: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of the first and the last row of each gap."""
    begins = np.flatnonzero(np.diff(missing.astype(int), prepend=0) > 0)
    ends = np.flatnonzero(np.diff(missing.astype(int), append=0) < 0)
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def _fill_report(missing: np.ndarray, rule: str | float) -> str:
    """State the rule, the number of filled values and the longest gap; `check` parses the start."""
    longest = max(last - first + 1 for first, last in _gaps(missing))
    by = rule if isinstance(rule, str) else f"{float(rule):g}"
    return (
        f"{int(missing.sum())} of {missing.size} values filled by {by}, at most {longest} in a row"
    )


def filled_between(forcing: xr.DataArray, start: Any, end: Any) -> int:
    """Count the filled gaps of a forcing that overlap with a period.

    Args:
        forcing: a variable of data that `fill_gaps` returned, or of a fit to such data.
        start: the begin of the period, a number or a date as in the index.
        end: the end of the period.

    Returns:
        The number of gaps.
    """
    gaps = json.loads(forcing.attrs.get(FILLED_BETWEEN, "[]"))
    found = 0
    for gap in gaps:
        first, last = (as_date(place) if isinstance(place, str) else place for place in gap)
        found += bool(first <= end and last >= start)
    return found


def _interpolated(index: xr.DataArray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolate linearly between known values; NaN before the first and after the last one.

    Args:
        index: the coordinate; unused here, as all rules take the same arguments.
        times: the numbers or dates of the index.
        values: the values at these times, NaN where unknown.
    """
    at = numbers(times)
    known = np.isfinite(values)
    return np.interp(at, at[known], values[known], left=np.nan, right=np.nan)


def _last(index: xr.DataArray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Repeat the last known value; NaN before the first one."""
    # The row of the last known value at or before each row, or −1.
    row = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(values.size), -1))
    return np.where(row >= 0, values[row], np.nan)


def _climatology(index: xr.DataArray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Average the known values within 15 days of the same day of the year, over all years."""
    units = "day" if times.dtype.kind == "M" else str(index.attrs.get("units", ""))
    if not units:
        raise DataError(f"a climatology needs dates, or {index.name}.attrs['units'] such as 'day'")
    year = _YEAR / seconds_in(units)
    at = numbers(times) % year
    known = np.isfinite(values)
    found = np.full(values.shape, np.nan)
    for i in np.flatnonzero(~known):
        # Distance on the circle of the year, so that December is next to January.
        apart = np.abs((at[known] - at[i] + year / 2) % year - year / 2)
        near = values[known][apart <= _SEASON / seconds_in(units)]
        found[i] = near.mean() if near.size >= _FEWEST else np.nan
    return found


_RULES: dict[str, Callable[[xr.DataArray, np.ndarray, np.ndarray], np.ndarray]] = {
    "interpolate": _interpolated,
    "last": _last,
    "climatology": _climatology,
}

"""Dates of an index as numbers: units of time since an origin that does not depend on the data."""

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Shaped

from ..errors import DataError, ModelError

DAY = "day"
SINCE = " since "
_EPOCH = "1970-01-01"
_DAY = 86400
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("week", "weeks"), 7 * _DAY),
    **dict.fromkeys(("month", "months"), 2629800),
    **dict.fromkeys(("a", "yr", "year", "years"), 31557600),
}
"""A year is Julian, 365.25 days, and a month is a twelfth of it, as pint has them."""
# ISO 8601 only, because 01.02.2003 may be in January or in February.
_ISO = re.compile(r"\d{4}(-|$)")
# Largest accepted rounding error, as a share of the shortest step between dates.
_LOST = 1e-5
_COUNTS = "counts_dates_in"
# Dates at least so many days apart may be counted in months or years, so that days are a guess.
_SPARSE = 28

type Dates = Shaped[np.ndarray, " time"]


def are_dates(values: Any) -> bool:
    """Whether an array or a coordinate holds dates of NumPy, without a time zone."""
    kind = getattr(values, "dtype", None)
    return isinstance(kind, np.dtype) and kind.kind == "M"


def unit_of(units: str) -> str:
    """Return the unit in a text such as `day` or `days since 2001-01-01`."""
    return units.split(SINCE)[0].strip()


def seconds_in(units: str) -> int:
    """Return the length of a unit of time in seconds.

    Args:
        units: a unit, a unit since a date, or an empty text for a day.

    Returns:
        Its length in seconds.

    Raises:
        ModelError: if it is no unit of time.
    """
    unit = unit_of(units) or DAY
    unit = unit if unit in _SECONDS else unit.lower()
    if unit not in _SECONDS:
        raise ModelError(
            f"'{unit}' is no unit in which dates can be counted: take s, min, h, day, week, month "
            "or year"
        )
    return _SECONDS[unit]


def counted_in(units: str) -> str:
    """Return a unit of time with its origin, such as `day since 1970-01-01`.

    Args:
        units: a unit, a unit since a date, or an empty text. The default is days since 1970.

    Returns:
        The unit since a date, as text.

    Raises:
        ModelError: if `units` is no unit of time, or its date cannot be read.
    """
    seconds_in(units)
    since = units.partition(SINCE)[2].strip() or _EPOCH
    try:
        date = as_date(since)
    except ValueError as error:
        raise ModelError(f"'{units}' names no date: write it as 'days since 2001-01-01'") from error
    return f"{unit_of(units) or DAY}{SINCE}{in_words(date)}"


def as_date(value: Any) -> np.datetime64:
    """Convert a date to NumPy's type, in UTC.

    Args:
        value: a date of Python, NumPy or pandas, or a text in ISO 8601, such as `2001-06-30`.

    Returns:
        The date in NumPy's type.

    Raises:
        ValueError: if the value is no date.
    """
    if isinstance(value, (bool, int, float)) or (isinstance(value, str) and not _ISO.match(value)):
        raise ValueError(f"{value!r} is no date such as 2001-06-30")
    stamp = pd.Timestamp(value)
    if stamp is pd.NaT:
        raise ValueError("a date is missing")
    return (stamp if stamp.tz is None else stamp.tz_convert(None)).to_datetime64()


def in_words(value: Any) -> str:
    """Format a number or a date of an index, or the name of a place, for a message."""
    value = np.asarray(value)
    if value.dtype.kind in "UO":
        return str(value)
    if are_dates(value):
        return np.datetime_as_string(value, unit="auto").item()
    return f"{float(value):g}"


def numbers(values: Any, units: str = "") -> Float[np.ndarray, "..."]:
    """Convert dates to units of time since a date; numbers stay as they are.

    Args:
        values: dates or numbers.
        units: such as `h since 2001-01-01`; by default days since 1970.

    Returns:
        Numbers, NaN for a missing date.

    Raises:
        ModelError: if `units` is no unit of time, or its date cannot be read.
    """
    values = np.asarray(values)
    if not are_dates(values):
        return np.asarray(values, np.float64)
    origin = as_date(counted_in(units).partition(SINCE)[2])
    fine, per_second = _finer(values, origin)
    # All steps but the last are exact: integers at the finest resolution of the dates.
    ticks = (values.astype(f"M8[{fine}]") - origin.astype(f"M8[{fine}]")).astype(np.int64)
    ticks_of_unit = seconds_in(units) * per_second
    whole, rest = np.divmod(ticks, ticks_of_unit)
    return np.where(np.isnat(values), np.nan, whole + rest / ticks_of_unit)


def dates(values: Any, like: Dates, units: str = "") -> Shaped[np.ndarray, "..."]:
    """Convert numbers to dates, rounded to milliseconds.

    Args:
        values: numbers.
        like: dates whose resolution the returned dates have, if it is finer than milliseconds.
        units: the unit and origin of the numbers, such as `h since 2001-01-01`; by default days
            since 1970.
    """
    origin = as_date(counted_in(units).partition(SINCE)[2]).astype("M8[ms]")
    milliseconds = np.round(np.asarray(values) * seconds_in(units) * 1000).astype(np.int64)
    found = np.asarray(origin + milliseconds.astype("m8[ms]"))
    return found.astype(np.promote_types(found.dtype, like.dtype))


def _finer(*several: Any) -> tuple[str, int]:
    """Return the finest resolution among arrays of dates, and its steps per second."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    units = {np.datetime_data(values.dtype)[0] for values in several} & {*per_second}
    fine = max(units, key=per_second.__getitem__, default="s")
    return fine, per_second[fine]


def in_numbers(data: xr.Dataset, index: str, units: str) -> xr.Dataset:
    """Replace the dates of an index by numbers.

    Args:
        data: a dataset; one with numbers is returned unchanged.
        index: the name of the coordinate.
        units: the unit in which the model counts dates.

    Returns:
        The dataset with numbers.

    Raises:
        DataError: if rounding of the numbers could confuse neighbouring dates.
        ModelError: if `units` is no unit of time.
    """
    if not has_dates(data, index):
        return data
    held = data[index].values
    found = numbers(held, units)
    unit = unit_of(units) or DAY
    steps = np.diff(held) / np.timedelta64(1, "s")
    shortest = steps[steps > 0].min(initial=np.inf)
    # The spacing of floating-point numbers at the latest date, in seconds.
    rounding = np.spacing(np.abs(found).max(initial=0.0)) * seconds_in(units)
    if rounding > _LOST * shortest:
        raise DataError(
            f"{index} has steps of {shortest:g} s, which are lost in numbers that count "
            f"{counted_in(units)}: count them from a date nearby, with "
            f"units={{'{index}': '{unit} since {in_words(held[0])}'}} in the layer"
        )
    attributes = {"units": unit, _COUNTS: counted_in(units)}
    return data.assign_coords({index: (index, found, attributes)})


def as_numbers(data: xr.Dataset, index: str, units: str = "") -> xr.Dataset:
    """Replace the dates of an index by numbers, and refuse an ambiguous unit.

    Args:
        data: a dataset; one with numbers is returned unchanged.
        index: the name of the coordinate.
        units: such as `h` or `day since 2001-01-01`; by default days since 1970.

    Returns:
        The dataset with numbers.

    Raises:
        DataError: if the unit is ambiguous, or rounding could confuse neighbouring dates.
        ModelError: if `units` is no unit of time.
    """
    if has_dates(data, index):
        refuse_unsaid(data, index, units)
    return in_numbers(data, index, units)


def counts_of(data: xr.Dataset, index: str, units: str) -> str:
    """Return the unit and origin in which the dates of an index are counted.

    Args:
        data: a dataset with the index, as dates or as numbers made by `in_numbers`.
        index: the name of the coordinate.
        units: the unit in which a layer counts dates.

    Returns:
        The unit since a date, as text; empty if the numbers of the index were not made from dates.
    """
    if has_dates(data, index):
        return counted_in(units)
    return data[index].attrs.get(_COUNTS, "")


def start_in_numbers(start: Any, data: xr.Dataset, index: str, units: str) -> float | None:
    """Return the start of a solve as a number.

    Args:
        start: a number, a date of Python, or None.
        data: a dataset whose index holds dates, or numbers made from dates.
        index: the name of the coordinate.
        units: the unit in which the layer counts dates.

    Returns:
        The start in the numbers of the layer; None stays None.

    Raises:
        DataError: if the start is a date and the index holds none.
    """
    if not isinstance(start, datetime.date):
        return start
    counts = counts_of(data, index, units)
    if not counts:
        raise DataError(
            f"the layer starts at {in_words(as_date(start))}, but {index} holds no dates: give one "
            "of "
            "both"
        )
    return float(numbers(as_date(start), counts))


def index_in_words(index: xr.DataArray, value: float) -> str:
    """Format a position along an index for a message, as a date if the index held dates."""
    counts = index.attrs.get(_COUNTS)
    if counts is None:
        return in_words(value)
    return in_words(dates(value, np.zeros(0, "M8[ms]"), counts))


def has_dates(data: Any, index: str) -> bool:
    """Whether the index of a dataset holds dates."""
    return isinstance(data, xr.Dataset) and index in data.coords and are_dates(data[index])


def place_of(data: xr.Dataset, index: str, value: Any) -> Any:
    """Convert a position along an index to the type of the index: a number or a date.

    Args:
        data: a dataset.
        index: the name of the coordinate.
        value: the position, a number, a date or a text.

    Returns:
        The number or date.

    Raises:
        DataError: if the value cannot be read as that type.
    """
    if not has_dates(data, index):
        try:
            if isinstance(value, str):
                return float(value)
            return value + 0.0
        except (TypeError, ValueError) as error:
            raise DataError(f"a number of '{index}' is needed, not {value!r}") from error
    try:
        return as_date(value)
    except ValueError as error:
        raise DataError(
            f"'{index}' holds dates, so give one, such as '2001-06-30', not {value!r}"
        ) from error


def no_index(values: xr.DataArray, name: str) -> str:
    """Say, for an error, why an index is neither numbers nor dates, with the remedy."""
    index = f"data.indexes['{name}']"
    in_utc = (
        "times of a zone: take UTC, by "
        f"data.assign_coords({name}={index}.tz_convert('UTC').tz_localize(None))"
    )
    # The plain values of pandas' type have lost the time zone, so ask the type first.
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return in_utc
    first: Any = values.values.ravel()[0] if values.size else None
    if getattr(first, "tzinfo", None) is not None:
        return in_utc
    if isinstance(first, pd.Period):
        return f"periods: take their begin, by data.assign_coords({name}={index}.to_timestamp())"
    if values.dtype.kind == "m":
        return f"{values.dtype}: divide it by a unit of time, such as np.timedelta64(1, 'D')"
    if hasattr(first, "calendar"):
        return (
            f"dates of the calendar {first.calendar}: take data.convert_calendar('standard', "
            "align_on='date')"
        )
    return f"{values.dtype}: make dates by pandas.to_datetime(…, utc=True).tz_localize(None)"


def refuse_unsaid(data: xr.Dataset, index: str, units: str, times: Sequence[str] = ()) -> None:
    """Refuse dates if the unit of time of the model is ambiguous.

    Daily and weekly dates need no unit: the model counts days. Other dates need a unit.

    Args:
        data: a dataset with dates.
        index: the name of the coordinate.
        units: the unit that the layer states.
        times: descriptions of the layer's parameters that are times given as numbers. With such
            parameters, `units` must name a date, as in `day since 2001-01-01`.

    Raises:
        DataError: if the unit is ambiguous.
        ModelError: if a parameter is a time, but `units` names no date.
    """
    if times and SINCE not in units:
        since = f"{unit_of(units) or DAY} since {in_words(data[index].values[0])}"
        raise ModelError(
            f"{index} holds dates, but {times[0]} is a number: say what it counts, by "
            f"units={{'{index}': '{since}'}} in the layer; a start may be a date itself"
        )
    if units:
        return
    held = np.unique(data[index].values)
    has_hours = np.any(held.astype("M8[D]") != held)
    steps = np.diff(held) / np.timedelta64(1, "D")
    if has_hours or (steps.size and steps.min() >= _SPARSE):
        step = "are not whole days" if has_hours else "lie a month or more apart"
        raise DataError(
            f"the dates of {index} {step}, so say in which unit of time the numbers of the model "
            f"are: units={{'{index}': 'h'}} in the layer, or 'day', 'year', …"
        )


def refuse_mixed(data: Any, index: str, like: Any, whose: str) -> None:
    """Refuse two datasets of which one has dates in its index and the other numbers.

    Args:
        data: a dataset.
        index: the name of the coordinate.
        like: the index of the other dataset.
        whose: the name of the other dataset, for the message.

    Raises:
        DataError: if one index holds dates and the other numbers.
    """
    # A missing index, or one of another type, is refused where it is read.
    if not isinstance(data, xr.Dataset) or index not in data.coords:
        return
    if data[index].dtype.kind not in "iufM":
        return
    kinds = {True: "dates", False: "numbers"}
    ours = are_dates(data[index])
    theirs = are_dates(like)
    if ours != theirs:
        raise DataError(
            f"{index} holds {kinds[ours]} here, but {kinds[theirs]} in {whose}: give it "
            f"{kinds[theirs]}"
        )


def as_attribute(value: Any) -> float | str:
    """Return a number or a date in a type that netCDF can hold as an attribute."""
    if are_dates(value):
        return in_words(value)
    return float(value)


def from_attribute(attributes: Mapping, name: str) -> Any:
    """Return the number or date that `as_attribute` stored in an attribute; None without it."""
    held = attributes.get(name)
    if isinstance(held, str):
        return as_date(held)
    return held


def seconds(step: float, units: str) -> np.timedelta64:
    """Return a time step as a timedelta, to the millisecond; zero if it is not finite."""
    milliseconds = step * seconds_in(units) * 1000
    return np.timedelta64(round(milliseconds) if math.isfinite(step) else 0, "ms")

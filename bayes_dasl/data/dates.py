"""Dates of an index: inside a model they are numbers, so many units of time since a date that no
data set chooses.
"""

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

DAY, SINCE = "day", " since "
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
_ISO = re.compile(r"\d{4}(-|$)")  # so that nobody need guess which of two numbers is the month
_LOST = 1e-5  # of the shortest step between dates, which is not to be lost in rounding
_COUNTS = "counts_dates_in"
_SPARSE = 28  # days

type Dates = Shaped[np.ndarray, " time"]


def are_dates(values: Any) -> bool:
    """Whether an array, or a coordinate, holds dates of NumPy; those of pandas with a time zone are
    others.
    """
    kind = getattr(values, "dtype", None)
    return isinstance(kind, np.dtype) and kind.kind == "M"


def unit_of(units: str) -> str:
    """The unit of a text such as `day`, or as in netCDF `days since 2001-01-01`."""
    return units.split(SINCE)[0].strip()


def seconds_in(units: str) -> int:
    """How many seconds the unit of such a text has; a day unless it says any.

    Raises:
        ModelError: for what is no unit of time.
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
    """In what dates are counted, as a whole text: a day since 1970 unless `units` says another.

    Raises:
        ModelError: for what is no unit of time since a date.
    """
    seconds_in(units)
    since = units.partition(SINCE)[2].strip() or _EPOCH
    try:
        date = as_date(since)
    except ValueError as error:
        raise ModelError(f"'{units}' names no date: write it as 'days since 2001-01-01'") from error
    return f"{unit_of(units) or DAY}{SINCE}{told(date)}"


def as_date(value: Any) -> np.datetime64:
    """A date of Python, NumPy or pandas, or a text such as `2001-06-30`; times of a zone in UTC.

    Raises:
        ValueError: for what is none.
    """
    if isinstance(value, (bool, int, float)) or (isinstance(value, str) and not _ISO.match(value)):
        raise ValueError(f"{value!r} is no date such as 2001-06-30")
    stamp = pd.Timestamp(value)
    if stamp is pd.NaT:
        raise ValueError("a date is missing")
    return (
        stamp if stamp.tz is None else stamp.tz_convert("UTC").tz_localize(None)
    ).to_datetime64()


def told(value: Any) -> str:
    """A number or a date of an index, or a name of a place, in words."""
    value = np.asarray(value)
    if value.dtype.kind in "UO":
        return str(value)
    return (
        np.datetime_as_string(value, unit="auto").item()
        if are_dates(value)
        else f"{float(value):g}"
    )


def numbers(values: Any, units: str = "") -> Float[np.ndarray, "..."]:
    """Dates as units of time since a date; numbers as they are.

    The date is taken off in whole numbers, so that nothing is rounded but the result.

    Args:
        values: dates or numbers.
        units: such as `h since 2001-01-01`; days since 1970 unless given.

    Raises:
        ModelError: for what is no unit of time since a date.
    """
    values = np.asarray(values)
    if not are_dates(values):
        return np.asarray(values, np.float64)
    origin = as_date(counted_in(units).partition(SINCE)[2])
    fine, each = _finer(values, origin)
    ticks = (values.astype(f"M8[{fine}]") - origin.astype(f"M8[{fine}]")).astype(np.int64)
    whole, rest = np.divmod(ticks, seconds_in(units) * each)
    found = whole + rest / (seconds_in(units) * each)
    return np.where(np.isnat(values), np.nan, found)


def dates(values: Any, like: Dates, units: str = "") -> Shaped[np.ndarray, "..."]:
    """Dates from numbers that count `units`, to the millisecond or as finely as `like` has them."""
    origin = as_date(counted_in(units).partition(SINCE)[2]).astype("M8[ms]")
    since = (
        np.round(np.asarray(values) * seconds_in(units) * 1000).astype(np.int64).astype("m8[ms]")
    )
    found = origin + since
    return np.asarray(found).astype(np.promote_types(found.dtype, like.dtype))


def _finer(*several: Any) -> tuple[str, int]:
    """The finest step of some dates, as NumPy names it, and how many of them a second has."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    units = {np.datetime_data(values.dtype)[0] for values in several}
    fine = max(
        (unit for unit in units if unit in per_second),
        key=lambda unit: per_second[unit],
        default="s",
    )
    return fine, per_second[fine]


def in_numbers(data: xr.Dataset, index: str, units: str) -> xr.Dataset:
    """Data whose index are numbers, also where it holds dates; `units` are those in which a model
    counts them.

    Raises:
        DataError: for dates that the numbers could not tell apart.
        ModelError: for what is no unit of time.
    """
    if not has_dates(data, index):
        return data
    held = data[index].values
    found = numbers(held, units)
    steps = np.diff(held) / np.timedelta64(1, "s")
    shortest = steps[steps > 0].min(initial=np.inf)
    if np.spacing(np.abs(found).max(initial=0.0)) * seconds_in(units) > _LOST * shortest:
        raise DataError(
            f"{index} has steps of {shortest:g} s, which are lost in numbers that count "
            f"{counted_in(units)}: count "
            f"them from a date nearby, with units={{'{index}': '{unit_of(units) or DAY} since "
            f"{told(held[0])}'}} in "
            "the layer"
        )
    return data.assign_coords(
        {index: (index, found, {"units": unit_of(units) or DAY, _COUNTS: counted_in(units)})}
    )


def as_numbers(data: xr.Dataset, index: str, units: str = "") -> xr.Dataset:
    """Data with numbers for dates, as a layer that states these units counts them; others as they
    are.

    Args:
        data: a dataset with the index.
        index: that of the dates.
        units: what dates are counted in, such as `h` or `day since 2001-01-01`; days since 1970
            unless given.

    Raises:
        DataError: where it is not plain that days are meant, or for dates that numbers cannot tell
            apart.
        ModelError: for what is no unit of time.
    """
    if has_dates(data, index):
        refuse_unsaid(data, index, units)
    return in_numbers(data, index, units)


def counts_of(data: xr.Dataset, index: str, units: str) -> str:
    """In what the dates of an index are counted, or were where it holds numbers by now; empty for
    other numbers.

    Args:
        data: a dataset with the index.
        index: its name.
        units: in what a layer counts them.
    """
    return counted_in(units) if has_dates(data, index) else data[index].attrs.get(_COUNTS, "")


def start_in_numbers(start: Any, data: xr.Dataset, index: str, units: str) -> float | None:
    """When a solve starts, in the numbers that a layer has for dates.

    Args:
        start: a number, a date of Python, or none where nothing is said.
        data: a dataset whose index holds dates, or numbers that were made of them.
        index: its name.
        units: in what the layer counts dates.

    Raises:
        DataError: for a date where the index holds none.
    """
    if not isinstance(start, datetime.date):
        return start
    counts = counts_of(data, index, units)
    if not counts:
        raise DataError(
            f"the layer starts at {told(as_date(start))}, but {index} holds no dates: give one of "
            "both"
        )
    return float(numbers(as_date(start), counts))


def told_of(index: xr.DataArray, value: float) -> str:
    """A place along an index that may have had dates, in words."""
    counts = index.attrs.get(_COUNTS)
    return told(value) if counts is None else told(dates(value, np.zeros(0, "M8[ms]"), counts))


def has_dates(data: Any, index: str) -> bool:
    """Whether the index of a dataset holds dates."""
    return isinstance(data, xr.Dataset) and index in data.coords and are_dates(data[index])


def place_of(data: xr.Dataset, index: str, value: Any) -> Any:
    """A place along the index as that has it: a number, or a date where it holds dates.

    Raises:
        DataError: for what is none.
    """
    if not has_dates(data, index):
        try:
            return float(value) if isinstance(value, str) else value + 0.0
        except (TypeError, ValueError) as error:
            raise DataError(f"a number of '{index}' is needed, not {value!r}") from error
    try:
        return as_date(value)
    except ValueError as error:
        raise DataError(
            f"'{index}' holds dates, so give one, such as '2001-06-30', not {value!r}"
        ) from error


def no_index(values: xr.DataArray, name: str) -> str:
    """What is no number and no date, and how to make it one."""
    index = f"data.indexes['{name}']"
    in_utc = (
        "times of a zone: take UTC, by "
        f"data.assign_coords({name}={index}.tz_convert('UTC').tz_localize(None))"
    )
    if isinstance(
        values.dtype, pd.DatetimeTZDtype
    ):  # of which pandas' plain values have lost the zone
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
    """Refuse dates of which it is not plain in which unit of time a model's rates are: daily and
    weekly ones are.

    Args:
        data: a dataset with dates.
        index: that of the dates.
        units: what a layer states of them.
        times: numbers of the layer that are times, in words: of these it must be stated since when
            they count.

    Raises:
        DataError: that says how to state it.
        ModelError: for such numbers.
    """
    if times and SINCE not in units:
        since = f"{unit_of(units) or DAY} since {told(data[index].values[0])}"
        raise ModelError(
            f"{index} holds dates, but {times[0]} is a number: say what it counts, by "
            f"units={{'{index}': '{since}'}} "
            "in the layer; a start may be a date itself"
        )
    if units:
        return
    held = np.unique(data[index].values)
    whole, steps = held.astype("M8[D]"), np.diff(held) / np.timedelta64(1, "D")
    if np.any(whole != held) or (steps.size and steps.min() >= _SPARSE):
        step = "are not whole days" if np.any(whole != held) else "lie a month or more apart"
        raise DataError(
            f"the dates of {index} {step}, so say in which unit of time the numbers of the model "
            "are: "
            f"units={{'{index}': 'h'}} in the layer, or 'day', 'year', …"
        )


def refuse_mixed(data: Any, index: str, like: Any, whose: str) -> None:
    """Refuse dates where there were numbers, and numbers where there were dates.

    Args:
        data: a dataset.
        index: its index.
        like: the index of what it goes with.
        whose: that of what, for the message.

    Raises:
        DataError: if so.
    """
    if (
        not isinstance(data, xr.Dataset)
        or index not in data.coords
        or data[index].dtype.kind not in "iufM"
    ):
        return  # which is told where it is read
    kinds = {True: "dates", False: "numbers"}
    ours, theirs = are_dates(data[index]), are_dates(like)
    if ours != theirs:
        raise DataError(
            f"{index} holds {kinds[ours]} here, but {kinds[theirs]} in {whose}: give it "
            f"{kinds[theirs]}"
        )


def as_attribute(value: Any) -> float | str:
    """A number or a date of an index for an attribute, which netCDF can hold."""
    return told(value) if are_dates(value) else float(value)


def from_attribute(attributes: Mapping, name: str) -> Any:
    """What `as_attribute` made: a number or a date; none where there is no such attribute."""
    held = attributes.get(name)
    return as_date(held) if isinstance(held, str) else held


def seconds(step: float, units: str) -> np.timedelta64:
    """A time that is told in a unit, to the millisecond; zero where it is not finite."""
    return np.timedelta64(
        round(step * seconds_in(units) * 1000) if math.isfinite(step) else 0, "ms"
    )

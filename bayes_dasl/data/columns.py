"""What the rows of a table are of: times, subjects, observations or doses."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .frames import Frame

_OFFSET = r"[T ]\d.*(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_DATES = (
    "%d.%m.%Y",
    "%m.%d.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d %B %Y",
    "%b %d %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
_PACKED = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M"}
"""How dates are written as whole numbers, by the number of digits."""
_YEARS = (1800, 2200)


def times(frame: Frame, column: str, date_format: str | None = None) -> np.ndarray:
    """The time of each row, in the units that are wanted: float64, or dates; those with an offset
    in UTC.

    Args:
        frame: the table.
        column: that of the times.
        date_format: how dates are written, as `strptime` has it; ISO 8601 unless given.

    Raises:
        DataError: where it is missing or no number, or where dates can only be guessed.
    """
    frame.refuse_missing(
        column, "time", np.ones(len(frame), bool), "every row needs one, also that of a dose"
    )
    cells = frame.cells(column, "times")
    if cells.dtype.kind == "O" and all(isinstance(cell, pd.Period) for cell in cells):
        cells = pd.Series(pd.PeriodIndex(cells), cells.index)
    if isinstance(cells.dtype, pd.PeriodDtype):
        cells = cells.dt.to_timestamp()
    if cells.dtype.kind == "M":
        return _in_utc(cells)
    if date_format is not None:
        return _as_said(frame, column, date_format)
    if not pd.api.types.is_numeric_dtype(cells):
        dates = _iso(frame, column, cells)
        if dates.notna().all():
            return _in_utc(dates)
        _refuse_other_dates(frame, column, cells.astype(str).str.strip())
        if dates.notna().any():
            at = int(np.argmax(dates.isna()))
            raise DataError(
                f"'{column}' is {str(cells.iloc[at])!r} in {frame.row(at)}, which is "
                "no date: write dates "
                "as 2004-02-29, or 2004-02-29 13:30"
            )
    values = frame.numbers(column, "times")
    if not frame.units(column, "time"):
        _refuse_packed_dates(frame, column, values)
    return frame.converted(values, column, "time")


def _in_utc(dates: Any) -> np.ndarray:
    """Dates without a time zone; those that have one in UTC."""
    known = (
        dates
        if getattr(dates.dt, "tz", None) is None
        else dates.dt.tz_convert("UTC").dt.tz_localize(None)
    )
    return known.to_numpy("datetime64[ns]")


def _iso(frame: Frame, column: str, cells: Any) -> Any:
    """Dates in ISO 8601, NaT for what is none; where all have an offset from UTC, in UTC."""
    offset = cells.astype(str).str.strip().str.contains(_OFFSET)
    dates = pd.to_datetime(cells, errors="coerce", format="ISO8601", utc=bool(offset.any()))
    if dates.notna().all() and offset.any() and not offset.all():
        one, other = int(np.argmax(offset)), int(np.argmin(offset))
        raise DataError(
            f"'{column}' has an offset from UTC in {frame.row(one)}, {str(cells.iloc[one])!r}, but "
            "none in "
            f"{frame.row(other)}, {str(cells.iloc[other])!r}: write all times with one, or none"
        )
    return dates


def _as_said(frame: Frame, column: str, date_format: str) -> np.ndarray:
    texts = frame.written(column)
    try:
        dates = pd.to_datetime(
            texts, format=date_format, errors="coerce", utc="%z" in date_format.lower()
        )
    except ValueError as error:
        raise DataError(
            f"date_format='{date_format}' cannot be read: {error}; an example is '%d.%m.%Y'"
        ) from error
    for at in np.flatnonzero(dates.isna())[:1]:
        raise DataError(
            f"'{column}' is {texts.iloc[at]!r} in {frame.row(at)}, which is not written as "
            f"date_format='{date_format}'"
        )
    return _in_utc(dates)


def _refuse_other_dates(frame: Frame, column: str, texts: pd.Series) -> None:
    """Raise DataError for dates that are not in ISO 8601, with the formats in which they may be
    written.
    """
    of_first = _formats(texts.iloc[:1])
    fitting = [form for form in of_first if _formats(texts, (form,))]
    said = f"'{column}' is {texts.iloc[0]!r} in {frame.row(0)}, which may be a date: "
    if fitting:
        options = " or ".join(f"date_format='{form}'" for form in fitting)
        raise DataError(f"{said}say how dates are written, by {options}")
    for form in of_first[:1]:
        at = int(np.argmax(pd.to_datetime(texts, format=form, errors="coerce").isna()))
        raise DataError(
            f"{said}but {texts.iloc[at]!r} in {frame.row(at)} is not written alike: "
            "mend it, and say how "
            f"dates are written, such as by date_format='{form}'"
        )


def _formats(texts: pd.Series, among: Iterable[str] | None = None) -> list[str]:
    """The formats in which all texts are dates."""
    every = [day + clock for clock in _CLOCKS for day in _DATES] if among is None else among
    once = pd.Series(texts.unique())
    return [
        form for form in every if pd.to_datetime(once, format=form, errors="coerce").notna().all()
    ]


def _refuse_packed_dates(frame: Frame, column: str, values: np.ndarray) -> None:
    """Raise DataError for whole numbers that are all dates if read so, such as 20200130."""
    once = np.unique(values)
    if once.size < 2 or np.any(once != np.round(once)) or once[0] <= 0:
        return
    texts = pd.Series([f"{value:.0f}" for value in once])
    digits = set(texts.str.len())
    form = _PACKED.get(digits.pop()) if len(digits) == 1 else None
    if (
        form is None
        or not texts.str[:4].astype(int).between(*_YEARS).all()
        or not _formats(texts, (form,))
    ):
        return
    raise DataError(
        f"'{column}' holds whole numbers such as {texts[0]}, which all are dates if read so: say "
        f"date_format='{form}', "
        "or, if they are numbers, their unit, as in units={'time': 's'}"
    )


def subjects(frame: Frame, column: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the number of its subject, from 0, and what the subjects are called: numbers or
    words.

    Raises:
        DataError: where it is missing, or one number is written in two ways.
    """
    if column is None:
        return np.zeros(len(frame), int), np.zeros(1)
    frame.refuse_missing(column, "subject", np.ones(len(frame), bool), "say whose the row is")
    cells = frame.cells(column, "subjects")
    if pd.api.types.is_numeric_dtype(cells):
        _refuse_one_in_two_ways(frame, column, cells)
    kept = cells if pd.api.types.is_numeric_dtype(cells) else cells.astype(str).str.strip()
    members, who = np.unique(kept.to_numpy(), return_inverse=True)
    return who, members


def _refuse_one_in_two_ways(frame: Frame, column: str, cells: Any) -> None:
    """Raise DataError for subjects that are one number in two ways of writing, such as 01 and 1."""
    texts = frame.written(column)
    first = texts.groupby(cells.to_numpy()).transform("first")
    for at in np.flatnonzero((texts != first).to_numpy())[:1]:
        other = int(np.argmax(texts.to_numpy() == first.iloc[at]))
        raise DataError(
            f"'{column}' is {first.iloc[at]!r} in {frame.row(other)} and {texts.iloc[at]!r} in "
            f"{frame.row(at)}, which "
            "are one number: write each subject in one way, or, if they are two, with a letter, "
            "such as 's01'"
        )


def as_coordinate(members: np.ndarray) -> np.ndarray:
    """What subjects are called, as a coordinate of data and as the members of a model: float64, or
    text.

    Whole numbers that float64 would not tell apart become text.
    """
    if members.dtype.kind in "iu" and np.unique(members.astype(np.float64)).size < members.size:
        return members.astype(str)
    return members.astype(np.float64 if members.dtype.kind in "iuf" else str)


def observations(frame: Frame) -> np.ndarray:
    """Which rows are observations: in NONMEM's layout those with `evid` 0 and `mdv` 0, or without
    an amount.
    """
    kept = np.ones(len(frame), bool)
    for name in ("evid", "mdv") if frame.has("evid") or frame.has("mdv") else ("amt",):
        if frame.has(name):
            numbers = frame.numbers(name, "events")
            kept &= np.isnan(numbers) | (numbers == 0)
    return kept


def sorted_within(frame: Frame, when: np.ndarray, who: np.ndarray, among: np.ndarray) -> None:
    """Raise DataError that names the first row, among those, whose time is before that of the row
    before it.
    """
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(who[rows], kind="stable")]
    falls = (np.diff(who[rows]) == 0) & (
        np.diff(when[rows]) < np.zeros((), np.diff(when[:1]).dtype)
    )
    for i in np.flatnonzero(falls)[:1]:
        one, other = rows[i], rows[i + 1]
        several = (
            ""
            if who.any()
            else ", or, if they are of several subjects, give the column of these as subject=…"
        )
        raise DataError(
            f"time falls from {when[one]} in {frame.row(one)} to {when[other]} in "
            f"{frame.row(other)}: mend it, or sort "
            f"the rows by time first{several}"
        )

"""Read the columns of a table that identify its rows: times, subjects and types of rows."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .input_table import InputTable

# A time of day followed by an offset from UTC, as in 2004-02-29T13:30+01:00.
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
"""Formats of dates written as whole numbers, by the number of digits."""
_YEARS = (1800, 2200)


def times(table: InputTable, column: str, date_format: str | None = None) -> np.ndarray:
    """Return the time of each row: float64 in the wanted units, or dates in UTC.

    Args:
        table: the table; it holds the wanted units of `time`, if any.
        column: the column of times.
        date_format: the format of dates, as in `strptime`; by default ISO 8601.

    Returns:
        One time for each row.

    Raises:
        DataError: if a time is missing or not a number, or the format of dates is ambiguous.
    """
    # 1. Every row needs a time.
    table.refuse_missing(
        column, "time", np.ones(len(table), bool), "every row needs one, also that of a dose"
    )
    # 2. Dates that pandas knows already, also periods.
    cells = table.cells(column, "times")
    if cells.dtype.kind == "O" and all(isinstance(cell, pd.Period) for cell in cells):
        cells = pd.Series(pd.PeriodIndex(cells), cells.index)
    if isinstance(cells.dtype, pd.PeriodDtype):
        cells = cells.dt.to_timestamp()
    if cells.dtype.kind == "M":
        return _in_utc(cells)
    # 3. Dates written as text: in the given format, else in ISO 8601.
    if date_format is not None:
        return _as_said(table, column, date_format)
    if not pd.api.types.is_numeric_dtype(cells):
        dates = _iso(table, column, cells)
        if dates.notna().all():
            return _in_utc(dates)
        _refuse_other_dates(table, column, cells.astype(str).str.strip())
        if dates.notna().any():
            at = int(np.argmax(dates.isna()))
            raise DataError(
                f"'{column}' is {str(cells.iloc[at])!r} in {table.row(at)}, which is no date: "
                "write dates as 2004-02-29, or 2004-02-29 13:30"
            )
    # 4. Else numbers. Without a unit, 20200130 may be a date: better ask than guess.
    values = table.numbers(column, "times")
    if not table.units(column, "time"):
        _refuse_packed_dates(table, column, values)
    return table.converted(values, column, "time")


def _in_utc(dates: Any) -> np.ndarray:
    """Drop the time zone of dates, converting them to UTC."""
    if getattr(dates.dt, "tz", None) is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    return dates.to_numpy("datetime64[ns]")


def _iso(table: InputTable, column: str, cells: Any) -> Any:
    """Parse dates in ISO 8601; cells of another format become NaT.

    Raises:
        DataError: if only some of the dates have an offset from UTC.
    """
    offset = cells.astype(str).str.strip().str.contains(_OFFSET)
    dates = pd.to_datetime(cells, errors="coerce", format="ISO8601", utc=bool(offset.any()))
    if dates.notna().all() and offset.any() and not offset.all():
        one = int(np.argmax(offset))
        other = int(np.argmin(offset))
        raise DataError(
            f"'{column}' has an offset from UTC in {table.row(one)}, {str(cells.iloc[one])!r}, but "
            f"none in {table.row(other)}, {str(cells.iloc[other])!r}: write all times with one, or "
            "none"
        )
    return dates


def _as_said(table: InputTable, column: str, date_format: str) -> np.ndarray:
    """Parse dates in the format that the user gave.

    Raises:
        DataError: at the first cell that does not fit the format, or for an invalid format.
    """
    texts = table.written(column)
    has_offset = "%z" in date_format.lower()
    try:
        dates = pd.to_datetime(texts, format=date_format, errors="coerce", utc=has_offset)
    except ValueError as error:
        raise DataError(
            f"date_format='{date_format}' cannot be read: {error}; an example is '%d.%m.%Y'"
        ) from error
    for at in np.flatnonzero(dates.isna())[:1]:
        raise DataError(
            f"'{column}' is {texts.iloc[at]!r} in {table.row(at)}, which is not written as "
            f"date_format='{date_format}'"
        )
    return _in_utc(dates)


def _refuse_other_dates(table: InputTable, column: str, texts: pd.Series) -> None:
    """Raise DataError if texts are dates that are not in ISO 8601, naming the formats that fit.

    If the first text is a date but later ones differ from its format, the error names the first
    such text. Texts that are no dates raise nothing.
    """
    of_first = date_formats(texts.iloc[:1])
    fitting = [form for form in of_first if date_formats(texts, (form,))]
    said = f"'{column}' is {texts.iloc[0]!r} in {table.row(0)}, which may be a date: "
    if fitting:
        options = " or ".join(f"date_format='{form}'" for form in fitting)
        raise DataError(f"{said}say how dates are written, by {options}")
    for form in of_first[:1]:
        at = int(np.argmax(pd.to_datetime(texts, format=form, errors="coerce").isna()))
        raise DataError(
            f"{said}but {texts.iloc[at]!r} in {table.row(at)} is not written alike: mend it, and "
            f"say how dates are written, such as by date_format='{form}'"
        )


def date_formats(texts: pd.Series, among: Iterable[str] | None = None) -> list[str]:
    """List the formats in which all texts are dates.

    Args:
        texts: the texts.
        among: the formats to try; by default all that this module knows.
    """
    every = [day + clock for clock in _CLOCKS for day in _DATES] if among is None else among
    once = pd.Series(texts.unique())
    return [
        form for form in every if pd.to_datetime(once, format=form, errors="coerce").notna().all()
    ]


def _refuse_packed_dates(table: InputTable, column: str, values: np.ndarray) -> None:
    """Raise DataError if whole numbers could all be dates, such as 20200130."""
    once = np.unique(values)
    if once.size < 2 or np.any(once != np.round(once)) or once[0] <= 0:
        return
    texts = pd.Series([f"{value:.0f}" for value in once])
    digits = set(texts.str.len())
    form = _PACKED.get(digits.pop()) if len(digits) == 1 else None
    if form is None:
        return
    # Valid dates whose year lies in this range are almost certainly dates, not other numbers.
    if texts.str[:4].astype(int).between(*_YEARS).all() and date_formats(texts, (form,)):
        raise DataError(
            f"'{column}' holds whole numbers such as {texts[0]}, which all are dates if read so: "
            f"say date_format='{form}', or, if they are numbers, their unit, as in "
            "units={'time': 's'}"
        )


def subjects(table: InputTable, column: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the subject of each row, and the names of all subjects.

    Args:
        table: the table.
        column: the column of subjects; None for a single series.

    Returns:
        The number of each row's subject, counted from 0, and the sorted names of the subjects. A
        name is a number or a text.

    Raises:
        DataError: if a subject is missing, or one number is written in two ways.
    """
    if column is None:
        return np.zeros(len(table), int), np.zeros(1)
    table.refuse_missing(column, "subject", np.ones(len(table), bool), "say whose the row is")
    cells = table.cells(column, "subjects")
    if pd.api.types.is_numeric_dtype(cells):
        _refuse_one_in_two_ways(table, column, cells)
    else:
        cells = cells.astype(str).str.strip()
    members, who = np.unique(cells.to_numpy(), return_inverse=True)
    return who, members


def _refuse_one_in_two_ways(table: InputTable, column: str, cells: Any) -> None:
    """Raise DataError if one number names a subject in two ways, such as 01 and 1."""
    texts = table.written(column)
    first = texts.groupby(cells.to_numpy()).transform("first")
    for at in np.flatnonzero((texts != first).to_numpy())[:1]:
        other = int(np.argmax(texts.to_numpy() == first.iloc[at]))
        raise DataError(
            f"'{column}' is {first.iloc[at]!r} in {table.row(other)} and {texts.iloc[at]!r} in "
            f"{table.row(at)}, which are one number: write each subject in one way, or, if they "
            "are two, with a letter, such as 's01'"
        )


def as_coordinate(members: np.ndarray) -> np.ndarray:
    """Return the names of subjects as a coordinate: float64, or text.

    Integers become text if float64 cannot distinguish them.
    """
    if members.dtype.kind in "iu" and np.unique(members.astype(np.float64)).size < members.size:
        return members.astype(str)
    return members.astype(np.float64 if members.dtype.kind in "iuf" else str)


def observations(table: InputTable) -> np.ndarray:
    """Flag the rows that are observations; in NONMEM's layout other rows are doses or events."""
    # Observations have `evid` and `mdv` 0 or empty. Without these columns, a row with an amount
    # `amt` is a dose.
    kept = np.ones(len(table), bool)
    for name in ("evid", "mdv") if table.has("evid") or table.has("mdv") else ("amt",):
        if table.has(name):
            numbers = table.numbers(name, "events")
            kept &= np.isnan(numbers) | (numbers == 0)
    return kept


def sorted_within(table: InputTable, when: np.ndarray, who: np.ndarray, among: np.ndarray) -> None:
    """Raise DataError at the first row that is earlier than the previous row of its subject.

    Args:
        table: the table.
        when: the time of each row.
        who: the number of the subject of each row.
        among: flags of the rows to check.
    """
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(who[rows], kind="stable")]
    # Zero of the same type: differences of dates are time deltas.
    zero = np.zeros((), np.diff(when[:1]).dtype)
    falls = (np.diff(who[rows]) == 0) & (np.diff(when[rows]) < zero)
    for i in np.flatnonzero(falls)[:1]:
        one = rows[i]
        other = rows[i + 1]
        several = ", or, if they are of several subjects, give the column of these as subject=…"
        raise DataError(
            f"time falls from {when[one]} in {table.row(one)} to {when[other]} in "
            f"{table.row(other)}: mend it, or sort the rows by time first"
            f"{'' if who.any() else several}"
        )

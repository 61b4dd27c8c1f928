"""Guess what the columns of a table hold: times, subjects, observables, forcings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .columns import date_formats
from .gaps import missing_code
from .input_table import InputTable, Source, bare, units_in_header
from .units import installed, parsed

_TIME_NAMES = re.compile(
    r"time|date|datum|datetime|timestamp|day|days|hour|hours|year|years|month|week|t|tad", re.I
)
_SUBJECT_NAMES = re.compile(
    r"(id|subject|patient|person|animal|mouse|site|station|plot|tank|group|individual|plant|basin"
    r"|catchment|river|lake|region|country|town|city|batch|run|replicate|name)(_?(id|no|number))?",
    re.I,
)
_FORCING_NAMES = re.compile(
    r"rain|precip|temperature|temp\b|radiation|light|wind|humid|evap|\bpet\b|snow|inflow|input"
    r"|forcing|dose|irrigation|discharge_in|sun|\bpar\b|co2|pressure|feed",
    re.I,
)
_ROW_NAMES = re.compile(r"|unnamed: \d+|index|row|nr|no|number|evid|mdv|cmt|amt|addl|ii|ss", re.I)
_FLAG_NAMES = re.compile(r"below|above|censor|flag|lod|loq|quality", re.I)


@dataclass(frozen=True)
class Guess:
    """The columns of a table by role.

    Args:
        time: the column of times.
        subject: the column of subjects, if there is one.
        values: the columns of observables.
        forcings: the columns that drive them.
        date_formats: the formats in which all times are dates; none for ISO dates or numbers.
        missing: codes for missing values.
        left_out: the other columns, each with the reason.
    """

    time: str
    subject: str | None
    values: tuple[str, ...]
    forcings: tuple[str, ...]
    date_formats: tuple[str, ...] = ()
    missing: tuple[float, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def refuse_without_times(table: InputTable, time: str) -> None:
    """Raise DataError if there is no column of times, and name the one that seems to be meant.

    Args:
        table: the table.
        time: the column that was named.
    """
    if table.has(time):
        return
    label = time_column(table.frame)
    hint = f": '{label}' seems to hold the times, so say time='{bare(label)}'" if label else ""
    raise DataError(
        f"the table has no column '{time}' for times; its columns are "
        f"{', '.join(table.frame.columns)}{hint}"
    )


def time_column(frame: pd.DataFrame) -> str | None:
    """Return the column that seems to hold times: by its name, else the first one with dates.

    Args:
        frame: the table.

    Returns:
        The label, or None.
    """
    named = [label for label in frame.columns if _TIME_NAMES.fullmatch(bare(label).strip())]
    dated = [label for label in frame.columns if _holds_dates(frame[label])]
    # A date is a better time than a column of years or days beside it.
    both = [label for label in named if label in dated]
    return next(iter([*both, *named, *dated]), None)


def _holds_dates(cells: Any) -> bool:
    """Whether all cells of a column of text are dates."""
    if cells.dtype.kind == "M":
        return True
    if pd.api.types.is_numeric_dtype(cells) or bool(cells.isna().any()):
        return False
    texts = cells.astype(str).str.strip()
    if _are_iso_dates(texts):
        return True
    return bool(date_formats(texts))


def guess_columns(
    table: Source,
    *,
    values: Sequence[str] | None = None,
    forcings: Sequence[str] | None = None,
    time: str | None = None,
    subject: str | None = None,
) -> Guess:
    """Guess the role of each column of a table; roles that are given are kept.

    Args:
        table: a DataFrame, or the path of a CSV or Parquet file.
        values: the columns of observables.
        forcings: the columns that drive them.
        time: the column of times.
        subject: the column of subjects.

    Returns:
        The columns by role.

    Raises:
        DataError: if there is no column of times or of numbers.
        ReadError: if the file cannot be read.
    """
    source = InputTable(table)
    frame = source.frame
    # 1. Times and subjects.
    when = source.label(time) if time else time_column(frame)
    if when is None:
        raise DataError(
            f"no column seems to hold times; the columns are {', '.join(frame.columns)}: say which "
            "it is, by --time"
        )
    who = source.label(subject) if subject else _subject_column(frame, when)
    # 2. Columns of numbers that vary.
    left_out: dict[str, str] = {}
    numbers: dict[str, Any] = {}
    for label in frame.columns:
        if label in (when, who):
            continue
        found: Any = pd.to_numeric(frame[label].mask(source.missing(label)), errors="coerce")
        reason = _no_series(source, label, found, who)
        if reason:
            left_out[label] = reason
        else:
            numbers[label] = found
    # 3. Observables and forcings.
    asked = [source.label(name) for name in values or ()]
    driving = [source.label(name) for name in forcings or ()]
    free = [label for label in numbers if label not in (*asked, *driving)]
    if forcings is None:
        named = [label for label in free if _FORCING_NAMES.search(bare(label))]
        # Whoever says what is forecast means that the rest drives it; a forecast needs one value.
        driving = free if asked else named if len(named) < len(free) else named[:-1]
        # With subjects, forcings must be known in each row.
        gaps = [label for label in driving if who and numbers[label].isna().any()]
        left_out |= dict.fromkeys(gaps, "a forcing of several subjects must have no gaps")
        driving = [label for label in driving if label not in gaps]
    chosen = asked or [label for label in free if label not in (*driving, *left_out)]
    if not chosen:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in left_out.items())
        raise DataError(f"no column holds numbers to forecast ({reasons}): say which, by --value")
    left_out = {label: why for label, why in left_out.items() if label not in (*chosen, *driving)}
    codes = _codes([numbers[label] for label in (*chosen, *driving) if label in numbers])
    formats = _formats_of_times(source, when)
    return Guess(when, who, tuple(chosen), tuple(driving), formats, codes, left_out)


def _subject_column(frame: Any, when: str) -> str | None:
    """Return the column that tells apart rows of the same time."""
    if int(frame[when].duplicated().to_numpy().sum()) == 0:
        return None
    few = [
        label
        for label in frame.columns
        if label != when and 2 <= frame[label].nunique() <= len(frame) / 2
    ]
    # Each subject has one row at each time.
    unique = [label for label in few if not frame.duplicated([when, label]).any()]
    named = [label for label in few if _SUBJECT_NAMES.fullmatch(bare(label))]
    texts = [label for label in unique if not pd.api.types.is_numeric_dtype(frame[label])]
    best = [label for label in named if label in unique]
    return next(iter([*best, *texts, *named]), None)


def _no_series(source: InputTable, label: str, found: Any, who: str | None) -> str | None:
    """Return the reason to exclude a column as observable and forcing; None if there is none.

    Args:
        source: the table.
        label: the label of the column.
        found: the column as numbers, NaN where a cell is missing or holds text.
        who: the label of the column of subjects; None if there are no subjects.

    Returns:
        The reason as a predicate in words, such as "is empty".
    """
    written = ~source.missing(label)
    unit = units_in_header(label)
    if _ROW_NAMES.fullmatch(bare(label)):
        return "numbers the rows, or says what a dose is"
    if not written.any():
        return "is empty"
    texts: Any = source.frame[label][written & found.isna()]
    if len(texts):
        return f"holds text, such as '{texts.iloc[0]}', in {len(texts)} of {len(found)} rows"
    if found.nunique() < 2:
        return "is constant"
    if _FLAG_NAMES.search(bare(label)) and set(found.dropna()) <= {0, 1}:
        return "flags rows: from_table takes flags of censored values as censored="
    if unit and installed() and parsed(unit) is None:
        return f"has the unit '{unit}', which cannot be read"
    if who and found.groupby(source.frame[who]).nunique().max() < 2:
        return "is one number of each subject"
    return None


def _codes(columns: Sequence[Any]) -> tuple[float, ...]:
    """Return the codes for missing values in the columns."""
    found = {code for cells in columns if (code := missing_code(cells.to_numpy())) is not None}
    return tuple(sorted(found))


def _are_iso_dates(texts: pd.Series) -> bool:
    """Whether all texts are ISO 8601 dates."""
    dates = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    return bool(dates.notna().all())


def _formats_of_times(source: InputTable, when: str) -> tuple[str, ...]:
    """Return the formats of dates; those in which the rows are in order come first."""
    cells: Any = source.frame[when]
    if cells.dtype.kind == "M":
        return ()
    texts = source.written(when)
    if pd.api.types.is_numeric_dtype(cells):
        form = packed_format(texts)
        return () if form is None else (form,)
    if _are_iso_dates(texts):
        return ()

    def falls(form: str) -> int:
        dates = pd.to_datetime(texts, format=form).to_numpy()
        return int((np.diff(dates) < np.timedelta64(0, "ns")).sum())

    return tuple(sorted(date_formats(texts), key=falls))


def packed_format(texts: pd.Series) -> str | None:
    """Return the format of dates that are written as whole numbers, such as 20200130."""
    if not texts.str.fullmatch(r"(18|19|20|21)\d{6}").all():
        return None
    return (
        "%Y%m%d" if pd.to_datetime(texts, format="%Y%m%d", errors="coerce").notna().all() else None
    )

"""What the rows of a table are of: times, subjects, observations or doses."""

import numpy as np
import pandas as pd

from ..errors import DataError
from .frames import Frame


def times(frame: Frame, column: str) -> np.ndarray:
    """The time of each row, in the units that are wanted: float64, or dates.

    Raises: DataError where it is missing or no number.
    """
    frame.refuse_missing(column, "time", np.ones(len(frame), bool), "every row needs one, also that of a dose")
    cells = frame.cells(column, "times")
    if not pd.api.types.is_numeric_dtype(cells):
        dates = pd.to_datetime(cells, errors="coerce", format="ISO8601") if cells.dtype.kind != "M" else cells
        if dates.notna().all():
            if getattr(dates.dt, "tz", None) is not None:
                raise DataError(f"the times in '{column}' have a time zone: remove it by .dt.tz_localize(None)")
            return dates.to_numpy("datetime64[ns]")
        if dates.notna().any():
            at = int(np.argmax(dates.isna()))
            raise DataError(f"'{column}' is {str(cells.iloc[at])!r} in {frame.row(at)}, which is no date: write dates "
                            "as 2004-02-29, or 2004-02-29 13:30")  # fmt: skip
    return frame.converted(frame.numbers(column, "times"), column, "time")


def subjects(frame: Frame, column: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the number of its subject, from 0, and what the subjects are called: numbers or words.

    Raises: DataError where it is missing.
    """
    if column is None:
        return np.zeros(len(frame), int), np.zeros(1)
    frame.refuse_missing(column, "subject", np.ones(len(frame), bool), "say whose the row is")
    cells = frame.cells(column, "subjects")
    kept = cells if pd.api.types.is_numeric_dtype(cells) else cells.astype(str).str.strip()
    members, who = np.unique(kept.to_numpy(), return_inverse=True)
    return who, members


def as_coordinate(members: np.ndarray) -> np.ndarray:
    """What subjects are called, as a coordinate of data and as the members of a model: float64, or text."""
    return members.astype(np.float64 if members.dtype.kind in "iuf" else str)


def observations(frame: Frame) -> np.ndarray:
    """Which rows are observations: in NONMEM's layout those with `evid` 0 and `mdv` 0, or without an amount."""
    kept = np.ones(len(frame), bool)
    for name in ("evid", "mdv") if frame.has("evid") or frame.has("mdv") else ("amt",):
        if frame.has(name):
            numbers = frame.numbers(name, "events")
            kept &= np.isnan(numbers) | (numbers == 0)
    return kept


def sorted_within(frame: Frame, when: np.ndarray, who: np.ndarray, among: np.ndarray) -> None:
    """Raises: DataError that names the first row, among those, whose time is before that of the row before it."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(who[rows], kind="stable")]
    falls = (np.diff(who[rows]) == 0) & (np.diff(when[rows]) < np.zeros((), np.diff(when[:1]).dtype))
    for i in np.flatnonzero(falls)[:1]:
        one, other = rows[i], rows[i + 1]
        several = "" if who.any() else ", or, if they are of several subjects, give the column of these as subject=…"
        raise DataError(
            f"time falls from {when[one]} in {frame.row(one)} to {when[other]} in {frame.row(other)}: mend it, or sort "
            f"the rows by time first{several}"
        )

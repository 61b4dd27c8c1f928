"""Checks of levels, return periods and blocks; blocks of an index; probabilities in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..data.dates import are_dates, as_date
from ..errors import DataError

# The share of a block of numbers that may be missing at its end: 365 days fill 365.25.
_MISSING = 0.01

BLOCKS = {"year": "Y", "month": "M", "week": "W", "day": "D"}
"""Blocks of dates, with their names in pandas."""


def check_level(level: object) -> float:
    """Check that a level is a finite number.

    Returns:
        The number.

    Raises:
        DataError: for anything else.
    """
    if not _is_finite_number(level):
        raise DataError(f"a level is a number in the units of the observable, not {level!r}")
    return float(level)  # pyright: ignore


def check_return_period(period: object) -> float:
    """Check that a return period is a finite number above 1.

    Returns:
        The number.

    Raises:
        DataError: for anything else.
    """
    if not (_is_finite_number(period) and period > 1):  # pyright: ignore
        raise DataError(
            f"a return period is a number of blocks above 1, such as 10, not {period!r}"
        )
    return float(period)  # pyright: ignore


def check_block(block: Any) -> None:
    """Check the length of a block.

    Raises:
        DataError: for anything but None, a positive number or one of `BLOCKS`.
    """
    if block is None or (isinstance(block, str) and block in BLOCKS):
        return
    if not (_is_finite_number(block) and float(block) > 0):
        raise DataError(
            f"a block is a positive number, or of dates {', '.join(map(repr, BLOCKS))}, not "
            f"{block!r}"
        )


def blocks_of(index: xr.DataArray, block: Any) -> tuple[np.ndarray, str]:
    """Assign each time to a block.

    Returns:
        The number of the block of each time, below zero in blocks that the times do not fill; and
        the block in words.

    Raises:
        DataError: for a block of another kind than the index, or times that fill none.
    """
    times = index.values
    if block is None:
        return np.zeros(times.size, int), "all times"
    dated = are_dates(index)
    if dated is not isinstance(block, str):
        held = "numbers"
        wanted = f"a number of units of '{index.name}'"
        if dated:
            held = "dates"
            wanted = f"one of {', '.join(map(repr, BLOCKS))}"
        raise DataError(f"'{index.name}' holds {held}, so a block is {wanted}, not {block!r}")
    if dated:
        spans = pd.DatetimeIndex(times).to_period(BLOCKS[block])
        number = np.asarray(spans.factorize()[0])
        begin = spans[0].start_time.to_datetime64()
        end = spans[-1].end_time.to_datetime64()
        words = f"one {block}"
    else:
        # A little more than whole blocks, so that rounding does not shift a time.
        number = np.floor((times - times[0]) / block * (1 + 1e-12) + 1e-9).astype(int)
        begin = times[0]
        end = times[0] + (number[-1] + 1 - _MISSING) * block
        units = index.attrs.get("units", "")
        words = f"{block:g} {units}".strip()
    # First and last blocks count only if the times fill them.
    late, early = _unfilled(times, begin, end)
    unfilled = (late & (number == 0)) | (early & (number == number[-1]))
    number = np.where(unfilled, -1, number)
    if (number < 0).all():
        raise DataError(f"the times from {times[0]} to {times[-1]} fill no block of {words}")
    return number, words


def within(index: xr.DataArray, period: Any) -> np.ndarray:
    """Return which values of an index lie in a period.

    Returns:
        A flag for each value; all are True without a period.

    Raises:
        DataError: for anything but a first and a last value, dates or numbers as in the index.
    """
    if period is None:
        return np.ones(index.size, bool)
    dated = are_dates(index)
    try:
        first, last = ((as_date(at) if dated else float(at)) for at in period)
    except (TypeError, ValueError) as error:
        kind = "dates" if dated else "numbers"
        raise DataError(
            f"give a first and a last {index.name}, {kind} as the forecast has, not {period!r}"
        ) from error
    return (index.values >= first) & (index.values <= last)


def likely(probability: float) -> str:
    """A probability in per cent; values near 0 or 1 are not rounded to never or always.

    Returns:
        The words.
    """
    if not np.isfinite(probability):
        return "unknown"
    # Rounding would hide that rare events are possible.
    for edge, words in ((0.0, "under 1 %"), (1.0, "over 99 %")):
        if 0 < abs(probability - edge) < 0.01:
            return words
    return f"{100 * probability:.0f} %"


def _unfilled(times: np.ndarray, begin: Any, end: Any) -> tuple[bool, bool]:
    """Whether one more time would fit before the first time in its block, and after the last."""
    if times.size < 2:
        return False, False
    # One time tells no step. Else the median step is that of a regular series with gaps.
    step = np.median(np.diff(times))
    if are_dates(times) and step >= np.timedelta64(28, "D"):
        # Months and years differ in length: step by calendar months.
        dates = pd.DatetimeIndex(times)
        if (dates.day == dates.day[0]).all() or dates.is_month_end.all():
            months = pd.DateOffset(months=round(step / np.timedelta64(1, "D") / 30.4375))
            return bool(dates[0] - months >= begin), bool(dates[-1] + months <= end)
    return bool(times[0] - begin >= step), bool(end - times[-1] > step * 1.001)


def _is_finite_number(value: Any) -> bool:
    """Whether a value is one finite number, and neither text nor a truth value."""
    if isinstance(value, (bool, str)) or np.ndim(value):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False

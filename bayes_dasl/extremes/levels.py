"""Validation of levels, return periods and blocks; assignment of times to blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..data.dates import are_dates, as_date
from ..errors import DataError

# The fraction of a block (for an index of numbers) that may be missing at its end: 365 days count
# as a block of 365.25 days.
_MISSING = 0.01

BLOCKS = {"year": "Y", "month": "M", "week": "W", "day": "D"}
"""Blocks of dates, with their names in pandas."""


def check_level(level: object) -> float:
    """Check that a level is a finite number.

    Args:
        level: the level.

    Returns:
        The level as a float.

    Raises:
        DataError: if `level` is no finite number.
    """
    if not _is_finite_number(level):
        raise DataError(f"a level is a number in the units of the observable, not {level!r}")
    return float(level)  # pyright: ignore


def check_return_period(period: object) -> float:
    """Check that a return period is a finite number above 1.

    Args:
        period: the return period, in blocks.

    Returns:
        The return period as a float.

    Raises:
        DataError: if `period` is no finite number above 1.
    """
    if not (_is_finite_number(period) and period > 1):  # pyright: ignore
        raise DataError(
            f"a return period is a number of blocks above 1, such as 10, not {period!r}"
        )
    return float(period)  # pyright: ignore


def check_block(block: Any) -> None:
    """Check the length of a block.

    Args:
        block: the length; None stands for one block of all times.

    Raises:
        DataError: for anything but None, a positive number or a key of `BLOCKS`.
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

    Args:
        index: the times.
        block: the length of a block: None for one block of all times, a number of units of the
            index, or a key of `BLOCKS` if the index has dates.

    Returns:
        The block number of each time, and the length of a block in words. The number is −1 for a
        first or last block that the times do not fill.

    Raises:
        DataError: if the block is a number and the index has dates, or the reverse. Also if the
            times do not fill any block.
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

    Args:
        index: the times.
        period: the first and last value of the period, or None for all times.

    Returns:
        A flag for each value.

    Raises:
        DataError: if `period` is not a pair of dates, for an index with dates, or else a pair of
            numbers.
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
    """Format a probability in per cent; "under 1 %" and "over 99 %" replace rounding to 0 or 100 %.

    Args:
        probability: the probability.

    Returns:
        The words; "unknown" if the probability is not finite.
    """
    if not np.isfinite(probability):
        return "unknown"
    # Rounding would hide that rare events are possible.
    for edge, words in ((0.0, "under 1 %"), (1.0, "over 99 %")):
        if 0 < abs(probability - edge) < 0.01:
            return words
    return f"{100 * probability:.0f} %"


def _unfilled(times: np.ndarray, begin: Any, end: Any) -> tuple[bool, bool]:
    """Return whether the first and the last block are incomplete.

    A block is incomplete if one more time, at the typical step of the series, would fit in.

    Args:
        times: all times, sorted.
        begin: the begin of the first block.
        end: the end of the last block.

    Returns:
        One flag for the first block, and one for the last block.
    """
    if times.size < 2:
        return False, False
    # The median step is robust to gaps in a regular series.
    step = np.median(np.diff(times))
    if are_dates(times) and step >= np.timedelta64(28, "D"):
        # Months and years differ in length: step by calendar months.
        dates = pd.DatetimeIndex(times)
        if (dates.day == dates.day[0]).all() or dates.is_month_end.all():
            months = pd.DateOffset(months=round(step / np.timedelta64(1, "D") / 30.4375))
            return bool(dates[0] - months >= begin), bool(dates[-1] + months <= end)
    return bool(times[0] - begin >= step), bool(end - times[-1] > step * 1.001)


def _is_finite_number(value: Any) -> bool:
    """Whether a value is one finite number; text and truth values are not numbers."""
    if isinstance(value, (bool, str)) or np.ndim(value):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False

"""Levels, return periods, spans, blocks and probabilities, as far as they can be looked at without
a forecast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..data.dates import are_dates, as_date
from ..errors import DataError

_MISSING = (
    0.01  # of a block of numbers, that may be missing at its end: 365 days fill a year of 365.25
)

BLOCKS = {"year": "Y", "month": "M", "week": "W", "day": "D"}
"""What a block of dates may be, and how pandas calls it."""


def check_level(level: object) -> float:
    """Raise DataError for what is no finite number."""
    if not _is_number(level):
        raise DataError(f"a level is a number in the units of the observable, not {level!r}")
    return float(level)  # pyright: ignore


def check_return_period(period: object) -> float:
    """Raise DataError for what is no number above 1."""
    if not (_is_number(period) and period > 1):  # pyright: ignore
        raise DataError(
            f"a return period is a number of blocks above 1, such as 10, not {period!r}"
        )
    return float(period)  # pyright: ignore


def check_block(block: Any) -> None:
    """Raise DataError for what is no block of numbers or dates."""
    if block is None or (isinstance(block, str) and block in BLOCKS):
        return
    if not (_is_number(block) and float(block) > 0):
        raise DataError(
            f"a block is a positive number, or of dates {', '.join(map(repr, BLOCKS))}, not "
            f"{block!r}"
        )


def blocks_of(index: xr.DataArray, block: Any) -> tuple[np.ndarray, str]:
    """The number of the block of each time, below zero in blocks that the times do not fill; and
    what a block is.

    Raises:
        DataError: for a block of another kind than the index, or times that fill none.
    """
    times = index.values
    if block is None:
        return np.zeros(times.size, int), "all times"
    dated = are_dates(index)
    if dated is not isinstance(block, str):
        wanted = (
            f"one of {', '.join(map(repr, BLOCKS))}"
            if dated
            else f"a number of units of '{index.name}'"
        )
        raise DataError(
            f"'{index.name}' holds {'dates' if dated else 'numbers'}, so a block is {wanted}, not "
            f"{block!r}"
        )
    if dated:
        spans = pd.DatetimeIndex(times).to_period(BLOCKS[block])
        number = np.asarray(spans.factorize()[0])
        begin, end = spans[0].start_time.to_datetime64(), spans[-1].end_time.to_datetime64()
        words = f"one {block}"
    else:
        number = np.floor((times - times[0]) / block * (1 + 1e-12) + 1e-9).astype(int)
        begin, end = times[0], times[0] + (number[-1] + 1 - _MISSING) * block
        units = index.attrs.get("units", "")
        words = f"{block:g} {units}".strip()
    late, early = _unfilled(times, begin, end)
    number = np.where((late & (number == 0)) | (early & (number == number[-1])), -1, number)
    if (number < 0).all():
        raise DataError(f"the times from {times[0]} to {times[-1]} fill no block of {words}")
    return number, words


def within(index: xr.DataArray, period: Any) -> np.ndarray:
    """Which values of an index lie in a period; all in none.

    Raises:
        DataError: for a period that is no first and last value of its kind.
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
    """A probability in words: what is rare or nearly sure is not rounded to never or always."""
    if not np.isfinite(probability):
        return "unknown"
    for edge, words in ((0.0, "under 1 %"), (1.0, "over 99 %")):
        if 0 < abs(probability - edge) < 0.01:
            return words
    return f"{100 * probability:.0f} %"


def _unfilled(times: np.ndarray, begin: Any, end: Any) -> tuple[bool, bool]:
    """Whether one more time would fit between the begin of the first block and the first time; and
    at the other end.
    """
    if times.size < 2:
        return False, False
    step = np.median(np.diff(times))
    if are_dates(times) and step >= np.timedelta64(28, "D"):
        dates = pd.DatetimeIndex(times)
        if (
            dates.day == dates.day[0]
        ).all() or dates.is_month_end.all():  # months and years differ in length
            months = pd.DateOffset(months=round(step / np.timedelta64(1, "D") / 30.4375))
            return bool(dates[0] - months >= begin), bool(dates[-1] + months <= end)
    return bool(times[0] - begin >= step), bool(end - times[-1] > step * 1.001)


def _is_number(value: Any) -> bool:
    """One finite number, and no text or truth value that could be taken for one."""
    if isinstance(value, (bool, str)) or np.ndim(value):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False

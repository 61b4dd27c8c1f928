"""Levels, return periods, blocks and probabilities, as far as they can be looked at without a forecast."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError

BLOCKS = {"year": "Y", "month": "M", "week": "W", "day": "D"}
"""What a block of dates may be, and how pandas calls it."""


def check_level(level: object) -> float:
    """Raises: DataError for what is no finite number."""
    if not _is_number(level):
        raise DataError(f"a level is a number in the units of the observable, not {level!r}")
    return float(level)  # pyright: ignore


def check_return_period(period: object) -> float:
    """Raises: DataError for what is no number above 1."""
    if not (_is_number(period) and period > 1):  # pyright: ignore
        raise DataError(f"a return period is a number of blocks above 1, such as 10, not {period!r}")
    return float(period)  # pyright: ignore


def check_block(block: Any) -> None:
    """Raises: DataError for what is no block of numbers or dates."""
    if block is None or (isinstance(block, str) and block in BLOCKS):
        return
    if not (_is_number(block) and float(block) > 0):
        raise DataError(f"a block is a positive number, or of dates {', '.join(map(repr, BLOCKS))}, not {block!r}")


def likely(probability: float) -> str:
    """A probability in words: what is rare or nearly sure is not rounded to never or always."""
    if not np.isfinite(probability):
        return "unknown"
    for edge, words in ((0.0, "under 1 %"), (1.0, "over 99 %")):
        if 0 < abs(probability - edge) < 0.01:
            return words
    return f"{100 * probability:.0f} %"


def _is_number(value: Any) -> bool:
    """One finite number, and no text or truth value that could be taken for one."""
    if isinstance(value, (bool, str)) or np.ndim(value):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False

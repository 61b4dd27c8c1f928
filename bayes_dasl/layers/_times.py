"""Checks of evenly spaced grids of time, and of times that JAX does not trace."""

import math
from typing import Any

import numpy as np
from jax.core import Tracer

from ..errors import ModelError

ROUNDING = 1e-6
"""Tolerance for rounding at the ends of a grid, as a share of the length of a step."""


def known(values: Any) -> np.ndarray | None:
    """Return values as a NumPy array, or None if JAX traces them, so that they have no numbers."""
    return None if isinstance(values, Tracer) else np.asarray(values)


def checked_grid(grid: Any) -> tuple[float, float, int]:
    """Check a grid and return its start, its end and its number of steps.

    Args:
        grid: three numbers (start, end, steps).

    Raises:
        ModelError: unless start < end are finite, and steps is a whole number of at least 1.
    """
    # Any failure to unpack or convert ends in the same message.
    try:
        start, end, steps = grid
        checked = float(start), float(end), int(steps)
    except (TypeError, ValueError):
        checked = None
    if (
        checked is None
        or not -math.inf < checked[0] < checked[1] < math.inf
        or checked[2] < 1
        or checked[2] != steps
    ):
        raise ModelError(
            "grid must be numbers (start, end, steps) with start < end and at least one step, not "
            f"{grid!r}"
        )
    return checked

"""Start time of a layer."""

import datetime
import math
from typing import Any

import numpy as np
import pandas as pd

from ..data.dates import as_date
from ..errors import ModelError


def start_time(start: Any) -> float | datetime.datetime | None:
    """Convert the argument `start` of a layer to a float, a `datetime`, or None.

    Raises:
        ModelError: if the start is neither a finite number nor a date, for example a distribution.
    """
    if start is None:
        return None
    try:
        if isinstance(start, (str, datetime.date, np.datetime64)):
            # A scalar of NumPy counts as an array, which a static field may not hold.
            return pd.to_datetime(as_date(start)).to_pydatetime()
        number = math.nan if isinstance(start, bool) else float(start)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ModelError(
            f"start must be a known number, the time of the initial states, not {start!r}; for "
            "data with dates a date, "
            "such as '2001-06-30'"
        )
    return number

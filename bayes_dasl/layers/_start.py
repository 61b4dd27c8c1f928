"""Start time of a layer."""

import datetime
import math
from typing import Any

import numpy as np
import pandas as pd

from ..data.dates import as_date
from ..errors import ModelError


def start_time(start: Any) -> float | datetime.datetime | None:
    """Converted start time: a number, a date, or none.

    Raises:
        ModelError: if it is neither a number nor a date, such as a distribution.
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

"""`phase`: the elapsed share of the year, week or day, for use in equations."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..data.dates import SINCE, as_date, counted_in, seconds_in
from ..errors import ModelError

_DAY = 86400
# Days of the 400 years after which the calendar repeats, and days from 1 March of year 0 to 1970.
# Years that begin in March have the leap day at their end.
_ERA, _MARCH = 146097, 719468
_THURSDAY = 3  # days from Monday to the first day of 1970


def phase(t: Any, of: str, units: str = "") -> Float[Array, "..."]:
    r"""Return the elapsed share of the year, the week or the day at a time, from 0 to 1.

    For example, `jnp.cos(2 * jnp.pi * (bd.layers.phase(t, "year") - peak))` is a seasonal rate.
    `jnp.interp(bd.layers.phase(t, "year"), share, values, period=1.0)` interpolates a curve that
    is known over a year.

    Args:
        t: the time, as an equation gets it for data with dates.
        of: "year" (from 1 January, with leap years), "week" (from Monday) or "day".
        units: the units of `t`, as the layer states them, such as "h since 2001-01-01". By default
            days since 1970.

    Returns:
        The share, with the shape of `t`.

    Raises:
        ModelError: if `of` is another word, or `units` is no unit of time since a date.
    """
    origin = as_date(counted_in(units).partition(SINCE)[2])
    before = (origin - np.datetime64("1970-01-01", "us")) / np.timedelta64(_DAY, "s")
    days = jnp.asarray(t, float) * (seconds_in(units) / _DAY) + float(before)
    if of == "day":
        return days % 1.0
    if of == "week":
        return ((days + _THURSDAY) / 7.0) % 1.0
    if of != "year":
        raise ModelError(f"a phase is of a 'year', a 'week' or a 'day', not of {of!r}")
    # The year of a day, by Howard Hinnant's algorithm civil_from_days.
    # 1. Days since 1 March of year 0, split into eras of 400 years and the day of the era.
    whole = jnp.floor(days).astype(int) + _MARCH
    era = whole // _ERA
    day = whole - era * _ERA
    # 2. The year of the era, counted from March, and the day of that year.
    from_march = (day - day // 1460 + day // 36524 - day // 146096) // 365
    of_march = day - (365 * from_march + from_march // 4 - from_march // 100)
    # 3. January and February belong to the next calendar year.
    year = from_march + 400 * era + (of_march >= 306)
    first = _first_day(year)
    return (days - first) / (_first_day(year + 1) - first)


def _first_day(year: Any) -> Any:
    """Return the number of days from 1 January 1970 to 1 January of a year."""
    before = year - 1
    return 365 * (year - 1970) + (before // 4 - before // 100 + before // 400) - 477

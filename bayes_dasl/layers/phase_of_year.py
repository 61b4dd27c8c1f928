"""Functions of the calendar for equations: how much of a year, a week or a day has passed."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..data.dates import SINCE, as_date, counted_in, seconds_in
from ..errors import ModelError

_DAY = 86400
# Of the calendar that repeats after 400 years, of which each year begins in March, so that a leap
# day is the last one.
_ERA, _MARCH = 146097, 719468
_THURSDAY = 3  # days from Monday to the first day of 1970


def phase(t: Any, of: str, units: str = "") -> Float[Array, "..."]:
    r"""How much of the year, the week or the day has passed at a time: 0 when it begins, rising to
    1.

    A seasonal rate is `jnp.cos(2 * jnp.pi * (bd.layers.phase(t, "year") - peak))`, a curve that is
    known over a year `jnp.interp(bd.layers.phase(t, "year"), share, values, period=1.0)`.
    `bd.Basis` takes it as an input like any other.

    Args:
        t: time, as the equation gets it for data with dates.
        of: "year" (from 1 January, leap years as they are), "week" (from Monday) or "day".
        units: what `t` counts, as the layer states it, such as "h since 2001-01-01"; days since
            1970 unless given.

    Shapes: that of `t`.

    Raises:
        ModelError: for another cycle, or what is no unit of time since a date.
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
    # Of the year that holds a day, from the years that begin in March: Howard Hinnant's
    # days_from_civil turned round.
    whole = jnp.floor(days).astype(int) + _MARCH
    era = whole // _ERA
    day = whole - era * _ERA
    from_march = (day - day // 1460 + day // 36524 - day // 146096) // 365
    of_march = day - (365 * from_march + from_march // 4 - from_march // 100)
    year = from_march + 400 * era + (of_march >= 306)
    first = _first_day(year)
    return (days - first) / (_first_day(year + 1) - first)


def _first_day(year: Any) -> Any:
    """Days from 1970 to the first of a year."""
    before = year - 1
    return 365 * (year - 1970) + (before // 4 - before // 100 + before // 400) - 477

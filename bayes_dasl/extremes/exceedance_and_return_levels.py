"""How probable it is that a forecast goes above a level, which levels it reaches how seldom, and in
which period.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..data.datasets import index_of
from ..data.dates import told
from ..errors import DataError, MismatchError
from ..scores.failures import usable_predictions
from ..scores.matching import check_forecast, fitted_between
from .levels import blocks_of, check_block, check_level, check_return_period, within

_FEWEST = 10
"""Blocks that reach a return level at least, among all draws, for it to be told."""


def exceedance(
    fc: xr.DataTree, observable: str, level: float, *, below: bool = False, during: Any = None
) -> xr.Dataset:
    """How probable it is that an observable goes above a level: at each time, and at any time of a
    period.

    All that is not known is in it, observation noise included, as far as the forecast has it. Draws
    of which a solve failed, or a prediction is not finite, do not count. Of replicates each time
    has one.

    Args:
        fc: what `forecast` returned, or `recalibrate`.
        observable: its name.
        level: in the units of the observable.
        below: whether it is to go below the level instead.
        during: first and last time of the period, numbers or dates. Unless given, the forecast
            period: the times after the fitted data, or those before them where there are none. Of
                rows in any order, and where no time is
            beyond the fitted data, all.

    Returns:
        `at`, the probability at each time of the period, and place, if any; `ever`, that at one of
        these times at least; `times`, the expected number of these times. The attributes `period`
        and `left_out` say which times were used and which were not.

    Raises:
        MismatchError: for what is no forecast, or no such observable.
        DataError: for a level that is no number, or a period without times.
    """
    check_level(level)
    draws, index = series_of(fc, observable, during)
    beyond = ((draws < level) if below else (draws > level)).astype(float)
    said = {
        "level": float(level),
        "observable": observable,
        "direction": "below" if below else "above",
    }
    said |= _told_period(fc, draws[index])
    found = xr.Dataset(
        {
            "at": beyond.mean("sample"),
            "ever": beyond.max(index).mean("sample"),
            "times": beyond.sum(index).mean("sample"),
        },
        attrs=said | {"series": int(fc.attrs.get("series", 1))},
    )
    for variable in found.data_vars.values():
        variable.attrs["units"] = ""
    found[index].attrs = draws[index].attrs
    return found


def return_levels(
    fc: xr.DataTree,
    observable: str,
    periods: Sequence[float],
    *,
    block: Any = None,
    during: Any = None,
) -> pd.DataFrame:
    """Levels that the highest value of a block, such as a year, exceeds once in so many blocks on
    average.

    They are quantiles of the highest values of all whole blocks in all draws: what is not known of
    the parameters is in them, which makes them higher than those of any one set of parameters. They
    hold for the values at the times that are forecast.

    Args:
        fc: what `forecast` returned.
        observable: its name; it must be a series of numbers.
        periods: once in how many blocks, each above 1.
        block: how long one is: a number of units of the index; for dates "year", "month", "week" or
            "day". The first and the last one are left out where the times do not fill them; times
            that are missing within one are not looked for. All times are one block unless given.
        during: first and last time that count, numbers or dates; the forecast period unless given,
            as for `exceedance`.

    Returns:
        A row for each period: `probability` in one block, `level`, and `blocks`, how many reach it
        in all draws. The level is NaN where that is fewer than ten. `attrs` tell the `block` in
        words, the `period` that was used, and what was `left_out`. A warning says so where a block
        of the forecast period is not whole.

    Raises:
        MismatchError: for what is no forecast or no series.
        DataError: for a period or block that is none.
    """
    wanted = np.unique([check_return_period(period) for period in periods])
    if not wanted.size:
        raise DataError("give the numbers of blocks, such as [2, 10, 100]")
    check_block(block)
    draws, index = series_of(fc, observable, during)
    if draws.ndim > 2:
        beside = [str(dim) for dim in draws.dims if dim not in ("sample", index)]
        raise MismatchError(
            f"'{observable}' lies along {' and '.join(beside)}, too: choose one place or member "
            "first"
        )
    if not fc.attrs.get("series", True):
        raise MismatchError(
            "these are rows in any order, which have no highest value of a block of time"
        )
    number, words = blocks_of(draws[index], block)
    said = _told_period(fc, draws[index])
    if (number < 0).any():
        part = draws[index].values[number < 0]
        lost = f"{part.size} times of blocks that are not whole ({_between(part)})"
        said["left_out"] = "; ".join(filter(None, [said["left_out"], lost]))
        if during is None:
            warnings.warn(
                f"return levels of '{observable}' leave out {lost}: forecast whole blocks",
                stacklevel=2,
            )
    values = draws.transpose("sample", index).values
    highest = np.concatenate(
        [values[:, number == i].max(axis=1) for i in np.unique(number[number >= 0])]
    )
    reached = np.floor(highest.size / wanted + 1e-9).astype(int)
    level = [
        np.quantile(highest, 1 - 1 / p) if n >= _FEWEST else np.nan
        for p, n in zip(wanted, reached, strict=True)
    ]
    columns = {"probability": 1 / wanted, "level": level, "blocks": reached}
    table = pd.DataFrame(columns, pd.Index(wanted, name="period"))
    table.attrs = {"block": words, **said}
    return table


def series_of(fc: xr.DataTree, observable: str, during: Any = None) -> tuple[xr.DataArray, str]:
    """The usable draws of an observable in a period, one at each time, and the name of the index.

    Raises:
        MismatchError: for what is no forecast, or no such observable.
        DataError: for a period without times.
    """
    check_forecast(fc, "predictions")
    names = [str(name) for name in fc["predictions"].data_vars]
    if observable not in names:
        raise MismatchError(
            f"the forecast has no observable '{observable}'; it has {', '.join(names)}"
        )
    held = usable_predictions(fc)
    index = index_of(fc["predictions"].to_dataset())
    draws = held[observable]
    if fc.attrs.get("series", True):
        draws = draws.isel({index: np.unique(draws[index].values, return_index=True)[1]})
    during = _forecast_period(fc) if during is None else during
    draws = draws.isel({index: np.flatnonzero(within(draws[index], during))})
    if not draws.sizes[index]:
        raise DataError(f"nothing is forecast during {during!r}")
    return draws, index


def _forecast_period(fc: xr.DataTree) -> tuple[Any, Any] | None:
    """The first and last time that a fit has not seen; all of rows in any order."""
    return unseen(fc) if fc.attrs.get("series", True) else None


def _told_period(fc: xr.DataTree, used: xr.DataArray) -> dict[str, str]:
    """Which times are used, and which are not, in words."""
    times = times_of(fc).values
    others = times[~np.isin(times, used.values)]
    lost = f"{others.size} times {_between(others)}" if others.size else ""
    return {"period": _between(used.values), "left_out": lost}


def _between(times: np.ndarray) -> str:
    return f"from {told(times.min())} to {told(times.max())}"


def is_series(fc: xr.DataTree, observable: str) -> bool:
    """Whether an observable is a number at each time, and the times are in their order."""
    return bool(fc.attrs.get("series", True)) and fc["predictions"].dataset[observable].ndim == 3


def times_of(fc: xr.DataTree) -> xr.DataArray:
    """The index of a forecast."""
    held = fc["predictions"].to_dataset()
    return held[index_of(held)]


def unseen(fc: xr.DataTree) -> tuple[Any, Any]:
    """The first and the last time after the fitted data; before them where there are none, else of
    all.
    """
    times, (start, end) = times_of(fc).values, fitted_between(fc)
    after = times[:0] if end is None or not fc.attrs.get("series", True) else times[times > end]
    before = times[:0] if start is None or after.size else times[times < start]
    found = after if after.size else before if before.size else times
    return found.min(), found.max()


def closer(fc: xr.DataTree) -> tuple[Any, Any] | None:
    """What is forecast after the fitted data and as long a time before it; nothing where nothing
    is.
    """
    times, (_, end) = times_of(fc).values, fitted_between(fc)
    if end is None or not times.max() > end:
        return None
    return max(times.min(), end - (times.max() - end)), times.max()

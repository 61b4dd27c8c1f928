"""How probable it is that a forecast goes above a level, and which levels it reaches how seldom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..data.datasets import index_of
from ..data.dates import are_dates, as_date
from ..errors import DataError, MismatchError
from .matching import check_forecast, fitted_between

_FEWEST = 10
"""Blocks that reach a return level at least, among all draws, for it to be told."""


def exceedance(
    fc: xr.DataTree, observable: str, level: float, *, below: bool = False, during: Any = None
) -> xr.Dataset:
    """How probable it is that an observable goes above a level: at each time, and at any time of a period.

    All that is not known is in it, observation noise included, as far as the forecast has it.

    Args:
        fc: what `forecast` returned, or `recalibrate`.
        observable: its name.
        level: in the units of the observable.
        below: whether it is to go below the level instead.
        during: first and last time of the period, numbers or dates; all that are forecast unless given.

    Returns: `at`, the probability at each time of the period, and place, if any; `ever`, that at one of these times at
    least; `times`, the expected number of these times. Draws of failed solves do not count.
    Raises: MismatchError for what is no forecast, or no such observable; DataError for a period without times.
    """
    draws, index = _drawn(fc, observable, during)
    beyond = ((draws < level) if below else (draws > level)).astype(float).where(np.isfinite(draws))
    usable = beyond.notnull().all(index)
    over = ["chain", "draw"]
    units = {"units": ""}
    said = {"level": float(level), "observable": observable, "direction": "below" if below else "above"}
    found = xr.Dataset(
        {
            "at": beyond.mean(over).assign_attrs(units, long_name=f"probability {said['direction']} {level:g}"),
            "ever": (beyond.max(index)).where(usable).mean(over).assign_attrs(units),
            "times": beyond.sum(index).where(usable).mean(over).assign_attrs(units),
        },
        attrs=said,
    )
    found[index].attrs = draws[index].attrs
    return found


def return_levels(
    fc: xr.DataTree, observable: str, periods: Sequence[float], *, block: Any = None, during: Any = None
) -> pd.DataFrame:
    """Levels that the highest value of a block, such as a year, exceeds once in so many blocks on average.

    They are quantiles of the highest values of all blocks in all draws: what is not known of the parameters is in them,
    which makes them higher than those of any one set of parameters. They hold for the values at the times that are
    forecast.

    Args:
        fc: what `forecast` returned.
        observable: its name; it must be a series of numbers.
        periods: once in how many blocks, each above 1.
        block: how long one is, in units of the index; of dates "year" or "month", or another offset of pandas. The
            whole period is one block unless given.
        during: first and last time that count, numbers or dates; all that are forecast unless given.

    Returns: a row for each period: `probability` in one block, `level`, and `blocks`, how many reach it in all draws.
    The level is NaN where that is fewer than ten.
    Raises: MismatchError for what is no forecast or no series; DataError for a period or block that is none.
    """
    wanted = np.asarray(periods, float)
    if wanted.ndim != 1 or not wanted.size or not np.all(wanted > 1):
        raise DataError(f"periods are numbers of blocks above 1, such as [2, 10, 100], not {periods!r}")
    draws, index = _drawn(fc, observable, during)
    if draws.ndim > 3:
        beside = [str(dim) for dim in draws.dims if dim not in ("chain", "draw", index)]
        raise MismatchError(f"'{observable}' lies along {' and '.join(beside)}, too: choose one place or member first")
    values = draws.transpose("chain", "draw", index).values.reshape(-1, draws.sizes[index])
    values = values[np.isfinite(values).all(axis=1)]
    number = _blocks(draws[index], block)
    highest = np.stack([values[:, number == i].max(axis=1) for i in np.unique(number)], axis=1).ravel()
    rows = []
    for period in wanted:
        reached = highest.size / period
        level = np.quantile(highest, 1 - 1 / period) if reached >= _FEWEST else np.nan
        rows.append({"probability": 1 / period, "level": level, "blocks": int(reached)})
    return pd.DataFrame(rows, pd.Index(wanted, name="period"))


def window_of(fc: xr.DataTree, observable: str) -> tuple[Any, Any] | None:
    """What is forecast after the fitted data and as long a time before it; nothing where nothing is."""
    draws, index = _drawn(fc, observable, None)
    times, (_, end) = draws[index].values, fitted_between(fc)
    if end is None or not times.max() > end:
        return None
    return max(times.min(), end - (times.max() - end)), times.max()


def _drawn(fc: xr.DataTree, observable: str, during: Any) -> tuple[xr.DataArray, str]:
    """The draws of an observable in a period, and the name of the index."""
    check_forecast(fc, "predictions")
    held = fc["predictions"].to_dataset()
    if observable not in held.data_vars:
        raise MismatchError(
            f"the forecast has no observable '{observable}'; it has {', '.join(map(str, held.data_vars))}"
        )
    index = index_of(held)
    draws = held[observable]
    if during is not None:
        dated = are_dates(draws[index])
        try:
            first, last = ((as_date(at) if dated else float(at)) for at in during)
        except (TypeError, ValueError) as error:
            kind = "dates" if dated else "numbers"
            raise DataError(f"during is the first and the last time, {kind} as in {index}, not {during!r}") from error
        draws = draws.isel({index: np.flatnonzero((draws[index].values >= first) & (draws[index].values <= last))})
    if not draws.sizes[index]:
        raise DataError(f"nothing is forecast during {during!r}")
    return draws, index


def _blocks(index: xr.DataArray, block: Any) -> np.ndarray:
    """The number of the block of each time."""
    if block is None:
        return np.zeros(index.size, int)
    if are_dates(index):
        names = {"year": "Y", "month": "M", "week": "W", "day": "D"}
        try:
            return pd.DatetimeIndex(index.values).to_period(names.get(block, block)).factorize()[0]
        except (TypeError, ValueError) as error:
            raise DataError(f"of dates a block is 'year', 'month', 'week' or 'day', not {block!r}") from error
    if isinstance(block, bool) or not isinstance(block, (int, float)) or not 0 < block < np.inf:
        raise DataError(f"a block is a positive number of units of '{index.name}', not {block!r}")
    return np.floor((index.values - index.values.min()) / block + 1e-9).astype(int)

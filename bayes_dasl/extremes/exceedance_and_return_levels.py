"""Exceedance probabilities and return levels of a forecast, in a period."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..data.datasets import index_of
from ..data.dates import in_words
from ..errors import DataError, MismatchError
from ..scores.failures import usable_predictions
from ..scores.matching import check_forecast, fitted_between
from .levels import blocks_of, check_block, check_level, check_return_period, within

# A return level is NaN if fewer blocks than this, over all draws, reach it.
_FEWEST = 10


def exceedance(
    fc: xr.DataTree, observable: str, level: float, *, below: bool = False, during: Any = None
) -> xr.Dataset:
    """The probability that an observable exceeds a level: at each time, and in a whole period.

    The probability includes all uncertainty of the forecast, also observation noise. Draws with a
    failed solve or a prediction that is not finite are left out. If there are several replicates at
    a time, the first one is used.

    Args:
        fc: the result of `forecast` or `recalibrate`.
        observable: the name of the observable.
        level: the level, in the units of the observable.
        below: whether to find values below the level instead.
        during: the first and last time of the period, as numbers or dates. The default is the times
            after the fitted data, or before them if there are none after. All times count if rows
            have no order, or if the fit has seen all times.

    Returns:
        A dataset with three variables. `at` is the probability at each time and place. `ever` is
        the probability that the level is exceeded at least once in the period. `times` is the
        expected number of times at which it is exceeded. The attributes `period` and `left_out`
        describe the times that were used and those that were not.

    Raises:
        MismatchError: for anything but a forecast, or an unknown observable.
        DataError: for a level that is no finite number, or a period without times.
    """
    check_level(level)
    draws, index = series_of(fc, observable, during)
    # Means over draws of an indicator are probabilities.
    beyond = ((draws < level) if below else (draws > level)).astype(float)
    columns = {
        "at": beyond.mean("sample"),
        "ever": beyond.max(index).mean("sample"),
        "times": beyond.sum(index).mean("sample"),
    }
    attributes = {
        "level": float(level),
        "observable": observable,
        "direction": "below" if below else "above",
        **_period_in_words(fc, draws[index]),
        "series": int(fc.attrs.get("series", 1)),
    }
    found = xr.Dataset(columns, attrs=attributes)
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
    """Return levels that block maxima exceed once in n blocks (such as years) on average.

    A return level is a quantile of the maxima of all whole blocks in all draws. So it includes the
    uncertainty of parameters, which makes it higher than the level for a single set of parameters.
    Only values at the times of the forecast count.

    Args:
        fc: the result of `forecast`.
        observable: the name of the observable, which must be a series of numbers.
        periods: the return periods n in blocks, each above 1.
        block: the length of a block: a number of units of the index, or for dates "year", "month",
            "week" or "day". All times are one block unless given. A first or last block that the
            times do not fill is left out; blocks with gaps inside are not.
        during: the first and last time that count, as for `exceedance`.

    Returns:
        A table with a row for each return period. `probability` is the probability of an exceedance
        in one block, `level` the return level, and `blocks` the number of blocks in all draws that
        reach it. The level is NaN if fewer than ten blocks reach it. `attrs` describe the `block`,
        the `period` that was used and the times that were `left_out`. If the times of the forecast
        do not fill a block, a warning says so.

    Raises:
        MismatchError: for anything but a forecast, or an observable that is no series of numbers.
        DataError: for a bad return period or block.
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
    # 1. Whole blocks.
    number, words = blocks_of(draws[index], block)
    said = _period_in_words(fc, draws[index])
    if (number < 0).any():
        part = draws[index].values[number < 0]
        lost = f"{part.size} times of blocks that are not whole ({_from_to(part)})"
        said["left_out"] = "; ".join(filter(None, [said["left_out"], lost]))
        if during is None:
            warnings.warn(
                f"return levels of '{observable}' leave out {lost}: forecast whole blocks",
                stacklevel=2,
            )
    values = draws.transpose("sample", index).values
    # 2. The maximum of each block in each draw.
    whole = np.unique(number[number >= 0])
    highest = np.concatenate([values[:, number == i].max(axis=1) for i in whole])
    # 3. Quantiles of these maxima, as far as enough blocks reach them.
    reached = np.floor(highest.size / wanted + 1e-9).astype(int)
    # Too few maxima beyond a level make its quantile a matter of chance.
    known = reached >= _FEWEST
    level = np.full(len(wanted), np.nan)
    if known.any():
        level[known] = np.quantile(highest, 1 - 1 / wanted[known])
    columns = {"probability": 1 / wanted, "level": level, "blocks": reached}
    table = pd.DataFrame(columns, pd.Index(wanted, name="period"))
    table.attrs = {"block": words, **said}
    return table


def series_of(fc: xr.DataTree, observable: str, during: Any = None) -> tuple[xr.DataArray, str]:
    """Return the usable draws of an observable in a period.

    Args:
        fc: the result of `forecast`.
        observable: the name of the observable.
        during: the first and last time of the period, as for `exceedance`.

    Returns:
        The draws over `sample` and the index, with one value at each time, and the name of the
        index.

    Raises:
        MismatchError: for anything but a forecast, or an unknown observable.
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
        # The first of several replicates at a time.
        draws = draws.isel({index: np.unique(draws[index].values, return_index=True)[1]})
    if during is None and fc.attrs.get("series", True):
        during = unseen(fc)
    draws = draws.isel({index: np.flatnonzero(within(draws[index], during))})
    if not draws.sizes[index]:
        raise DataError(f"nothing is forecast during {during!r}")
    return draws, index


def _period_in_words(fc: xr.DataTree, used: xr.DataArray) -> dict[str, str]:
    """Return `period`, the times that are used, and `left_out`, the other times, in words."""
    times = times_of(fc).values
    others = times[~np.isin(times, used.values)]
    lost = f"{others.size} times {_from_to(others)}" if others.size else ""
    return {"period": _from_to(used.values), "left_out": lost}


def _from_to(times: np.ndarray) -> str:
    """Return the first and last of some times in words."""
    return f"from {in_words(times.min())} to {in_words(times.max())}"


def is_series(fc: xr.DataTree, observable: str) -> bool:
    """Whether an observable is a time series of numbers.

    Args:
        fc: the result of `forecast`.
        observable: the name of the observable.

    Returns:
        False for rows without order, fields and populations.
    """
    return bool(fc.attrs.get("series", True)) and fc["predictions"].dataset[observable].ndim == 3


def times_of(fc: xr.DataTree) -> xr.DataArray:
    """Return the times of a forecast.

    Args:
        fc: the result of `forecast`.

    Returns:
        The coordinate that the forecast has as index.
    """
    held = fc["predictions"].to_dataset()
    return held[index_of(held)]


def unseen(fc: xr.DataTree) -> tuple[Any, Any]:
    """Return the first and last time of a forecast that the fit has not seen.

    Args:
        fc: the result of `forecast`.

    Returns:
        The first and last time after the fitted data. If there is none, those before the data. If
        there is none either, or rows have no order, those of all times.
    """
    times = times_of(fc).values
    start, end = fitted_between(fc)
    found = times[:0]
    if end is not None and fc.attrs.get("series", True):
        found = times[times > end]
    if start is not None and not found.size:
        found = times[times < start]
    found = found if found.size else times
    return found.min(), found.max()


def closer(fc: xr.DataTree) -> tuple[Any, Any] | None:
    """Return the time range of a close-up figure: the forecast after the data, and as long before.

    Args:
        fc: the result of `forecast`.

    Returns:
        The first and last time of the range; None if there is no forecast after the data.
    """
    times = times_of(fc).values
    _, end = fitted_between(fc)
    if end is None or not times.max() > end:
        return None
    return max(times.min(), end - (times.max() - end)), times.max()

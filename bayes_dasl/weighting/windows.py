"""Origins and windows of past forecasts of a time series."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool

from ..data.datasets import checked_index, place_of
from ..errors import DataError
from ..inference import AbstractEngine
from ..model import Model, is_series

# A number of origins is spread over the last 1 / 3 of the data.
_SHARE = 3
# The fewest draws of each chain in a fit for weights.
_FEWEST = 250


class Window(NamedTuple):
    """The times that are forecast from one origin, the last known time.

    Args:
        known: number of rows of the data up to the origin.
        end: number of rows of the data up to the end of the window.
        times: the observed times of the window.
    """

    known: int
    end: int
    times: np.ndarray


def windows_of(
    model: Model, data: xr.Dataset, origins: int | Sequence[Any], horizon: int | None
) -> list[Window]:
    """Return the window of each origin.

    Args:
        model: the model, for its index and observables.
        data: the data.
        origins: the number of origins, spaced evenly over the last third of the observed times; or
            the last known time at each origin.
        horizon: number of observed times in a window. The default is the largest number for which
            windows do not overlap.

    Returns:
        The windows in the order of their origins.

    Raises:
        DataError: if the rows are no time series, or the data do not suit the origins or the
            horizon.
    """
    index = model.index
    values = checked_index(data, index)
    if not is_series(model, data):
        raise DataError(
            f"rows along '{index}' have no future: leave-future-out is for series. Of rows in any "
            "order, leave out "
            "each in turn: ArviZ's loo and compare take what bd.fit returns"
        )
    times = observed_times(model, data)
    known, horizon = _origins_and_horizon(times, data, index, origins, horizon)
    rows = np.searchsorted(values, times, side="right")
    return [
        Window(int(rows[k - 1]), int(rows[k + horizon - 1]), times[k : k + horizon]) for k in known
    ]


def seen_rows(values: xr.DataArray, index: str) -> Bool[np.ndarray, " row"]:
    """Find the rows of an observable with a value at any place or of any group.

    Args:
        values: the observable.
        index: name of the index, along which the rows run.

    Returns:
        A mask of rows.
    """
    there = values.notnull()
    return there.any([dim for dim in there.dims if dim != index]).values


def observed_times(model: Model, data: xr.Dataset) -> np.ndarray:
    """Return the distinct times at which any observable has a value.

    Returns:
        The times, sorted.
    """
    seen = np.zeros(data.sizes[model.index], bool)
    for name in model.observables:
        seen |= seen_rows(data[name], model.index)
    return np.unique(data[model.index].values[seen])


def side_by_side(
    model: Model, train: xr.Dataset, test: xr.Dataset | None, most: int, horizon: int | None
) -> tuple[list, int]:
    """Choose origins whose windows are adjacent and end with the training data.

    The windows cover at most the last half of the observed times. Adjacent windows need at most one
    fit each, and no datum counts twice.

    Args:
        model: the model, for its index and observables.
        train: the training data.
        test: the test data, or None. Their number of observed times is the default horizon, up to a
            quarter of the observed times in the training data.
        most: largest number of origins.
        horizon: number of observed times in a window; None for the default.

    Returns:
        The origins and the horizon.

    Raises:
        DataError: if there is no room for one window.
    """
    times = observed_times(model, train)
    room = len(times) // 2
    ahead = 0 if test is None else len(observed_times(model, test))
    horizon = horizon or min(ahead or room, room // 2)
    number = min(most, room // max(horizon, 1))
    if not (horizon and number):
        raise DataError(
            f"the {len(times)} observed times of the training data are too few: at least "
            f"{horizon or 1} of their last "
            "half would have to be forecast"
        )
    return [times[-1 - horizon * back] for back in range(number, 0, -1)], int(horizon)


def sparing(engine: AbstractEngine) -> AbstractEngine:
    """Return an engine with a quarter of the draws, but at least 250, which suffice for weights.

    Returns:
        A copy; the engine itself if it has no setting `draws`.
    """
    fewer = max(engine.draws // 4, min(engine.draws, _FEWEST))
    chosen = {field.name for field in dataclasses.fields(engine)}  # pyright: ignore
    return dataclasses.replace(engine, draws=fewer) if "draws" in chosen else engine  # pyright: ignore


def _origins_and_horizon(
    times: np.ndarray,
    data: xr.Dataset,
    index: str,
    origins: int | Sequence[Any],
    horizon: int | None,
) -> tuple[np.ndarray, int]:
    """Return the number of observed times up to each origin, and the horizon.

    Args:
        times: the distinct observed times.
        data: the data.
        index: name of the index.
        origins: as for `windows_of`.
        horizon: as for `windows_of`.

    Raises:
        DataError: if the data do not suit the origins or the horizon.
    """
    number = len(times)
    if horizon is not None and not (isinstance(horizon, (int, np.integer)) and horizon > 0):
        raise DataError(
            f"horizon is how many times are forecast, a whole number from 1 on, not {horizon!r}"
        )
    if isinstance(origins, (int, np.integer)):
        # Evenly spaced origins, whose windows cover the last third of the observed times.
        if not 0 < origins < number:
            raise DataError(
                f"there can be 1 to {number - 1} origins in {number} observed times, not {origins}"
            )
        horizon = int(horizon or max(1, number // _SHARE // origins))
        first = number - max(number // _SHARE, horizon)
        last = number - horizon
        known = np.unique(
            np.round(np.linspace(first, last, min(int(origins), last - first + 1))).astype(int)
        )
    else:
        # Origins as times: each knows all observed times up to it.
        asked = np.asarray([place_of(data, index, origin) for origin in origins])
        known = np.searchsorted(times, asked, side="right")
        if not len(known) or (np.diff(known) < 1).any():
            raise DataError("origins must rise, with data between each two of them")
        horizon = int(horizon or np.diff(known, append=number).min())
    if known[0] < 1 or known[-1] + max(horizon, 1) > number or horizon < 1:
        raise DataError(
            f"{horizon} observed times are to be forecast from each origin, but the data have "
            f"{known[0]} before the "
            f"first one and {number - known[-1]} after the last one: take other origins, or "
            "another horizon"
        )
    return known, horizon

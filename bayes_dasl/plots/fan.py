"""A fan chart: the end of the data and the forecast after it, in bands of several levels."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.datasets import index_of
from ..errors import DataError, MismatchError
from ..extremes.exceedance_and_return_levels import closer
from ..extremes.levels import within
from ..scores.matching import Span, fitted_between
from ._series import (
    FAILED,
    distinct_times,
    draw_boundaries,
    draw_data,
    every_nth,
    finite_draws,
    series_of,
)
from ._style import (
    BLACK,
    BLUE,
    STYLE,
    add_legend,
    data_of,
    label_series,
    note,
    one_panel,
    positions,
    say_left_out,
    say_recalibrated,
)

FAN = (95, 90, 80, 60, 40, 20)
"""Probability of each band in per cent, the widest band first."""


@mpl.rc_context(STYLE)
def plot_fan(
    fc: xr.DataTree,
    train: xr.Dataset | None,
    test: xr.Dataset | None,
    observable: str,
    window: Any = None,
) -> Figure:
    """Draw a forecast as a fan of bands from 20 to 95 %, over a window of time.

    Args:
        fc: the result of `forecast` or `recalibrate`.
        train: the training data; None leaves them out.
        test: held-out data; None leaves them out.
        observable: name of the observable; it must be a time series of numbers.
        window: first and last time of the figure, as numbers or dates. None shows the forecast
            after the fitted data, with an equal time before it.

    Returns:
        The figure.

    Raises:
        MismatchError: if `fc` is no forecast, the observable is unknown or has dimensions other
            than the index, or rows have no order.
        DataError: if the window has fewer than two times.
    """
    predictions = series_of(fc, observable)
    if not fc.attrs.get("series", True):
        raise MismatchError(
            "a fan is drawn of series, and these are rows in any order: take plot_forecast"
        )
    train, test = data_of(fc, train, test)
    index = index_of(predictions)
    # 1. Choose the times of the window, thinned if there are very many.
    inside = within(predictions[index], closer(fc) if window is None else window)
    shown = predictions.isel({index: np.flatnonzero(inside)})
    time, first = distinct_times(shown, index)
    if len(time) < 2:
        raise DataError(f"fewer than two times are forecast in the window {window!r}")
    every = every_nth(time)
    time = time[every]
    # 2. Draw the bands, and only the data within the window.
    draws, left_out = finite_draws(shown)
    fig, ax = one_panel()
    if len(draws):
        _draw_fan(ax, time, draws[:, first[every]])
    else:
        note(ax, FAILED)
    say_left_out(ax, left_out)
    train, test = (_rows_between(data, index, time) for data in (train, test))
    draw_data(ax, train, test, predictions)
    draw_boundaries(ax, time, _ends_between(fitted_between(fc), time))
    label_series(ax, shown, index)
    add_legend(fig, 5, handlelength=1.0)
    say_recalibrated(fig, fc.attrs)
    return fig


def _draw_fan(ax: Axes, time: np.ndarray, draws: np.ndarray) -> None:
    """Draw the bands, the widest and faintest first, and the median; draws are `(draw, time)`."""
    for number, level in enumerate(FAN):
        tails = (100 - level) / 200, (100 + level) / 200
        low, high = np.quantile(draws, tails, axis=0)
        shade = mpl.colors.to_rgba(BLUE, 0.1 + 0.11 * number)  # pyright: ignore[reportAttributeAccessIssue]
        # White below each band, or its shade would mix with those of the wider bands.
        ax.fill_between(time, low, high, color="white", lw=0)
        ax.fill_between(time, low, high, color=shade, lw=0, label=f"{level} %")
    median = np.median(draws, axis=0)
    ax.plot(time, median, color=BLACK, lw=1.4, label="median")
    # Bands that come near zero look better with zero in the figure.
    lowest = np.quantile(draws, 0.025, axis=0).min()
    if draws.min() >= 0 and lowest < 0.3 * median.max():
        ax.set_ylim(bottom=0)


def _rows_between(data: xr.Dataset | None, index: str, time: np.ndarray) -> xr.Dataset | None:
    """Return the rows of data within the drawn times; None without data or rows.

    Args:
        data: the data, or None.
        index: name of the index.
        time: the drawn times, as positions on the axis.
    """
    if data is None:
        return None
    at = positions(data[index].values)
    rows = np.flatnonzero((at >= time.min()) & (at <= time.max()))
    return data.isel({index: rows}) if rows.size else None


def _ends_between(fitted: Span, time: np.ndarray) -> Span:
    """Return first and last time of the fitted data; None for one outside the drawn times."""

    def seen(at: Any) -> bool:
        return at is not None and bool(time.min() <= positions(at) <= time.max())

    start, end = (at if seen(at) else None for at in fitted)
    return start, end

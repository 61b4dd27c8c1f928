"""A fan chart: the last of the data and what is forecast after it, in bands of many levels."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..data.datasets import index_of
from ..errors import DataError, MismatchError
from ..extremes.exceedance_and_return_levels import closer
from ..extremes.levels import within
from ..scores.matching import Span, fitted_between, in_units_of_forecast
from ._style import (
    BLACK,
    BLUE,
    STYLE,
    VERMILION,
    WIDTH,
    axis_label,
    note,
    positions,
    predictions_of,
    say_left_out,
    say_recalibrated,
    time_axis,
)
from .forecast import MOST_TIMES, draw_boundaries, draw_observations, finite_draws

FAN = (95, 90, 80, 60, 40, 20)
"""How much each band holds in per cent, the widest first."""


def plot_fan(
    fc: xr.DataTree,
    train: xr.Dataset | None,
    test: xr.Dataset | None,
    observable: str,
    window: Any = None,
) -> Figure:
    """Draw a forecast as a fan of bands from 20 to 95 %, over a window of time.

    Args:
        fc: what `forecast` returned, or `recalibrate`.
        train: the data of the fit, as a dataset; None where they are not to be drawn.
        test: the data that the fit has not seen, likewise.
        observable: its name; it must be a series of numbers.
        window: first and last time of the figure, numbers or dates; unless given, what is forecast
            after the fitted data and as long a time before it.

    Raises:
        MismatchError: for what is no forecast, an unknown observable, one with places or members,
            or rows in any order.
        DataError: for a window with fewer than two times.
    """
    predictions = predictions_of(fc, observable)
    if not fc.attrs.get("series", True):
        raise MismatchError(
            "a fan is drawn of series, and these are rows in any order: take plot_forecast"
        )
    train, test = (
        None if data is None else in_units_of_forecast(fc, data) for data in (train, test)
    )
    index = index_of(predictions)
    inside = np.flatnonzero(within(predictions[index], closer(fc) if window is None else window))
    shown = predictions.isel({index: inside})
    time, first = np.unique(positions(shown[index].values), return_index=True)
    if len(time) < 2:
        raise DataError(f"fewer than two times are forecast in the window {window!r}")
    every = slice(None, None, math.ceil(len(time) / MOST_TIMES))
    time, draws = time[every], finite_draws(shown)[:, first[every]]
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        ax = fig.add_subplot()
        if len(draws):
            _draw_fan(ax, time, draws)
        else:
            note(ax, "every draw of this forecast failed")
        say_left_out(ax, math.prod(predictions.shape[:2]) - len(draws))
        for data, words, face, edge in (
            (train, "training data", BLACK, BLACK),
            (test, "test data", "white", VERMILION),
        ):
            if data is not None and (near := _near(data, index, time)).sizes[index]:
                draw_observations(ax, near, predictions, words, face, edge)
        draw_boundaries(ax, time, _inside(fitted_between(fc), time))
        ax.set_ylabel(axis_label(predictions, observable))
        time_axis(ax, shown[index])
        fig.legend(
            *ax.get_legend_handles_labels(), loc="outside upper left", ncols=5, handlelength=1.0
        )
        say_recalibrated(fig, fc.attrs)
    return fig


def _draw_fan(ax: Any, time: np.ndarray, draws: np.ndarray) -> None:
    for number, level in enumerate(FAN):
        low, high = np.quantile(draws, [(100 - level) / 200, (100 + level) / 200], axis=0)
        shade = mpl.colors.to_rgba(BLUE, 0.1 + 0.11 * number)  # pyright: ignore[reportAttributeAccessIssue]
        ax.fill_between(time, low, high, color="white", lw=0)
        ax.fill_between(time, low, high, color=shade, lw=0, label=f"{level} %")
    ax.plot(time, np.median(draws, axis=0), color=BLACK, lw=1.4, label="median")
    if (
        draws.min() >= 0
        and np.quantile(draws, 0.025, axis=0).min() < 0.3 * np.median(draws, axis=0).max()
    ):
        ax.set_ylim(bottom=0)


def _near(data: xr.Dataset, index: str, time: np.ndarray) -> xr.Dataset:
    """The data within the times that are drawn."""
    at = positions(data[index].values)
    return data.isel({index: np.flatnonzero((at >= time.min()) & (at <= time.max()))})


def _inside(fitted: Span, time: np.ndarray) -> Span:
    """Where the fitted data begin and end, as far as that lies within the times that are drawn."""
    start, end = (
        None if at is None or not time.min() <= positions(at) <= time.max() else at for at in fitted
    )
    return start, end

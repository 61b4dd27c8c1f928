"""A fan chart: the last of the data and what is forecast after it, in bands of many levels."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..data.datasets import index_of
from ..data.dates import are_dates, as_date
from ..errors import MismatchError
from ..judgement.events import window_of
from ..judgement.matching import fitted_between, in_units_of_forecast
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
from .forecast import draw_boundaries, draw_observations, finite_draws

FAN = (95, 90, 80, 60, 40, 20)
"""How much each band holds in per cent, the widest first."""


def plot_fan(
    fc: xr.DataTree, train: xr.Dataset | None, test: xr.Dataset | None, observable: str, window: Any = None
) -> Figure:
    """Draw a forecast as a fan of bands from 20 to 95 %, over a window of time.

    Args:
        fc: what `forecast` returned, or `recalibrate`.
        train: the data of the fit, as a dataset; None where they are not to be drawn.
        test: the data that the fit has not seen, likewise.
        observable: its name; it must be a series of numbers.
        window: first and last time of the figure, numbers or dates; unless given, what is forecast after the fitted
            data and as long a time before it.

    Raises: MismatchError for what is no forecast, an unknown observable, one with places or members, rows in any order,
    or a window without times.
    """
    predictions = predictions_of(fc, observable)
    if not fc.attrs.get("series", True):
        raise MismatchError("a fan is drawn of series, and these are rows in any order: take plot_forecast")
    train, test = (None if data is None else in_units_of_forecast(fc, data) for data in (train, test))
    index = index_of(predictions)
    time, at = np.unique(positions(predictions[index].values), return_index=True)
    low, high = _ends(window_of(fc, observable) if window is None else window, predictions[index])
    inside = (time >= low) & (time <= high)
    if not inside.any():
        raise MismatchError(f"nothing is forecast in the window {window!r}")
    draws = finite_draws(predictions)[:, at[inside]]
    shown = predictions[index].isel({index: np.sort(at[inside])})
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        ax = fig.add_subplot()
        if len(draws):
            _draw_fan(ax, time[inside], draws)
        else:
            note(ax, "every draw of this forecast failed")
        say_left_out(ax, math.prod(predictions.shape[:2]) - len(draws))
        for data, words, face, edge in (
            (train, "training data", BLACK, BLACK),
            (test, "test data", "white", VERMILION),
        ):
            draw_observations(ax, _within(data, index, low, high), predictions, words, face, edge)
        draw_boundaries(ax, time[inside], fitted_between(fc))
        ax.set_ylabel(axis_label(predictions, observable))
        time_axis(ax, shown)
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=5, handlelength=1.0)
        say_recalibrated(fig, fc.attrs)
    return fig


def _draw_fan(ax: Any, time: np.ndarray, draws: np.ndarray) -> None:
    for number, level in enumerate(FAN):
        low, high = np.quantile(draws, [(100 - level) / 200, (100 + level) / 200], axis=0)
        shade = mpl.colors.to_rgba(BLUE, 0.1 + 0.11 * number)  # pyright: ignore[reportAttributeAccessIssue]
        ax.fill_between(time, low, high, color="white", lw=0)
        ax.fill_between(time, low, high, color=shade, lw=0, label=f"{level} %")
    ax.plot(time, np.median(draws, axis=0), color=BLACK, lw=1.4, label="median")
    if draws.min() >= 0 and np.quantile(draws, 0.025, axis=0).min() < 0.3 * np.median(draws, axis=0).max():
        ax.set_ylim(bottom=0)


def _ends(window: Any, index: xr.DataArray) -> tuple[float, float]:
    """Where the window begins and ends along the axis."""
    if window is None:
        return -np.inf, np.inf
    dated = are_dates(index)
    try:
        low, high = (float(positions(as_date(at) if dated else float(at))) for at in window)
    except (TypeError, ValueError) as error:
        kind = "dates" if dated else "numbers"
        raise MismatchError(
            f"a window is a first and a last time, {kind} as in {index.name}, not {window!r}"
        ) from error
    return low, high


def _within(data: xr.Dataset | None, index: str, low: float, high: float) -> xr.Dataset | None:
    if data is None or index not in data.coords:
        return data
    at = positions(data[index].values)
    return data.isel({index: np.flatnonzero((at >= low) & (at <= high))})

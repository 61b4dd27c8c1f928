"""Time series of draws: bands, data points, boundaries, and which variables a figure can show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ..data.censoring import bounds, with_bounds
from ..data.datasets import index_of
from ..scores.matching import Span
from ._style import BLACK, BLUE, GREY, VERMILION, beside, positions, predictions_of, refuse_places

MOST_TIMES = 1000
MOST_POINTS = 400
"""Data in a panel; more would hide the bands behind them."""
_FEW_POINTS = 30
"""Data of one kind that are drawn in any case."""
_GOLDEN = 0.6180339887498949
MOST_INTERVALS = 60
"""Rows without an order, each with an interval of its own."""
FAILED = "every draw of this forecast failed"
BAND_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def can_be_drawn(variable: xr.DataArray, members: str) -> bool:
    """Whether `plot_derived` can draw a variable: a number, a series, or a series for each group.

    Args:
        variable: draws over chain, draw and further dimensions.
        members: name of the dimension of groups.
    """
    return len(beside(variable)) < 2 or series_of_members(variable, members) is not None


def series_of_members(variable: xr.DataArray, members: str) -> str | None:
    """Return the dimension with one panel per element, for a variable with two dimensions.

    It is the dimension of groups, or else the only dimension whose coordinate has no numbers or
    dates. Other variables give None.

    Args:
        variable: draws over chain, draw and further dimensions.
        members: name of the dimension of groups.
    """
    dims = beside(variable)
    if len(dims) != 2:
        return None
    if members in dims:
        return members
    named = [dim for dim in dims if not has_numbers(variable, dim)]
    return named[0] if len(named) == 1 else None


def has_numbers(variable: xr.DataArray, dim: str) -> bool:
    """Whether a dimension has numbers or dates as coordinate, so that a line may join values."""
    return dim in variable.coords and variable[dim].dtype.kind in "iufM"


def series_of(fc: xr.DataTree, observable: str) -> xr.DataArray:
    """Return the predictive draws of an observable that is a series.

    Raises:
        MismatchError: if `fc` is no forecast, or the observable is unknown or no series.
    """
    predictions = predictions_of(fc, observable)
    refuse_places(predictions)
    return predictions


def finite_draws(array: xr.DataArray) -> tuple[np.ndarray, int]:
    """Return the draws that are finite throughout, and the number of other draws.

    Shapes: the draws are `(draw, …)`, with all chains in one dimension.
    """
    draws = array.transpose("chain", "draw", ...).values
    draws = draws.reshape(-1, *draws.shape[2:])
    finite = np.isfinite(draws.reshape(len(draws), -1)).all(axis=1)
    return draws[finite], int((~finite).sum())


def distinct_times(predictions: xr.DataArray, index: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct times as positions on the axis, and the first row of each.

    Replicates at a time have the same forecast, so one band per time is enough.
    """
    return np.unique(positions(predictions[index].values), return_index=True)


def every_nth(time: np.ndarray) -> slice:
    """Return a slice that keeps evenly spaced times, at most `MOST_TIMES` of them."""
    return slice(None, None, math.ceil(len(time) / MOST_TIMES))


def some_of(count: int, most: int) -> np.ndarray:
    r"""Return the places of at most `most` of `count` values, in order and without a period.

    $\lfloor (k + \varphi k \bmod 1)\, n / m \rfloor$ with the golden ratio $\varphi$. Every n-th
    value could be the same weekday, or miss all held-out rows.
    """
    if count <= most:
        return np.arange(count)
    k = np.arange(most)
    return ((k + _GOLDEN * k % 1) * count / most).astype(int)


def points_drawn(*counts: int) -> list[int]:
    """Return how many data of each kind a panel shows, in proportion to their numbers."""
    total = sum(counts)
    if total <= MOST_POINTS:
        return list(counts)
    return [max(min(n, _FEW_POINTS), round(n * MOST_POINTS / total)) for n in counts]


def draw_bands(
    ax: Axes,
    x: np.ndarray,
    draws: np.ndarray,
    *,
    bar: float | None = None,
    kind: str = "band",
    whose: str = "",
    **median: Any,
) -> np.ndarray:
    """Draw the median of draws with bands of 50 and 90 %, and return five quantiles.

    Args:
        ax: the panel.
        x: horizontal positions.
        draws: the draws, `(draw, x)`.
        bar: width of a bar at each position, drawn in place of bands for rows without an order.
        kind: word for bands in the legend, "band" or "interval".
        whose: text that is appended to all labels of the legend.
        **median: Matplotlib options for the median.

    Returns:
        The quantiles at 5, 25, 50, 75 and 95 %, shape `(5, x)`.
    """
    quantiles = np.quantile(draws, BAND_QUANTILES, axis=0)
    # The wide band first, so that the narrow one lies on top of it.
    low, lower, middle, upper, high = quantiles
    for bottom, top, alpha, level in ((low, high, 0.18, 90), (lower, upper, 0.36, 50)):
        look = {"color": BLUE, "alpha": alpha, "label": f"{level} % {kind}{whose}"}
        draw_span(ax, x, bottom, top, bar, **look)
    ax.plot(x, middle, **{"color": BLUE, "lw": 1.8, "label": f"median{whose}"} | median)
    return quantiles


def draw_span(
    ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, bar: float | None, **look: Any
) -> None:
    """Fill the area between two curves, or draw a bar between them at each position.

    Args:
        ax: the panel.
        x: horizontal positions.
        low: lower curve.
        high: upper curve.
        bar: width of the bars; None fills the area.
        **look: Matplotlib options.
    """
    if bar is None:
        ax.fill_between(x, low, high, lw=0, **look)
    else:
        ax.bar(x, high - low, bar, low, lw=0, **look)


def draw_data(
    ax: Axes, train: xr.Dataset | None, test: xr.Dataset | None, predictions: xr.DataArray
) -> np.ndarray:
    """Draw training data as filled points and test data as open points.

    Args:
        ax: the panel.
        train: the training data; None leaves them out.
        test: held-out data; None leaves them out.
        predictions: draws of the observable, for its name and attributes.

    Returns:
        The values that were drawn.
    """
    observable = str(predictions.name)
    seen = [
        0 if data is None or observable not in data else int(data[observable].count())
        for data in (train, test)
    ]
    most = points_drawn(*seen)
    trained = _draw_points(ax, train, predictions, "training data", BLACK, BLACK, most[0])
    tested = _draw_points(ax, test, predictions, "test data", "white", VERMILION, most[1])
    return np.concatenate([trained, tested])


def censored_sides(
    values: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find censored data that are drawn at their limit.

    Args:
        values: the values as drawn.
        low: lower bounds of the data.
        high: upper bounds of the data; equal to the lower bounds without censoring.

    Returns:
        Two masks: data whose true value is at most the drawn value, and those where it is at least.
    """
    is_censored = low < high
    above = is_censored & (np.isposinf(high) | (low == values))
    return is_censored & ~above, above


def _draw_points(
    ax: Axes,
    data: xr.Dataset | None,
    predictions: xr.DataArray,
    label: str,
    face: str,
    edge: str,
    most: int,
) -> np.ndarray:
    """Draw data as points, and censored data as triangles that point to the true value.

    Args:
        ax: the panel.
        data: the data; None draws nothing.
        predictions: draws of the observable, for its name and attributes.
        label: label of the data in the legend.
        face: colour of the inside of points.
        edge: colour of the edge of points.
        most: largest number of data to draw; the legend says if there are more.

    Returns:
        The values that were drawn.
    """
    observable = str(predictions.name)
    if data is None or observable not in data:
        return np.array([])
    observed = with_bounds(data[observable], data, predictions.attrs)
    values = np.asarray(observed.values, float)
    time = positions(data[index_of(observed)].values)
    seen = np.isfinite(values)
    # The choice knows nothing of the values, so as large a share of those drawn lies in the bands.
    if (count := int(seen.sum())) > most:
        label = f"{label}, {most} of {count}"
        seen[np.delete(np.flatnonzero(seen), some_of(count, most))] = False
    below, above = censored_sides(values, *bounds(observed))
    # Smaller points where there are many, so that they do not hide each other.
    size = 5.5 if seen.sum() <= 60 else 3.5 if seen.sum() <= 300 else 2.0
    look = {
        "ms": size,
        "mfc": face,
        "mec": edge,
        "mew": 1.3,
        "zorder": 5,
        "ls": "",
    }
    for marker, at, name in (
        ("o", seen & ~below & ~above, label),
        ("v", below, f"{label}, at most"),
        ("^", above, f"{label}, at least"),
    ):
        if marker == "o" or at.any():
            ax.plot(time[at], values[at], marker, label=name, **look)
    return values[seen]


def draw_boundaries(ax: Axes, time: np.ndarray, fitted: Span, *, label: bool = True) -> None:
    """Draw lines at the end of the fitted data, and at their start if earlier times are forecast.

    Args:
        ax: the panel.
        time: the times of the forecast, as positions on the axis.
        fitted: first and last time of the fitted data, None where unknown.
        label: whether to label the sides of the lines.
    """
    start, end = (None if at is None else float(positions(at)) for at in fitted)
    if start is not None and time.min() < start:
        _draw_boundary(ax, start, ("forecast", "fitted") if label else ())
    if end is None or not np.isfinite(end):
        return
    # Times that all lie before the fitted data show nothing of their end.
    if start is None or time.max() > end or time.min() >= start:
        _draw_boundary(ax, end, ("fitted", "forecast") if label else ())


def _draw_boundary(ax: Axes, at: float, sides: tuple[str, ...]) -> None:
    """Draw a dashed vertical line with words above the panel, left and right of the line.

    Args:
        ax: the panel.
        at: horizontal position.
        sides: words on the left and on the right; empty for none.
    """
    ax.axvline(at, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    # The words stand above the panel, beside the line.
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    look = {
        "va": "bottom",
        "fontsize": 9,
        "color": GREY,
        "annotation_clip": False,
    }
    for text, side, align in zip(sides, (-4, 4), ("right", "left"), strict=False):
        ax.annotate(text, (at, 1.0), (side, 1), ha=align, **where, **look)

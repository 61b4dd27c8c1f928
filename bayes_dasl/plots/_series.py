"""Series of draws: which dimensions a figure can show, and bands, data points and boundaries."""

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
FAILED = "every draw of this forecast failed"
BAND_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def can_be_drawn(variable: xr.DataArray, members: str) -> bool:
    """Whether `plot_derived` can draw a variable: a number, a series, or one series per group."""
    return len(beside(variable)) < 2 or series_of_members(variable, members) is not None


def series_of_members(variable: xr.DataArray, members: str) -> str | None:
    """Return the dimension that gets one panel per element, or None for other variables.

    It is the dimension of groups, or else the only one of two dimensions without numbers.
    """
    dims = beside(variable)
    if len(dims) != 2:
        return None
    if members in dims:
        return members
    named = [dim for dim in dims if not has_numbers(variable, dim)]
    return named[0] if len(named) == 1 else None


def has_numbers(variable: xr.DataArray, dim: str) -> bool:
    """Whether a dimension has numbers or dates, so that a line may join its values."""
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
    """Return the draws that are finite throughout, and how many are left out.

    Shapes: the draws are `(draw, …)`, with all chains in one dimension.
    """
    draws = array.transpose("chain", "draw", ...).values
    draws = draws.reshape(-1, *draws.shape[2:])
    finite = np.isfinite(draws.reshape(len(draws), -1)).all(axis=1)
    return draws[finite], int((~finite).sum())


def distinct_times(predictions: xr.DataArray, index: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct times on the axis, and the first row of each.

    Replicates have the same forecast, so one band per time is enough.
    """
    return np.unique(positions(predictions[index].values), return_index=True)


def every_nth(time: np.ndarray) -> slice:
    """Return a slice that keeps at most `MOST_TIMES` times."""
    return slice(None, None, math.ceil(len(time) / MOST_TIMES))


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
    """Draw the median with bands of 50 and 90 %, and return the five quantiles.

    Args:
        ax: the panel.
        x: horizontal positions.
        draws: shape `(draw, x)`.
        bar: width of one bar per position, in place of bands; for rows without an order.
        kind: "band" or "interval", in the legend.
        whose: appended to all labels.
        median: how the median is drawn.

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
    """Fill between two curves, or draw one bar of width `bar` per position."""
    if bar is None:
        ax.fill_between(x, low, high, lw=0, **look)
    else:
        ax.bar(x, high - low, bar, low, lw=0, **look)


def draw_data(
    ax: Axes, train: xr.Dataset | None, test: xr.Dataset | None, predictions: xr.DataArray
) -> np.ndarray:
    """Draw training data as filled points and test data as open points.

    Returns:
        The values that were drawn.
    """
    trained = _draw_points(ax, train, predictions, "training data", BLACK, BLACK)
    tested = _draw_points(ax, test, predictions, "test data", "white", VERMILION)
    return np.concatenate([trained, tested])


def censored_sides(
    values: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of data that lie at most, and at least, where they are drawn."""
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
) -> np.ndarray:
    """Draw data as points, and censored data as triangles that point to the true value."""
    observable = str(predictions.name)
    if data is None or observable not in data:
        return np.array([])
    observed = with_bounds(data[observable], data, predictions.attrs)
    values = np.asarray(observed.values, float)
    time = positions(data[index_of(observed)].values)
    seen = np.isfinite(values)
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
            # As an image, thousands of points take less room in an SVG file.
            many = seen.sum() > 2000
            ax.plot(
                time[at],
                values[at],
                marker,
                label=name,
                rasterized=many,
                **look,
            )
    return values[seen]


def draw_boundaries(ax: Axes, time: np.ndarray, fitted: Span, *, label: bool = True) -> None:
    """Draw lines at the end of the fitted data, and at their start if times before are forecast."""
    start, end = (None if at is None else float(positions(at)) for at in fitted)
    if start is not None and time.min() < start:
        _draw_boundary(ax, start, ("forecast", "fitted") if label else ())
    if end is None or not np.isfinite(end):
        return
    # Times that all lie before the fitted data show nothing of their end.
    if start is None or time.max() > end or time.min() >= start:
        _draw_boundary(ax, end, ("fitted", "forecast") if label else ())


def _draw_boundary(ax: Axes, at: float, sides: tuple[str, ...]) -> None:
    """Draw a dashed line with words to its left and right."""
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

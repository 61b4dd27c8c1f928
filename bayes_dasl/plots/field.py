"""Figures of a field: an observable over time and one or two coordinates of space."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._statistics.convergence import thinned
from ..data.dates import are_dates, in_words
from ..scores.matching import fitted_between
from ._series import FAILED, finite_draws
from ._style import (
    STYLE,
    VERMILION,
    axis_label,
    data_of,
    few_ticks,
    new_figure,
    note,
    one_panel,
    plain,
    positions,
    predictions_of,
    say_above,
    say_recalibrated,
)

type Maps = dict[str, list[xr.DataArray]]
"""Fields `(time, place, …)` by title. Data at different places are separate fields."""

_TIMES = 4
_ERROR = "median less data"
_WIDTHS = "width of the 90 % interval"
_SIGNED = 0.2  # values have both signs if the smaller extreme is above this share of the larger


@mpl.rc_context(STYLE)
def plot_field(
    fc: xr.DataTree, train: xr.Dataset | None, test: xr.Dataset | None, observable: str
) -> Figure:
    """Draw maps of a field: data, median, error of the median, and width of the 90 % interval.

    A field over one coordinate is a map over time and place, with a dashed line at the end of the
    fitted data. A field over two coordinates is drawn at up to four times, and titles say which of
    these times were fitted. Draws whose solve failed are left out.

    Args:
        fc: the result of `forecast`.
        train: the training data; None leaves them out.
        test: held-out data; None leaves them out.
        observable: name of the observable; it must have one or two coordinates beside the index.

    Returns:
        The figure.

    Raises:
        MismatchError: if `fc` is no forecast, or the observable is unknown.
    """
    predictions = predictions_of(fc, observable)
    train, test = data_of(fc, train, test)
    index, *places = map(str, predictions.dims[2:])
    # Replicates have the same forecast.
    predictions = predictions.drop_duplicates(index)
    draws, left_out = finite_draws(predictions.transpose("chain", "draw", index, *places))
    if not len(draws):
        fig, ax = one_panel(2.0)
        note(ax, FAILED)
        return fig
    low, median, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
    # An array without draws, to be filled with summaries.
    like = predictions.isel(chain=0, draw=0, drop=True).transpose(index, *places)
    middle = like.copy(data=median)
    data = _observed_fields(train, test, observable, index, places)
    # The difference has only the times that both have: the forecast may begin after the fit.
    errors = [found for part in data if (found := middle - part).size]
    widths = like.copy(data=high - low)
    maps = {
        "data": data,
        "median": [middle],
        _ERROR: errors,
        _WIDTHS: [widths],
    }
    maps = {name: parts for name, parts in maps.items() if parts}
    _, train_end = fitted_between(fc)
    if len(places) == 1:
        fig = _over_time(maps, predictions, index, places[0], train_end)
    else:
        fig = _at_times(maps, predictions, index, places, train_end)
    if left_out:
        say_above(fig, f"{left_out} draws that are not finite are left out")
    say_recalibrated(fig, fc.attrs)
    return fig


def _observed_fields(
    train: xr.Dataset | None, test: xr.Dataset | None, observable: str, index: str, places: list
) -> list[xr.DataArray]:
    """Return training and test data as one field, or as two if their places differ.

    Args:
        train: the training data, or None.
        test: held-out data, or None.
        observable: name of the observable.
        index: name of the index.
        places: names of the coordinates of space.
    """
    found = [
        data[observable].transpose(index, *places)
        for data in (train, test)
        if data is not None and observable in data
    ]
    if len(found) == 2 and all(found[0][place].equals(found[1][place]) for place in places):
        found = [xr.concat(found, index, join="exact")]
    return [_mean_of_replicates(field.sortby(index).astype(float), index) for field in found]


def _mean_of_replicates(field: xr.DataArray, index: str) -> xr.DataArray:
    """Return a field with one value per time: the mean of fitted and held-out replicates."""
    if field.indexes[index].is_unique:
        return field
    return field.groupby(index).mean().transpose(*field.dims)


def _colour_limits(maps: Maps) -> dict[str, tuple[float, float]]:
    """Return the limits of the colours by title of the map; data and median share them."""
    # Colours of data and median must be comparable.
    groups = [("data", "median"), (_ERROR,), (_WIDTHS,)]
    limits = {}
    for names in groups:
        fields = [field.values.ravel() for name in names for field in maps.get(name, ())]
        values = np.concatenate([*fields, np.array([])])
        known = values[np.isfinite(values)]
        ends = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        limits |= dict.fromkeys(names, ends)
    return limits


def _colours(name: str, limits: tuple[float, float]) -> dict:
    """Return a colour map with its limits, as Matplotlib options.

    Errors, and values with both signs, have white at zero.

    Args:
        name: title of the map.
        limits: lowest and highest value.
    """
    low, high = limits
    # A field that is zero everywhere has no largest value.
    largest = max(-low, high, 1e-300)
    if name == _WIDTHS:
        return {
            "cmap": "Purples",
            "vmin": 0,
            "vmax": largest,
        }
    signed = low < 0 < high and min(-low, high) > _SIGNED * largest
    if name == _ERROR or signed:
        return {
            "cmap": "RdBu_r",
            "vmin": -largest,
            "vmax": largest,
        }
    return {
        "cmap": "viridis",
        "vmin": low,
        "vmax": high,
    }


def _over_time(
    maps: Maps, predictions: xr.DataArray, index: str, place: str, train_end: Any
) -> Figure:
    """Draw maps over time and one coordinate, one below the other.

    Args:
        maps: fields by title.
        predictions: draws of the observable, for names and labels.
        index: name of the index.
        place: name of the coordinate.
        train_end: last time of the fitted data, or None.
    """
    limits = _colour_limits(maps)
    fig = new_figure(1.75 * len(maps) + 0.4)
    axes = np.atleast_1d(fig.subplots(len(maps), 1, sharex=True, sharey=True))
    for ax, (name, fields) in zip(axes, maps.items(), strict=True):
        for field in fields:
            x = positions(field[index].values)
            mesh = _mesh(ax, x, field[place].values, field, _colours(name, limits[name]))
        fig.colorbar(mesh, ax=ax, label=axis_label(predictions, str(predictions.name)))
        ax.set_title(name)
        ax.set_ylabel(axis_label(predictions[place], place))
        times = np.concatenate([field[index].values for field in fields])
        if train_end is not None and times.min() < train_end < times.max():
            ax.axvline(float(positions(train_end)), color=VERMILION, lw=1.2, ls=(0, (4, 3)))
    axes[-1].set_xlabel(axis_label(predictions[index], index))
    few_ticks(axes[-1], predictions[index], 6)
    return fig


def _at_times(
    maps: Maps, predictions: xr.DataArray, index: str, places: list, train_end: Any
) -> Figure:
    """Draw maps over two coordinates, with a row for each title and a column for each time.

    Args:
        maps: fields by title.
        predictions: draws of the observable, for names and labels.
        index: name of the index.
        places: names of the coordinates.
        train_end: last time of the fitted data, or None.
    """
    limits = _colour_limits(maps)
    chosen = _map_times(maps, predictions[index].values, index)
    fig = new_figure(1.75 * len(maps) + 0.5, width=1.75 * len(chosen) + 1.1)
    axes = fig.subplots(len(maps), len(chosen), sharex=True, sharey=True, squeeze=False)
    for ax, time in zip(axes[0], chosen, strict=True):
        is_fitted = train_end is not None and time <= train_end
        ax.set_title(plain(f"{index} {in_words(time)}") + (", fitted" if is_fitted else ""))
    observable = axis_label(predictions, str(predictions.name))
    for row, (name, fields) in zip(axes, maps.items(), strict=True):
        mesh = None
        for ax, time in zip(row, chosen, strict=True):
            mesh = _map(ax, fields, index, places, time, _colours(name, limits[name])) or mesh
        # A row without any map has no colours to explain.
        if mesh is not None:
            fig.colorbar(mesh, ax=list(row), label=f"{fill(name, 13)}\n{observable}")
        row[0].set_ylabel(axis_label(predictions[places[1]], places[1]))
    for ax in axes[-1]:
        ax.set_xlabel(axis_label(predictions[places[0]], places[0]))
    return fig


def _map_times(maps: Maps, times: np.ndarray, index: str) -> np.ndarray:
    """Return up to four times, evenly chosen from those with data, or from all if none has data."""
    fields = maps.get("data", [])
    # Times with data show how far the median is off.
    with_data = [t for t in times if _field_at(fields, index, t) is not None]
    times = np.asarray(with_data) if with_data else times
    return times[thinned(len(times), _TIMES)]


def _map(
    ax: Axes,
    fields: list[xr.DataArray],
    index: str,
    places: list,
    time: Any,
    colours: dict,
) -> Any:
    """Draw the first field that has values at a time, or write that there is none.

    Args:
        ax: the panel.
        fields: the fields.
        index: name of the index.
        places: names of the coordinates.
        time: the time.
        colours: the result of `_colours`.

    Returns:
        The coloured cells, for a colour bar; None if no field has values.
    """
    field = _field_at(fields, index, time)
    if field is None:
        note(ax, "none")
        return None
    x, y = (field[place].values for place in places)
    ax.set_aspect("equal")
    return _mesh(ax, x, y, field, colours)


def _mesh(ax: Axes, x: np.ndarray, y: np.ndarray, field: xr.DataArray, colours: dict) -> Any:
    """Draw a field as coloured cells around its points, and return the cells."""
    # As an image, since thousands of cells would make an SVG file large.
    return ax.pcolormesh(
        x,
        y,
        field.values.T,
        shading="nearest",
        rasterized=True,
        **colours,
    )


def _field_at(fields: list[xr.DataArray], index: str, time: Any) -> xr.DataArray | None:
    """Return the first field with finite values at a time, at this time; None if there is none."""
    for field in fields:
        at = field.sel({index: time}, method="nearest")
        found = at[index]
        # Times of forecast and data may differ by rounding.
        same = found.values == time if are_dates(found) else np.isclose(float(found), time)
        if same and np.isfinite(at.values).any():
            return at
    return None

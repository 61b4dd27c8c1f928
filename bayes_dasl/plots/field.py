"""Figures of an observable that has places: a field over time and one or two coordinates."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .._statistics.convergence import thinned
from ..data.dates import are_dates, told
from ..scores.matching import fitted_between, in_units_of_forecast
from ._style import (
    GREY,
    STYLE,
    VERMILION,
    WIDTH,
    along_dates,
    axis_label,
    note,
    plain,
    positions,
    predictions_of,
    say_above,
    say_recalibrated,
)

_TIMES = 4
_WIDTHS = "Purples"
_ERROR, _SPREAD = "median less data", "width of the 90 % interval"
# Of the largest value, so much on the other side of zero.
_SIGNED = 0.2


def plot_field(
    fc: xr.DataTree, train: xr.Dataset | None, test: xr.Dataset | None, observable: str
) -> Figure:
    """Draw the forecast of a field: its median, the width of its 90 % interval, the data and how
    far the median is off.

    A field over one coordinate is a map over time and place; where data were fitted ends at a
    dashed line. One over two coordinates is drawn at up to four times, of which those within the
    fitted data say so. Draws whose solve failed are left out.

    Args:
        fc: what `forecast` returned.
        train: the data of the fit, as a dataset; None where they are not to be drawn.
        test: the data that the fit has not seen, likewise.
        observable: its name; it must have one or two coordinates beside the index.

    Raises:
        MismatchError: for what is no forecast, or an unknown observable.
    """
    predictions = predictions_of(fc, observable)
    train, test = (
        None if data is None else in_units_of_forecast(fc, data) for data in (train, test)
    )
    index, *places = map(str, predictions.dims[2:])
    predictions = predictions.drop_duplicates(index)  # replicates are forecast alike
    draws = predictions.transpose("chain", "draw", index, *places).values
    draws = draws.reshape(-1, *draws.shape[2:])
    finite = np.isfinite(draws.reshape(len(draws), -1)).all(axis=1)
    draws, left_out = draws[finite], int((~finite).sum())
    with mpl.rc_context(STYLE):
        if not len(draws):
            fig = Figure(figsize=(WIDTH, 2.0), layout="constrained")
            note(fig.add_subplot(), "every draw of this forecast failed")
            return fig
        low, median, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
        like = predictions.isel(chain=0, draw=0, drop=True).transpose(index, *places)
        middle, data = like.copy(data=median), _data(train, test, observable, index, places)
        # Data where nothing is forecast have no error; those of the fit may lie before the
        # forecast.
        errors = [found for part in data if (found := middle - part).size]
        maps = {
            "data": data,
            "median": [middle],
            _ERROR: errors,
            _SPREAD: [like.copy(data=high - low)],
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


def _data(
    train: xr.Dataset | None, test: xr.Dataset | None, observable: str, index: str, places: list
) -> list[xr.DataArray]:
    """The data as one array, or as two where they lie at other places."""
    held = [
        d[observable].transpose(index, *places)
        for d in (train, test)
        if d is not None and observable in d
    ]
    if len(held) == 2 and all(held[0][place].equals(held[1][place]) for place in places):
        held = [xr.concat(held, index, join="exact")]
    return [_once(values.sortby(index).astype(float), index) for values in held]


def _once(values: xr.DataArray, index: str) -> xr.DataArray:
    """The mean of the replicates of each time, of which some may have been fitted and some held
    out.
    """
    return (
        values
        if values.indexes[index].is_unique
        else values.groupby(index).mean().transpose(*values.dims)
    )


def _limits(maps: dict[str, list[xr.DataArray]]) -> dict[str, tuple[float, float]]:
    """The lowest and highest value of each row; the data and the median share theirs."""

    def ends(*names):
        values = np.concatenate(
            [part.values.ravel() for name in names for part in maps.get(name, ())]
        )
        return (
            (float(np.nanmin(values)), float(np.nanmax(values)))
            if np.isfinite(values).any()
            else (0.0, 1.0)
        )

    shared = ends("data", "median")
    return {name: shared if name in ("data", "median") else ends(name) for name in maps}


def _colours(name: str, limits: tuple[float, float]) -> dict:
    """Shades of two colours that meet at zero, for errors and for values of either sign."""
    low, high = limits
    largest = max(-low, high, 1e-300)
    if name == _SPREAD:
        return {"cmap": _WIDTHS, "vmin": 0, "vmax": largest}
    if name == _ERROR or (low < 0 < high and min(-low, high) > _SIGNED * largest):
        return {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _over_time(
    maps: dict, predictions: xr.DataArray, index: str, place: str, train_end: Any
) -> Figure:
    limits = _limits(maps)
    fig = Figure(figsize=(WIDTH, 1.75 * len(maps) + 0.4), layout="constrained")
    axes = np.atleast_1d(fig.subplots(len(maps), 1, sharex=True, sharey=True))
    for ax, (name, parts) in zip(axes, maps.items(), strict=True):
        for values in parts:
            mesh = ax.pcolormesh(
                positions(values[index].values),
                values[place].values,
                values.values.T,
                shading="nearest",
                rasterized=True,
                **_colours(name, limits[name]),
            )
        fig.colorbar(mesh, ax=ax, label=axis_label(predictions, str(predictions.name)))
        ax.set_title(name)
        ax.set_ylabel(axis_label(predictions[place], place))
        times = np.concatenate([values[index].values for values in parts])
        if train_end is not None and times.min() < train_end < times.max():
            ax.axvline(float(positions(train_end)), color=VERMILION, lw=1.2, ls=(0, (4, 3)))
    axes[-1].set_xlabel(axis_label(predictions[index], index))
    along_dates(axes[-1]) if are_dates(predictions[index]) else axes[-1].xaxis.set_major_locator(
        MaxNLocator(6)
    )
    return fig


def _at_times(
    maps: dict, predictions: xr.DataArray, index: str, places: list, train_end: Any
) -> Figure:
    limits, chosen = _limits(maps), _chosen(maps, predictions[index].values, index)
    fig = Figure(figsize=(1.75 * len(chosen) + 1.1, 1.75 * len(maps) + 0.5), layout="constrained")
    axes = fig.subplots(len(maps), len(chosen), sharex=True, sharey=True, squeeze=False)
    for ax, time in zip(axes[0], chosen, strict=True):
        ax.set_title(
            plain(f"{index} {told(time)}")
            + (", fitted" if train_end is not None and time <= train_end else "")
        )
    for row, (name, parts) in zip(axes, maps.items(), strict=True):
        colours, mesh = _colours(name, limits[name]), None
        for ax, time in zip(row, chosen, strict=True):
            mesh = _map(ax, parts, index, places, time, colours) or mesh
        if mesh is not None:
            fig.colorbar(
                mesh,
                ax=list(row),
                label=f"{fill(name, 13)}\n{axis_label(predictions, str(predictions.name))}",
            )
        row[0].set_ylabel(axis_label(predictions[places[1]], places[1]))
    for ax in axes[-1]:
        ax.set_xlabel(axis_label(predictions[places[0]], places[0]))
    return fig


def _chosen(maps: dict, times: np.ndarray, index: str) -> np.ndarray:
    """Up to four times, spread over those that have data, or over all if none has."""
    with_data = [
        t for t in times if any(_at(part, index, t) is not None for part in maps.get("data", ()))
    ]
    times = np.asarray(with_data) if with_data else times
    return times[thinned(len(times), _TIMES)]


def _map(ax: Axes, parts: list[xr.DataArray], index: str, places: list, time: Any, colours: dict):
    at = next((found for part in parts if (found := _at(part, index, time)) is not None), None)
    if at is None:
        ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", va="center", color=GREY)
        return None
    x, y = (at[place].values for place in places)
    mesh = ax.pcolormesh(x, y, at.values.T, shading="nearest", rasterized=True, **colours)
    ax.set_aspect("equal")
    return mesh


def _at(values: xr.DataArray, index: str, time: Any) -> xr.DataArray | None:
    """The values at a time, if there are any."""
    at = values.sel({index: time}, method="nearest")
    same = at[index].values == time if are_dates(at[index]) else np.isclose(float(at[index]), time)
    return at if same and np.isfinite(at.values).any() else None

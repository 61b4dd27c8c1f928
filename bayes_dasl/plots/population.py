"""Figures of the members of a population: each of them, and all against what the model makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ..data.censoring import alike, with_bounds
from ..data.datasets import index_of
from ..data.dates import are_dates
from ..errors import MismatchError
from ..judgement.matching import in_units_of_forecast
from ._style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    VERMILION,
    WIDTH,
    along_dates,
    axis_label,
    grid,
    note,
    plain,
    positions,
    predictions_of,
    rows_of,
    say_above,
    say_left_out,
    say_recalibrated,
    time_axis,
)
from .forecast import draw_bands, draw_observations, finite_draws

COLUMNS = 4
_GAP = 0.15  # of the span of the data
_QUANTILES = {0.1: ORANGE, 0.5: BLUE, 0.9: ORANGE}


def plot_members(
    fc: xr.DataTree, train: xr.Dataset | None, test: xr.Dataset | None, observable: str, *, most: int = 12
) -> Figure:
    """Draw the forecast of each member of a population with 50 and 90 % bands and its data, side by side.

    Draws whose solve failed are left out. Training data are filled, test data open. All panels have one scale.

    Args:
        fc: what `forecast` returned for a model with `bd.Each`.
        train: the data of the fit, as a dataset; None where they are not to be drawn.
        test: the data that the fit has not seen, likewise.
        observable: its name.
        most: so many members are drawn, evenly chosen.

    Raises: MismatchError for what is no forecast of a population, or an unknown observable.
    """
    predictions, dim = _of_members(fc, observable)
    index, held = index_of(predictions), predictions[dim].values
    members = evenly_chosen(held, most)
    data = [None if d is None else in_units_of_forecast(fc, d) for d in (train, test)]
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 0.9 + 1.5 * rows_of(len(members), COLUMNS)), layout="constrained")
        axes = grid(fig, len(members), COLUMNS, share=True)
        time = positions(predictions[index].values)
        for ax, member in zip(axes, members, strict=True):
            own = predictions.sel({dim: member})
            draws = finite_draws(own)
            if len(draws):
                draw_bands(ax, time, draws)
            else:
                note(ax, "every draw failed")
            say_left_out(ax, math.prod(own.shape[:2]) - len(draws))
            for part, label, face, edge in (
                (data[0], "training data", BLACK, BLACK),
                (data[1], "test data", "white", VERMILION),
            ):
                if part is not None and member in part[dim].values:
                    draw_observations(ax, part.sel({dim: member}), own, label, face, edge)
            ax.set_title(plain(member_name(dim, member)), fontsize=9, loc="left")
        along_members(axes, predictions[index])
        label_members(fig, axes, axis_label(predictions[index], index), axis_label(predictions, observable))
        by_label = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        fig.legend(by_label.values(), by_label.keys(), loc="outside upper left", ncols=5)
        if len(members) < len(held):
            say_above(fig, f"{len(members)} of {len(held)}, evenly chosen")
        say_recalibrated(fig, fc.attrs)
    return fig


def plot_vpc(fc: xr.DataTree, data: xr.Dataset, observable: str, *, bins: int = 8) -> Figure:
    """Draw a visual predictive check: quantiles of the data of all members over time, and what the model says of them.

    The lines are the 10, 50 and 90 % quantiles of the data in bins of time that hold about as many data each; the bands
    hold the same quantile of data drawn anew, of the same members at the same times, in 90 % of the draws. Where data
    are censored both are of what would be reported: the limit, for what lies below it.

    Args:
        fc: what `forecast` returned at the times of the data, for a model with `bd.Each`.
        data: the data, fitted or not, `(time, subject)`.
        observable: its name.
        bins: how many, at most.

    Raises: MismatchError for what is no forecast of a population, an unknown observable, or data none of which lie at
    times and members of the forecast.
    """
    predictions, dim = _of_members(fc, observable)
    index = index_of(predictions)
    given = in_units_of_forecast(fc, data)
    observed = with_bounds(given[observable].transpose(index, dim), given, predictions.attrs)
    both, seen = xr.align(predictions, observed, join="inner")
    values = seen.values.ravel()
    drawn = both.transpose("chain", "draw", index, dim).values
    draws = drawn.reshape(math.prod(drawn.shape[:2]), values.size)
    draws = alike(draws[np.isfinite(draws).all(1)], seen)
    at = np.broadcast_to(positions(seen[index].values)[:, None], seen.shape).ravel()
    kept = np.isfinite(values)
    if not kept.any() or not len(draws):
        raise MismatchError("none of the data lie at times and members of the forecast: forecast at those of the data")
    edges = _edges(np.sort(at[kept]), bins)
    part_of = np.searchsorted(edges, at[kept], side="right") - 1
    middles = np.asarray([at[kept][part_of == i].mean() for i in range(len(edges))])
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        ax = fig.add_subplot()
        for quantile, color in _QUANTILES.items():
            of = lambda v, q=quantile: np.stack([np.quantile(v[..., part_of == i], q, -1) for i in range(len(edges))])  # noqa: E731
            low, high = np.quantile(of(draws[:, kept]), (0.05, 0.95), axis=1)
            name = f"{100 * quantile:.0f} %"
            ax.fill_between(middles, low, high, color=color, alpha=0.25, lw=0, label=f"{name} of new data, 90 % band")
            style = "-" if quantile == 0.5 else "--" if quantile > 0.5 else ":"
            ax.plot(middles, of(values[kept]), style, color=BLACK, lw=1.5, marker=".", label=f"{name} of the data")
        ax.plot(at[kept], values[kept], "o", ms=2.5, color=GREY, alpha=0.5, zorder=1)
        ax.set_ylabel(axis_label(predictions, observable))
        time_axis(ax, predictions[index])
        fig.legend(loc="outside upper left", ncols=2)
        say_recalibrated(fig, fc.attrs)
    return fig


def _edges(times: np.ndarray, bins: int) -> np.ndarray:
    """Where bins of sorted times begin that hold about as many each; data of one time, and no long gap, lie in one."""
    even = [part[0] for part in np.array_split(times, bins) if part.size]
    return np.unique([*even, *times[1:][np.diff(times) > _GAP * np.ptp(times)]])


def _of_members(fc: xr.DataTree, observable: str) -> tuple[xr.DataArray, str]:
    predictions, dim = predictions_of(fc, observable), fc.attrs.get("members")
    if dim is None or dim not in predictions.dims:
        raise MismatchError(f"this forecast of '{observable}' has no members: it takes a model with bd.Each")
    if predictions.ndim > 4:
        raise MismatchError(f"'{observable}' has places beside members: choose one of them first")
    return predictions, dim


def evenly_chosen(members: np.ndarray, most: int) -> np.ndarray:
    """So many of them at most, the first and the last among them."""
    return members[np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).round().astype(int))]


def member_name(dim: str, member: object) -> str:
    return f"{dim} {member:g}" if isinstance(member, (int, float, np.number)) else str(member)


def along_members(axes: Sequence[Axes], along: xr.DataArray) -> None:
    """Few ticks on axes of numbers or dates that many panels share."""
    for ax in axes:
        time_axis(ax, along)
        along_dates(ax, 3) if are_dates(along) else ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.set_xlabel("")


def label_members(fig: Figure | SubFigure, axes: Sequence[Axes], below: str, beside: str) -> None:
    """One label for all panels, and ticks under the last of each column."""
    for ax in axes[-COLUMNS:]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel(below, fontsize=10)
    fig.supylabel(beside, fontsize=10)

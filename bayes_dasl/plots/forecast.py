"""Figures of a forecast over time and of the parts of its variance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.censoring import bounds, with_bounds
from ..data.datasets import index_of
from ..scores.matching import Span, fitted_between, in_units_of_forecast
from ._style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    VERMILION,
    WIDTH,
    axis_label,
    note,
    percent,
    plain,
    positions,
    predictions_of,
    refuse_places,
    refuse_unknown,
    say_left_out,
    say_recalibrated,
    time_axis,
)

MOST_TIMES = 1000
PARTS = {  # part of the variance: (colour, hatch)
    "aleatoric": ("#BFD7EA", None),
    "epistemic": (BLUE, None),
    "science": (BLUE, None),
    "network": (ORANGE, None),
    "process": (GREEN, None),
    "interaction": ("#F3D5E4", "////"),
    "science, at least": (BLUE, None),
    "network, at least": (ORANGE, None),
    "unknown": ("#E4E4E4", "...."),
    "forcing": (GREEN, None),
    "parameters": (BLUE, None),
}


def plot_forecast(
    fc: xr.DataTree, train: xr.Dataset | None, test: xr.Dataset | None, observable: str
) -> Figure:
    """Draw a forecast with 50 and 90 % bands, the data and the train/test boundary.

    Of rows in any order, which are no series, an interval each. Draws whose solve failed are left
    out. Training data are filled, test data open. A recalibrated forecast is labelled as one, here
    and in other figures.

    Args:
        fc: what `forecast` returned, or `recalibrate`.
        train: the data of the fit, as a dataset; None where they are not to be drawn.
        test: the data that the fit has not seen, likewise.
        observable: its name; it must be a series of numbers, for a field see `plot_field`.

    Raises:
        MismatchError: for what is no forecast, or an unknown observable, or one with places or
            members.

    Example:
        ```python
        figure = bd.plots.plot_forecast(fc, train, test, "y")
        figure.savefig(folder / "forecast.png")
        ```
    """
    predictions = predictions_of(fc, observable)
    train, test = (
        None if data is None else in_units_of_forecast(fc, data) for data in (train, test)
    )
    index = index_of(predictions)
    time, first = np.unique(positions(predictions[index].values), return_index=True)
    # Replicates are forecast alike: one band for each time.
    draws = finite_draws(predictions)[:, first]
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        ax = fig.add_subplot()
        apart = not fc.attrs.get("series", True)
        bands = draw_bands(ax, time, draws, apart=apart) if len(draws) else None
        if bands is None:
            note(ax, "every draw of this forecast failed")
        say_left_out(ax, math.prod(predictions.shape[:2]) - len(draws))
        seen = [
            *draw_observations(ax, train, predictions, "training data", BLACK, BLACK),
            *draw_observations(ax, test, predictions, "test data", "white", VERMILION),
        ]
        _clip(ax, bands, np.concatenate(seen) if seen else np.array([]))
        if not apart:
            draw_boundaries(ax, time, fitted_between(fc))
        ax.set_ylabel(axis_label(predictions, observable))
        time_axis(ax, predictions[index])
        handles, labels = ax.get_legend_handles_labels()
        columns = 4 if len(labels) == 4 else 3
        fig.legend(handles, labels, loc="outside upper left", ncols=columns)
        say_recalibrated(fig, fc.attrs)
    return fig


def epistemic_parts(parts: xr.Dataset) -> dict[str, xr.DataArray]:
    """The parts of the epistemic variance as far as they are known, by name; they add up to it.

    Of an ensemble of forcings, forcing and parameters. Else science, network, process and
    interaction, as far as there are such leaves; where one of the first two is unknown, what it
    explains at least, and the rest as unknown; and one part only, where there were too few draws to
    split it.

    Args:
        parts: what `decompose` returned.
    """
    epistemic, groups = parts["epistemic"], ("science", "network")
    process = {"process": parts["process"]} if "process" in parts else {}
    if "forcing" in parts:
        return {"forcing": parts["forcing"], "parameters": epistemic - parts["forcing"]}
    if "split_known" not in parts:
        return {"epistemic": epistemic}
    known = parts["split_known"]
    whole = bool((known | ~np.isfinite(epistemic)).all())
    if "network" not in parts:
        return (
            {"parameters": epistemic - process["process"], **process}
            if whole
            else {"epistemic": epistemic}
        )
    if not bool(np.isfinite(parts["network_least"]).any()):
        return {"epistemic": epistemic}
    if whole:
        return {name: parts[name] for name in (*groups, *process, "interaction")}
    told = {f"{name}, at least": parts[name] for name in groups} | process
    told |= {"interaction": parts["interaction"]} if bool(known.any()) else {}
    return told | {"unknown": parts["unknown"]}


def plot_decomposition(
    parts: xr.Dataset, observable: str, train_end: Any = None, train_start: Any = None
) -> Figure:
    """Stack the parts of the predictive variance, above as they are and below as shares.

    Science and network would vanish on average if that group were known, the interaction only if
    both were. Where the groups say the same it is negative and hangs below zero, so that the total,
    drawn as a line, is always the height of the stack less what hangs below it. Where they are
    unknown, what either group explains at least is drawn, and the rest as unknown.

    Args:
        parts: what `decompose` returned.
        observable: its name.
        train_end: the last time of the data of the fit, a number or a date, at which a line is
            drawn; no line unless given.
        train_start: the first one, at which a line is drawn if the parts begin before; no line
            unless given.

    Raises:
        MismatchError: for an unknown observable, or one with places or members beside the index.
    """
    refuse_unknown(observable, parts["observable"].values)
    chosen = parts.sel(observable=observable)
    refuse_places(chosen["total"].rename(observable))
    index = index_of(chosen["total"])
    chosen = chosen.drop_duplicates(index)
    time = positions(chosen[index].values)
    stack = {"aleatoric": chosen["aleatoric"], **epistemic_parts(chosen)}
    total = chosen["total"].values
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        positive = np.where(total > 0, total, np.nan)
        for ax, scale in ((upper, np.ones_like(total)), (lower, positive)):
            _draw_stack(ax, time, {name: part.values / scale for name, part in stack.items()})
            ax.plot(time, total / scale, color=BLACK, lw=1.6, label="total")
        upper.set_ylabel(_variance_label(chosen))
        lower.set_ylabel("share of total")
        lower.yaxis.set_major_formatter(percent())
        for ax in (upper, lower):
            draw_boundaries(ax, time, (train_start, train_end), label=ax is upper)
        time_axis(lower, chosen[index])
        fig.legend(*upper.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return fig


def finite_draws(array: xr.DataArray) -> np.ndarray:
    """The draws of a series that are finite throughout, one a row."""
    refuse_places(array)
    draws = array.transpose("chain", "draw", ...).values.reshape(-1, array.shape[-1])
    return draws[np.isfinite(draws).all(axis=1)]


def draw_bands(ax: Axes, time: np.ndarray, draws: np.ndarray, *, apart: bool = False) -> np.ndarray:
    """Bands of 50 and 90 % and the median of draws, one a row: their quantiles from low to high.

    Of rows in any order, which stand `apart`, an interval each.
    """
    every = slice(None, None, math.ceil(len(time) / MOST_TIMES))
    time = time[every]
    q05, q25, q50, q75, q95 = bands = np.quantile(
        draws[:, every], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0
    )
    if apart:
        wide = 0.7 * (np.diff(time).min() if len(time) > 1 else 1.0)
        ax.bar(time, q95 - q05, wide, q05, color=BLUE, alpha=0.18, lw=0, label="90 % interval")
        ax.bar(time, q75 - q25, wide, q25, color=BLUE, alpha=0.36, lw=0, label="50 % interval")
        ax.plot(time, q50, color=BLUE, ls="none", marker="_", ms=5, label="median")
        return bands
    ax.fill_between(time, q05, q95, color=BLUE, alpha=0.18, lw=0, label="90 % band")
    ax.fill_between(time, q25, q75, color=BLUE, alpha=0.36, lw=0, label="50 % band")
    ax.plot(time, q50, color=BLUE, lw=1.8, label="median")
    return bands


def draw_observations(
    ax: Axes, data: xr.Dataset | None, predictions: xr.DataArray, label: str, face: str, edge: str
) -> list[np.ndarray]:
    """Data as points, and censored ones as triangles that say where they lie: the values that were
    drawn.
    """
    observable = str(predictions.name)
    if data is None or observable not in data:
        return []
    given = with_bounds(data[observable], data, predictions.attrs)
    values, (low, high) = np.asarray(given.values, float), bounds(given)
    time = positions(data[index_of(given)].values)
    seen = np.isfinite(values)
    size = 5.5 if seen.sum() <= 60 else 3.5 if seen.sum() <= 300 else 2.0
    above = (low < high) & (np.isposinf(high) | (low == values))
    below = (low < high) & ~above
    exact = seen & ~below & ~above
    for marker, at, name in (
        ("o", exact, label),
        ("v", below, f"{label}, at most"),
        ("^", above, f"{label}, at least"),
    ):
        if marker == "o" or at.any():
            ax.plot(
                time[at],
                values[at],
                marker,
                ms=size,
                mfc=face,
                mec=edge,
                mew=1.3,
                label=name,
                zorder=5,
                ls="",
                rasterized=seen.sum() > 2000,
            )
    return [values[seen]]


def _clip(ax: Axes, bands: np.ndarray | None, seen: np.ndarray) -> None:
    """Keep data and median readable when the outer band runs away, and say that it does."""
    if bands is None or not np.isfinite(bands).all():
        return
    core = np.concatenate([bands[2], seen])
    spread = max(np.ptp(core), np.ptp(bands[[1, 3]]) / 4, 1e-12)
    low, high = bands[0].min(), bands[4].max()
    floor, ceiling = core.min() - 3 * spread, core.max() + 3 * spread
    margin = 0.05 * (min(high, ceiling) - max(low, floor))
    if high > ceiling:
        ax.set_ylim(top=ceiling)
        ax.text(
            0.02,
            0.97,
            f"the 90 % band goes on up to {high:.3g}",
            transform=ax.transAxes,
            va="top",
            fontsize=9,
            color=GREY,
        )
    if low < floor:
        ax.set_ylim(bottom=floor)
        ax.text(
            0.02,
            0.03,
            f"the 90 % band goes on down to {low:.3g}",
            transform=ax.transAxes,
            fontsize=9,
            color=GREY,
        )
    if low >= 0 and core.min() >= 0 and low - margin < 0.1 * high:
        ax.set_ylim(bottom=0)


def draw_boundaries(ax: Axes, time: np.ndarray, fitted: Span, *, label: bool = True) -> None:
    """A line where the fitted data end, and one where they begin if anything is forecast before."""
    start, end = (None if at is None else float(positions(at)) for at in fitted)
    if start is not None and time.min() < start:
        _draw_boundary(ax, start, ("forecast", "fitted") if label else None)
    if (
        end is not None
        and np.isfinite(end)
        and (start is None or time.max() > end or time.min() >= start)
    ):
        _draw_boundary(ax, end, ("fitted", "forecast") if label else None)


def _draw_boundary(ax: Axes, at: float, sides: tuple[str, str] | None) -> None:
    ax.axvline(at, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    for text, side, align in zip(sides or (), (-4, 4), ("right", "left"), strict=False):
        ax.annotate(
            text,
            (at, 1.0),
            (side, 1),
            **where,
            ha=align,
            va="bottom",
            fontsize=9,
            color=GREY,
            annotation_clip=False,
        )


def _draw_stack(ax: Axes, time: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
    top, bottom = np.zeros(len(time)), np.zeros(len(time))
    for name, values in parts.items():
        color, hatch = PARTS[name]
        values = np.nan_to_num(values)
        label: str | None = name
        for edge, part in ((top, values.clip(min=0)), (bottom, values.clip(max=0))):
            if not part.any():
                continue
            ax.fill_between(
                time, edge, edge + part, facecolor=color, hatch=hatch, lw=0, label=label
            )
            edge += part
            label = None
    if bottom.any():
        ax.axhline(0, color=GREY, lw=0.8)
    else:
        ax.set_ylim(bottom=0)


def _variance_label(parts: xr.Dataset) -> str:
    units = str(parts.coords["units"].item()) if "units" in parts.coords else ""
    base = units if units.isalpha() else f"({units})"
    return plain(f"variance, {base}²" if units else "variance")

"""Figures of exceedance probabilities and of return levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from ..data.datasets import index_of
from ..errors import MismatchError
from ..extremes.levels import likely
from ._style import (
    BLUE,
    LINES,
    MARKERS,
    SERIES,
    STYLE,
    add_legend,
    note,
    one_panel,
    percent,
    plain,
    positions,
    time_axis,
    with_units,
)


@mpl.rc_context(STYLE)
def plot_exceedance(found: xr.Dataset | Sequence[xr.Dataset], units: str = "") -> Figure:
    """Draw the probability over time that a level is exceeded, for one or several levels.

    Args:
        found: the result of `bayes_dasl.extremes.exceedance`, or several results for one
            observable.
        units: units of the levels, for the legend.

    Returns:
        The figure.

    Raises:
        MismatchError: if `found` is something else, has too many levels to distinguish, or has
            dimensions other than the index.
    """
    several = [found] if isinstance(found, xr.Dataset) else list(found)
    if not 0 < len(several) <= len(SERIES) or any("at" not in result for result in several):
        raise MismatchError(f"give 1 to {len(SERIES)} results of bd.extremes.exceedance")
    if any(result["at"].ndim > 1 for result in several):
        raise MismatchError("this draws a series: choose one place or member, as by .sel(…)")
    first = several[0]
    index = index_of(first["at"])
    # Rows without an order, or a single time, are drawn as points without a line.
    joined = first.attrs.get("series", 1) and first["at"].size > 1
    fig, ax = one_panel(2.9)
    for number, result in enumerate(several):
        level = f"{result.attrs['level']:g} {units}".strip()
        ever = likely(float(result["ever"]))
        label = plain(f"{result.attrs['direction']} {level}; at some time {ever}")
        line: Any = {"ls": LINES[number % len(LINES)], "lw": 1.8}
        points: Any = {
            "ls": "",
            "marker": MARKERS[number],
            "ms": 4,
        }
        look = {"color": SERIES[number], "label": label} | (line if joined else points)
        ax.plot(positions(result[index].values), result["at"].values, **look)
    ax.set_ylim(-0.02, 1.02)
    ax.yaxis.set_major_formatter(percent())
    ax.set_ylabel("probability")
    time_axis(ax, first[index])
    add_legend(fig, 1)
    return fig


@mpl.rc_context(STYLE)
def plot_return_levels(table: pd.DataFrame, observable: str, units: str = "") -> Figure:
    """Draw return levels against return periods.

    The return level of a period of n blocks is the level that block maxima exceed once in n blocks
    on average.

    Args:
        table: the result of `bayes_dasl.extremes.return_levels`.
        observable: name of the observable, for the axis.
        units: units of the observable, for the axis.

    Returns:
        The figure.

    Raises:
        MismatchError: if `table` has no levels.
    """
    if "level" not in table:
        raise MismatchError("give the table that bd.extremes.return_levels returned")
    known = table["level"].dropna().sort_index()
    fig, ax = one_panel(2.9)
    if len(known):
        ax.plot(known.index, known, color=BLUE, marker="o", lw=1.8)
        ax.set_xscale("log")
        ax.set_xticks(np.asarray(known.index, float), [f"{period:g}" for period in known.index])
    else:
        note(ax, "too few blocks reach any of these levels")
    # The ticks are the return periods of the table, not powers of ten.
    ax.minorticks_off()
    block = table.attrs.get("block", "")
    ax.set_xlabel(with_units("return period", f"blocks of {block}" if block else "blocks"))
    ax.set_ylabel(with_units(observable, units))
    return fig

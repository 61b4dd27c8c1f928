"""Figures of how probable it is that levels are exceeded, and of levels that are reached seldom."""

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
    WIDTH,
    note,
    percent,
    plain,
    positions,
    time_axis,
)


def plot_exceedance(found: xr.Dataset | Sequence[xr.Dataset], units: str = "") -> Figure:
    """Draw how probable it is over time that a level is exceeded; of several levels together.

    Args:
        found: what `bayes_dasl.extremes.exceedance` returned, or several of them for one
            observable.
        units: those of the levels, for the legend.

    Raises:
        MismatchError: for what that did not return, too many to tell apart, or one with places or
            members.
    """
    several = [found] if isinstance(found, xr.Dataset) else list(found)
    if not 0 < len(several) <= len(SERIES) or any("at" not in each for each in several):
        raise MismatchError(f"give 1 to {len(SERIES)} results of bd.extremes.exceedance")
    if any(each["at"].ndim > 1 for each in several):
        raise MismatchError("this draws a series: choose one place or member, as by .sel(…)")
    index = index_of(several[0]["at"])
    apart = not several[0].attrs.get("series", 1) or several[0]["at"].size == 1
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        ax = fig.add_subplot()
        for number, each in enumerate(several):
            level = f"{each.attrs['level']:g}{f' {units}' if units else ''}"
            label = plain(
                f"{each.attrs['direction']} {level}; at some time {likely(float(each['ever']))}"
            )
            style: Any = {
                "color": SERIES[number],
                "ls": "" if apart else LINES[number % len(LINES)],
            }
            style |= {"marker": MARKERS[number % len(MARKERS)], "ms": 4} if apart else {"lw": 1.8}
            ax.plot(positions(each[index].values), each["at"].values, label=label, **style)
        ax.set_ylim(-0.02, 1.02)
        ax.yaxis.set_major_formatter(percent())
        ax.set_ylabel("probability")
        time_axis(ax, several[0][index])
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=1)
    return fig


def plot_return_levels(table: pd.DataFrame, observable: str, units: str = "") -> Figure:
    """Draw which level is exceeded once in how many blocks.

    Args:
        table: what `bayes_dasl.extremes.return_levels` returned.
        observable: its name, for the axis.
        units: its units, likewise.

    Raises:
        MismatchError: for what that did not return.
    """
    if "level" not in table:
        raise MismatchError("give the table that bd.extremes.return_levels returned")
    known = table["level"].dropna().sort_index()
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        ax = fig.add_subplot()
        if len(known):
            ax.plot(known.index, known, color=BLUE, marker="o", lw=1.8)
            ax.set_xscale("log")
            ax.set_xticks(np.asarray(known.index, float), [f"{period:g}" for period in known.index])
        else:
            note(ax, "too few blocks reach any of these levels")
        ax.minorticks_off()
        block = table.attrs.get("block", "")
        ax.set_xlabel(
            plain(f"return period (blocks of {block})" if block else "return period (blocks)")
        )
        ax.set_ylabel(plain(f"{observable} ({units})" if units else observable))
    return fig

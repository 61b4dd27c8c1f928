"""Figures of how well a forecast is calibrated."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._style import (
    BLACK,
    FAINT,
    GREY,
    LEVELS,
    LINES,
    MARKERS,
    SERIES,
    STYLE,
    WIDTH,
    band,
    percent,
    plain,
    say_recalibrated,
    sorted_finite,
)

if TYPE_CHECKING:
    import pandas as pd


def plot_pit(pit: xr.Dataset) -> Figure:
    """Draw the distribution of the probability integral transform against the uniform one.

    The band holds 95 % of such lines, as a whole, when the forecast is calibrated and the values
    are independent.

    Args:
        pit: what `bd.scores.pit` returned.
    """
    values = {str(name): sorted_finite(v.values) for name, v in pit.data_vars.items()}
    pooled = np.sort(np.concatenate([*values.values(), np.array([])]))
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        ax = fig.add_subplot()
        u = np.linspace(0, 1, 101)
        half = band(float(len(pooled)), 0.95)
        lower, upper = np.clip(u - half, 0, 1), np.clip(u + half, 0, 1)
        ax.fill_between(u, lower, upper, color=FAINT, lw=0, label="95 % band")
        ax.plot(u, u, color=GREY, lw=0.8)
        if 1 < len(values) <= len(SERIES):
            for (name, v), color, line in zip(
                values.items(), SERIES, itertools.cycle(LINES[1:]), strict=False
            ):
                _draw_ecdf(ax, v, color=color, ls=line, lw=1.3, label=plain(name))
        _draw_ecdf(ax, pooled, color=BLACK, lw=1.8, label="all" if len(values) > 1 else "observed")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability integral transform (PIT)")
        ax.set_ylabel("share of test values below")
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4)
        say_recalibrated(fig, pit.attrs)
    return fig


def plot_coverage(scores: pd.DataFrame) -> Figure:
    """Draw the observed against the nominal coverage of central intervals.

    Bars are 90 % Wilson intervals for a proportion.

    Args:
        scores: what `bd.score` returned.
    """
    nominal, place = np.array(LEVELS) / 100, np.arange(len(LEVELS), dtype=float)
    columns = [f"coverage_{level}" for level in LEVELS]
    names = [name for name in scores.index if name != "all"]
    several = 1 < len(names) <= len(SERIES)
    observed = scores.loc["all", columns].to_numpy(float)
    bars = _wilson(observed, float(scores.loc[names, "n"].sum()))
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        ax = fig.add_subplot()
        ax.hlines(nominal, place - 0.42, place + 0.42, color=GREY, lw=1.2, label="nominal")
        ax.errorbar(
            place - 0.2 * several, observed, np.abs(bars - observed), fmt="o", ms=6.5, color=BLACK,
            capsize=3, lw=1.2, label="all" if len(names) > 1 else "observed", zorder=4,
        )  # fmt: skip
        shifts = np.linspace(0.0, 0.32, len(names)) if several else []
        for name, shift, color, marker in zip(names, shifts, SERIES, MARKERS, strict=False):
            ax.plot(
                place + shift, scores.loc[name, columns].to_numpy(float), marker=marker, ms=5.5,
                color=color, mfc="white", mew=1.4, ls="", label=plain(name), zorder=5,
            )  # fmt: skip
        lowest = np.nanmin([0.3, *bars[0], *scores.loc[names, columns].min()])
        ax.set(xlim=(-0.55, len(LEVELS) - 0.45), ylim=(max(lowest - 0.05, -0.03), 1.04))
        ax.set_xticks(place, [f"{level}\N{NARROW NO-BREAK SPACE}%" for level in LEVELS])
        ax.set(xlabel="nominal coverage of the interval", ylabel="observed coverage")
        ax.yaxis.set_major_formatter(percent())
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4)
        say_recalibrated(fig, scores.attrs)
    return fig


def _draw_ecdf(ax: Axes, ordered: np.ndarray, **style: Any) -> None:
    if ordered.size:
        steps = np.arange(ordered.size + 1) / ordered.size
        ax.step([0, *ordered, 1], [*steps, 1.0], where="post", **style)


def _wilson(share: np.ndarray, count: float, z: float = 1.645) -> np.ndarray:
    """Return the 90 % Wilson interval of observed shares; shape (2, level)."""
    n = max(count, 1.0)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.stack([np.minimum(centre - half, share), np.maximum(centre + half, share)])

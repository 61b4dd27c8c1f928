"""Colours, type and axes that all figures share. Colours are those of Okabe & Ito (2008)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num, num2date
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..data.dates import are_dates, as_date
from ..errors import MismatchError
from ..scores.matching import RECALIBRATED, check_forecast

BLACK, GREY, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILION, PURPLE = "#D55E00", "#CC79A7"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
LINES = ("-", "--", "-.", ":")
MARKERS = ("s", "^", "D", "v", "P", "X")
LEVELS = (50, 80, 90, 95)
WIDTH = 5.2
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "hatch.linewidth": 0.8,
    "hatch.color": PURPLE,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "path",
    "svg.hashsalt": "bayes_dasl",
}


def note(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)


def say_left_out(ax: Axes, draws: int) -> None:
    """That so many draws are not in the picture, since they are not finite."""
    if draws:
        text = f"{draws} draws that are not finite are left out"
        ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", fontsize=9, color=GREY)


def say_above(fig: Figure, *texts: str) -> None:
    """Put words above the legend of a figure, or above its panels where it has none."""
    legend = next(iter(fig.legends), None)
    before = fig.get_suptitle() if legend is None else legend.get_title().get_text()
    words = "\n".join(filter(None, [before, *map(plain, texts)]))
    if legend is None:
        fig.suptitle(words, fontsize=9, color=GREY)
    elif words:
        legend.set_title(words)
        legend.get_title().set(fontsize=9, color=GREY)
        legend.set_alignment("left")


def say_recalibrated(fig: Figure, *attributes: Mapping) -> None:
    """That what is drawn is recalibrated, and how, by the attributes of forecasts, transforms or
    scores.
    """
    say_above(fig, *(found[RECALIBRATED] for found in attributes if RECALIBRATED in found))


def predictions_of(fc: xr.DataTree, observable: str) -> xr.DataArray:
    """The draws of one observable of a forecast.

    Raises:
        MismatchError: for what is no forecast, or has no such observable.
    """
    check_forecast(fc, "predictions")
    held = fc["predictions"].dataset
    refuse_unknown(observable, held.data_vars)
    return held[observable]


def refuse_places(array: xr.DataArray) -> None:
    """Raise MismatchError for what lies along more than the index, where a series is drawn."""
    dims = [str(dim) for dim in array.dims if dim not in ("chain", "draw")]
    if len(dims) > 1:
        raise MismatchError(
            f"'{array.name}' lies along {' and '.join(dims)}, but this draws a series: choose one "
            "place or member, as "
            f"by .sel({dims[1]}=…), or take plot_members or plot_field"
        )


def refuse_unknown(observable: str, held: Iterable) -> None:
    """Raise MismatchError for an observable that is not among those held."""
    names = [str(name) for name in held]
    if observable not in names:
        raise MismatchError(
            f"the forecast has no observable '{observable}'; it has {', '.join(names) or 'none'}"
        )


def plain(text: object) -> str:
    """Keep dollar signs in user text from being read as mathematics."""
    return str(text).replace("$", r"\$")


def axis_label(array: xr.DataArray, name: str) -> str:
    label, units = array.attrs.get("long_name") or name, array.attrs.get("units")
    return plain(f"{label} ({units})" if units else label)


def percent() -> PercentFormatter:
    return PercentFormatter(1.0, symbol="\N{NARROW NO-BREAK SPACE}%")


def positions(values: Any) -> np.ndarray:
    """Where numbers or dates, also one in an attribute of a forecast, lie along an axis."""
    values = as_date(values) if isinstance(values, str) else values
    return np.asarray(date2num(values)) if are_dates(values) else np.asarray(values, float)


class _Dates(AutoDateLocator):
    """Places for ticks along dates, without a warning where more ticks than asked for are the best
    there are.
    """

    def get_locator(self, dmin, dmax):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "AutoDateLocator was unable", UserWarning)
            return super().get_locator(dmin, dmax)


class _Named(ConciseDateFormatter):
    """Dates in few words: beside ticks that name their months the corner of the axis says the year
    alone.
    """

    years = ""

    def format_ticks(self, values):
        dates = [num2date(value) for value in values]
        months = {(date.year, date.month) for date in dates}
        years = sorted({date.year for date in dates})
        crossed = len(months) > 1 and any(date.day != 1 for date in dates)
        self.years = "\N{EN DASH}".join(map(str, years[:1] + years[1:][-1:])) if crossed else ""
        return super().format_ticks(values)

    def get_offset(self):
        # Matplotlib would name the month of the last tick, as if it were that of all.
        return self.years or super().get_offset()


def along_dates(ax: Axes, most: int = 6) -> None:
    """An axis whose positions are those of dates."""
    locator = _Dates(minticks=min(3, most), maxticks=most)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(_Named(locator))


def time_axis(ax: Axes, time: xr.DataArray) -> None:
    values = positions(time.values)
    ax.set_xlabel(axis_label(time, str(time.name)))
    if are_dates(time):
        along_dates(ax)
    else:
        whole = bool(np.all(values == np.round(values))) and np.ptp(values) > 4
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if values.size > 1:
        pad = 0.02 * np.ptp(values)
        low, high = ax.dataLim.intervalx
        ax.set_xlim(min(low, values.min()) - pad, max(high, values.max()) + pad)


def small_multiples(count: int, height: float, *, share: bool = False) -> tuple[Figure, list[Axes]]:
    fig = Figure(figsize=(WIDTH, 0.65 + height * rows_of(count, 2)), layout="constrained")
    fig.get_layout_engine().set(hspace=0.06, wspace=0.06)  # type: ignore[union-attr]
    return fig, grid(fig, count, 2, share=share)


def rows_of(count: int, columns: int) -> int:
    """How many rows hold so many panels."""
    return max(1, math.ceil(count / columns))


def grid(fig: Figure | SubFigure, count: int, columns: int, *, share: bool = False) -> list[Axes]:
    """So many panels, row by row; what is left of the last row stays empty."""
    wide = min(columns, max(count, 1))
    axes = (
        fig.subplots(rows_of(count, columns), wide, squeeze=False, sharex=share, sharey=share)
        .ravel()
        .tolist()
    )
    for ax in axes[max(count, 1) :]:
        ax.set_visible(False)
    return axes[:count]


def sorted_finite(values: np.ndarray) -> np.ndarray:
    flat = np.ravel(np.asarray(values, float))
    return np.sort(flat[np.isfinite(flat)])


def band(count: float, probability: float) -> float:
    """Half-width of the simultaneous band of an empirical distribution of `count` values."""
    critical = {0.95: 1.358, 0.99: 1.628}[probability]
    root = math.sqrt(max(count, 1.0))
    return critical / (root + 0.12 + 0.11 / root)

"""Colours, text, axes and legends of all figures.

The colours are those of Okabe & Ito (2008).
"""

from __future__ import annotations

import io
import math
import re
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
from ..scores.matching import RECALIBRATED, check_forecast, in_units_of_forecast

BLACK = "#1a1a1a"
GREY = "#6b6b6b"
FAINT = "#d9d9d9"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
# Series differ in line style or marker too, so that no figure depends on colour alone.
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
LINES = ("-", "--", "-.", ":")
MARKERS = ("s", "^", "D", "v", "P", "X")
LEVELS = (50, 80, 90, 95)
WIDTH = 5.2
PANEL = 32
"""Characters beside a panel of half the width."""
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
    # Text as paths and a fixed salt make the same figure the same file on every machine.
    "svg.fonttype": "path",
    "svg.hashsalt": "bayes_dasl",
}

# Figures and panels


class NotebookFigure(Figure):
    """A figure that a notebook shows by itself, although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG file, for Jupyter."""
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight", facecolor="white")
        return file.getvalue()


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, in inches, whose panels leave room for labels and legend."""
    return NotebookFigure(figsize=(width, height), layout="constrained")


def one_panel(height: float = 3.3) -> tuple[Figure, Axes]:
    """Return a figure with one panel, `height` inches high, and the panel."""
    fig = new_figure(height)
    return fig, fig.add_subplot()


def set_narrow_gaps(fig: Figure) -> None:
    """Set small gaps between the panels of a figure."""
    # `new_figure` always sets a layout engine.
    fig.get_layout_engine().set(hspace=0.06, wspace=0.06)  # type: ignore[union-attr]


def small_multiples(count: int, height: float, *, share: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels in two columns, and the panels.

    Args:
        count: number of panels.
        height: height of a panel in inches.
        share: whether panels share both axes.
    """
    fig = new_figure(0.65 + height * rows_of(count, 2))
    set_narrow_gaps(fig)
    return fig, grid(fig, count, 2, share=share)


def rows_of(count: int, columns: int) -> int:
    """Return the number of rows that `count` panels need in some number of columns."""
    return max(1, math.ceil(count / columns))


def grid(fig: Figure | SubFigure, count: int, columns: int, *, share: bool = False) -> list[Axes]:
    """Add `count` panels to a figure, row by row; the rest of the last row stays empty.

    Args:
        fig: the figure.
        count: number of panels.
        columns: number of columns.
        share: whether panels share both axes.

    Returns:
        The panels.
    """
    wide = min(columns, max(count, 1))
    axes = fig.subplots(rows_of(count, columns), wide, squeeze=False, sharex=share, sharey=share)
    axes = axes.ravel().tolist()
    for ax in axes[max(count, 1) :]:
        ax.set_visible(False)
    return axes[:count]


# Words


def plain(text: object) -> str:
    """Escape dollar signs, so that Matplotlib does not read text as mathematics."""
    return str(text).replace("$", r"\$")


def fitted(text: object, width: int = PANEL, lines: int = 2) -> str:
    """Return text in lines of at most `width` characters, shortened in the middle if need be.

    A name without spaces breaks after a dot, an underscore, a comma or a bracket.
    """
    words = str(text)
    if len(words) > (most := width * lines):
        words = f"{words[: most // 2 - 1]}\N{HORIZONTAL ELLIPSIS}{words[-(most // 2 - 2) :]}"
    rows = [""]
    for piece in re.findall(rf"[^\s._,\])]{{1,{width - 1}}}[\s._,\])]*|[\s._,\])]+", words):
        if rows[-1] and len(rows[-1] + piece.rstrip()) > width:
            rows.append("")
        rows[-1] += piece
    return plain("\n".join(row.rstrip() for row in rows))


def with_units(label: object, units: object) -> str:
    """Return `label (units)`, or the label alone if `units` is empty."""
    return fitted(f"{label} ({units})" if units else label)


def units_or_none(array: xr.DataArray) -> str:
    """Return the units of an array as an axis label, or words for an array that states none."""
    return fitted(array.attrs.get("units") or "(no unit stated)")


def axis_label(array: xr.DataArray, name: str) -> str:
    """Return the long name of an array, or else `name`, with its units."""
    return with_units(array.attrs.get("long_name") or name, array.attrs.get("units"))


def note(ax: Axes, text: str) -> None:
    """Write grey text into the centre of a panel."""
    ax.text(
        0.5,
        0.5,
        text,
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=GREY,
    )


def small_print(ax: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Write small grey text in a panel.

    Args:
        ax: the panel.
        x: horizontal position; by default as a fraction of the panel's width.
        y: vertical position; by default as a fraction of the panel's height.
        text: the text.
        **options: options of `Axes.text`, which may choose other coordinates.
    """
    ax.text(
        x,
        y,
        text,
        **{
            "transform": ax.transAxes,
            "fontsize": 9,
            "color": GREY,
        }
        | options,
    )


def say_left_out(ax: Axes, draws: int) -> None:
    """Write in a panel how many draws are not drawn because they are not finite."""
    if draws:
        small_print(ax, 0.98, 0.03, f"{draws} draws that are not finite are left out", ha="right")


def say_above(fig: Figure, *texts: str) -> None:
    """Write texts above the legend of a figure, or above the panels if there is no legend."""
    # The layout engine keeps room for a legend and its title, so text goes there.
    legend = next(iter(fig.legends), None)
    before = fig.get_suptitle() if legend is None else legend.get_title().get_text()
    words = "\n".join(filter(None, [before, *map(plain, texts)]))
    if legend is None:
        fig.suptitle(words, fontsize=9, color=GREY)
    elif words:
        legend.set_title(words)
        legend.get_title().set(fontsize=9, color=GREY)
        # Matplotlib would centre the title above the entries.
        legend.set_alignment("left")


def say_recalibrated(fig: Figure, *attributes: Mapping) -> None:
    """Write above a figure how its forecasts were recalibrated.

    Args:
        fig: the figure.
        *attributes: attributes of the forecasts; those of plain forecasts add nothing.
    """
    say_above(fig, *(found[RECALIBRATED] for found in attributes if RECALIBRATED in found))


def add_legend(fig: Figure, columns: int, **options: Any) -> Any:
    """Add a legend above the panels with one entry per label, and return it."""
    handles = labelled(fig.axes)
    place = {"loc": "outside upper left", "ncols": columns}
    return fig.legend(handles.values(), handles.keys(), **place, **options)


def labelled(axes: Iterable[Axes]) -> dict[str, Any]:
    """Return the legend handles of several panels by label, so that each label occurs once."""
    return {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }


# What is drawn


def predictions_of(fc: xr.DataTree, observable: str) -> xr.DataArray:
    """Return the predictive draws of one observable.

    Raises:
        MismatchError: if `fc` is no forecast or lacks the observable.
    """
    check_forecast(fc, "predictions")
    predictions = fc["predictions"].dataset
    refuse_unknown(observable, predictions.data_vars)
    return predictions[observable]


def data_of(fc: xr.DataTree, *datasets: xr.Dataset | None) -> list[xr.Dataset | None]:
    """Convert datasets to the units of the forecast; None stays None."""
    return [None if data is None else in_units_of_forecast(fc, data) for data in datasets]


def refuse_places(array: xr.DataArray) -> None:
    """Check that an array has no dimensions but chain, draw and the index.

    Raises:
        MismatchError: if it has others, and so cannot be drawn as a time series.
    """
    dims = beside(array)
    if len(dims) > 1:
        raise MismatchError(
            f"'{array.name}' lies along {' and '.join(dims)}, but this draws a series: choose one "
            f"place or member, as by .sel({dims[1]}=…), or take plot_members or plot_field"
        )


def refuse_unknown(observable: str, known: Iterable) -> None:
    """Check that a forecast has an observable.

    Args:
        observable: name of the observable.
        known: names of the observables of the forecast.

    Raises:
        MismatchError: if it has not.
    """
    names = [str(name) for name in known]
    if observable not in names:
        raise MismatchError(
            f"the forecast has no observable '{observable}'; it has {', '.join(names) or 'none'}"
        )


def beside(variable: xr.DataArray) -> list[str]:
    """Return the dimensions of a variable other than chain and draw."""
    return [str(dim) for dim in variable.dims if dim not in ("chain", "draw")]


def sorted_finite(values: np.ndarray) -> np.ndarray:
    """Return the finite values of an array in increasing order, as a one-dimensional array."""
    flat = np.ravel(np.asarray(values, float))
    return np.sort(flat[np.isfinite(flat)])


# Axes


def percent() -> PercentFormatter:
    """Return an axis formatter that shows fractions as percentages."""
    return PercentFormatter(1.0, symbol="\N{NARROW NO-BREAK SPACE}%")


def positions(values: Any) -> np.ndarray:
    """Convert numbers or dates to horizontal positions on an axis; a date may be text."""
    values = as_date(values) if isinstance(values, str) else values
    return np.asarray(date2num(values)) if are_dates(values) else np.asarray(values, float)


class _QuietDateLocator(AutoDateLocator):
    """Ticks at dates, without a warning if there are more ticks than requested."""

    def get_locator(self, dmin, dmax):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "AutoDateLocator was unable", UserWarning)
            return super().get_locator(dmin, dmax)


class _YearInCornerFormatter(ConciseDateFormatter):
    """Short labels of dates.

    If the labels name months, the text in the corner of the axis names only the years.
    """

    years = ""

    def format_ticks(self, values):
        dates = [num2date(value) for value in values]
        months = {(date.year, date.month) for date in dates}
        years = sorted({date.year for date in dates})
        crossed = len(months) > 1 and any(date.day != 1 for date in dates)
        # The first and the last year, or the only one.
        ends = years[:1] + years[1:][-1:]
        self.years = "\N{EN DASH}".join(map(str, ends)) if crossed else ""
        return super().format_ticks(values)

    def get_offset(self):
        # Matplotlib would show the month of the last tick as if all ticks were in it.
        return self.years or super().get_offset()


def along_dates(ax: Axes, most: int = 6) -> None:
    """Label a horizontal axis by dates, with at most about `most` ticks."""
    locator = _QuietDateLocator(minticks=min(3, most), maxticks=most)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(_YearInCornerFormatter(locator))


def few_ticks(ax: Axes, along: xr.DataArray, most: int) -> None:
    """Limit the number of ticks of a horizontal axis of numbers or dates.

    Args:
        ax: the panel.
        along: the coordinate on the axis.
        most: the largest number of ticks, about.
    """
    if are_dates(along):
        along_dates(ax, most)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(most))


def time_axis(ax: Axes, time: xr.DataArray) -> None:
    """Label the horizontal axis by a coordinate, and set its ticks and limits."""
    values = positions(time.values)
    ax.set_xlabel(axis_label(time, str(time.name)))
    if are_dates(time):
        along_dates(ax)
    else:
        # Years and day numbers have no fractions, unless the axis is short.
        whole = bool(np.all(values == np.round(values))) and np.ptp(values) > 4
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    # Leave room at both ends, also for data outside the forecast.
    if values.size > 1:
        pad = 0.02 * np.ptp(values)
        low, high = ax.dataLim.intervalx
        ax.set_xlim(min(low, values.min()) - pad, max(high, values.max()) + pad)


def label_series(ax: Axes, predictions: xr.DataArray, index: str) -> None:
    """Label the axes of a time series.

    Args:
        ax: the panel.
        predictions: draws of the observable.
        index: name of the index on the horizontal axis.
    """
    ax.set_ylabel(axis_label(predictions, str(predictions.name)))
    time_axis(ax, predictions[index])


def ecdf_half_width(count: float, probability: float) -> float:
    r"""Return the half-width of a simultaneous band around an empirical distribution function.

    $c / (\sqrt n + 0.12 + 0.11 / \sqrt n)$

    Here $n$ is the number of values, and $c$ the quantile of the Kolmogorov distribution.

    Args:
        count: the number of values, or their effective number.
        probability: probability that the whole function lies in the band: 0.95 or 0.99.

    Source: Stephens (1970) for the finite-sample term of the Kolmogorov distribution.
    """
    critical = {0.95: 1.358, 0.99: 1.628}[probability]
    root = math.sqrt(max(count, 1.0))
    return critical / (root + 0.12 + 0.11 / root)

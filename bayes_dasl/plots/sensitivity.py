"""Figures of sensitivity indices: how much quantities depend on each unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..data.dates import are_dates
from ..errors import MismatchError
from ._series import has_numbers
from ._style import (
    BLUE,
    GREY,
    LINES,
    SERIES,
    SKY,
    STYLE,
    WIDTH,
    add_legend,
    along_dates,
    axis_label,
    grid,
    labelled,
    new_figure,
    note,
    plain,
    positions,
    rows_of,
    with_units,
)


@dataclass(frozen=True)
class _Indices:
    """The sensitivity indices of one method that a figure shows, and their labels.

    Args:
        alone: name of the index for an unknown by itself.
        both: name of the index that includes interactions with other unknowns; None if there is
            none.
        label: label of `alone` in the legend.
        label_both: label of `both` in the legend.
        unit: label of the axis.
    """

    alone: str
    both: str | None
    label: str
    label_both: str
    unit: str

    @property
    def ranking(self) -> str:
        """The index that lines show, and by which unknowns are ranked."""
        return self.both or self.alone


_METHODS = {
    "sobol": _Indices("first", "total", "alone", "with others", "share of the variance"),
    "morris": _Indices("mu_star", None, "mean change", "", "mean change over 95 % of the prior"),
    "pawn": _Indices("mean", None, "mean change", "", "change of the distribution"),
}


@mpl.rc_context(STYLE)
def plot_sensitivity(found: xr.Dataset, *, most: int = 6) -> Figure:
    """Draw how much quantities depend on each unknown: bars for numbers, lines for series.

    Args:
        found: the result of `sensitivity`. Each quantity is a number, or a series along one
            dimension.
        most: largest number of unknowns per series, the most important first. A number shows twice
            as many.

    Returns:
        The figure.

    Raises:
        MismatchError: if `found` is something else, or a quantity has more dimensions.
    """
    shown = _METHODS.get(str(found.attrs.get("method")))
    if shown is None or not found.data_vars:
        raise MismatchError("give what bd.sensitivity.sensitivity returned")
    quantities = list(found.data_vars.values())
    for quantity in quantities:
        if quantity.ndim > 3:
            along = ", ".join(map(str, quantity.dims[2:]))
            raise MismatchError(
                f"'{quantity.name}' runs along {along}: a figure shows numbers and series, so "
                "choose by .isel"
            )
    # 1. All panels have the height of the largest: bars need room for their names.
    bars = max(min(2 * most, found.sizes["unknown"]), 3)
    height = max(0.9 + 0.26 * bars if quantity.ndim == 2 else 1.9 for quantity in quantities)
    columns = min(len(quantities), 2)
    width = WIDTH * 2 / 1.4 if columns == 2 else WIDTH
    fig = new_figure(0.5 + height * rows_of(len(quantities), columns), width)
    # 2. An unknown has the same colour and line in all panels.
    ranked = {q.name: _ranked(q, shown.ranking, most) for q in quantities if q.ndim == 3}
    looks = _line_looks(list(dict.fromkeys(name for names in ranked.values() for name in names)))
    # 3. Draw one panel per quantity.
    for ax, quantity in zip(grid(fig, len(quantities), columns), quantities, strict=True):
        ax.set_title(plain(quantity.name))
        if not np.isfinite(quantity.sel(index=shown.alone)).any():
            note(ax, "does not vary")
        elif quantity.ndim == 2:
            _draw_bars(ax, quantity, shown, 2 * most)
        else:
            own = {name: looks[name] for name in ranked[quantity.name]}
            _draw_lines(ax, quantity, shown, own)
    if labels := labelled(fig.axes):
        add_legend(fig, min(4, len(labels)))
    return fig


def _draw_bars(ax: Axes, quantity: xr.DataArray, shown: _Indices, most: int) -> None:
    """Draw one bar per unknown, the largest at the top, with 95 % intervals.

    Args:
        ax: the panel.
        quantity: the indices of one quantity.
        shown: the indices of the method.
        most: largest number of unknowns.
    """
    # Bars are drawn from the bottom.
    ranked = _ranked(quantity, shown.ranking, most)[::-1]
    own = quantity.sel(unknown=ranked)
    at = np.arange(len(ranked))
    if shown.both:
        look: Any = {
            "color": SKY,
            "alpha": 0.55,
            "label": shown.label_both,
        }
        ax.barh(at, own.sel(index=shown.both), 0.62, xerr=_error(own, shown.both), **look)
    look = {"color": BLUE, "label": shown.label}
    ax.barh(at, own.sel(index=shown.alone), 0.34, xerr=_error(own, shown.alone), **look)
    # With finite draws, PAWN's index of an unknown without influence is above zero.
    if "chance" in quantity["index"]:
        ax.axvline(float(own.sel(index="chance")[0]), color=GREY, ls="--", lw=1, label="by chance")
    ax.set_yticks(at, [plain(name) for name in ranked])
    ax.set_xlim(left=0)
    # Only Morris' index has the units of the quantity; the others are shares.
    units = quantity.attrs.get("units") if shown.alone == "mu_star" else None
    ax.set_xlabel(with_units(shown.unit, units), fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _error(own: xr.DataArray, name: str) -> np.ndarray | None:
    """Return the half-width of the 95 % interval of the index `name`; None if it has none."""
    return own.sel(index=f"{name}_error").values if f"{name}_error" in own["index"] else None


def _line_looks(unknowns: list[str]) -> dict[str, dict[str, Any]]:
    """Return a different combination of colour and line style for each unknown."""
    looks: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(unknowns):
        # After all colours are used, the lines move on by one.
        line = LINES[(i + i // len(SERIES)) % len(LINES)]
        looks[name] = {"color": SERIES[i % len(SERIES)], "ls": line}
    return looks


def _draw_lines(
    ax: Axes, quantity: xr.DataArray, shown: _Indices, looks: dict[str, dict[str, Any]]
) -> None:
    """Draw the index of each unknown along a series, with its 95 % interval.

    Args:
        ax: the panel.
        quantity: the indices of one quantity.
        shown: the indices of the method.
        looks: Matplotlib options by name of the unknown.
    """
    dim = str(quantity.dims[2])
    along = quantity[dim]
    numbers = has_numbers(quantity, dim)
    x = positions(along.values) if numbers else np.arange(along.size, dtype=float)
    for name, look in looks.items():
        own = quantity.sel(unknown=name)
        values = own.sel(index=shown.ranking).values
        error = _error(own, shown.ranking)
        if numbers and error is not None:
            band = values - error, values + error
            ax.fill_between(x, *band, color=look["color"], alpha=0.12, lw=0)
        points: Any = {} if numbers else {"ls": "none", "marker": "o"}
        ax.plot(x, values, lw=1.6, label=plain(name), **(look | points))
    if "chance" in quantity["index"]:
        ax.plot(
            x,
            quantity.sel(index="chance")[0],
            color=GREY,
            lw=1,
            ls=":",
            label="by chance",
        )
    ax.set_ylim(bottom=0)
    total = shown.ranking == "total"
    ax.set_ylabel("share of the variance,\nwith others" if total else shown.unit, fontsize=9)
    ax.set_xlabel(axis_label(along, dim), fontsize=9)
    if are_dates(along):
        along_dates(ax, 5)


def _ranked(quantity: xr.DataArray, index: str, most: int) -> list[str]:
    """Return the unknowns with the largest index anywhere along a series, the largest first.

    Args:
        quantity: the indices of one quantity.
        index: name of the index.
        most: largest number of unknowns.
    """
    values = quantity.sel(index=index).values.reshape(quantity.sizes["unknown"], -1)
    largest = np.nan_to_num(values).max(1)
    order = np.argsort(-largest, kind="stable")[:most]
    return [str(name) for name in quantity["unknown"].values[order]]

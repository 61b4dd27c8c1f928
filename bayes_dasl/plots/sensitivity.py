"""Figures of what a quantity hangs on."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..data.dates import are_dates
from ..errors import MismatchError
from ._style import (
    BLUE,
    GREY,
    LINES,
    SERIES,
    SKY,
    STYLE,
    WIDTH,
    along_dates,
    axis_label,
    grid,
    note,
    plain,
    positions,
    rows_of,
)
from .panels import has_numbers

# Of each method what a bar shows, what a lighter one behind it does, and what they are called.
_SHOWN = {
    "sobol": ("first", "total", "alone", "with others", "share of the variance"),
    "morris": ("mu_star", None, "mean change", "", "mean change over 95 % of the prior"),
    "pawn": ("mean", None, "mean change", "", "change of the distribution"),
}


def plot_sensitivity(found: xr.Dataset, *, most: int = 6) -> Figure:
    """Draw which unknowns quantities hang on: a number as bars, a series as a line for each
    unknown.

    Args:
        found: what `sensitivity` returned; each quantity is a number or a series along one
            dimension.
        most: so many unknowns at most are drawn of a series, and twice as many of a number, the
            largest first.

    Raises:
        MismatchError: for what `sensitivity` did not return, or a quantity of more dimensions.
    """
    shown = _SHOWN.get(str(found.attrs.get("method")))
    if shown is None or not found.data_vars:
        raise MismatchError("give what bd.sensitivity.sensitivity returned")
    for name, quantity in found.data_vars.items():
        if quantity.ndim > 3:
            along = ", ".join(map(str, quantity.dims[2:]))
            raise MismatchError(
                f"'{name}' runs along {along}: a figure shows numbers and series, so choose by "
                ".isel"
            )
    bars = max(min(2 * most, found.sizes["unknown"]), 3)
    height = max(0.9 + 0.26 * bars if q.ndim == 2 else 1.9 for q in found.data_vars.values())
    columns = 1 if len(found.data_vars) == 1 else 2
    with mpl.rc_context(STYLE):
        rows = rows_of(len(found.data_vars), columns)
        fig = Figure(
            figsize=(WIDTH * columns / 1.4 if columns == 2 else WIDTH, 0.5 + height * rows),
            layout="constrained",
        )
        series = [q for q in found.data_vars.values() if q.ndim == 3]
        looks = _looks(
            list(
                dict.fromkeys(
                    name for q in series for name in _ranked(q, shown[1] or shown[0], most)
                )
            )
        )
        for ax, quantity in zip(
            grid(fig, len(found.data_vars), columns), found.data_vars.values(), strict=True
        ):
            ax.set_title(plain(quantity.name))
            if not np.isfinite(quantity.sel(index=shown[0])).any():
                note(ax, "does not vary")
            elif quantity.ndim == 2:
                _draw_number(ax, quantity, shown, 2 * most)
            else:
                _draw_series(ax, quantity, shown, most, looks)
        handles = {
            label: h
            for ax in fig.axes
            for h, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        if handles:
            fig.legend(
                handles.values(),
                handles.keys(),
                loc="outside upper left",
                ncols=min(4, len(handles)),
            )
    return fig


def _draw_number(ax: Axes, quantity: xr.DataArray, shown: tuple, most: int) -> None:
    """A bar for each unknown, the largest on top, with 95 % intervals."""
    alone, both, label, with_others, unit = shown
    ranked = _ranked(quantity, both or alone, most)[::-1]
    own, at = quantity.sel(unknown=ranked), np.arange(len(ranked))
    if both:
        ax.barh(
            at,
            own.sel(index=both),
            0.62,
            color=SKY,
            alpha=0.55,
            label=with_others,
            xerr=_error(own, both),
        )
    ax.barh(at, own.sel(index=alone), 0.34, color=BLUE, label=label, xerr=_error(own, alone))
    if "chance" in quantity["index"]:
        ax.axvline(float(own.sel(index="chance")[0]), color=GREY, ls="--", lw=1, label="by chance")
    ax.set_yticks(at, [plain(name) for name in ranked])
    ax.set_xlim(left=0)
    unit = (
        f"{unit} ({plain(quantity.attrs['units'])})"
        if alone == "mu_star" and quantity.attrs.get("units")
        else unit
    )
    ax.set_xlabel(unit, fontsize=9)
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _error(own: xr.DataArray, name: str) -> np.ndarray | None:
    return own.sel(index=f"{name}_error").values if f"{name}_error" in own["index"] else None


def _looks(unknowns: list[str]) -> dict[str, dict[str, Any]]:
    """A colour and a line of its own for each unknown, the same in all panels."""
    pairs = [
        (SERIES[i % len(SERIES)], LINES[(i + i // len(SERIES)) % len(LINES)])
        for i in range(len(unknowns))
    ]
    return {
        name: {"color": color, "ls": line}
        for name, (color, line) in zip(unknowns, pairs, strict=True)
    }


def _draw_series(
    ax: Axes, quantity: xr.DataArray, shown: tuple, most: int, looks: dict[str, dict[str, Any]]
) -> None:
    """A line for each of the unknowns that matter most, with its 95 % interval."""
    alone, both, *_, unit = shown
    dim, index = str(quantity.dims[2]), both or alone
    numbers = has_numbers(quantity, dim)
    x = positions(quantity[dim].values) if numbers else np.arange(quantity.sizes[dim], dtype=float)
    for name in _ranked(quantity, index, most):
        own = quantity.sel(unknown=name)
        look: dict[str, Any] = looks[name] | ({} if numbers else {"ls": "none", "marker": "o"})
        values, error = own.sel(index=index).values, _error(own, index)
        if numbers and error is not None:
            ax.fill_between(
                x, values - error, values + error, color=look["color"], alpha=0.12, lw=0
            )
        ax.plot(x, values, lw=1.6, label=plain(name), **look)
    if "chance" in quantity["index"]:
        ax.plot(x, quantity.sel(index="chance")[0], color=GREY, lw=1, ls=":", label="by chance")
    ax.set_ylim(bottom=0)
    ax.set_ylabel("share of the variance,\nwith others" if index == "total" else unit, fontsize=9)
    ax.set_xlabel(axis_label(quantity[dim], dim) if dim in quantity.coords else dim, fontsize=9)
    if dim in quantity.coords and are_dates(quantity[dim]):
        along_dates(ax, 5)


def _ranked(quantity: xr.DataArray, index: str, most: int) -> list[str]:
    """The unknowns of the largest index at any place, the largest first."""
    size = np.nan_to_num(
        quantity.sel(index=index).values.reshape(quantity.sizes["unknown"], -1)
    ).max(1)
    return [str(quantity["unknown"].values[i]) for i in np.argsort(-size, kind="stable")[:most]]

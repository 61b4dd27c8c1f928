"""Figures of derived quantities: numbers as densities, series as bands."""

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
    FAINT,
    GREY,
    STYLE,
    along_dates,
    axis_label,
    note,
    plain,
    positions,
    say_left_out,
    small_multiples,
)
from .forecast import finite_draws
from .posterior import draw_densities

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEGEND = ("prior", "prior, 90 % band", "posterior", "median", "50 % band", "90 % band")


def plot_derived(values: xr.Dataset, prior: xr.Dataset | None = None) -> Figure:
    """Draw derived quantities: a number as a density, a series as its median with 50 and 90 % bands.

    A dimension without numbers along it, as of schools by name, has an interval for each of its members in place of a
    band. Draws that are not finite, as of a failed solve, are left out.

    Args:
        values: what `evaluate` returned, or the group `unobserved` of a forecast; each variable is a number, or a
            series along one dimension.
        prior: the same for prior draws, to lie below it.

    Raises: MismatchError for what has no draws, or more than one dimension beside them.
    """
    for name, variable in values.data_vars.items():
        if not {"chain", "draw"} <= set(variable.dims) or variable.ndim > 3:
            raise MismatchError(
                f"'{name}' runs along {', '.join(map(str, variable.dims))}: a figure shows numbers and series over "
                "chain and draw, so choose a part of it, as by .isel"
            )
    if not values.data_vars:
        raise MismatchError("there is nothing to draw: this dataset has no variables")
    of = values.attrs.get("group", "posterior")
    with mpl.rc_context(STYLE):
        fig, axes = small_multiples(len(values.data_vars), height=1.75)
        for ax, (name, variable) in zip(axes, values.data_vars.items(), strict=True):
            before = None if prior is None or name not in prior else prior[name]
            ax.set_title(plain(name))
            if variable.ndim == 2:
                draw_densities(ax, variable, before, of)
                ax.set_xlabel(plain(variable.attrs.get("units") or "(no unit stated)"), fontsize=9)
            else:
                _draw_series(ax, variable, before, "" if of == "posterior" else " of the prior")
        handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        labels = sorted(handles, key=lambda label: _LEGEND.index(label.removesuffix(" of the prior")))
        fig.legend([handles[label] for label in labels], labels, loc="outside upper left", ncols=min(4, len(labels)))
    return fig


def _draw_series(ax: Axes, values: xr.DataArray, prior: xr.DataArray | None, of: str) -> None:
    along = next(str(dim) for dim in values.dims if dim not in ("chain", "draw"))
    members = along not in values.coords or values[along].dtype.kind not in "iufM"
    x = np.arange(values.sizes[along], dtype=float) if members else positions(values[along].values)
    span = _interval if members else _band
    if prior is not None and (before := finite_draws(prior)).size:
        low, high = np.quantile(before, (_QUANTILES[0], _QUANTILES[-1]), axis=0)
        span(ax, x, low, high, color=FAINT, label="prior, 90 % band")
        style: dict[str, Any] = {"ls": "none", "marker": "_"} if members else {"ls": "--"}
        ax.plot(x, np.median(before, axis=0), color=GREY, lw=1.2, label="prior", **style)
    draws = finite_draws(values)
    if not draws.size:
        note(ax, "no draw is finite")
        return
    say_left_out(ax, values.sizes["chain"] * values.sizes["draw"] - len(draws))
    q05, q25, q50, q75, q95 = np.quantile(draws, _QUANTILES, axis=0)
    span(ax, x, q05, q95, color=BLUE, alpha=0.18, label=f"90 % band{of}")
    span(ax, x, q25, q75, color=BLUE, alpha=0.36, label=f"50 % band{of}")
    ax.plot(
        x, q50, color=BLUE, lw=1.8, label=f"median{of}", **({"ls": "none", "marker": "o", "ms": 4} if members else {})
    )
    _look_at(ax, q05, q95)
    ax.set_xlabel(axis_label(values[along], along), fontsize=9)
    if values.attrs.get("units"):
        ax.set_ylabel(plain(values.attrs["units"]), fontsize=9)
    if members:
        ax.set_xticks(x[:: -(-len(x) // 12)], [plain(name) for name in values[along].values[:: -(-len(x) // 12)]])
        ax.set_xlim(-0.6, len(x) - 0.4)
    else:
        ax.set_xlim(float(x.min()), float(x.max()))
        along_dates(ax, 5) if are_dates(values[along]) else ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _band(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, **look: Any) -> None:
    ax.fill_between(x, low, high, lw=0, **look)


def _interval(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, **look: Any) -> None:
    ax.bar(x, high - low, 0.5, low, lw=0, **look)


def _look_at(ax: Axes, low: np.ndarray, high: np.ndarray) -> None:
    """Limits around the posterior: a prior may be so wide that nothing else could be seen."""
    below, above = ax.get_ylim()
    room = float(np.ptp([low.min(), high.max()])) or 1.0
    ax.set_ylim(max(below, low.min() - room), min(above, high.max() + room))

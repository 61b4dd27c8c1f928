"""Figures of derived quantities: numbers as densities, series as bands, series of members side by
side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ..data.dates import are_dates
from ..errors import MismatchError
from ._style import (
    BLUE,
    FAINT,
    GREY,
    STYLE,
    WIDTH,
    along_dates,
    axis_label,
    grid,
    note,
    plain,
    positions,
    rows_of,
    say_left_out,
)
from .forecast import finite_draws
from .panels import beside, can_be_drawn, has_numbers, series_of_members
from .population import COLUMNS, along_members, evenly_chosen, label_members, member_name
from .posterior import draw_densities

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEGEND = ("prior", "prior, 90 % band", "posterior", "median", "50 % band", "90 % band")
_NARROW = 6  # members whose intervals find room in half the width
_FEW, _MANY = 12, 24  # names below a panel of half the width, and of all of it
_ROOM = 60  # letters below a panel of the whole width


def plot_derived(
    values: xr.Dataset, prior: xr.Dataset | None = None, *, members: str = "subject", most: int = 12
) -> Figure:
    """Draw derived quantities: a number as a density, a series as its median with 50 and 90 %
    bands.

    A number of each member of a population, or along another dimension without numbers, as of
    schools by name, is drawn as an interval for each; a series of each member in a panel for each,
    which have one scale. Draws that are not finite, as of a failed solve, are left out.

    Args:
        values: what `evaluate` returned, or the group `unobserved` of a forecast, as a dataset;
            each variable is a number, a series along one dimension, or a series of each member.
        prior: the same for prior draws, to lie below it.
        members: the dimension of members, as `bd.Each` calls it.
        most: so many members have a panel, evenly chosen.

    Raises:
        MismatchError: for what has no draws, or more dimensions beside them than these.
    """
    for name, variable in values.data_vars.items():
        if not {"chain", "draw"} <= set(variable.dims) or not can_be_drawn(variable, members):
            raise MismatchError(
                f"'{name}' runs along {', '.join(map(str, variable.dims))}: a figure shows "
                "numbers, series and series "
                "of members over chain and draw, so choose a part of it, as by .isel, or say what "
                "the members run "
                f"along, as in members='{variable.dims[-1]}'"
            )
    if not values.data_vars:
        raise MismatchError("there is nothing to draw: this dataset has no variables")
    parts = _parts(values, members)
    heights = [_height(values[names[0]], len(names), members, most) for names in parts]
    of = values.attrs.get("group", "posterior")
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 0.65 + sum(heights)), layout="constrained")
        fig.get_layout_engine().set(hspace=0.06, wspace=0.06)  # type: ignore[union-attr]
        places = fig.subfigures(len(parts), 1, height_ratios=heights, squeeze=False).ravel()
        for place, names in zip(places, parts, strict=True):
            before = {
                name: None if prior is None or name not in prior else prior[name] for name in names
            }
            if series_of_members(values[names[0]], members):
                _draw_members(place, values[names[0]], before[names[0]], of, members, most)
            else:
                axes = grid(place, len(names), 1 if _is_wide(values[names[0]], members) else 2)
                for ax, name in zip(axes, names, strict=True):
                    _draw_one(ax, values[name], before[name], of, members)
        handles = {
            label: h
            for ax in fig.axes
            for h, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        labels = sorted(
            handles, key=lambda label: _LEGEND.index(label.removesuffix(" of the prior"))
        )
        fig.legend(
            [handles[label] for label in labels],
            labels,
            loc="outside upper left",
            ncols=min(4, len(labels)),
        )
    return fig


def _is_wide(variable: xr.DataArray, members: str) -> bool:
    """Whether it has so many intervals side by side that it needs the whole width."""
    dims = beside(variable)
    return (
        len(dims) == 1
        and _are_apart(variable, dims[0], members)
        and variable.sizes[dims[0]] > _NARROW
    )


def _are_apart(variable: xr.DataArray, dim: str, members: str) -> bool:
    return dim == members or not has_numbers(variable, dim)


def _parts(values: xr.Dataset, members: str) -> list[list[str]]:
    """What is drawn below one another: all small panels,
    and what takes the whole width by itself.
    """
    names = [str(name) for name in values.data_vars]
    alone = [
        n for n in names if _is_wide(values[n], members) or series_of_members(values[n], members)
    ]
    small = [name for name in names if name not in alone]
    return [*([small] if small else []), *([name] for name in alone)]


def _height(variable: xr.DataArray, count: int, members: str, most: int) -> float:
    """Of one part, in inches."""
    dim = series_of_members(variable, members)
    if dim:
        return 0.6 + 1.35 * rows_of(min(most, variable.sizes[dim]), COLUMNS)
    if _is_wide(variable, members):
        names = _names(variable[beside(variable)[0]], _MANY)
        return 1.75 + (0.08 * max(map(len, names)) if _are_upright(names, _ROOM) else 0.0)
    return 1.75 * rows_of(count, 2)


def _draw_one(
    ax: Axes, values: xr.DataArray, prior: xr.DataArray | None, of: str, members: str
) -> None:
    ax.set_title(plain(values.name))
    dims = beside(values)
    if not dims:
        draw_densities(ax, values, prior, of)
        ax.set_xlabel(plain(values.attrs.get("units") or "(no unit stated)"), fontsize=9)
        return
    along = values[dims[0]]
    apart = _are_apart(values, dims[0], members)
    draws = finite_draws(values)
    _look_at(ax, [_draw_series(ax, along, draws, prior, of, apart=apart)])
    if len(draws):
        say_left_out(ax, values.sizes["chain"] * values.sizes["draw"] - len(draws))
    ax.set_xlabel(axis_label(along, dims[0]), fontsize=9)
    if values.attrs.get("units"):
        ax.set_ylabel(plain(values.attrs["units"]), fontsize=9)
    if apart:
        _name_ticks(
            [ax], along, *((_MANY, _ROOM) if _is_wide(values, members) else (_FEW, _ROOM // 2))
        )
    else:
        x = positions(along.values)
        ax.set_xlim(float(x.min()), float(x.max()))
        along_dates(ax, 5) if are_dates(along) else ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _draw_members(
    fig: Figure | SubFigure,
    values: xr.DataArray,
    prior: xr.DataArray | None,
    of: str,
    members: str,
    most: int,
) -> None:
    """A panel for each member, all with one scale."""
    dim = str(series_of_members(values, members))
    (along,) = (name for name in beside(values) if name != dim)
    shown = evenly_chosen(values[dim].values, most)
    apart = not has_numbers(values, along)
    axes = grid(fig, len(shown), COLUMNS, share=True)
    bands, left_out = [], []
    for ax, member in zip(axes, shown, strict=True):
        before = None
        if prior is not None and dim in prior.dims and member in prior[dim].values:
            before = prior.sel({dim: member})
        own = values.sel({dim: member})
        draws = finite_draws(own)
        left_out.append(own.sizes["chain"] * own.sizes["draw"] - len(draws))
        bands.append(_draw_series(ax, values[along], draws, before, of, apart=apart))
        ax.set_title(plain(member_name(dim, member)), fontsize=9, loc="left")
    _look_at(axes[0], bands)
    axes[0].yaxis.set_major_locator(MaxNLocator(4))
    if apart:
        _name_ticks(axes, values[along], _FEW, _ROOM // COLUMNS)
    else:
        along_members(axes, values[along])
    label_members(
        fig,
        axes,
        axis_label(values[along], along),
        plain(values.attrs.get("units") or "(no unit stated)"),
    )
    chosen = (
        f", {len(shown)} of {values.sizes[dim]}, evenly chosen"
        if len(shown) < values.sizes[dim]
        else ""
    )
    lost = max(left_out)
    without = f"\nup to {lost} draws of a panel, which are not finite, are left out" if lost else ""
    fig.suptitle(plain(f"{values.name}{chosen}{without}"), fontsize=10, x=0.02, ha="left")


def _draw_series(
    ax: Axes,
    along: xr.DataArray,
    draws: np.ndarray,
    prior: xr.DataArray | None,
    of: str,
    *,
    apart: bool,
) -> np.ndarray | None:
    """Bands of draws, one a row, or intervals that stand apart: the ends of those of 90 %; None if
    there is no draw.
    """
    x = np.arange(along.size, dtype=float) if apart else positions(along.values)
    span = _interval if apart else _band
    if prior is not None and (before := finite_draws(prior)).size:
        low, high = np.quantile(before, (_QUANTILES[0], _QUANTILES[-1]), axis=0)
        span(ax, x, low, high, color=FAINT, label="prior, 90 % band")
        style: dict[str, Any] = {"ls": "none", "marker": "_"} if apart else {"ls": "--"}
        ax.plot(x, np.median(before, axis=0), color=GREY, lw=1.2, label="prior", **style)
    whose = "" if of == "posterior" else " of the prior"
    if not len(draws):
        note(ax, "no draw\nis finite")
        return None
    q05, q25, q50, q75, q95 = np.quantile(draws, _QUANTILES, axis=0)
    span(ax, x, q05, q95, color=BLUE, alpha=0.18, label=f"90 % band{whose}")
    span(ax, x, q25, q75, color=BLUE, alpha=0.36, label=f"50 % band{whose}")
    look: dict[str, Any] = (
        {"ls": "none", "marker": "o", "ms": 4 if len(x) <= _MANY else 2} if apart else {}
    )
    ax.plot(x, q50, color=BLUE, lw=1.8, label=f"median{whose}", **look)
    return np.stack([q05, q95])


def _name_ticks(axes: Sequence[Axes], along: xr.DataArray, most: int, room: int) -> None:
    """The names of what stands apart, every n-th if there are many, upright where they have no
    room.
    """
    names = _names(along, most)
    at, angle = (
        np.arange(along.size)[:: -(-along.size // most)],
        90 if _are_upright(names, room) else 0,
    )
    for ax in axes:
        ax.set_xticks(at, names, rotation=angle)
        ax.set_xlim(-0.6, along.size - 0.4)


def _names(along: xr.DataArray, most: int) -> list[str]:
    chosen = along.values[:: -(-along.size // most)]
    return [plain(f"{name:g}" if along.dtype.kind in "iuf" else name) for name in chosen]


def _are_upright(names: Sequence[str], room: int) -> bool:
    return sum(len(name) + 2 for name in names) > room


def _band(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, **look: Any) -> None:
    ax.fill_between(x, low, high, lw=0, **look)


def _interval(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, **look: Any) -> None:
    ax.use_sticky_edges = False  # room below the lowest one
    ax.bar(x, high - low, 0.5 if len(x) <= _MANY else 0.8, low, lw=0, **look)


def _look_at(ax: Axes, bands: Sequence[np.ndarray | None]) -> None:
    """Limits around the posterior: a prior may be so wide that nothing else could be seen."""
    ends = [band.ravel() for band in bands if band is not None]
    if ends:
        low, high = float(np.concatenate(ends).min()), float(np.concatenate(ends).max())
        below, above = ax.get_ylim()
        room = high - low or 1.0
        ax.set_ylim(max(below, low - room), min(above, high + room))

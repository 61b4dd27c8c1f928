"""Figures of derived quantities: densities of numbers, and bands or intervals of series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ..errors import MismatchError
from ._series import (
    can_be_drawn,
    draw_bands,
    draw_span,
    finite_draws,
    has_numbers,
    series_of_members,
)
from ._style import (
    FAINT,
    GREY,
    STYLE,
    axis_label,
    beside,
    few_ticks,
    fitted,
    grid,
    labelled,
    new_figure,
    note,
    plain,
    positions,
    rows_of,
    say_left_out,
    set_narrow_gaps,
    units_or_none,
)
from .population import COLUMNS, evenly_chosen, few_shared_ticks, group_title, label_panels
from .posterior import draw_densities

_LEGEND = ("prior", "prior, 90 % band", "posterior", "median", "50 % band", "90 % band")
_NARROW = 6  # intervals that fit into half the width
_FEW, _MANY = 12, 24  # names below a panel of half the width, and of the whole width
_ROOM = 60  # letters below a panel of the whole width


@mpl.rc_context(STYLE)
def plot_derived(
    values: xr.Dataset, prior: xr.Dataset | None = None, *, members: str = "subject", most: int = 12
) -> Figure:
    """Draw derived quantities: a number as a density, a series as its median with bands.

    The bands are the 50 and 90 % intervals of the draws. Along a dimension without numbers, such as
    names of schools, there is one interval per name. A series for each group has one panel per
    group, with a common scale. Draws that are not finite, such as those of a failed solve, are left
    out.

    Args:
        values: the result of `evaluate`, or the group `unobserved` of a forecast as a dataset. Each
            variable is a number, a series along one dimension, or a series for each group.
        prior: the same quantities for prior draws, drawn behind.
        members: name of the dimension of groups, as in `bd.Each`.
        most: largest number of groups with a panel, evenly chosen.

    Returns:
        The figure.

    Raises:
        MismatchError: if a variable has no draws or too many dimensions, or there are no variables.
    """
    for name, variable in values.data_vars.items():
        if not {"chain", "draw"} <= set(variable.dims) or not can_be_drawn(variable, members):
            raise MismatchError(
                f"'{name}' runs along {', '.join(map(str, variable.dims))}: a figure shows "
                "numbers, series and series of members over chain and draw, so choose a part of "
                "it, as by .isel, or say what the members run along, as in "
                f"members='{variable.dims[-1]}'"
            )
    if not values.data_vars:
        raise MismatchError("there is nothing to draw: this dataset has no variables")
    # 1. Stack the parts of the figure: small panels together, wide ones by themselves.
    parts = _stacked_parts(values, members)
    heights = [_part_height(values[names[0]], len(names), members, most) for names in parts]
    fig = new_figure(0.65 + sum(heights))
    set_narrow_gaps(fig)
    places = fig.subfigures(len(parts), 1, height_ratios=heights, squeeze=False).ravel()
    # 2. Fill them.
    source = values.attrs.get("group", "posterior")
    priors = {} if prior is None else prior.data_vars
    for place, names in zip(places, parts, strict=True):
        first = values[names[0]]
        if series_of_members(first, members):
            _draw_groups(
                place,
                first,
                priors.get(names[0]),
                source,
                members,
                most,
            )
            continue
        axes = grid(place, len(names), 1 if _is_wide(first, members) else 2)
        for ax, name in zip(axes, names, strict=True):
            _draw_variable(ax, values[name], priors.get(name), source, members)
    # 3. One legend, from the prior to the widest band.
    # Panels differ in what they show, so collect the entries of all.
    handles = labelled(fig.axes)
    labels = sorted(handles, key=lambda label: _LEGEND.index(label.removesuffix(" of the prior")))
    columns = min(4, len(labels))
    place = {"loc": "outside upper left", "ncols": columns}
    fig.legend([handles[label] for label in labels], labels, **place)
    return fig


def _is_wide(variable: xr.DataArray, members: str) -> bool:
    """Whether a variable has so many separate intervals that its panel needs the full width.

    Args:
        variable: draws of the quantity.
        members: name of the dimension of groups.
    """
    dims = beside(variable)
    if len(dims) != 1 or not _are_separate(variable, dims[0], members):
        return False
    return variable.sizes[dims[0]] > _NARROW


def _are_separate(variable: xr.DataArray, dim: str, members: str) -> bool:
    """Whether values along a dimension are drawn separately, without a line between them."""
    return dim == members or not has_numbers(variable, dim)


def _stacked_parts(values: xr.Dataset, members: str) -> list[list[str]]:
    """Divide quantities into parts of the figure, which are stacked.

    Returns:
        A list of names for each part: one part for all small panels, and one for each wide panel or
        series of groups.
    """
    names = [str(name) for name in values.data_vars]
    alone = [
        n for n in names if _is_wide(values[n], members) or series_of_members(values[n], members)
    ]
    small = [name for name in names if name not in alone]
    return [*([small] if small else []), *([name] for name in alone)]


def _part_height(variable: xr.DataArray, count: int, members: str, most: int) -> float:
    """Return the height of one part of the figure in inches.

    Args:
        variable: draws of the first quantity of the part.
        count: number of quantities in the part.
        members: name of the dimension of groups.
        most: largest number of groups with a panel.
    """
    if dim := series_of_members(variable, members):
        return 0.6 + 1.35 * rows_of(min(most, variable.sizes[dim]), COLUMNS)
    if not _is_wide(variable, members):
        return 1.75 * rows_of(count, 2)
    names = _tick_names(variable[beside(variable)[0]], _MANY)
    # Upright names need room for the longest one.
    return 1.75 + (0.08 * max(map(len, names)) if _are_upright(names, _ROOM) else 0.0)


def _draw_variable(
    ax: Axes, values: xr.DataArray, prior: xr.DataArray | None, source: str, members: str
) -> None:
    """Draw a number as a density, or a series as bands or separate intervals.

    Args:
        ax: the panel.
        values: draws of the quantity.
        prior: prior draws, if there are any.
        source: the group from which `values` were computed, "posterior" or "prior".
        members: name of the dimension of groups.
    """
    ax.set_title(fitted(values.name))
    dims = beside(values)
    if not dims:
        draw_densities(ax, values, prior, source)
        ax.set_xlabel(units_or_none(values), fontsize=9)
        return
    along = values[dims[0]]
    separate = _are_separate(values, dims[0], members)
    draws, left_out = finite_draws(values)
    _focus(ax, [_draw_quantiles(ax, along, draws, prior, source, separate=separate)])
    if len(draws):
        say_left_out(ax, left_out)
    ax.set_xlabel(axis_label(along, dims[0]), fontsize=9)
    if values.attrs.get("units"):
        ax.set_ylabel(fitted(values.attrs["units"], 20), fontsize=9)
    if separate:
        wide = _is_wide(values, members)
        _name_ticks([ax], along, *((_MANY, _ROOM) if wide else (_FEW, _ROOM // 2)))
    else:
        x = positions(along.values)
        ax.set_xlim(float(x.min()), float(x.max()))
        few_ticks(ax, along, 5)
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _draw_groups(
    fig: Figure | SubFigure,
    values: xr.DataArray,
    prior: xr.DataArray | None,
    source: str,
    members: str,
    most: int,
) -> None:
    """Draw a series of each group in a panel, all panels with the same scale.

    Args:
        fig: the figure.
        values: draws of the quantity.
        prior: prior draws, if there are any.
        source: the group from which `values` were computed, "posterior" or "prior".
        members: name of the dimension of groups.
        most: largest number of groups.
    """
    dim = str(series_of_members(values, members))
    (index,) = (name for name in beside(values) if name != dim)
    along = values[index]
    separate = not has_numbers(values, index)
    shown = evenly_chosen(values[dim].values, most)
    axes = grid(fig, len(shown), COLUMNS, share=True)
    bands, left_out = [], []
    for ax, group in zip(axes, shown, strict=True):
        known = prior is not None and dim in prior.dims and group in prior[dim].values
        own_prior = prior.sel({dim: group}) if known else None  # pyright: ignore[reportOptionalMemberAccess]
        draws, lost = finite_draws(values.sel({dim: group}))
        left_out.append(lost)
        bands.append(
            _draw_quantiles(
                ax,
                along,
                draws,
                own_prior,
                source,
                separate=separate,
            )
        )
        ax.set_title(fitted(group_title(dim, group), 16), fontsize=9, loc="left")
    # All panels share the scale of the first.
    _focus(axes[0], bands)
    axes[0].yaxis.set_major_locator(MaxNLocator(4))
    if separate:
        _name_ticks(axes, along, _FEW, _ROOM // COLUMNS)
    else:
        few_shared_ticks(axes, along)
    label_panels(fig, axes, axis_label(along, index), units_or_none(values))
    title = str(values.name)
    if len(shown) < values.sizes[dim]:
        title += f", {len(shown)} of {values.sizes[dim]}, evenly chosen"
    if most_lost := max(left_out):
        title += f"\nup to {most_lost} draws of a panel, which are not finite, are left out"
    fig.suptitle(plain(title), fontsize=10, x=0.02, ha="left")


def _draw_quantiles(
    ax: Axes,
    along: xr.DataArray,
    draws: np.ndarray,
    prior: xr.DataArray | None,
    source: str,
    *,
    separate: bool,
) -> np.ndarray | None:
    """Draw bands or separate intervals of draws, over those of the prior.

    Args:
        ax: the panel.
        along: the coordinate on the horizontal axis.
        draws: the draws, `(draw, along)`.
        prior: prior draws, if there are any.
        source: the group from which the draws were computed, "posterior" or "prior".
        separate: whether to draw separate intervals in place of bands.

    Returns:
        The ends of the 90 % interval, shape `(2, along)`, or None without draws.
    """
    x = np.arange(along.size, dtype=float) if separate else positions(along.values)
    few = along.size <= _MANY
    bar = (0.5 if few else 0.8) if separate else None
    # Without this, the lower ends of bars would be the lower limit of the panel.
    ax.use_sticky_edges = not separate
    if prior is not None and (before := finite_draws(prior)[0]).size:
        low, middle, high = np.quantile(before, (0.05, 0.5, 0.95), axis=0)
        draw_span(
            ax,
            x,
            low,
            high,
            bar,
            color=FAINT,
            label="prior, 90 % band",
        )
        look: Any = {
            "color": GREY,
            "lw": 1.2,
            "label": "prior",
        }
        look |= {"ls": "none", "marker": "_"} if separate else {"ls": "--"}
        ax.plot(x, middle, **look)
    if not len(draws):
        note(ax, "no draw\nis finite")
        return None
    # `evaluate` may have been given prior draws in place of a posterior.
    whose = "" if source == "posterior" else " of the prior"
    points = (
        {
            "ls": "none",
            "marker": "o",
            "ms": 4 if few else 2,
        }
        if separate
        else {}
    )
    return draw_bands(ax, x, draws, bar=bar, whose=whose, **points)[[0, -1]]


def _name_ticks(axes: Sequence[Axes], along: xr.DataArray, most: int, room: int) -> None:
    """Label ticks by the names of separate values; long names are written vertically.

    Args:
        axes: the panels.
        along: the coordinate with the names.
        most: largest number of ticks.
        room: number of letters that fit below a panel.
    """
    names = _tick_names(along, most)
    places = np.arange(along.size)[_every_nth_name(along, most)]
    for ax in axes:
        ax.set_xticks(places, names, rotation=90 if _are_upright(names, room) else 0)
        ax.set_xlim(-0.6, along.size - 0.4)


def _every_nth_name(along: xr.DataArray, most: int) -> slice:
    """Return a slice that keeps at most `most` evenly spaced values."""
    return slice(None, None, -(-along.size // most))


def _tick_names(along: xr.DataArray, most: int) -> list[str]:
    """Return the names of at most `most` evenly spaced values along a dimension."""
    numbers = along.dtype.kind in "iuf"
    chosen = along.values[_every_nth_name(along, most)]
    return [plain(f"{name:g}" if numbers else name) for name in chosen]


def _are_upright(names: Sequence[str], room: int) -> bool:
    """Whether names have more letters than `room`, and must be written vertically."""
    return sum(len(name) + 2 for name in names) > room


def _focus(ax: Axes, bands: Sequence[np.ndarray | None]) -> None:
    """Set vertical limits around the posterior, since a wide prior would hide it.

    Args:
        ax: the panel.
        bands: ends of the 90 % intervals of the posterior; None for a panel without draws.
    """
    known = [band for band in bands if band is not None]
    if known:
        low = min(float(band.min()) for band in known)
        high = max(float(band.max()) for band in known)
        below, above = ax.get_ylim()
        # The prior is shown as far as one width of the posterior beyond it.
        room = high - low or 1.0
        ax.set_ylim(max(below, low - room), min(above, high + room))

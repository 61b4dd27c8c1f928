"""Figures of a forecast over time, and of the parts of its variance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.datasets import index_of
from ..scores.matching import fitted_between
from ._series import (
    FAILED,
    MOST_INTERVALS,
    distinct_times,
    draw_bands,
    draw_boundaries,
    draw_data,
    every_nth,
    finite_draws,
    series_of,
    some_of,
)
from ._style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    add_legend,
    data_of,
    label_series,
    new_figure,
    note,
    one_panel,
    percent,
    plain,
    positions,
    refuse_places,
    refuse_unknown,
    say_left_out,
    say_recalibrated,
    small_print,
    time_axis,
)

PARTS = {  # part of the variance: (colour, hatch)
    "aleatoric": ("#BFD7EA", None),
    "epistemic": (BLUE, None),
    "science": (BLUE, None),
    "network": (ORANGE, None),
    "process": (GREEN, None),
    "interaction": ("#F3D5E4", "////"),
    "science, at least": (BLUE, None),
    "network, at least": (ORANGE, None),
    "unknown": ("#E4E4E4", "...."),
    "forcing": (GREEN, None),
    "parameters": (BLUE, None),
}


@mpl.rc_context(STYLE)
def plot_forecast(
    fc: xr.DataTree, train: xr.Dataset | None, test: xr.Dataset | None, observable: str
) -> Figure:
    """Draw a forecast with 50 and 90 % bands, the data, and the end of the training data.

    Rows without an order have one interval each in place of bands; at most 60 are drawn. Of more
    than 400 data about 400 are drawn, as the legend says. Draws whose solve failed are left out.
    Training data are filled points, test data open points. A recalibrated forecast is labelled as
    recalibrated.

    Args:
        fc: the result of `forecast` or `recalibrate`.
        train: the training data; None leaves them out.
        test: held-out data; None leaves them out.
        observable: name of the observable. It must be a series of numbers; `plot_field` draws
            fields.

    Returns:
        The figure.

    Raises:
        MismatchError: if `fc` is no forecast, or the observable is unknown or has dimensions other
            than the index.

    Example:
        ```python
        figure = bd.plots.plot_forecast(fc, train, test, "y")
        figure.savefig(folder / "forecast.png")
        ```
    """
    predictions = series_of(fc, observable)
    train, test = data_of(fc, train, test)
    index = index_of(predictions)
    time, first = distinct_times(predictions, index)
    draws, left_out = finite_draws(predictions)
    is_series = fc.attrs.get("series", True)
    # Thousands of times make a file large and look the same; side by side, intervals need room.
    every = every_nth(time) if is_series else some_of(len(time), MOST_INTERVALS)
    if not is_series:
        train, test = (_rows_drawn(data, index, time[every]) for data in (train, test))
    fig, ax = one_panel()
    quantiles = None
    if len(draws):
        look = {} if is_series else _bars(time[every])
        quantiles = draw_bands(ax, time[every], draws[:, first[every]], **look)
    else:
        note(ax, FAILED)
    say_left_out(ax, left_out)
    observed = draw_data(ax, train, test, predictions)
    _clip(ax, quantiles, observed)
    if is_series:
        draw_boundaries(ax, time, fitted_between(fc))
    label_series(ax, predictions, index)
    add_legend(fig, 4 if len(ax.get_legend_handles_labels()[1]) == 4 else 3)
    say_recalibrated(fig, fc.attrs)
    return fig


def _rows_drawn(data: xr.Dataset | None, index: str, time: np.ndarray) -> xr.Dataset | None:
    """Return the rows of data that have an interval in the figure."""
    return data and data.isel({index: np.isin(positions(data[index].values), time)})


def _bars(x: np.ndarray) -> dict[str, Any]:
    """Return options of `draw_bands` for one interval at each position `x`, in place of bands."""
    width = 0.7 * (np.diff(x).min() if len(x) > 1 else 1.0)
    return {
        "bar": width,
        "kind": "interval",
        "ls": "none",
        "marker": "_",
        "ms": 5,
    }


def epistemic_parts(parts: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the known parts of the epistemic variance, by name; their sum is this variance.

    - An ensemble of forcings gives *forcing* and *parameters*.
    - Without a network, the parts are *parameters* and *process* (process noise), if the model has
      process noise.
    - With science and network, the parts are *science*, *network*, *process* if the model has it,
      and *interaction*.
    - If science and network cannot be separated at some times, lower bounds replace their parts,
      and *unknown* is the rest.
    - If the variance cannot be split, for example with too few draws, the only part is *epistemic*.

    Args:
        parts: the result of `decompose`.

    Returns:
        The parts in the order in which figures stack them.
    """
    epistemic = parts["epistemic"]
    process = {"process": parts["process"]} if "process" in parts else {}
    if "forcing" in parts:
        return {"forcing": parts["forcing"], "parameters": epistemic - parts["forcing"]}
    # `decompose` leaves the split out if there are too few draws.
    if "split_known" not in parts:
        return {"epistemic": epistemic}
    # A mean over places is the share of them at which the split is known.
    known = parts["split_known"] == 1
    all_known = bool((known | ~np.isfinite(epistemic)).all())
    if "network" not in parts:
        if not all_known:
            return {"epistemic": epistemic}
        # Without a network, everything but the process noise is parameters.
        return {"parameters": epistemic - parts["process"], **process}
    if not bool(np.isfinite(parts["network_least"]).any()):
        return {"epistemic": epistemic}
    # With science and network the split may be known, bounded, or unknown.
    groups = ("science", "network")
    if all_known:
        return {name: parts[name] for name in (*groups, *process, "interaction")}
    bounds = {f"{name}, at least": parts[name] for name in groups}
    interaction = {"interaction": parts["interaction"]} if bool(known.any()) else {}
    return bounds | process | interaction | {"unknown": parts["unknown"]}


@mpl.rc_context(STYLE)
def plot_decomposition(
    parts: xr.Dataset, observable: str, train_end: Any = None, train_start: Any = None
) -> Figure:
    """Draw the parts of the predictive variance as a stack over time.

    The upper panel has the units of the variance, the lower panel shows shares of the total.

    *Science* is the variance that would vanish on average if the science parameters were known, and
    *network* that of the network weights. *Interaction* vanishes only if both are known. It is
    negative where the two groups carry the same information, and is then drawn below zero. The
    total is the height of the stack minus the part below zero. If science and network cannot be
    separated, the figure shows a lower bound for each and the unknown rest.

    Args:
        parts: the result of `decompose`.
        observable: name of the observable.
        train_end: last time of the fitted data, a number or a date, marked by a line; None draws no
            line.
        train_start: first time of the fitted data, marked by a line if the parts begin before it;
            None draws no line.

    Returns:
        The figure.

    Raises:
        MismatchError: if the observable is unknown, or has dimensions other than the index.
    """
    refuse_unknown(observable, parts["observable"].values)
    chosen = parts.sel(observable=observable)
    refuse_places(chosen["total"].rename(observable))
    index = index_of(chosen["total"])
    chosen = chosen.drop_duplicates(index)
    time = positions(chosen[index].values)
    stack = {"aleatoric": chosen["aleatoric"], **epistemic_parts(chosen)}
    total = chosen["total"].values
    fig = new_figure(4.2)
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    # There are no shares of a variance of zero.
    positive = np.where(total > 0, total, np.nan)
    for ax, scale in ((upper, np.ones_like(total)), (lower, positive)):
        _draw_stack(ax, time, {name: part.values / scale for name, part in stack.items()})
        ax.plot(time, total / scale, color=BLACK, lw=1.6, label="total")
        draw_boundaries(ax, time, (train_start, train_end), label=ax is upper)
    upper.set_ylabel(_variance_label(chosen))
    lower.set_ylabel("share of total")
    lower.yaxis.set_major_formatter(percent())
    time_axis(lower, chosen[index])
    add_legend(fig, 3)
    return fig


def _clip(ax: Axes, quantiles: np.ndarray | None, observed: np.ndarray) -> None:
    """Limit the vertical axis if the 90 % band is very wide, so that data and median stay readable.

    A text in the panel says how far the band extends beyond the axis.

    Args:
        ax: the panel.
        quantiles: the result of `draw_bands`; None without draws.
        observed: the values of the data.
    """
    if quantiles is None or not np.isfinite(quantiles).all():
        return
    # 1. The core is the median and the data. The 50 % band limits how far it may be zoomed.
    core = np.concatenate([quantiles[2], observed])
    spread = max(np.ptp(core), np.ptp(quantiles[[1, 3]]) / 4, 1e-12)
    # 2. Show the core and three times its spread on either side.
    floor, ceiling = core.min() - 3 * spread, core.max() + 3 * spread
    low, high = quantiles[0].min(), quantiles[4].max()
    if high > ceiling:
        ax.set_ylim(top=ceiling)
        small_print(ax, 0.02, 0.97, f"the 90 % band goes on up to {high:.3g}", va="top")
    if low < floor:
        ax.set_ylim(bottom=floor)
        small_print(ax, 0.02, 0.03, f"the 90 % band goes on down to {low:.3g}")
    # 3. Positive values that come near zero start at zero.
    margin = 0.05 * (min(high, ceiling) - max(low, floor))
    if low >= 0 and core.min() >= 0 and low - margin < 0.1 * high:
        ax.set_ylim(bottom=0)


def _draw_stack(ax: Axes, time: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
    """Stack positive values above zero and negative values below it.

    Args:
        ax: the panel.
        time: positions on the horizontal axis.
        parts: values over time by name of the part.
    """
    top, bottom = np.zeros(len(time)), np.zeros(len(time))
    for name, values in parts.items():
        color, hatch = PARTS[name]
        values = np.nan_to_num(values)
        label: str | None = name
        for edge, part in ((top, values.clip(min=0)), (bottom, values.clip(max=0))):
            if not part.any():
                continue
            look = {
                "facecolor": color,
                "hatch": hatch,
                "lw": 0,
                "label": label,
            }
            ax.fill_between(time, edge, edge + part, **look)
            # The next part is stacked on this one.
            edge += part
            label = None
    if bottom.any():
        ax.axhline(0, color=GREY, lw=0.8)
    else:
        ax.set_ylim(bottom=0)


def _variance_label(parts: xr.Dataset) -> str:
    """Return the axis label of a variance, with the squared units of the observable."""
    units = str(parts.coords["units"].item()) if "units" in parts.coords else ""
    # `m²`, but `(m/s)²`.
    base = units if units.isalpha() else f"({units})"
    return plain(f"variance, {base}²" if units else "variance")

"""Figures of the members of a population: each of them, and all against what the model makes of
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from ..data.censoring import alike, bounds, with_bounds
from ..data.datasets import index_of
from ..data.dates import are_dates
from ..errors import MismatchError
from ..model import Model
from ..prediction.forecasts import forecast
from ..prediction.posterior import check_belongs
from ..scores.matching import in_units_of_forecast
from ._style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    VERMILION,
    WIDTH,
    along_dates,
    axis_label,
    grid,
    note,
    plain,
    positions,
    predictions_of,
    rows_of,
    say_above,
    say_left_out,
    say_recalibrated,
    time_axis,
)
from .forecast import draw_bands, draw_observations, finite_draws

COLUMNS = 4
_GAP = 0.15  # of the span of the data
_QUANTILES = {0.1: ORANGE, 0.5: BLUE, 0.9: ORANGE}


def plot_members(
    fc: xr.DataTree,
    train: xr.Dataset | None,
    test: xr.Dataset | None,
    observable: str,
    *,
    most: int = 12,
) -> Figure:
    """Draw the forecast of each member of a population with 50 and 90 % bands and its data, side by
    side.

    Draws whose solve failed are left out. Training data are filled, test data open. All panels have
    one scale.

    Args:
        fc: what `forecast` returned for a model with `bd.Each`.
        train: the data of the fit, as a dataset; None where they are not to be drawn.
        test: the data that the fit has not seen, likewise.
        observable: its name.
        most: so many members are drawn, evenly chosen.

    Raises:
        MismatchError: for what is no forecast of a population, or an unknown observable.
    """
    predictions, dim = _of_members(fc, observable)
    index, held = index_of(predictions), predictions[dim].values
    members = evenly_chosen(held, most)
    data = [None if d is None else in_units_of_forecast(fc, d) for d in (train, test)]
    with mpl.rc_context(STYLE):
        fig = Figure(
            figsize=(WIDTH, 0.9 + 1.5 * rows_of(len(members), COLUMNS)), layout="constrained"
        )
        axes = grid(fig, len(members), COLUMNS, share=True)
        time = positions(predictions[index].values)
        for ax, member in zip(axes, members, strict=True):
            own = predictions.sel({dim: member})
            draws = finite_draws(own)
            if len(draws):
                draw_bands(ax, time, draws)
            else:
                note(ax, "every draw failed")
            say_left_out(ax, math.prod(own.shape[:2]) - len(draws))
            for part, label, face, edge in (
                (data[0], "training data", BLACK, BLACK),
                (data[1], "test data", "white", VERMILION),
            ):
                if part is not None and member in part[dim].values:
                    draw_observations(ax, part.sel({dim: member}), own, label, face, edge)
            ax.set_title(plain(member_name(dim, member)), fontsize=9, loc="left")
        along_members(axes, predictions[index])
        label_members(
            fig, axes, axis_label(predictions[index], index), axis_label(predictions, observable)
        )
        by_label = {
            label: handle
            for ax in axes
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        fig.legend(by_label.values(), by_label.keys(), loc="outside upper left", ncols=5)
        if len(members) < len(held):
            say_above(fig, f"{len(members)} of {len(held)}, evenly chosen")
        say_recalibrated(fig, fc.attrs)
    return fig


def plot_vpc(
    model: Model,
    post: xr.DataTree,
    data: xr.Dataset,
    observable: str,
    *,
    new_members: bool = True,
    corrected: bool = False,
    bins: int = 8,
    key: int | Array = 0,
) -> Figure:
    r"""Draw a visual predictive check: quantiles of the data of all members over time, and what the
    model says of them.

    The lines are the 10, 50 and 90 % quantiles of the data in bins of time that hold about as many
    data each. The bands hold the same quantile of simulated data in 90 % of the draws. These are of
    new members, by default: with the doses, covariates and times of the members of the data, and
    random effects drawn anew. Bands of the fitted members themselves would be too narrow, since
    each of them has learned from its own data.

    Data that are censored are at their limit, drawn as triangles that point to where they may lie;
    simulated data beyond a limit are at that limit too.

    Args:
        model: the model, with `bd.Each`.
        post: what `fit` returned.
        data: the data, fitted or not, `(time, subject)`, with the forcings of the model.
        observable: its name.
        new_members: whether members are drawn anew; else the bands are conditional on those of the
            fit.
        corrected: whether data and simulated data are corrected for what differs between members by
            design, such as dose and covariates (pcVPC): each is multiplied by
            $\tilde m_b / m_{ij}$, with the median over draws $m_{ij}$ of the conditional mean of a
            new member there, and its median $\tilde m_b$ in the bin. Where some $m_{ij}$ is not
            positive, $\tilde m_b - m_{ij}$ is added.
        bins: how many, at most.
        key: a whole number or a JAX random key, for the observation noise.

    Raises:
        MismatchError: for a posterior of another model, a model without members, an unknown
            observable, or data that hold no number.

    Source: Bergstrand, Hooker, Wallin & Karlsson (2011), Prediction-corrected visual predictive
    checks for diagnosing nonlinear mixed-effects models.
    """
    check_belongs(model, post)
    fc = forecast(model, post, data, new_members=new_members, key=key)
    predictions, dim = _of_members(fc, observable)
    index = index_of(predictions)
    given = in_units_of_forecast(fc, data)
    observed = with_bounds(given[observable].transpose(index, dim), given, predictions.attrs)
    values = observed.values.ravel()
    draws = alike(_rows(predictions, index, dim), observed)
    whole = np.isfinite(draws).all(axis=1)
    kept = np.isfinite(values)
    if not kept.any() or not whole.any():
        raise MismatchError(f"'{observable}' has no value in the data, or every draw failed")
    draws, shown = draws[np.ix_(whole, kept)], values[kept]
    at = np.broadcast_to(positions(observed[index].values)[:, None], observed.shape).ravel()[kept]
    edges = _edges(np.sort(at), bins)
    part_of = np.searchsorted(edges, at, side="right") - 1
    if corrected:
        expected = np.median(
            _rows(fc["conditional_mean"].to_dataset()[observable], index, dim)[whole][:, kept],
            axis=0,
        )
        shown, draws = (_corrected(each, expected, part_of) for each in (shown, draws))
    middles = np.asarray([at[part_of == i].mean() for i in range(len(edges))])
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        ax = fig.add_subplot()
        for quantile, color in _QUANTILES.items():

            def of(v, q=quantile):
                return np.stack(
                    [np.quantile(v[..., part_of == i], q, -1) for i in range(len(edges))]
                )

            low, high = np.quantile(of(draws), (0.05, 0.95), axis=1)
            name = f"{100 * quantile:.0f} % quantile"
            ax.fill_between(
                middles,
                low,
                high,
                color=color,
                alpha=0.25,
                lw=0,
                label=f"{name} of new data, 90 % band",
            )
            style = "-" if quantile == 0.5 else "--" if quantile > 0.5 else ":"
            ax.plot(
                middles,
                of(shown),
                style,
                color=BLACK,
                lw=1.5,
                marker=".",
                label=f"{name} of the data",
            )
        low, high = (ends[kept] for ends in bounds(observed))
        above = (low < high) & (np.isposinf(high) | (low == values[kept]))
        for marker, there in (("o", low == high), ("v", (low < high) & ~above), ("^", above)):
            ax.plot(at[there], shown[there], marker, ls="", ms=2.5, color=GREY, alpha=0.5, zorder=1)
        label = axis_label(predictions, observable)
        ax.set_ylabel(f"{label}, prediction-corrected" if corrected else label)
        time_axis(ax, predictions[index])
        fig.legend(loc="outside upper left", ncols=2)
        if not new_members:
            say_above(fig, "conditional on the fitted members: bands are too narrow")
    return fig


def _rows(draws: xr.DataArray, index: str, dim: str) -> np.ndarray:
    """Draws `(draw, datum)` of all chains, in the order of times and members."""
    values = draws.transpose("chain", "draw", index, dim).values
    return values.reshape(math.prod(values.shape[:2]), -1)


def _corrected(values: np.ndarray, expected: np.ndarray, part_of: np.ndarray) -> np.ndarray:
    """Values `(…, datum)` corrected to the median of what is expected in their bin."""
    middle = np.asarray([np.median(expected[part_of == i]) for i in range(part_of.max() + 1)])[
        part_of
    ]
    return values * (middle / expected) if (expected > 0).all() else values + (middle - expected)


def _edges(times: np.ndarray, bins: int) -> np.ndarray:
    """Where bins of sorted times begin that hold about as many each; data of one time, and no long
    gap, lie in one.
    """
    even = [part[0] for part in np.array_split(times, bins) if part.size]
    return np.unique([*even, *times[1:][np.diff(times) > _GAP * np.ptp(times)]])


def _of_members(fc: xr.DataTree, observable: str) -> tuple[xr.DataArray, str]:
    predictions, dim = predictions_of(fc, observable), fc.attrs.get("members")
    if dim is None or dim not in predictions.dims:
        raise MismatchError(
            f"this forecast of '{observable}' has no members: it takes a model with bd.Each"
        )
    if predictions.ndim > 4:
        raise MismatchError(f"'{observable}' has places beside members: choose one of them first")
    return predictions, dim


def evenly_chosen(members: np.ndarray, most: int) -> np.ndarray:
    """So many of them at most, the first and the last among them."""
    return members[
        np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).round().astype(int))
    ]


def member_name(dim: str, member: object) -> str:
    return f"{dim} {member:g}" if isinstance(member, (int, float, np.number)) else str(member)


def along_members(axes: Sequence[Axes], along: xr.DataArray) -> None:
    """Few ticks on axes of numbers or dates that many panels share."""
    for ax in axes:
        time_axis(ax, along)
        along_dates(ax, 3) if are_dates(along) else ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.set_xlabel("")


def label_members(fig: Figure | SubFigure, axes: Sequence[Axes], below: str, beside: str) -> None:
    """One label for all panels, and ticks under the last of each column."""
    for ax in axes[-COLUMNS:]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel(below, fontsize=10)
    fig.supylabel(beside, fontsize=10)

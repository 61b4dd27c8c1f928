"""Figures of a population: the forecast of each group, and a visual predictive check."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ..data.censoring import alike, bounds, with_bounds
from ..data.datasets import index_of
from ..errors import MismatchError
from ..model import Model
from ..prediction.forecasts import forecast
from ..prediction.posterior import check_belongs
from ..scores.matching import in_units_of_forecast
from ._series import censored_sides, draw_bands, draw_data, every_nth, finite_draws
from ._style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    add_legend,
    axis_label,
    data_of,
    few_ticks,
    fitted,
    grid,
    label_series,
    new_figure,
    note,
    one_panel,
    positions,
    predictions_of,
    rows_of,
    say_above,
    say_left_out,
    say_recalibrated,
    time_axis,
)

COLUMNS = 4
_GAP = 0.15  # smallest gap that separates bins, as a share of the time span of the data
_VPC_LOOKS = {
    0.1: (ORANGE, ":"),
    0.5: (BLUE, "-"),
    0.9: (ORANGE, "--"),
}


@mpl.rc_context(STYLE)
def plot_members(
    fc: xr.DataTree,
    train: xr.Dataset | None,
    test: xr.Dataset | None,
    observable: str,
    *,
    most: int = 12,
) -> Figure:
    """Draw the forecast of each group of a population, with 50 and 90 % bands and the data.

    Draws whose solve failed are left out. Training data are filled points, test data open points.
    All panels have the same scale.

    Args:
        fc: the result of `forecast` for a model with `bd.Each`.
        train: the training data; None leaves them out.
        test: held-out data; None leaves them out.
        observable: name of the observable.
        most: largest number of groups to draw, evenly chosen.

    Returns:
        The figure.

    Raises:
        MismatchError: if `fc` is no forecast of a population, or the observable is unknown.
    """
    predictions, dim = _of_groups(fc, observable)
    index = index_of(predictions)
    known = predictions[dim].values
    groups = evenly_chosen(known, most)
    data = data_of(fc, train, test)
    fig = new_figure(0.9 + 1.5 * rows_of(len(groups), COLUMNS))
    axes = grid(fig, len(groups), COLUMNS, share=True)
    time = positions(predictions[index].values)
    every = every_nth(time)
    for ax, group in zip(axes, groups, strict=True):
        own = predictions.sel({dim: group})
        draws, left_out = finite_draws(own)
        if len(draws):
            draw_bands(ax, time[every], draws[:, every])
        else:
            note(ax, "every draw failed")
        say_left_out(ax, left_out)
        # A group may be in the training data only, or in the test data only.
        train, test = (
            None if part is None or group not in part[dim].values else part.sel({dim: group})
            for part in data
        )
        draw_data(ax, train, test, own)
        ax.set_title(fitted(group_title(dim, group), 16), fontsize=9, loc="left")
    few_shared_ticks(axes, predictions[index])
    label = axis_label(predictions, observable)
    label_panels(fig, axes, axis_label(predictions[index], index), label)
    add_legend(fig, 5)
    if len(groups) < len(known):
        say_above(fig, f"{len(groups)} of {len(known)}, evenly chosen")
    say_recalibrated(fig, fc.attrs)
    return fig


@mpl.rc_context(STYLE)
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
    r"""Draw a visual predictive check: quantiles of the data of all groups, and of simulated data.

    The data are divided into bins of time with about equal numbers of data. The lines are the 10,
    50 and 90 % quantiles of the data in each bin. Each band is the 90 % interval, over draws, of
    the same quantile of simulated data.

    By default the simulated groups are new: they have the doses, covariates and times of the groups
    in the data, and new random effects. Bands of the fitted groups themselves would be too narrow,
    since their random effects were fitted to the same data.

    Censored data are drawn at their limit, as triangles that point to the true value. Simulated
    data beyond a limit are set to that limit.

    Args:
        model: the model, with `bd.Each`.
        post: the result of `fit`.
        data: the data, fitted or not, `(time, subject)`, with the forcings of the model.
        observable: name of the observable.
        new_members: whether random effects are drawn again; otherwise bands are conditional on the
            fitted groups.
        corrected: whether to correct data and simulated data for differences by design, such as
            dose and covariates (pcVPC). Datum j of group i is multiplied by $\tilde m_b / m_{ij}$.
            Here $m_{ij}$ is the median over draws of the conditional mean of a new group at this
            datum, and $\tilde m_b$ the median of $m_{ij}$ in its bin b. If some $m_{ij}$ is not
            positive, $\tilde m_b - m_{ij}$ is added instead.
        bins: largest number of bins of equal counts; long gaps between times add further bins.
        key: a whole number or a JAX random key, for the simulated data.

    Returns:
        The figure.

    Raises:
        MismatchError: if the posterior is of another model, the model has no groups, the observable
            is unknown, or the data have no value.

    Source: Bergstrand, Hooker, Wallin & Karlsson (2011), Prediction-corrected visual predictive
    checks for diagnosing nonlinear mixed-effects models.
    """
    # 1. Simulate data at the times and with the design of the data.
    check_belongs(model, post)
    fc = forecast(model, post, data, new_members=new_members, key=key)
    predictions, dim = _of_groups(fc, observable)
    index = index_of(predictions)
    in_units = in_units_of_forecast(fc, data)
    observed = with_bounds(in_units[observable].transpose(index, dim), in_units, predictions.attrs)
    draws = alike(_flattened(predictions, index, dim), observed)
    # 2. Keep the values that were observed, and the draws that are finite there.
    values = observed.values.ravel()
    finite = np.isfinite(draws).all(axis=1)
    seen = np.isfinite(values)
    if not seen.any() or not finite.any():
        raise MismatchError(f"'{observable}' has no value in the data, or every draw failed")
    values, draws = values[seen], draws[np.ix_(finite, seen)]
    times = positions(observed[index].values)
    at = np.broadcast_to(times[:, None], observed.shape).ravel()[seen]
    # 3. Group them into bins b of time.
    edges = _bin_edges(np.sort(at), bins)
    bin_of = np.searchsorted(edges, at, side="right") - 1
    members_of_bin = [bin_of == number for number in range(len(edges))]
    middles = np.asarray([at[inside].mean() for inside in members_of_bin])
    # 4. Remove differences by design, if asked: y_ij m̃_b / m_ij.
    shown = values
    if corrected:
        means = fc["conditional_mean"].to_dataset()[observable]
        expected = np.median(_flattened(means, index, dim)[finite][:, seen], axis=0)
        shown = _corrected(shown, expected, bin_of)
        draws = _corrected(draws, expected, bin_of)
    # 5. Compare the quantiles of each bin.
    fig, ax = one_panel()
    for quantile, (color, line) in _VPC_LOOKS.items():
        name = f"{100 * quantile:.0f} % quantile"
        simulated = _of_bins(draws, members_of_bin, quantile)
        low, high = np.quantile(simulated, (0.05, 0.95), axis=1)
        band = {"color": color, "alpha": 0.25, "label": f"{name} of new data, 90 % band"}
        ax.fill_between(middles, low, high, lw=0, **band)
        look = {"color": BLACK, "lw": 1.5, "marker": ".", "label": f"{name} of the data"}
        ax.plot(middles, _of_bins(shown, members_of_bin, quantile), line, **look)
    # 6. Show the data behind the lines.
    low, high = (ends[seen] for ends in bounds(observed))
    below, above = censored_sides(values, low, high)
    for marker, there in (("o", ~below & ~above), ("v", below), ("^", above)):
        ax.plot(
            at[there],
            shown[there],
            marker,
            ls="",
            ms=2.5,
            color=GREY,
            alpha=0.5,
            zorder=1,
        )
    label_series(ax, predictions, index)
    if corrected:
        ax.set_ylabel(f"{axis_label(predictions, observable)}, prediction-corrected")
    add_legend(fig, 2)
    if not new_members:
        say_above(fig, "conditional on the fitted members: bands are too narrow")
    return fig


def _flattened(draws: xr.DataArray, index: str, dim: str) -> np.ndarray:
    """Return draws of all chains as an array `(draw, datum)`, in the order of times, then groups.

    Args:
        draws: the draws.
        index: name of the dimension of times.
        dim: name of the dimension of groups.
    """
    values = draws.transpose("chain", "draw", index, dim).values
    return values.reshape(math.prod(values.shape[:2]), -1)


def _of_bins(values: np.ndarray, inside: Sequence[np.ndarray], quantile: float) -> np.ndarray:
    """Return one quantile of the values in each bin, shape `(bin, …)`.

    Args:
        values: the values, `(…, datum)`.
        inside: a mask of the data in each bin.
        quantile: level of the quantile.
    """
    return np.stack([np.quantile(values[..., mask], quantile, -1) for mask in inside])


def _corrected(values: np.ndarray, expected: np.ndarray, bin_of: np.ndarray) -> np.ndarray:
    """Correct values for differences between the expected values of data in the same bin.

    Args:
        values: the values, `(…, datum)`.
        expected: the expected value of each datum.
        bin_of: the bin of each datum.
    """
    # m̃_b, the median of the expected values m_ij in bin b.
    medians = [np.median(expected[bin_of == number]) for number in range(bin_of.max() + 1)]
    middle = np.asarray(medians)[bin_of]
    if (expected > 0).all():
        return values * (middle / expected)
    return values + (middle - expected)


def _bin_edges(times: np.ndarray, bins: int) -> np.ndarray:
    """Return the first time of each bin.

    Bins have about equal counts, and a long gap between times also begins a new bin.

    Args:
        times: sorted times of the data.
        bins: number of bins of equal counts.
    """
    # 1. Equal counts.
    even = [part[0] for part in np.array_split(times, bins) if part.size]
    # 2. A new bin after each long gap.
    after_gaps = times[1:][np.diff(times) > _GAP * np.ptp(times)]
    return np.unique([*even, *after_gaps])


def _of_groups(fc: xr.DataTree, observable: str) -> tuple[xr.DataArray, str]:
    """Return the predictions of one observable, and the name of its dimension of groups.

    Raises:
        MismatchError: if there are no groups, or further dimensions.
    """
    predictions = predictions_of(fc, observable)
    dim = fc.attrs.get("members")
    if dim is None or dim not in predictions.dims:
        raise MismatchError(
            f"this forecast of '{observable}' has no members: it takes a model with bd.Each"
        )
    if predictions.ndim > 4:
        raise MismatchError(f"'{observable}' has places beside members: choose one of them first")
    return predictions, dim


def evenly_chosen(groups: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` groups, evenly chosen, with the first and the last included."""
    places = np.linspace(0, len(groups) - 1, min(most, len(groups)))
    return groups[np.unique(places.round().astype(int))]


def group_title(dim: str, group: object) -> str:
    """Return the title of a group: its name, or for a number also the name of its dimension."""
    return f"{dim} {group:g}" if isinstance(group, (int, float, np.number)) else str(group)


def few_shared_ticks(axes: Sequence[Axes], along: xr.DataArray) -> None:
    """Set few ticks, and no labels, on the horizontal axes of many panels."""
    for ax in axes:
        time_axis(ax, along)
        few_ticks(ax, along, 3)
        ax.set_xlabel("")


def label_panels(fig: Figure | SubFigure, axes: Sequence[Axes], below: str, beside: str) -> None:
    """Write one label for each axis of all panels.

    The last panel of each column also gets tick labels.

    Args:
        fig: the figure.
        axes: the panels.
        below: label of the horizontal axes.
        beside: label of the vertical axes.
    """
    # Shared axes have tick labels in the last row only, which may be incomplete.
    for ax in axes[-COLUMNS:]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel(below, fontsize=10)
    fig.supylabel(beside, fontsize=10)

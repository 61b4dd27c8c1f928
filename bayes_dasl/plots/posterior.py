"""Figures of the posterior: densities on their priors, ranks of the chains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ._style import (
    BLUE,
    FAINT,
    GREY,
    LINES,
    SERIES,
    STYLE,
    band,
    plain,
    small_multiples,
    sorted_finite,
)

FEWEST_WORTH = 50.0
_MOST_LINES = 16  # of chains in one panel
_WIDEST = 16.0  # an axis, in widths of the posterior


def science_parameters(post: xr.DataTree, group: str = "posterior") -> dict[str, xr.DataArray]:
    """Return the scalar science parameters of a posterior by label, such as `birth` or `rate[2]`.

    Args:
        post: what `fit` returned.
        group: where the values are from: "posterior", or "prior".

    Shapes: every value is `(chain, draw)`; an array parameter gives one entry an element.
    """
    posterior, source = post["posterior"].dataset, post[group].dataset
    names = [
        name
        for name, v in posterior.data_vars.items()
        if v.attrs.get("group", "science") == "science"
    ]
    return {
        label: scalar.assign_attrs(posterior[name].attrs)
        for name in names
        if name in source
        for label, scalar in _elements(name, source[name])
    }


def plot_prior_posterior(post: xr.DataTree, names: Sequence[str] | None = None) -> Figure:
    """Draw the prior and posterior density of each science parameter in small multiples.

    Args:
        post: what `fit` returned.
        names: labels of some of them, as `science_parameters` gives them; all unless given.
    """
    posterior = science_parameters(post)
    prior = science_parameters(post, "prior") if "prior" in post.children else {}
    names = list(posterior) if names is None else list(names)
    with mpl.rc_context(STYLE):
        fig, axes = small_multiples(len(names), height=1.55)
        for ax, name in zip(axes, names, strict=True):
            draw_densities(ax, posterior[name], prior.get(name))
            ax.set_title(plain(name))
            ax.set_xlabel(
                plain(posterior[name].attrs.get("units") or "(no unit stated)"), fontsize=9
            )
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return fig


def plot_ranks(post: xr.DataTree, names: Sequence[str] | None = None) -> Figure:
    """Draw, for each chain, how far the ranks of its draws are from uniform.

    The line is $F_c(u) - u$, where $F_c$ is the empirical distribution of the fractional ranks of
    chain $c$ among all draws. The band holds 99 % of such lines (as a whole) when the chains agree,
    for as many independent draws as the chain is worth. A single chain is compared half with half;
    more than 16 chains are taken together in 16 groups.

    Args:
        post: what `fit` returned.
        names: labels of some science parameters, as `science_parameters` gives them; all unless
            given.

    Source: Säilynoja, Bürkner & Vehtari (2022); band after Kolmogorov and Stephens (1970).
    """
    posterior = science_parameters(post)
    names = list(posterior) if names is None else list(names)
    with mpl.rc_context(STYLE):
        fig, axes = small_multiples(len(names), height=1.45, share=True)
        for ax, name in zip(axes, names, strict=True):
            label = _draw_ranks(ax, posterior[name])
            ax.set_title(plain(name))
        handles, labels = axes[0].get_legend_handles_labels()
        if len(handles) <= 9:
            fig.legend(handles, labels, loc="outside upper left", ncols=min(5, len(handles)))
        fig.supxlabel(f"fractional rank among all draws, one line a {label}", fontsize=10)
        fig.supylabel("difference from uniform", fontsize=10)
    return fig


def _elements(name: Hashable, array: xr.DataArray) -> list[tuple[str, xr.DataArray]]:
    inner = [dim for dim in array.dims if dim not in ("chain", "draw")]
    if not inner:
        return [(str(name), array)]
    labels = [array[dim].values for dim in inner]
    found = []
    for index in itertools.product(*(range(array.sizes[dim]) for dim in inner)):
        where = dict(zip(inner, index, strict=True))
        tag = ", ".join(str(values[i]) for values, i in zip(labels, index, strict=True))
        found.append((f"{name}[{tag}]", array.isel(where, drop=True)))
    return found


def draw_densities(
    ax: Axes, posterior: xr.DataArray, prior: xr.DataArray | None, label: str = "posterior"
) -> None:
    """Draw the density of the draws of one number, on that of its prior."""
    after = sorted_finite(posterior.values)
    before = after[:0] if prior is None else sorted_finite(prior.values)
    low, high = _shown(after, before)
    if before.size > 1:
        grid, density = _density(before, low, high)
        ax.fill_between(grid, density, color=FAINT, lw=0)
        ax.plot(grid, density, color=GREY, lw=1.2, ls="--", label="prior")
    grid, density = _density(after, low, high)
    ax.fill_between(grid, density, color=BLUE, alpha=0.25, lw=0)
    ax.plot(grid, density, color=BLUE, lw=1.8, label=label)
    if high > low:
        ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _shown(after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """The axis: nearly all of the posterior, and of the prior as much as leaves the posterior to be
    seen.
    """
    low, high = np.quantile(after, (0.001, 0.999))
    if before.size > 1:
        middle, room = (low + high) / 2, _WIDEST / 2 * (high - low)
        outer = np.quantile(before, (0.01, 0.98))
        low, high = min(low, max(outer[0], middle - room)), max(high, min(outer[1], middle + room))
    return float(low), float(high)


def _density(draws: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The density of all draws, from those on the axis and as far again beside it: a long tail
    would make it coarse.
    """
    if np.ptp(draws) == 0:  # a constant has no density: draw a spike
        return np.array([draws[0], draws[0]]), np.array([0.0, 1.0])
    near = draws[(draws >= 2 * low - high) & (draws <= 2 * high - low)]
    if near.size < 2 or np.ptp(near) == 0:
        return np.array([low, high]), np.zeros(2)
    reach = 0.25 * np.ptp(near)
    begin, end = near.min() - reach, near.max() + reach
    if draws.min() > 0:
        begin = max(begin, 0.0)  # a positive parameter has no density below zero
    options = {"custom_lims": (begin, end), "bound_correction": False}
    grid, density, _ = array_stats.kde(near, grid_len=300, **options)
    return np.asarray(grid), np.asarray(density) * near.size / draws.size


def _draw_ranks(ax: Axes, parameter: xr.DataArray) -> str:
    draws, label = parameter.transpose("chain", "draw").values, "chain"
    numbers = parameter["chain"].values  # the numbers that `diagnose` gives the chains
    if len(draws) == 1:
        half = draws.shape[1] // 2
        draws, label, numbers = draws[:, : 2 * half].reshape(2, half), "half", np.array([1, 2])
    ess = np.array([_effective_size(chain) for chain in draws])
    if len(draws) > _MOST_LINES:
        each = len(draws) // _MOST_LINES
        label, numbers = f"group of {each} chains", np.arange(_MOST_LINES)
        draws = draws[: _MOST_LINES * each].reshape(_MOST_LINES, -1)
        ess = ess[: _MOST_LINES * each].reshape(_MOST_LINES, each).sum(axis=1)
    chains, count = draws.shape
    ranks = np.argsort(np.argsort(draws, axis=None)).reshape(draws.shape)
    u = np.linspace(0, 1, 101)
    # A chain that is worth fewer draws than this is at fault: it does not get a wider band for it.
    worth = max(float(np.median(ess)), FEWEST_WORTH)
    half_width = band(worth, 0.99) * math.sqrt(1 - 1 / len(draws))
    envelope = half_width * np.ones_like(u)
    ax.fill_between(u, -np.minimum(envelope, u), np.minimum(envelope, 1 - u), color=FAINT, lw=0)
    for c in range(chains):
        share = np.searchsorted(np.sort(ranks[c]), u * chains * count) / count
        ax.plot(
            u, share - u, color=SERIES[c % len(SERIES)], ls=LINES[c % len(LINES)], lw=1.2,
            label=f"{label} {numbers[c]}",
        )  # fmt: skip
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    return label


def _effective_size(chain: np.ndarray) -> float:
    """Draws that one chain is worth by itself, so that a stuck chain cannot widen the band."""
    if len(chain) < 8 or np.ptp(chain) == 0:
        return float(len(chain))
    ess = array_stats.ess(chain[None, :], chain_axis=0, draw_axis=1, method="mean")
    ess = float(np.asarray(ess))
    return min(ess, float(len(chain))) if ess > 1 else float(len(chain))

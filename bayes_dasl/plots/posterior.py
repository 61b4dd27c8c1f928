"""Figures of the posterior: densities of prior and posterior, and ranks of the chains.

arviz-plots has both figures. They are not used here since they are opened by pyplot, which is
global state.
"""

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
from scipy.stats import rankdata

from ._style import (
    BLUE,
    FAINT,
    GREY,
    LINES,
    SERIES,
    STYLE,
    add_legend,
    beside,
    ecdf_half_width,
    fitted,
    small_multiples,
    sorted_finite,
    units_or_none,
)

# The smallest effective sample size from which the width of a band is computed.
FEWEST_WORTH = 50.0
_MOST_LINES = 16  # chains in one panel
_WIDEST = 16.0  # largest width of an axis, in widths of the posterior


def science_parameters(post: xr.DataTree, group: str = "posterior") -> dict[str, xr.DataArray]:
    """Return the scalar science parameters of a posterior by label, such as `birth` or `rate[2]`.

    Args:
        post: the result of `fit`.
        group: the group with the values, "posterior" or "prior".

    Returns:
        One entry per scalar; an array parameter has one entry per element.

    Shapes: every value is `(chain, draw)`.
    """
    posterior = post["posterior"].dataset
    source = post[group].dataset
    found = {}
    for name, variable in posterior.data_vars.items():
        if variable.attrs.get("group", "science") == "science" and name in source:
            for label, scalar in _scalars(name, source[name]).items():
                found[label] = scalar.assign_attrs(variable.attrs)
    return found


@mpl.rc_context(STYLE)
def plot_prior_posterior(post: xr.DataTree, names: Sequence[str] | None = None) -> Figure:
    """Draw prior and posterior densities of each scalar science parameter, one panel each.

    Args:
        post: the result of `fit`.
        names: labels as in `science_parameters`; None draws all.

    Returns:
        The figure.
    """
    posterior = science_parameters(post)
    prior = science_parameters(post, "prior") if "prior" in post.children else {}
    names = list(posterior) if names is None else list(names)
    fig, axes = small_multiples(len(names), height=1.55)
    for ax, name in zip(axes, names, strict=True):
        draw_densities(ax, posterior[name], prior.get(name))
        ax.set_title(fitted(name))
        ax.set_xlabel(units_or_none(posterior[name]), fontsize=9)
    add_legend(fig, 2)
    return fig


@mpl.rc_context(STYLE)
def plot_ranks(post: xr.DataTree, names: Sequence[str] | None = None) -> Figure:
    """Draw how far the ranks of the draws of each chain are from uniform.

    The line is $F_c(u) - u$. Here $F_c$ is the empirical distribution function of the fractional
    ranks of chain $c$ among all draws, and $u$ the fractional rank. If the chains agree, a whole
    line lies in the band with a probability of 99 %. The width of the band follows from the
    effective sample size of a chain. A single chain is split into halves, which are compared. More
    than 16 chains are pooled in 16 groups.

    Args:
        post: the result of `fit`.
        names: labels as in `science_parameters`; None draws all.

    Returns:
        The figure.

    Source: Säilynoja, Bürkner & Vehtari (2022); band after Kolmogorov and Stephens (1970).
    """
    posterior = science_parameters(post)
    names = list(posterior) if names is None else list(names)
    fig, axes = small_multiples(len(names), height=1.45, share=True)
    for ax, name in zip(axes, names, strict=True):
        label = _draw_ranks(ax, posterior[name])
        ax.set_title(fitted(name))
    # A legend of more entries would take more room than the panels.
    if (lines := len(axes[0].get_legend_handles_labels()[0])) <= 9:
        add_legend(fig, min(5, lines))
    fig.supxlabel(f"fractional rank among all draws, one line a {label}", fontsize=10)
    fig.supylabel("difference from uniform", fontsize=10)
    return fig


def _scalars(name: Hashable, array: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the elements of a parameter by label, such as `rate[2]` from its coordinates.

    Args:
        name: name of the parameter.
        array: its draws.
    """
    inner = beside(array)
    if not inner:
        return {str(name): array}
    found = {}
    for place in np.ndindex(*(array.sizes[dim] for dim in inner)):
        where = dict(zip(inner, place, strict=True))
        tag = ", ".join(str(array[dim].values[i]) for dim, i in where.items())
        found[f"{name}[{tag}]"] = array.isel(where, drop=True)
    return found


def draw_densities(
    ax: Axes, posterior: xr.DataArray, prior: xr.DataArray | None, label: str = "posterior"
) -> None:
    """Draw the posterior density of one parameter over its prior density.

    Args:
        ax: the panel.
        posterior: posterior draws.
        prior: prior draws; None draws no prior.
        label: label of the posterior in the legend.
    """
    after = sorted_finite(posterior.values)
    before = after[:0] if prior is None else sorted_finite(prior.values)
    low, high = _density_axis(after, before)
    if before.size > 1:
        x, density = _density(before, low, high)
        ax.fill_between(x, density, color=FAINT, lw=0)
        ax.plot(x, density, color=GREY, lw=1.2, ls="--", label="prior")
    x, density = _density(after, low, high)
    ax.fill_between(x, density, color=BLUE, alpha=0.25, lw=0)
    ax.plot(x, density, color=BLUE, lw=1.8, label=label)
    # A constant has no width.
    if high > low:
        ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    # Only the shape of a density matters here.
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _density_axis(after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Return limits of the axis for nearly all of the posterior, and the prior if there is room.

    Args:
        after: sorted posterior draws.
        before: sorted prior draws, perhaps none.
    """
    low, high = np.quantile(after, (0.001, 0.999))
    if before.size > 1:
        middle = (low + high) / 2
        room = _WIDEST / 2 * (high - low)
        outer = np.quantile(before, (0.01, 0.98))
        low, high = min(low, max(outer[0], middle - room)), max(high, min(outer[1], middle + room))
    return float(low), float(high)


def _density(draws: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return grid and kernel density of draws.

    Args:
        draws: sorted draws.
        low: lower limit of the axis.
        high: upper limit of the axis.
    """
    # A constant has no density: draw a spike.
    if np.ptp(draws) == 0:
        return np.array([draws[0], draws[0]]), np.array([0.0, 1.0])
    # 1. Keep the draws near the axis, since a long tail would widen the kernel.
    near = draws[(draws >= 2 * low - high) & (draws <= 2 * high - low)]
    if near.size < 2 or np.ptp(near) == 0:
        return np.array([low, high]), np.zeros(2)
    # 2. Leave room at the ends, but none below zero for a positive parameter.
    reach = 0.25 * np.ptp(near)
    begin = near.min() - reach
    begin = max(begin, 0.0) if draws.min() > 0 else begin
    # 3. Scale so that the density of all draws integrates to one.
    options = {"custom_lims": (begin, near.max() + reach), "bound_correction": False}
    grid, density, _ = array_stats.kde(near, grid_len=300, **options)
    return np.asarray(grid), np.asarray(density) * near.size / draws.size


def _draw_ranks(ax: Axes, parameter: xr.DataArray) -> str:
    """Draw the rank lines of one parameter, and return what a line is, such as "chain"."""
    draws = parameter.transpose("chain", "draw").values
    label = "chain"
    numbers = parameter["chain"].values  # as `diagnose` numbers the chains
    # 1. A single chain is split into halves.
    if len(draws) == 1:
        half = draws.shape[1] // 2
        draws = draws[:, : 2 * half].reshape(2, half)
        label, numbers = "half", np.array([1, 2])
    ess = np.array([_chain_ess(chain) for chain in draws])
    # 2. Many chains are pooled; the effective sizes of a pool add up.
    if len(draws) > _MOST_LINES:
        size = len(draws) // _MOST_LINES
        label, numbers = f"group of {size} chains", np.arange(_MOST_LINES)
        draws = draws[: _MOST_LINES * size].reshape(_MOST_LINES, -1)
        ess = ess[: _MOST_LINES * size].reshape(_MOST_LINES, size).sum(axis=1)
    # 3. Rank all draws together: u = rank / number of draws.
    ranks = rankdata(draws).reshape(draws.shape) - 1
    u = np.linspace(0, 1, 101)
    # 4. The band follows from the median effective size. A chain that mixes worse than the others
    #    gets no wider band, and few effective draws do not hide a stuck chain.
    worth = max(float(np.median(ess)), FEWEST_WORTH)
    # A chain is part of the ranking that it is compared with: √(1 − 1/C).
    half_width = ecdf_half_width(worth, 0.99) * math.sqrt(1 - 1 / len(draws))
    lower, upper = -np.minimum(half_width, u), np.minimum(half_width, 1 - u)
    ax.fill_between(u, lower, upper, color=FAINT, lw=0)
    # 5. Draw F_c(u) − u of each chain.
    looks = zip(itertools.cycle(SERIES), itertools.cycle(LINES), strict=False)
    for chain, number, (color, line) in zip(ranks, numbers, looks, strict=False):
        share = np.searchsorted(np.sort(chain), u * draws.size) / chain.size
        ax.plot(u, share - u, color=color, ls=line, lw=1.2, label=f"{label} {number}")
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    return label


def _chain_ess(chain: np.ndarray) -> float:
    """Return the effective sample size of one chain for its mean, at most its number of draws."""
    size = float(len(chain))
    if size < 8 or np.ptp(chain) == 0:
        return size
    ess = array_stats.ess(chain[None, :], chain_axis=0, draw_axis=1, method="mean")
    ess = float(np.asarray(ess))
    return min(ess, size) if ess > 1 else size

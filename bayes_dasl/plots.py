"""Figures of a forecast, its uncertainty, its calibration and its posterior.

Every function returns a `matplotlib.figure.Figure` and touches no global Matplotlib state, so it
works without a display and from many threads. Colours are those of Okabe & Ito (2008), and no
figure leans on colour alone: line styles, markers, hatches or labels say the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    import pandas as pd

BLACK, GREY, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
ORANGE, SKY, GREEN, BLUE = "#E69F00", "#56B4E9", "#009E73", "#0072B2"
VERMILION, PURPLE = "#D55E00", "#CC79A7"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
LINES = ("-", "--", "-.", ":")
MARKERS = ("s", "^", "D", "v", "P", "X")
PARTS = {  # part of the variance: (colour, hatch)
    "aleatoric": ("#BFD7EA", None),
    "epistemic": (BLUE, None),
    "science": (BLUE, None),
    "network": (ORANGE, None),
    "interaction": ("#F3D5E4", "////"),
}
LEVELS = (50, 80, 90, 95)
WIDTH = 5.2
MOST_TIMES = 1000
FEWEST_WORTH = 50.0
_MOST_LINES = 16  # of chains in one panel
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "hatch.linewidth": 0.8,
    "hatch.color": PURPLE,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "path",
    "svg.hashsalt": "bayes_dasl",
}


def science_parameters(post: xr.DataTree, group: str = "posterior") -> dict[str, xr.DataArray]:
    """Return the scalar science parameters of a posterior by label, such as `birth` or `rate[2]`.

    Shapes: every value is `(chain, draw)`; an array parameter gives one entry an element.
    """
    posterior, source = post["posterior"].dataset, post[group].dataset
    names = [name for name, v in posterior.data_vars.items() if v.attrs.get("group") != "network"]
    return {
        label: scalar.assign_attrs(posterior[name].attrs)
        for name in names
        if name in source
        for label, scalar in _elements(name, source[name])
    }


def plot_forecast(fc: xr.DataTree, train: xr.Dataset | None, test: xr.Dataset | None, observable: str) -> Figure:
    """Draw the posterior predictive with 50 and 90 % bands, the data and the train/test boundary.

    Draws whose solve failed are left out. Training data are filled, test data open.
    """
    predictions = fc["predictions"].dataset[observable]
    time = np.asarray(predictions["time"].values, float)
    draws = _finite_draws(predictions)
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        ax = fig.add_subplot()
        bands = _draw_bands(ax, time, draws) if len(draws) else None
        if bands is None:
            _note(ax, "every draw of this forecast failed")
        seen = [
            *_draw_observations(ax, train, observable, "training data", BLACK, BLACK),
            *_draw_observations(ax, test, observable, "test data", "white", VERMILION),
        ]
        _clip(ax, bands, np.concatenate(seen) if seen else np.array([]))
        _draw_boundary(ax, fc.attrs.get("train_end"))
        ax.set_ylabel(_axis_label(predictions, observable))
        _time_axis(ax, predictions["time"])
        handles, labels = ax.get_legend_handles_labels()
        columns = 4 if len(labels) == 4 else 3
        fig.legend(handles, labels, loc="outside upper left", ncols=columns)
    return fig


def plot_decomposition(parts: xr.Dataset, observable: str, train_end: float | None = None) -> Figure:
    """Stack the parts of the predictive variance, above as they are and below as shares.

    `parts` is what `decompose` returns: science and network would vanish on average if that group
    were known, the interaction only if both were. Where the groups say the same it is negative and
    hangs below zero, so that the total, drawn as a line, is always the height of the stack less
    what hangs below it.
    """
    chosen = parts.sel(observable=observable)
    time = np.asarray(chosen["time"].values, float)
    split = ("science", "network", "interaction") if "network" in chosen else ("epistemic",)
    names = ("aleatoric", *split)
    total = chosen["total"].values
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        positive = np.where(total > 0, total, np.nan)
        for ax, scale in ((upper, np.ones_like(total)), (lower, positive)):
            _draw_stack(ax, time, {name: chosen[name].values / scale for name in names})
            ax.plot(time, total / scale, color=BLACK, lw=1.6, label="total")
        upper.set_ylabel(_variance_label(chosen))
        lower.set_ylabel("share of total")
        lower.yaxis.set_major_formatter(_percent())
        _draw_boundary(upper, train_end)
        _draw_boundary(lower, train_end, label=False)
        _time_axis(lower, chosen["time"])
        fig.legend(*upper.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return fig


def plot_prior_posterior(post: xr.DataTree, names: Sequence[str] | None = None) -> Figure:
    """Draw the prior and posterior density of each science parameter in small multiples."""
    posterior = science_parameters(post)
    prior = science_parameters(post, "prior") if "prior" in post.children else {}
    names = list(posterior) if names is None else list(names)
    with mpl.rc_context(STYLE):
        fig, axes = _small_multiples(len(names), height=1.55)
        for ax, name in zip(axes, names, strict=True):
            _draw_densities(ax, posterior[name], prior.get(name))
            ax.set_title(_plain(name))
            ax.set_xlabel(_plain(posterior[name].attrs.get("units") or "(no unit)"), fontsize=9)
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return fig


def plot_ranks(post: xr.DataTree, names: Sequence[str] | None = None) -> Figure:
    r"""Draw, for each chain, how far the ranks of its draws are from uniform.

    The line is $F_c(u) - u$, where $F_c$ is the empirical distribution of the fractional ranks of
    chain $c$ among all draws. The band holds 99 % of such lines (as a whole) when the chains agree,
    for as many independent draws as the chain is worth. A single chain is compared half with half; more
    than 16 chains are taken together in 16 groups.
    Source: Säilynoja, Bürkner & Vehtari (2022); band after Kolmogorov and Stephens (1970).
    """
    posterior = science_parameters(post)
    names = list(posterior) if names is None else list(names)
    with mpl.rc_context(STYLE):
        fig, axes = _small_multiples(len(names), height=1.45, share=True)
        for ax, name in zip(axes, names, strict=True):
            label = _draw_ranks(ax, posterior[name])
            ax.set_title(_plain(name))
        handles, labels = axes[0].get_legend_handles_labels()
        if len(handles) <= 9:
            fig.legend(handles, labels, loc="outside upper left", ncols=min(5, len(handles)))
        fig.supxlabel(f"fractional rank among all draws, one line a {label}", fontsize=10)
        fig.supylabel("difference from uniform", fontsize=10)
    return fig


def plot_pit(pit: xr.Dataset) -> Figure:
    """Draw the distribution of the probability integral transform against the uniform one.

    `pit` is what `scores.pit` returns. The band holds 95 % of such lines, as a whole, when the
    forecast is calibrated and the values are independent.
    """
    values = {str(name): _sorted_finite(v.values) for name, v in pit.data_vars.items()}
    pooled = np.sort(np.concatenate([*values.values(), np.array([])]))
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        ax = fig.add_subplot()
        u = np.linspace(0, 1, 101)
        half = _band(float(len(pooled)), 0.95)
        lower, upper = np.clip(u - half, 0, 1), np.clip(u + half, 0, 1)
        ax.fill_between(u, lower, upper, color=FAINT, lw=0, label="95 % band")
        ax.plot(u, u, color=GREY, lw=0.8)
        if 1 < len(values) <= len(SERIES):
            for (name, v), color, line in zip(values.items(), SERIES, itertools.cycle(LINES[1:]), strict=False):
                _draw_ecdf(ax, v, color=color, ls=line, lw=1.3, label=_plain(name))
        _draw_ecdf(ax, pooled, color=BLACK, lw=1.8, label="all" if len(values) > 1 else "observed")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability integral transform (PIT)")
        ax.set_ylabel("share of test values below")
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return fig


def plot_coverage(scores: pd.DataFrame) -> Figure:
    """Draw the observed against the nominal coverage of central intervals.

    `scores` is what `scores.score` returns. Bars are 90 % Wilson intervals for a proportion.
    """
    nominal, place = np.array(LEVELS) / 100, np.arange(len(LEVELS), dtype=float)
    columns = [f"coverage_{level}" for level in LEVELS]
    names = [name for name in scores.index if name != "all"]
    several = 1 < len(names) <= len(SERIES)
    observed = scores.loc["all", columns].to_numpy(float)
    bars = _wilson(observed, float(scores.loc[names, "n"].sum()))
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        ax = fig.add_subplot()
        ax.hlines(nominal, place - 0.42, place + 0.42, color=GREY, lw=1.2, label="nominal")
        ax.errorbar(
            place - 0.2 * several, observed, np.abs(bars - observed), fmt="o", ms=6.5, color=BLACK,
            capsize=3, lw=1.2, label="all" if len(names) > 1 else "observed", zorder=4,
        )  # fmt: skip
        shifts = np.linspace(0.0, 0.32, len(names)) if several else []
        for name, shift, color, marker in zip(names, shifts, SERIES, MARKERS, strict=False):
            ax.plot(
                place + shift, scores.loc[name, columns].to_numpy(float), marker=marker, ms=5.5,
                color=color, mfc="white", mew=1.4, ls="", label=_plain(name), zorder=5,
            )  # fmt: skip
        lowest = np.nanmin([0.3, *bars[0], *scores.loc[names, columns].min()])
        ax.set(xlim=(-0.55, len(LEVELS) - 0.45), ylim=(max(lowest - 0.05, -0.03), 1.04))
        ax.set_xticks(place, [f"{level}\N{NARROW NO-BREAK SPACE}%" for level in LEVELS])
        ax.set(xlabel="nominal coverage of the interval", ylabel="observed coverage")
        ax.yaxis.set_major_formatter(_percent())
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4)
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


def _finite_draws(array: xr.DataArray) -> np.ndarray:
    draws = array.transpose("chain", "draw", "time").values.reshape(-1, array.sizes["time"])
    return draws[np.isfinite(draws).all(axis=1)]


def _draw_bands(ax: Axes, time: np.ndarray, draws: np.ndarray) -> np.ndarray:
    every = slice(None, None, math.ceil(len(time) / MOST_TIMES))
    time = time[every]
    q05, q25, q50, q75, q95 = bands = np.quantile(draws[:, every], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    ax.fill_between(time, q05, q95, color=BLUE, alpha=0.18, lw=0, label="90 % band")
    ax.fill_between(time, q25, q75, color=BLUE, alpha=0.36, lw=0, label="50 % band")
    ax.plot(time, q50, color=BLUE, lw=1.8, label="median")
    return bands


def _draw_observations(
    ax: Axes, data: xr.Dataset | None, observable: str, label: str, face: str, edge: str
) -> list[np.ndarray]:
    if data is None or observable not in data:
        return []
    values = np.asarray(data[observable].values, float)
    time = np.asarray(data["time"].values, float)
    seen = np.isfinite(values)
    size = 5.5 if seen.sum() <= 60 else 3.5 if seen.sum() <= 300 else 2.0
    ax.plot(
        time[seen], values[seen], "o", ms=size, mfc=face, mec=edge, mew=1.3, label=label, zorder=5,
        rasterized=seen.sum() > 2000,
    )  # fmt: skip
    return [values[seen]]


def _clip(ax: Axes, bands: np.ndarray | None, seen: np.ndarray) -> None:
    """Keep data and median readable when the outer band runs away, and say that it does."""
    if bands is None or not np.isfinite(bands).all():
        return
    core = np.concatenate([bands[2], seen])
    spread = max(np.ptp(core), np.ptp(bands[[1, 3]]) / 4, 1e-12)
    low, high = bands[0].min(), bands[4].max()
    floor, ceiling = core.min() - 3 * spread, core.max() + 3 * spread
    margin = 0.05 * (min(high, ceiling) - max(low, floor))
    if high > ceiling:
        ax.set_ylim(top=ceiling)
        ax.text(
            0.02, 0.97, f"the 90 % band goes on up to {high:.3g}", transform=ax.transAxes,
            va="top", fontsize=9, color=GREY,
        )  # fmt: skip
    if low < floor:
        ax.set_ylim(bottom=floor)
        ax.text(
            0.02, 0.03, f"the 90 % band goes on down to {low:.3g}", transform=ax.transAxes,
            fontsize=9, color=GREY,
        )  # fmt: skip
    if low >= 0 and core.min() >= 0 and low - margin < 0.1 * high:
        ax.set_ylim(bottom=0)


def _draw_boundary(ax: Axes, train_end: float | None, *, label: bool = True) -> None:
    if train_end is None or not np.isfinite(train_end):
        return
    ax.axvline(train_end, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    if label:
        at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        for text, side, align in (("fitted", -4, "right"), ("forecast", 4, "left")):
            ax.annotate(
                text, (train_end, 1.0), (side, 1), **at, ha=align, va="bottom", fontsize=9,
                color=GREY, annotation_clip=False,
            )  # fmt: skip


def _draw_stack(ax: Axes, time: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
    top, bottom = np.zeros(len(time)), np.zeros(len(time))
    for name, values in parts.items():
        color, hatch = PARTS[name]
        values = np.nan_to_num(values)
        label: str | None = name
        for edge, part in ((top, values.clip(min=0)), (bottom, values.clip(max=0))):
            if not part.any():
                continue
            ax.fill_between(time, edge, edge + part, facecolor=color, hatch=hatch, lw=0, label=label)
            edge += part
            label = None
    if bottom.any():
        ax.axhline(0, color=GREY, lw=0.8)
    else:
        ax.set_ylim(bottom=0)


def _small_multiples(count: int, height: float, *, share: bool = False) -> tuple[Figure, list[Axes]]:
    columns = min(2, max(count, 1))
    rows = max(1, math.ceil(count / columns))
    fig = Figure(figsize=(WIDTH, 0.5 + height * rows + 0.15), layout="constrained")
    fig.get_layout_engine().set(hspace=0.06, wspace=0.06)  # type: ignore[union-attr]
    axes = fig.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel().tolist()
    for ax in axes[max(count, 1) :]:
        ax.set_axis_off()
    return fig, axes[:count]


def _draw_densities(ax: Axes, posterior: xr.DataArray, prior: xr.DataArray | None) -> None:
    after = _sorted_finite(posterior.values)
    spans = [np.quantile(after, (0.001, 0.999))]
    if prior is not None and (before := _sorted_finite(prior.values)).size > 1:
        spans.append(np.quantile(before, (0.01, 0.98)))
        grid, density = _density(before)
        ax.fill_between(grid, density, color=FAINT, lw=0)
        ax.plot(grid, density, color=GREY, lw=1.2, ls="--", label="prior")
    grid, density = _density(after)
    ax.fill_between(grid, density, color=BLUE, alpha=0.25, lw=0)
    ax.plot(grid, density, color=BLUE, lw=1.8, label="posterior")
    low, high = min(s[0] for s in spans), max(s[1] for s in spans)
    if high > low:
        ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _density(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if np.ptp(draws) == 0:  # a constant has no density: draw a spike
        return np.array([draws[0], draws[0]]), np.array([0.0, 1.0])
    reach = 0.25 * np.ptp(draws)
    low, high = draws.min() - reach, draws.max() + reach
    if draws.min() > 0:
        low = max(low, 0.0)  # a positive parameter has no density below zero
    options = {"custom_lims": (low, high), "bound_correction": False}
    grid, density, _ = array_stats.kde(draws, grid_len=300, **options)
    return np.asarray(grid), np.asarray(density)


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
    half_width = _band(worth, 0.99) * math.sqrt(1 - 1 / len(draws))
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


def _band(count: float, probability: float) -> float:
    """Half-width of the simultaneous band of an empirical distribution of `count` values."""
    critical = {0.95: 1.358, 0.99: 1.628}[probability]
    root = math.sqrt(max(count, 1.0))
    return critical / (root + 0.12 + 0.11 / root)


def _draw_ecdf(ax: Axes, ordered: np.ndarray, **style: Any) -> None:
    if ordered.size:
        steps = np.arange(ordered.size + 1) / ordered.size
        ax.step([0, *ordered, 1], [*steps, 1.0], where="post", **style)


def _wilson(share: np.ndarray, count: float, z: float = 1.645) -> np.ndarray:
    """Return the 90 % Wilson interval of observed shares; shape (2, level)."""
    n = max(count, 1.0)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.stack([np.minimum(centre - half, share), np.maximum(centre + half, share)])


def _sorted_finite(values: np.ndarray) -> np.ndarray:
    flat = np.ravel(np.asarray(values, float))
    return np.sort(flat[np.isfinite(flat)])


def _note(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)


def _plain(text: object) -> str:
    """Keep dollar signs in user text from being read as mathematics."""
    return str(text).replace("$", r"\$")


def _axis_label(array: xr.DataArray, name: str) -> str:
    label, units = array.attrs.get("long_name") or name, array.attrs.get("units")
    return _plain(f"{label} ({units})" if units else label)


def _variance_label(parts: xr.Dataset) -> str:
    units = str(parts.coords["units"].item()) if "units" in parts.coords else ""
    base = units if units.isalpha() else f"({units})"
    return _plain(f"variance, {base}²" if units else "variance")


def _percent() -> PercentFormatter:
    return PercentFormatter(1.0, symbol="\N{NARROW NO-BREAK SPACE}%")


def _time_axis(ax: Axes, time: xr.DataArray) -> None:
    values = np.asarray(time.values, float)
    ax.set_xlabel(_axis_label(time, "time"))
    whole = bool(np.all(values == np.round(values))) and np.ptp(values) > 4
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if values.size > 1:
        pad = 0.02 * np.ptp(values)
        low, high = ax.dataLim.intervalx
        ax.set_xlim(min(low, values.min()) - pad, max(high, values.max()) + pad)

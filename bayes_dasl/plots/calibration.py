"""Figures of the calibration of a forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._style import (
    BLACK,
    FAINT,
    GREY,
    LEVELS,
    LINES,
    MARKERS,
    SERIES,
    STYLE,
    add_legend,
    ecdf_half_width,
    fitted,
    one_panel,
    percent,
    say_recalibrated,
    sorted_finite,
)

if TYPE_CHECKING:
    import pandas as pd

_Z_90 = 1.645  # standard normal quantile of a central 90 % interval


@mpl.rc_context(STYLE)
def plot_pit(pit: xr.Dataset) -> Figure:
    """Draw the distribution of the probability integral transform (PIT) against the uniform one.

    If the forecast is calibrated and the values are independent, the whole line lies in the band
    with a probability of 95 %.

    Args:
        pit: the result of `bd.scores.pit`.

    Returns:
        The figure.
    """
    values = {str(name): sorted_finite(v.values) for name, v in pit.data_vars.items()}
    pooled = np.sort(np.concatenate([*values.values(), np.array([])]))
    fig, ax = one_panel(3.6)
    u = np.linspace(0, 1, 101)
    half = ecdf_half_width(float(len(pooled)), 0.95)
    band = np.clip(u - half, 0, 1), np.clip(u + half, 0, 1)
    ax.fill_between(u, *band, color=FAINT, lw=0, label="95 % band")
    # The diagonal is perfect calibration.
    ax.plot(u, u, color=GREY, lw=0.8)
    if 1 < len(values) <= len(SERIES):
        for number, (name, ordered) in enumerate(values.items()):
            # The solid line is left to all observables together.
            line = LINES[1:][number % len(LINES[1:])]
            _draw_ecdf(
                ax,
                ordered,
                color=SERIES[number],
                ls=line,
                lw=1.3,
                label=fitted(name, 24),
            )
    _draw_ecdf(ax, pooled, color=BLACK, lw=1.8, label="all" if len(values) > 1 else "observed")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability integral transform (PIT)")
    ax.set_ylabel("share of test values below")
    add_legend(fig, 4)
    say_recalibrated(fig, pit.attrs)
    return fig


@mpl.rc_context(STYLE)
def plot_coverage(scores: pd.DataFrame) -> Figure:
    """Draw the observed against the nominal coverage of central intervals.

    Bars are 90 % Wilson intervals for the proportion of test values inside.

    Args:
        scores: the result of `bd.score`.

    Returns:
        The figure.
    """
    nominal = np.array(LEVELS) / 100
    place = np.arange(len(LEVELS), dtype=float)
    columns = [f"coverage_{level}" for level in LEVELS]
    names = [name for name in scores.index if name != "all"]
    several = 1 < len(names) <= len(SERIES)
    observed = scores.loc["all", columns].to_numpy(float)
    ends = _wilson_interval(observed, float(scores.loc[names, "n"].sum()))
    fig, ax = one_panel(3.6)
    ax.hlines(
        nominal,
        place - 0.42,
        place + 0.42,
        color=GREY,
        lw=1.2,
        label="nominal",
    )
    # 1. All observables together, moved to the left if there are others beside them.
    look = {
        "fmt": "o",
        "ms": 6.5,
        "color": BLACK,
        "capsize": 3,
        "lw": 1.2,
        "zorder": 4,
    }
    name = "all" if len(names) > 1 else "observed"
    ax.errorbar(place - 0.2 * several, observed, np.abs(ends - observed), label=name, **look)
    # 2. Each observable.
    shifts = np.linspace(0.0, 0.32, len(names)) if several else []
    for name, shift, color, marker in zip(names, shifts, SERIES, MARKERS, strict=False):
        shares = scores.loc[name, columns].to_numpy(float)
        look = {
            "ms": 5.5,
            "mfc": "white",
            "mew": 1.4,
            "ls": "",
            "zorder": 5,
        }
        ax.plot(
            place + shift,
            shares,
            marker,
            color=color,
            label=fitted(name, 24),
            **look,
        )
    # 3. The axis begins at 30 % coverage, or below the lowest value.
    lowest = np.nanmin([0.3, *ends[0], *scores.loc[names, columns].min()])
    ax.set(xlim=(-0.55, len(LEVELS) - 0.45), ylim=(max(lowest - 0.05, -0.03), 1.04))
    ax.set_xticks(place, [f"{level}\N{NARROW NO-BREAK SPACE}%" for level in LEVELS])
    ax.set(xlabel="nominal coverage of the interval", ylabel="observed coverage")
    ax.yaxis.set_major_formatter(percent())
    add_legend(fig, 4)
    say_recalibrated(fig, scores.attrs)
    return fig


def _draw_ecdf(ax: Axes, ordered: np.ndarray, **style: Any) -> None:
    """Draw the empirical distribution function of sorted values between 0 and 1."""
    if ordered.size:
        # From (0, 0) to (1, 1), one step at each value.
        steps = np.arange(ordered.size + 1) / ordered.size
        ax.step([0, *ordered, 1], [*steps, 1.0], where="post", **style)


def _wilson_interval(share: np.ndarray, count: float, z: float = _Z_90) -> np.ndarray:
    r"""Return the 90 % Wilson interval of observed proportions, shape `(2, level)`.

    $\frac{1}{1 + z^2/n} \left(p + \frac{z^2}{2n} \pm
    z\sqrt{\frac{p(1 - p)}{n} + \frac{z^2}{4n^2}}\right)$

    Args:
        share: the observed proportion p at each level.
        count: the number of values n.
        z: the standard normal quantile.
    """
    n = max(count, 1.0)
    scale = 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Rounding must not put an end on the wrong side of the share itself.
    return np.stack([np.minimum(centre - half, share), np.maximum(centre + half, share)])

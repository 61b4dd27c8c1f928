"""What the pictures of the case studies share: bands of the science and of the hybrid, and data
that nobody fitted.
"""

from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayes_dasl as bd

STYLES = ((bd.plots.VERMILION, "--"), (bd.plots.BLUE, "-"), ("black", ":"))
"""Color and line of the science (place 0), the hybrid (1), and what has neither (2)."""
UNSEEN: Any = {"marker": "o", "ms": 4, "ls": "", "mfc": "white", "mec": "black"}
"""How data that were not fitted are drawn."""


def panels(number: int = 2) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side."""
    with mpl.rc_context(bd.plots.STYLE):
        fig = Figure(figsize=(7.5, 3.6), layout="constrained")
        return fig, list(fig.subplots(1, number))


def band(ax: Axes, x: np.ndarray, draws: xr.DataArray, name: str, place: int) -> None:
    """The median of draws and 90 % of them, of what has a place among the `STYLES`."""
    color, line = STYLES[place]
    ribbon(ax, x, draws, color, line, label=f"{name}, 90 % band")


def ribbon(
    ax: Axes, x: np.ndarray, draws: xr.DataArray, color: str, line: str, *, alpha=0.25, label=None
) -> None:
    """The same in any style; `alpha` is that of the 90 %."""
    low, middle, high = _ends(draws)
    ax.fill_between(x, low, high, color=color, alpha=alpha, lw=0)
    ax.plot(x, middle, color=color, ls=line, label=label)


def bars(ax: Axes, x: np.ndarray, draws: xr.DataArray, name: str, place: int) -> None:
    """The same where neighbours have nothing to do with each other."""
    color, _ = STYLES[place]
    low, middle, high = _ends(draws)
    ax.vlines(x, low, high, color=color, alpha=0.4, lw=1.2)
    ax.plot(
        x,
        middle,
        color=color,
        ls="",
        marker="^o"[place],
        mfc="white",
        ms=4,
        label=f"{name}, 90 % intervals",
    )


def _ends(draws: xr.DataArray) -> np.ndarray:
    return draws.quantile([0.05, 0.5, 0.95], ("chain", "draw")).transpose("quantile", ...).values


def finished(fig: Figure) -> Figure:
    """With a legend above."""
    with mpl.rc_context(bd.plots.STYLE):
        fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return fig

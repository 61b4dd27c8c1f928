"""A figure of a profile likelihood."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import chi2

from ..errors import MismatchError
from ._style import BLUE, GREY, STYLE, one_panel, plain, small_print


@mpl.rc_context(STYLE)
def plot_profile(profile: xr.Dataset) -> Figure:
    """Draw a profile likelihood, and the ends and threshold of its confidence interval.

    Args:
        profile: the result of `profile_likelihood`.

    Returns:
        The figure.

    Raises:
        MismatchError: if `profile` is something else.
    """
    if "log_likelihood" not in profile or "level" not in profile.attrs:
        raise MismatchError("give what bd.sensitivity.profile_likelihood returned")
    # Values in the interval have a log likelihood at most χ²₁(level) / 2 below the maximum.
    allowed = float(chi2.ppf(profile.attrs["level"], 1)) / 2
    height = profile["log_likelihood"].values
    # Values far below the maximum would flatten the curve: keep one beyond either end.
    near = np.flatnonzero(height > max(-6 * allowed, np.max(height) - 1))
    shown = profile.isel(value=slice(max(near[0] - 1, 0), near[-1] + 2))
    fig, ax = one_panel(2.6)
    ax.plot(
        shown["value"],
        shown["log_likelihood"],
        color=BLUE,
        marker="o",
        ms=3,
        lw=1.6,
    )
    ax.axhline(-allowed, color=GREY, ls="--", lw=1)
    open_sides = []
    for name, side in (("low", "below"), ("high", "above")):
        end = profile.attrs[name]
        if np.isfinite(end):
            ax.axvline(end, color=GREY, ls=":", lw=1)
        else:
            open_sides.append(side)
    words = f"{100 * profile.attrs['level']:g} % interval"
    if open_sides:
        words += f", no end {' or '.join(open_sides)} among these values"
    along_threshold = {
        "transform": ax.get_yaxis_transform(),
        "ha": "right",
        "va": "bottom",
    }
    small_print(ax, 0.99, -allowed, words, **along_threshold)
    # Six times the threshold shows the shape of the curve.
    ax.set_ylim(-6 * allowed, 0.6 * allowed)
    ax.set_xlabel(plain(profile.attrs["name"]))
    ax.set_ylabel("log likelihood below\nits maximum (nats)", fontsize=9)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    return fig

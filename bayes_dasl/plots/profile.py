"""Figures of profile likelihoods."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import chi2

from ..errors import MismatchError
from ._style import BLUE, GREY, STYLE, WIDTH, plain


def plot_profile(profile: xr.Dataset) -> Figure:
    """Draw a profile likelihood with the fall that its interval allows, and where that ends.

    Args:
        profile: what `profile_likelihood` returned.

    Raises:
        MismatchError: for something else.
    """
    if "log_likelihood" not in profile or "level" not in profile.attrs:
        raise MismatchError("give what bd.sensitivity.profile_likelihood returned")
    allowed = float(chi2.ppf(profile.attrs["level"], 1)) / 2
    fall = profile["log_likelihood"].values
    near = np.flatnonzero(fall > max(-6 * allowed, np.max(fall) - 1))
    shown = profile.isel(value=slice(max(near[0] - 1, 0), near[-1] + 2))
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        ax = fig.subplots()
        ax.plot(shown["value"], shown["log_likelihood"], color=BLUE, marker="o", ms=3, lw=1.6)
        ax.axhline(-allowed, color=GREY, ls="--", lw=1)
        ends = [end for end in (profile.attrs["low"], profile.attrs["high"]) if np.isfinite(end)]
        for end in ends:
            ax.axvline(end, color=GREY, ls=":", lw=1)
        level = f"{100 * profile.attrs['level']:g} %"
        open_to = [
            side
            for side, name in (("below", "low"), ("above", "high"))
            if not np.isfinite(profile.attrs[name])
        ]
        said = f"{level} interval" + (
            f", no end {' or '.join(open_to)} among these values" if open_to else ""
        )
        ax.text(
            0.99,
            -allowed,
            said,
            transform=ax.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=9,
            color=GREY,
        )
        ax.set_ylim(-6 * allowed, 0.6 * allowed)
        ax.set_xlabel(plain(profile.attrs["name"]))
        ax.set_ylabel("log likelihood below\nits maximum (nats)", fontsize=9)
        ax.yaxis.set_major_locator(MaxNLocator(4))
    return fig

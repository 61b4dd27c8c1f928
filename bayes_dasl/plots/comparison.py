"""A figure of how models compare by how far ahead they forecast."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import MismatchError
from ..weighting.comparison import SCORES, Comparison
from ._style import BLACK, GREY, MARKERS, SERIES, STYLE, WIDTH, grid, note, plain, rows_of

_TITLES = {"crps": "CRPS", "log_score": "log score"}
_SPREAD = 0.3  # of the distance between two leads, over which models stand beside each other


def plot_comparison(comparison: Comparison, score: str = "crps") -> Figure:
    """Draw by how much each model's score is above that of the best, for each observable and lead.

    Bars are two standard errors of the paired difference to either side: where they hold zero the
    difference may be chance. Above zero the best model is better.

    Args:
        comparison: what `bd.compare` returned.
        score: "crps", in the units of each observable, or "log_score", in nats.

    Raises:
        MismatchError: for what is no comparison of forecasts, another score, or too many models to
            tell apart.
    """
    if not hasattr(comparison, "by_lead"):
        raise MismatchError(
            "give what bd.compare returned: weights by evidence have no scores by lead"
        )
    if score not in SCORES:
        raise MismatchError(f"score is one of {', '.join(SCORES)}, not {score!r}")
    found = comparison.by_lead
    best = found.attrs["best"]
    others = [name for name in map(str, found["model"].values) if name != best]
    if len(others) > len(SERIES):
        raise MismatchError(f"a figure tells {len(SERIES)} models from the best, not {len(others)}")
    lead, label = _leads(found)
    between = np.diff(lead).min() if lead.size > 1 else 1.0
    shifts = (
        between * np.linspace(-_SPREAD / 2, _SPREAD / 2, len(others)) if len(others) > 1 else [0.0]
    )
    observables = list(map(str, found["observable"].values))
    with mpl.rc_context(STYLE):
        fig = Figure(
            figsize=(WIDTH, 0.9 + 2.3 * rows_of(len(observables), 2)), layout="constrained"
        )
        for ax, observable in zip(grid(fig, len(observables), 2), observables, strict=True):
            at = found.sel(observable=observable)
            ax.axhline(0.0, color=GREY, lw=0.8)
            for name, shift, color, marker in zip(others, shifts, SERIES, MARKERS, strict=False):
                of_model = at.sel(model=name)
                mean, error = (
                    of_model[f"{score}_{what}"].values for what in ("difference", "error")
                )
                ax.errorbar(
                    lead + shift,
                    mean,
                    2 * np.nan_to_num(error),
                    color=color,
                    marker=marker,
                    ms=5,
                    mfc="white",
                    mew=1.3,
                    lw=1.2,
                    capsize=2.5,
                    label=plain(name),
                )
            if not np.isfinite(at[f"{score}_difference"].sel(model=others)).any():
                note(ax, "not known")
            units = "nat" if score == "log_score" else str(at["units"].item())
            ax.set_title(plain(observable), color=BLACK)
            ax.set_xlabel(label)
            ax.set_ylabel(plain(f"difference ({units})" if units else "difference"))
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=bool((lead == np.round(lead)).all())))
            ax.set_xlim(lead.min() - 0.5 * between, lead.max() + 0.5 * between)
        legend = fig.legend(
            *ax.get_legend_handles_labels(), loc="outside upper left", ncols=3, alignment="left"
        )
        legend.set_title(plain(f"{_TITLES[score]} above that of {best}, lower is better"))
    return fig


def _leads(found: xr.Dataset) -> tuple[np.ndarray, str]:
    """How far ahead each lead is, and what that is called: in units of the index where all origins
    agree.
    """
    if "step" not in found.coords:
        return found["lead"].values.astype(float), "observed times ahead"
    step = found["step"]
    if step.dtype.kind == "m":
        return step.values / np.timedelta64(1, "D"), "ahead (day)"
    units = str(step.attrs.get("units", "")).split(" since ")[0]
    index = found.attrs["index"]
    return step.values.astype(float), plain(f"ahead ({units})" if units else f"{index} ahead")

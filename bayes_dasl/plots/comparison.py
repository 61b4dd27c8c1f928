"""A figure that compares models by lead, the number of times ahead that they forecast."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import MismatchError
from ..weighting.comparison import SCORES, Comparison
from ._style import (
    BLACK,
    GREY,
    MARKERS,
    SERIES,
    STYLE,
    add_legend,
    fitted,
    grid,
    new_figure,
    note,
    plain,
    rows_of,
    with_units,
)

_TITLES = {"crps": "CRPS", "log_score": "log score"}
_SPREAD = 0.3  # share of the distance between two leads over which models stand side by side


@mpl.rc_context(STYLE)
def plot_comparison(comparison: Comparison, score: str = "crps") -> Figure:
    """Draw the difference of each model's score from the best model, by observable and lead.

    Values above zero mean that the best model is better. Bars extend by two standard errors of the
    paired difference to either side. If they include zero, the difference may be chance.

    Args:
        comparison: the result of `bd.compare`.
        score: "crps", in the units of each observable, or "log_score", in nats.

    Returns:
        The figure.

    Raises:
        MismatchError: if `comparison` has no forecasts, the score is unknown, or there are too many
            models to distinguish.
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
    # Models stand side by side at each lead.
    lead, label = _leads(found)
    between = np.diff(lead).min() if lead.size > 1 else 1.0
    ends = (-_SPREAD / 2, _SPREAD / 2) if len(others) > 1 else (0.0, 0.0)
    shifts = between * np.linspace(*ends, len(others))
    observables = list(map(str, found["observable"].values))
    fig = new_figure(0.9 + 2.3 * rows_of(len(observables), 2))
    for ax, observable in zip(grid(fig, len(observables), 2), observables, strict=True):
        at = found.sel(observable=observable)
        ax.axhline(0.0, color=GREY, lw=0.8)
        for name, shift, color, marker in zip(others, shifts, SERIES, MARKERS, strict=False):
            own = at.sel(model=name)
            # A single window gives no standard error.
            bars = 2 * np.nan_to_num(own[f"{score}_error"].values)
            look = {
                "color": color,
                "marker": marker,
                "ms": 5,
                "mfc": "white",
                "mew": 1.3,
            }
            look |= {
                "lw": 1.2,
                "capsize": 2.5,
                "label": fitted(name, 24),
            }
            ax.errorbar(lead + shift, own[f"{score}_difference"].values, bars, **look)
        if not np.isfinite(at[f"{score}_difference"].sel(model=others)).any():
            note(ax, "not known")
        ax.set_title(fitted(observable), color=BLACK)
        ax.set_xlabel(label)
        units = "nat" if score == "log_score" else str(at["units"].item())
        ax.set_ylabel(with_units("difference", units))
        whole = bool((lead == np.round(lead)).all())
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
        ax.set_xlim(lead.min() - 0.5 * between, lead.max() + 0.5 * between)
    legend = add_legend(fig, 3, alignment="left")
    legend.set_title(fitted(f"{_TITLES[score]} above that of {best}, lower is better", 64))
    return fig


def _leads(found: xr.Dataset) -> tuple[np.ndarray, str]:
    """Return the leads and the label of their axis.

    Leads are in units of the index if the times ahead are the same at all origins; otherwise they
    are numbers of observed times.

    Args:
        found: `by_lead` of a comparison.
    """
    if "step" not in found.coords:
        return found["lead"].values.astype(float), "observed times ahead"
    step = found["step"]
    if step.dtype.kind == "m":
        return step.values / np.timedelta64(1, "D"), "ahead (day)"
    # Units such as "day since 2000-01-01" are those of a time: a lead has only the first word.
    units = str(step.attrs.get("units", "")).split(" since ")[0]
    label = f"ahead ({units})" if units else f"{found.attrs['index']} ahead"
    return step.values.astype(float), plain(label)

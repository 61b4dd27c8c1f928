"""A figure of several forecasts of one observable, such as of scenarios."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..data.datasets import index_of
from ..errors import MismatchError
from ..scores.matching import RECALIBRATED, fitted_between, in_units_of_forecast
from ._style import (
    BLACK,
    LINES,
    SERIES,
    STYLE,
    WIDTH,
    axis_label,
    plain,
    positions,
    predictions_of,
    say_recalibrated,
    time_axis,
)
from .forecast import draw_boundaries, draw_observations, finite_draws


def plot_scenarios(
    forecasts: Mapping[str, xr.DataTree], train: xr.Dataset | None, observable: str
) -> Figure:
    """Draw the median and the 90 % band of each of several forecasts, with the data of the fit.

    Args:
        forecasts: what `forecast` returned for scenarios, or any forecasts by name.
        train: the data of the fit, as a dataset; None where they are not to be drawn.
        observable: its name; it must be a series of numbers.

    Raises:
        MismatchError: for what is no forecast, none at all or too many to tell apart, or an unknown
            observable.
    """
    if not 0 < len(forecasts) <= len(SERIES):
        raise MismatchError(
            f"a figure tells 1 to {len(SERIES)} forecasts apart, not {len(forecasts)}"
        )
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        ax = fig.add_subplot()
        for number, (name, fc) in enumerate(forecasts.items()):
            predictions = predictions_of(fc, observable)
            index = index_of(predictions)
            time, first = np.unique(positions(predictions[index].values), return_index=True)
            draws = finite_draws(predictions)[:, first]
            if not len(draws):
                raise MismatchError(f"every draw of the forecast '{name}' failed")
            low, middle, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
            color, line = SERIES[number], LINES[number % len(LINES)]
            ax.fill_between(time, low, high, color=color, alpha=0.18, lw=0)
            ax.plot(time, middle, color=color, ls=line, lw=1.6, label=plain(name))
        fc = next(iter(forecasts.values()))
        train = None if train is None else in_units_of_forecast(fc, train)
        draw_observations(ax, train, predictions, "training data", BLACK, BLACK)
        draw_boundaries(ax, time, fitted_between(fc))
        ax.set_ylabel(axis_label(predictions, observable))
        time_axis(ax, predictions[index])
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        named = {name: fc.attrs for name, fc in forecasts.items() if RECALIBRATED in fc.attrs}
        say_recalibrated(
            fig, *({RECALIBRATED: f"{name}: {a[RECALIBRATED]}"} for name, a in named.items())
        )
    return fig

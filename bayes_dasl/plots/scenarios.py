"""A figure of several forecasts of one observable, such as scenarios."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..data.datasets import index_of
from ..errors import MismatchError
from ..scores.matching import RECALIBRATED, fitted_between
from ._series import distinct_times, draw_boundaries, draw_data, finite_draws, series_of
from ._style import (
    LINES,
    SERIES,
    STYLE,
    add_legend,
    data_of,
    fitted,
    label_series,
    one_panel,
    say_above,
)


@mpl.rc_context(STYLE)
def plot_scenarios(
    forecasts: Mapping[str, xr.DataTree], train: xr.Dataset | None, observable: str
) -> Figure:
    """Draw the median and the 90 % band of several forecasts, with the training data.

    Args:
        forecasts: forecasts by name, such as those of scenarios.
        train: the training data; None leaves them out.
        observable: name of the observable; it must be a time series of numbers.

    Returns:
        The figure.

    Raises:
        MismatchError: if there are no forecasts or too many to distinguish, one is no forecast, all
            its draws failed, or the observable is unknown or no series.
    """
    if not 0 < len(forecasts) <= len(SERIES):
        raise MismatchError(
            f"a figure tells 1 to {len(SERIES)} forecasts apart, not {len(forecasts)}"
        )
    fig, ax = one_panel()
    for number, (name, fc) in enumerate(forecasts.items()):
        predictions = series_of(fc, observable)
        index = index_of(predictions)
        time, first = distinct_times(predictions, index)
        draws, _ = finite_draws(predictions)
        if not len(draws):
            raise MismatchError(f"every draw of the forecast '{name}' failed")
        # One band each, since more would hide each other.
        low, middle, high = np.quantile(draws[:, first], (0.05, 0.5, 0.95), axis=0)
        color = SERIES[number]
        line = LINES[number % len(LINES)]
        ax.fill_between(time, low, high, color=color, alpha=0.18, lw=0)
        ax.plot(time, middle, color=color, ls=line, lw=1.6, label=fitted(name, 24))
    # All forecasts have the same training data, so units and boundary of the first one suffice.
    fc = next(iter(forecasts.values()))
    (train,) = data_of(fc, train)
    draw_data(ax, train, None, predictions)
    draw_boundaries(ax, time, fitted_between(fc))
    label_series(ax, predictions, index)
    add_legend(fig, 3)
    recalibrated = {n: fc.attrs for n, fc in forecasts.items() if RECALIBRATED in fc.attrs}
    say_above(fig, *(f"{name}: {attrs[RECALIBRATED]}" for name, attrs in recalibrated.items()))
    return fig

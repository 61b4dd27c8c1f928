"""Scores of one series of numbers that a field is used to, of the mean that a forecast predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from .._statistics.blocks import blocks_of, draws_at
from ..errors import MismatchError
from .matching import in_units_of_forecast, shared

type Metric = Callable[[Float[np.ndarray, " datum"], Float[np.ndarray, " datum"]], float]
"""What was predicted and what was observed, in that order, to a number."""


def nse(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    r"""The efficiency of Nash and Sutcliffe: 1 where all is predicted, 0 where the mean of the data is as good.

    $1 - \sum (x - y)^2 / \sum (y - \bar y)^2$

    Args:
        predicted: one number for each datum.
        observed: the data.

    Source: Nash & Sutcliffe (1970).
    """
    observed = np.asarray(observed, float)
    return float(1 - _ratio(np.sum((predicted - observed) ** 2), np.sum((observed - observed.mean()) ** 2)))


def kge(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    r"""The efficiency of Kling and Gupta: 1 where all is predicted, -0.41 where the mean of the data is as good.

    $1 - \sqrt{(r - 1)^2 + (\sigma_x / \sigma_y - 1)^2 + (\bar x / \bar y - 1)^2}$

    Args:
        predicted: one number for each datum.
        observed: the data, whose mean is not to be zero.

    Source: Gupta et al. (2009); Knoben et al. (2019) on the mean.
    """
    x, y = np.asarray(predicted, float), np.asarray(observed, float)
    correlation = _ratio(np.mean((x - x.mean()) * (y - y.mean())), x.std() * y.std())
    apart = (correlation - 1, _ratio(x.std(), y.std()) - 1, _ratio(x.mean(), y.mean()) - 1)
    return float(1 - np.linalg.norm(apart))


def bias(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    """By how much the prediction is too high, in the units of the data.

    Args:
        predicted: one number for each datum.
        observed: the data.
    """
    return float(np.mean(np.asarray(predicted) - np.asarray(observed)))


def measured_by(fc: xr.DataTree, data: xr.Dataset, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Metrics of the predictive mean at the data that a forecast has, a row for each observable.

    They say nothing of how sure the forecast is: for that see `bayes_dasl.score`.

    Args:
        fc: what `forecast` returned.
        data: a dataset with the observables, NaN where missing.
        metrics: functions of what is predicted and what is observed, both `(datum,)`, by name, such as `nse`.

    Raises: MismatchError for metrics that are no functions by name, and as `bayes_dasl.score`.
    """
    if not isinstance(metrics, Mapping) or not all(callable(metric) for metric in metrics.values()):
        raise MismatchError("metrics are functions by name, such as {'NSE': bd.metrics.nse}")
    predictions, _, observed = shared(fc, in_units_of_forecast(fc, data))
    rows = {}
    for name, variable in predictions.data_vars.items():
        parts = [_mean(draws_at(variable, at)) for at in blocks_of(variable)]
        predicted, seen = np.concatenate(parts), observed[name].values.ravel()
        known = np.isfinite(predicted) & np.isfinite(seen)
        rows[str(name)] = {
            called: float(metric(predicted[known], seen[known])) if known.any() else np.nan
            for called, metric in metrics.items()
        } | {"n": int(known.sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("observable")


def _mean(draws: np.ndarray) -> np.ndarray:
    """Of each datum, over the draws that are finite everywhere."""
    whole = draws[np.isfinite(draws).all(axis=1)]
    return whole.mean(axis=0) if len(whole) else np.full(draws.shape[1], np.nan)


def _ratio(above: float, below: float) -> float:
    """NaN where nothing varies, without NumPy's warning."""
    return float(above / below) if below else np.nan

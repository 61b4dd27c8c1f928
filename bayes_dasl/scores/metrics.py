"""Metrics of the predictive mean that are common in a field, such as hydrology."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from ..data.censoring import alike
from ..errors import DataError, MismatchError
from .failures import usable
from .matching import in_units_of_forecast, merged, shared

type Metric = Callable[[Float[np.ndarray, " datum"], Float[np.ndarray, " datum"]], float]
"""What was predicted and what was observed, in that order, to a number."""


def nse(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    r"""The Nash–Sutcliffe efficiency: 1 for a perfect prediction, 0 for the mean of the data.

    $1 - \sum (x - y)^2 / \sum (y - \bar y)^2$, NaN of data that are all equal.

    Args:
        predicted: one number for each datum.
        observed: the data.

    Source: Nash & Sutcliffe (1970).
    """
    x, y = np.asarray(predicted, float), np.asarray(observed, float)
    return 1 - float(np.mean((x - y) ** 2) / y.std() ** 2) if _varies(y) else np.nan


def kge(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    r"""The Kling–Gupta efficiency: 1 for a perfect prediction, −0.41 for the mean of the data.

    $1 - \sqrt{(r - 1)^2 + (\sigma_x / \sigma_y - 1)^2 + (\bar x / \bar y - 1)^2}$

    NaN where predictions or data are all equal, since they then have no correlation r, or the mean
    of the data is zero.

    Args:
        predicted: one number for each datum.
        observed: the data.

    Source: Gupta et al. (2009); Knoben et al. (2019) on the mean.
    """
    x, y = np.asarray(predicted, float), np.asarray(observed, float)
    if not (_varies(x) and _varies(y)) or y.mean() == 0:
        return np.nan
    correlation = np.mean((x - x.mean()) * (y - y.mean())) / (x.std() * y.std())
    return 1 - float(
        np.linalg.norm([correlation - 1, x.std() / y.std() - 1, x.mean() / y.mean() - 1])
    )


def bias(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    """The mean of predictions less data.

    Args:
        predicted: one number for each datum.
        observed: the data.

    Returns:
        The bias in the units of the data.
    """
    return float(np.mean(np.asarray(predicted) - np.asarray(observed)))


def measured_by(fc: xr.DataTree, data: xr.Dataset, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Metrics of the predictive mean at the data, with a row for each observable.

    They ignore the uncertainty of the forecast: see `bayes_dasl.score`.

    Args:
        fc: what `forecast` returned.
        data: a dataset with the observables, NaN where missing.
        metrics: functions of what is predicted and what is observed, both `(datum,)`, by name, such
            as `nse`.

    Raises:
        MismatchError: for metrics that are no functions by name, and as `bayes_dasl.score`.
    """
    if not isinstance(metrics, Mapping) or not all(callable(metric) for metric in metrics.values()):
        raise MismatchError("metrics are functions by name, such as {'NSE': bd.scores.metrics.nse}")
    predictions, _, observed = shared(fc, in_units_of_forecast(fc, data))
    kept = usable(fc)
    rows = {}
    for name, variable in predictions.data_vars.items():
        draws, seen = alike(merged(variable)[kept], observed[name]), observed[name].values.ravel()
        known = np.isfinite(seen) & bool(len(draws))
        pair = draws[:, known].mean(axis=0) if known.any() else np.zeros(0), seen[known]
        found = {
            called: float(metric(*pair)) if known.any() else np.nan
            for called, metric in metrics.items()
        }
        rows[str(name)] = found | {"n": int(known.sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("observable")


def check_metrics(data: xr.Dataset, metrics: Mapping[str, Metric]) -> None:
    """Try metrics on data that are predicted too high, as 1.1 y + 0.5.

    Raises:
        DataError: for one that fails there, or returns no number.
    """
    for name, values in data.data_vars.items():
        seen = values.values[np.isfinite(values.values)].astype(float)
        for called, metric in metrics.items() if seen.size else ():
            try:
                _ = float(metric(1.1 * seen + 0.5, seen))
            except Exception as error:  # whatever a user's function may raise
                raise DataError(
                    f"the metric '{called}' takes what was predicted and what was observed, two "
                    "arrays, and returns a "
                    f"number; of the test data of '{name}', predicted too high, it failed: "
                    f"{type(error).__name__}: {error}"
                ) from error


def _varies(values: np.ndarray) -> bool:
    """Whether values vary by more than rounding."""
    return bool(values.std() > 1e-12 * np.abs(values).max(initial=0.0))

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
"""A function of predictions and observations, in that order, that returns a number."""


def nse(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    r"""Return the Nash–Sutcliffe efficiency: 1 for a perfect prediction, 0 for the data's mean.

    $1 - \sum (x - y)^2 / \sum (y - \bar y)^2$ for predictions $x$ and data $y$ with mean $\bar y$.

    Args:
        predicted: one number for each datum.
        observed: the data.

    Returns:
        The efficiency; NaN for data that are all equal.

    Source: Nash & Sutcliffe (1970).
    """
    x = np.asarray(predicted, float)
    y = np.asarray(observed, float)
    if not _varies(y):
        return np.nan
    return 1 - float(np.mean((x - y) ** 2) / y.std() ** 2)


def kge(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    r"""Return the Kling–Gupta efficiency: 1 for a perfect prediction, −0.41 for the data's mean.

    $1 - \sqrt{(r - 1)^2 + (\sigma_x / \sigma_y - 1)^2 + (\bar x / \bar y - 1)^2}$

    Here $r$ is the correlation of predictions $x$ and data $y$. Their standard deviations are
    $\sigma_x$ and $\sigma_y$, and their means $\bar x$ and $\bar y$. If predictions or data are all
    equal, $r$ does not exist.

    Args:
        predicted: one number for each datum.
        observed: the data.

    Returns:
        The efficiency; NaN if predictions or data are all equal, or the mean of the data is zero.

    Source: Gupta et al. (2009); Knoben et al. (2019) on the mean.
    """
    x = np.asarray(predicted, float)
    y = np.asarray(observed, float)
    if not (_varies(x) and _varies(y)) or y.mean() == 0:
        return np.nan
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    correlation = covariance / (x.std() * y.std())
    # The distance from perfect correlation, spread and mean.
    spread = x.std() / y.std()
    level = x.mean() / y.mean()
    return 1 - float(np.linalg.norm([correlation - 1, spread - 1, level - 1]))


def bias(predicted: Float[np.ndarray, " datum"], observed: Float[np.ndarray, " datum"]) -> float:
    """Return the mean of predictions minus data.

    Args:
        predicted: one number for each datum.
        observed: the data.

    Returns:
        The bias in the units of the data.
    """
    return float(np.mean(np.asarray(predicted) - np.asarray(observed)))


def measured_by(fc: xr.DataTree, data: xr.Dataset, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Return metrics of the predictive mean at the data, with a row for each observable.

    Metrics ignore the uncertainty of the forecast; `bayes_dasl.score` does not.

    Args:
        fc: the result of `forecast`.
        data: a dataset with the observables, NaN where missing.
        metrics: functions of predictions and observations, both `(datum,)`, by name, such as `nse`.

    Returns:
        A row for each observable, with a column for each metric and the number `n` of data.

    Raises:
        MismatchError: for metrics that are not functions by name, and as `bayes_dasl.score`.
    """
    if not isinstance(metrics, Mapping) or not all(callable(metric) for metric in metrics.values()):
        raise MismatchError("metrics are functions by name, such as {'NSE': bd.scores.metrics.nse}")
    predictions, _, observed = shared(fc, in_units_of_forecast(fc, data))
    # Draws within the bounds of a censored datum are replaced by the datum.
    kept = usable(fc)
    rows = {}
    for name, variable in predictions.data_vars.items():
        draws = alike(merged(variable)[kept], observed[name])
        seen = observed[name].values.ravel()
        known = np.isfinite(seen) & bool(len(draws))
        found = dict.fromkeys(metrics, np.nan)
        if known.any():
            mean = draws[:, known].mean(axis=0)
            found = {called: float(metric(mean, seen[known])) for called, metric in metrics.items()}
        rows[str(name)] = found | {"n": int(known.sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("observable")


def check_metrics(data: xr.Dataset, metrics: Mapping[str, Metric]) -> None:
    """Try metrics with the data $y$ as observations and $1.1 y + 0.5$ as predictions.

    Args:
        data: a dataset of observables.
        metrics: the metrics, by name.

    Raises:
        DataError: for a metric that fails, or returns no number.
    """
    for name, values in data.data_vars.items():
        seen = values.values[np.isfinite(values.values)].astype(float)
        for called, metric in metrics.items() if seen.size else ():
            try:
                _ = float(metric(1.1 * seen + 0.5, seen))
            except Exception as error:
                # A user's function may raise anything.
                raise DataError(
                    f"the metric '{called}' takes what was predicted and what was observed, two "
                    "arrays, and returns a "
                    f"number; of the test data of '{name}', predicted too high, it failed: "
                    f"{type(error).__name__}: {error}"
                ) from error


def _varies(values: np.ndarray) -> bool:
    """Return whether values differ by more than rounding errors."""
    return bool(values.std() > 1e-12 * np.abs(values).max(initial=0.0))

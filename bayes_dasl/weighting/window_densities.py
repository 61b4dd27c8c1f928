"""Joint predictive densities of the data in the window of a past forecast."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr

from .._statistics.importance import as_rows, total_log_likelihood, weigh
from ..data.datasets import observations, units_of
from ..data.units import convert
from ..model import Model
from ..prediction.predictive import push
from .bridge import bridged, log_mean
from .windows import Window


class Known(NamedTuple):
    """The posterior at an origin, the last known time of a past forecast.

    Args:
        rows: number of rows of data up to the origin.
        draws: posterior draws by path of the parameter.
        start: start time of the model.
        fit: number of rows of data in the fit that these draws come from. It is smaller than `rows`
            if the draws were updated without a new fit.
    """

    rows: int
    draws: dict[str, np.ndarray]
    start: float
    fit: int


def in_units_of(
    found: xr.Dataset, model: Model, own: xr.Dataset, given: xr.Dataset, windows: Sequence[Window]
) -> xr.Dataset:
    """Convert densities and scores to the units of the data, so that models can be compared.

    Args:
        found: densities and scores in the units of the model.
        model: the model.
        own: the data in the units of the model.
        given: the data in their original units.
        windows: the window of each origin.

    Returns:
        The converted dataset, with the coordinate `units`.
    """
    units, wanted = units_of(own), units_of(given)
    for name in model.observables:
        noise = model.noise_of(name)
        # A probability does not depend on units, so its score needs no conversion.
        if units[name] == wanted[name] or noise.has_masses or noise.support.is_discrete:
            continue
        ends = convert(np.array([0.0, 1.0]), wanted[name], units[name])
        # The data were converted before, so this conversion exists.
        assert ends is not None
        factor, units[name] = float(np.diff(ends)[0]), wanted[name]
        numbers = [
            own[name].isel({model.index: slice(w.known, w.end)}).notnull().sum().item()
            for w in windows
        ]
        # y' = y / factor has the density p(y) · factor, and so each datum adds log(factor).
        here = found["observable"] == name
        gained = np.log(factor) * xr.DataArray(numbers, dims="origin")
        found["log_density"] = found["log_density"] + gained
        found["log_score"] = found["log_score"] - xr.where(here, np.log(factor), 0.0)
        found["crps"] = found["crps"] / xr.where(here, factor, 1.0)
    return found.assign_coords(units=("observable", [units[name] for name in model.observables]))


def joint_density(
    model: Model, data: xr.Dataset, at: Known, window: Window, others: Sequence[Known]
) -> dict[str, Any]:
    r"""Compute the log joint density of the data of a window, given the data before it.

    $\log \frac{1}{S} \sum_s p(y_{window} \mid \theta_s, y_{before})$

    Here $\theta_s$ are the $S$ posterior draws at the origin. All windows are solved to the end of
    the data, so that they share one compiled program.

    Args:
        model: the model.
        data: the data up to the end of the last window.
        at: the posterior at the origin.
        window: the window.
        others: posteriors given more data. If the density depends on few draws, the posterior at
            the end of the window is used for bridge sampling.

    Returns:
        `log_density`, its `density_error` and `density_pareto_k`; `bridged`; the `number` of data;
        and the numbers of `draws` and `failed_draws`.
    """
    # 1. Observations of the window alone.
    inputs = model.inputs(data, start=at.start)
    observed = {}
    for name in model.observables:
        values = observations(data, name, dims=model.dims(name)).copy()
        values[: window.known], values[window.end :] = np.nan, np.nan
        observed[name] = jnp.asarray(values)
    if (past := inputs.past) is not None:
        # Data after the window are unknown in it.
        held = {name: values.at[window.end :].set(jnp.nan) for name, values in past.values.items()}
        inputs = dataclasses.replace(inputs, past=dataclasses.replace(past, values=held))

    def of_each(draws: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        pushed = push(model, inputs, draws, observed=observed)
        return total_log_likelihood(pushed.log_likelihood, observed), np.asarray(pushed.ok)

    # 2. The mean over draws, and the k-hat of the weights that the window would give them.
    each, ok = of_each(at.draws)
    found = log_mean(each[ok])
    weights = weigh(each[ok], as_rows(at.draws)[ok]) if ok.any() else None
    # 3. If the mean depends on few draws, use bridge sampling with another fit that includes
    # the window.
    then = [other for other in others if other.rows == window.end and other.fit != at.fit]
    if then and weights is not None and not weights.trusted:
        after, sound = of_each(then[0].draws)
        found = bridged(each[ok], after[sound]) if sound.any() else found
    else:
        then = []
    return {
        "log_density": found.value,
        "density_error": found.error,
        "density_pareto_k": np.inf if weights is None else weights.pareto_k,
        "draws": 0 if weights is None else len(weights.values),
        "bridged": len(then),
        "number": int(sum((~np.isnan(np.asarray(y))).sum() for y in observed.values())),
        "failed_draws": int((~ok).sum()),
    }

"""Joint predictive densities of the data in a window."""

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
from ..noise import Censored, HurdleNoise
from ..noise.abstract_noise import AbstractNoise
from ..prediction.predictive import push
from .bridge import bridged, log_mean
from .windows import Window


class Known(NamedTuple):
    """Knowledge at an origin.

    Args:
        rows: the number of known rows of the data.
        draws: posterior draws by path.
        start: the start of the model.
        fit: the number of rows that the fit of these draws knew.
    """

    rows: int
    draws: dict[str, np.ndarray]
    start: float
    fit: int


def in_units_of(
    found: xr.Dataset, model: Model, own: xr.Dataset, given: xr.Dataset, windows: Sequence[Window]
) -> xr.Dataset:
    """Densities and scores in the units of the data, so that models in other units compare."""
    units, wanted = units_of(own), units_of(given)
    for name in model.observables:
        if units[name] == wanted[name] or _has_masses(model.noise_of(name)):
            continue
        ends = convert(np.array([0.0, 1.0]), wanted[name], units[name])
        # The data were converted, so that units agree.
        assert ends is not None
        factor, units[name] = float(np.diff(ends)[0]), wanted[name]
        numbers = [
            own[name].isel({model.index: slice(w.known, w.end)}).notnull().sum().item()
            for w in windows
        ]
        here = found["observable"] == name
        found["log_density"] = found["log_density"] + np.log(factor) * xr.DataArray(
            numbers, dims="origin"
        )
        found["log_score"] = found["log_score"] - xr.where(here, np.log(factor), 0.0)
        found["crps"] = found["crps"] / xr.where(here, factor, 1.0)
    return found.assign_coords(units=("observable", [units[name] for name in model.observables]))


def _has_masses(noise: AbstractNoise) -> bool:
    """Whether data may have a probability mass, which does not depend on units."""
    return bool(noise.support.is_discrete) or isinstance(noise, Censored | HurdleNoise)


def joint_density(
    model: Model, data: xr.Dataset, at: Known, window: Window, others: Sequence[Known]
) -> dict[str, Any]:
    """The joint density of all data of a window, given those before it.

    All windows are solved to the end of the data, so that they share one compiled program.
    """
    # 1. Observations of the window alone.
    inputs, observed = model.inputs(data, start=at.start), {}
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

    # 2. The mean over draws.
    each, ok = of_each(at.draws)
    found = log_mean(each[ok])
    weights = weigh(each[ok], as_rows(at.draws)[ok]) if ok.any() else None
    # 3. If it depends on few draws, a bridge to the draws of another fit that knows the window.
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

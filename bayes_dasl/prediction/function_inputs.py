"""Inputs of unknown functions during a fit or a forecast, to detect extrapolation."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr

from .._jax.tree import short_names
from ..data.layer_inputs import Inputs
from ..layers.layer import AbstractPopulation, named_trajectories
from ..model import Model
from ..unknown_functions.lookup import unknown_functions
from .predictive import Paths

FUNCTION_ROWS = 200
"""The number of rows with inputs that are stored if functions depend on no states."""


def function_inputs(
    model: Model, inputs: Inputs, index: xr.DataArray, rows: np.ndarray, states: Paths | None
) -> xr.Dataset | None:
    """Return the inputs of each unknown function at some times; states are medians over draws.

    Inputs that a user's own code computes are left out. So are all functions of a population, whose
    groups have different times.

    Args:
        model: the model.
        inputs: times and forcings.
        index: the coordinate at the times of the inputs.
        rows: the indices of some times.
        states: the states of some draws at these times; None if states are unknown.

    Returns:
        A dataset over the index with a variable `function.input` for each input. Its attributes
        `function` and `input` have both names. None if no input is known.
    """
    if isinstance(model.layer, AbstractPopulation):
        return None
    functions = unknown_functions(model.layer)
    if not functions:
        return None
    # 1. Time, forcings, and the states of each trajectory by its path.
    given = {"t": np.asarray(inputs.times)[rows]} | _scalar_forcings(inputs, rows)
    ahead = {}
    if states is not None:
        trajectories = [path for path, _ in named_trajectories(model.layer)]
        pairs = zip(trajectories, states, strict=True)
        ahead = {path: _median_states(own) for path, own in pairs}
    # 2. The inputs that each function takes.
    where = [places[0] for places, _ in functions]
    called = short_names(where, least=dict.fromkeys(where, 2))
    found = {}
    for path, (_, function) in zip(where, functions, strict=True):
        # A state hides a forcing of the same name, as in the call of a function.
        known = given | next((own for layer, own in ahead.items() if _is_inside(path, layer)), {})
        for name in function.drawn_over:
            if name in known:
                attributes = {"function": called[path], "input": name}
                found[f"{called[path]}.{name}"] = (str(index.name), known[name], attributes)
    return xr.Dataset(found, {str(index.name): index.values[rows]}) if found else None


def _scalar_forcings(inputs: Inputs, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scalar forcings at the times with these indices, by name."""
    found = {}
    for name, forcing in inputs.forcings.items():
        values = np.asarray(jax.vmap(forcing)(inputs.times[rows]))
        if values.ndim == 1:
            found[name] = values
    return found


def _median_states(states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the median over solved draws of each scalar state; NaN if every solve failed."""
    found = {}
    for name, values in states.items():
        if np.ndim(values) == 2:
            solved = values[np.isfinite(values).all(axis=1)]
            found[name] = np.full(values.shape[1], np.nan)
            if len(solved):
                found[name] = np.median(solved, axis=0)
    return found


def _is_inside(path: str, layer: str) -> bool:
    """Return whether a path belongs to a layer or to a part of it.

    All paths belong to a layer with an empty path.
    """
    return not layer or path == layer or path.startswith(f"{layer}.")

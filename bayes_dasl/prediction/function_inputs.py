"""The inputs that unknown functions are given: in a fit, and in a forecast that may leave their
range.
"""

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
"""Rows that are looked at, where no states need be kept for it."""


def function_inputs(
    model: Model, inputs: Inputs, index: xr.DataArray, rows: np.ndarray, states: Paths | None
) -> xr.Dataset | None:
    """The inputs of each unknown function at some rows; those that are states are medians over the
    draws.

    States are known where `watched` keeps them. An input that is the product of a user's own code
    is not looked at, nor are the functions of a population, whose members have times of their own.

    Args:
        model: the model.
        inputs: times and forcings.
        index: the coordinate at the times of the inputs.
        rows: the indices of some times.
        states: those of the watched draws at these times.

    Returns:
        A dataset over the index, a variable `function.input` for each, with the attributes
        `function` and `input`; None where nothing is known.
    """
    functions = (
        [] if isinstance(model.layer, AbstractPopulation) else unknown_functions(model.layer)
    )
    if not functions:
        return None
    given = {"t": np.asarray(inputs.times)[rows]} | _forcings(inputs, rows)
    ahead = {path: _medians(own) for path, own in _by_trajectory(model, states).items()}
    where = [places[0] for places, _ in functions]
    called = short_names(where, least=dict.fromkeys(where, 2))
    found = {}
    for path, (_, function) in zip(where, functions, strict=True):
        # States come before forcings, and forcings before time, as in the call of a function.
        known = given | next((own for layer, own in ahead.items() if _is_inside(path, layer)), {})
        for name in function.drawn_over:
            if name in known:
                attributes = {"function": called[path], "input": name}
                found[f"{called[path]}.{name}"] = (str(index.name), known[name], attributes)
    return xr.Dataset(found, {str(index.name): index.values[rows]}) if found else None


def _forcings(inputs: Inputs, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The forcings that are numbers, at some times."""
    times = inputs.times[rows]
    found = {
        name: np.asarray(jax.vmap(forcing)(times)) for name, forcing in inputs.forcings.items()
    }
    return {name: values for name, values in found.items() if values.ndim == 1}


def _by_trajectory(model: Model, states: Paths | None) -> Mapping[str, dict[str, np.ndarray]]:
    if states is None:
        return {}
    found = [path for path, _ in named_trajectories(model.layer)]
    return dict(zip(found, states, strict=True))


def _medians(states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The median over draws of each state that is a number; NaN where every solve failed."""
    found = {}
    for name, values in states.items():
        if np.ndim(values) == 2:
            solved = values[np.isfinite(values).all(axis=1)]
            found[name] = (
                np.median(solved, axis=0) if len(solved) else np.full(values.shape[1], np.nan)
            )
    return found


def _is_inside(path: str, layer: str) -> bool:
    return not layer or path == layer or path.startswith(f"{layer}.")

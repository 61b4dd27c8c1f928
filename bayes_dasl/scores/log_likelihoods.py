"""Pointwise log likelihoods at given parameters, or in posterior draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..errors import MismatchError, ModelError
from ..inference import pose
from ..inference.problem import Problem
from ..model import Model
from ..prediction.datatree import names
from ..prediction.posterior import draws_of
from ..prediction.predictive import push
from ..random import paths


def log_likelihood(
    model: Model, data: xr.Dataset, values: Mapping[str, Any] | xr.DataTree
) -> xr.Dataset:
    r"""Return the log likelihood $\log p(y_i \mid \theta)$ of each datum $y_i$.

    Args:
        model: the model.
        data: the data, with the index, the observables (NaN where missing) and the forcings of the
            model.
        values: the parameters $\theta$: a value of every parameter, by its name in results or its
            path. A random effect has a value for each group of a population. If all arrays have one
            more leading axis of the same length, it counts draws. Alternatively the result of
            `fit`, for its posterior draws. Random effects of groups without data in the fit are
            drawn from their prior, given the hyperparameters of each draw.

    Returns:
        A dataset with each observable over the dimensions of its data, in nats. It is NaN where a
        datum is missing, and −∞ for all data if the solver fails. With draws, the first dimension
        is `draw`; for a posterior the first two are `chain` and `draw`.

    Raises:
        MismatchError: for a name that is no parameter, or a posterior of another model.
        ModelError: for parameters without a value, and for values of another shape.
        DataError: for bad data.

    Example:
        ```python
        pointwise = bd.scores.log_likelihood(model, data, {"rate": 0.5, "scale": 0.1})
        total = float(pointwise["y"].sum())
        ```
    """
    # 1. Draws by path, with their leading dimensions.
    problem = pose(model, data)
    if isinstance(values, xr.DataTree):
        draws = draws_of(model, values)
        lead = {d: values["posterior"].sizes[d] for d in ("chain", "draw")}
    else:
        draws, lead = _values_of(model, values)
    # 2. All leading dimensions in one, and back.
    leaves = paths(model)
    flat = {path: v.reshape(-1, *leaves[path].shape) for path, v in draws.items()}
    found = of_problem(problem, data, flat)
    data = model.in_own_units(data)
    variables, coords = {}, {}
    for name, each in found.items():
        dims = *lead, *model.dims(name)
        variables[name] = dims, each.reshape(*lead.values(), *each.shape[1:])
        coords |= data[name].coords
    return xr.Dataset(variables, coords | {dim: np.arange(size) for dim, size in lead.items()})


def of_problem(
    problem: Problem, data: xr.Dataset, draws: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the log likelihood of each datum for many draws.

    Args:
        problem: the model with its inputs and data.
        data: the data that the problem was made of.
        draws: draws `(draw, …)` of every random leaf, by path.

    Returns:
        Log likelihoods `(draw, …)` by observable, over the dimensions of its data.
    """
    model = problem.model
    rows = problem.own_rows
    pushed = push(model, problem.inputs, draws, observed=problem.observed)
    found = {}
    for name, each in pushed.log_likelihood.items():
        seen = data[name].transpose(*model.dims(name)).notnull().values
        if rows is not None:
            # Each group was solved at its own times: back to the rows of the data.
            time, *others = np.nonzero(seen)
            own = rows.places(time, others[-1])
            whole = np.full((len(each), *seen.shape), np.nan)
            whole[:, time, *others] = each[:, own, *others]
            each = whole
        found[name] = np.where(seen, each, np.nan)
    return found


def _values_of(
    model: Model, values: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the given values by path, and the number of draws.

    Returns:
        Values by path, with a leading axis if they are draws; and `{"draw": number}`, empty if they
        are no draws.

    Raises:
        MismatchError: for an unknown name.
        ModelError: for a missing value, or other shapes.
    """
    if not isinstance(values, Mapping):
        raise ModelError(
            f"values must be a dict by name or what bd.fit returned, not {type(values).__name__}"
        )
    short = names(model)
    leaves = paths(model)
    by_name = {name: path for path, name in short.items()} | {path: path for path in leaves}
    if unknown := [str(name) for name in values if name not in by_name]:
        raise MismatchError(
            f"'{unknown[0]}' is no unknown parameter of the model; these are "
            f"{', '.join(short.values())}"
        )
    given = {by_name[name]: np.asarray(value, float) for name, value in values.items()}
    if missing := [short[path] for path in leaves if path not in given]:
        raise ModelError(
            f"values are missing of {', '.join(missing)}: give one for every unknown parameter"
        )
    # All parameters have one value, or as many draws.
    lengths = set()
    for path, value in given.items():
        shape = leaves[path].shape
        if value.shape != shape and value.shape[1:] != shape:
            raise ModelError(
                f"the value of '{short[path]}' has the shape {value.shape}, but must have {shape}, "
                "or (draws, …) before"
            )
        lengths.add(None if value.shape == shape else len(value))
    if len(lengths) > 1:
        raise ModelError("give one value of each parameter, or draws of the same number of each")
    (length,) = lengths or {None}
    return given, {} if length is None else {"draw": length}

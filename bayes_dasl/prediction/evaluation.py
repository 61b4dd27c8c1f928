"""Derived quantities: any function of a model over all draws."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from .._jax.devices import keep_programs
from .._jax.keys import as_key
from .._jax.trace import parted
from .._statistics.describe_distributions import name_of
from ..data.layer_inputs import Inputs
from ..errors import BayesDaslError, MismatchError, ModelError
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..priors import draw_prior
from ..random import realise
from .datatree import in_chains
from .forecasts import Asked, inputs_at
from .posterior import draws_of, fitted_observables
from .predictive import map_over_draws

_PRIOR_DRAWS = 1000
_GROUPS = ("posterior", "prior")
# Errors of a function that asks for the value of a traced array.
_TRACED = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


def evaluate(
    model: Model,
    post: xr.DataTree | None,
    function: Callable[..., Any],
    at: Asked | None = None,
    *,
    group: str = "posterior",
    coords: Mapping[str, Float[np.ndarray, " point"] | Sequence[str]] | None = None,
) -> xr.Dataset:
    """Compute a derived quantity, such as a half-life or a flux over time, for every draw.

    `bd.evaluate(model, post, lambda m: {"half_life": jnp.log(2) / m.layer.vector_field.rate})`

    Args:
        model: the model of the fit.
        post: the result of `fit`, or None for a thousand draws of the prior.
        function: a function of the model, whose parameters are numbers in one draw. If `at` is
            given, the second argument is the prediction of the layer at these times, `(time, …)` by
            the name of each output, observed or not. The function returns a number, an array, or a
            dict of them.
        at: times, or a dataset with times and forcings, as for `forecast`. Without a posterior it
            must be a dataset; the model then starts as in a fit to that dataset.
        group: "posterior", or "prior" for the prior draws of the fit.
        coords: coordinates of the axes of the returned arrays, by name: numbers, or names such as
            those of schools. An axis takes the coordinate that has its length. Times and the groups
            of a population need not be given.

    Returns:
        A dataset over chain, draw and these axes; NaN where a solve failed. Figures show the unit
        in `attrs["units"]` of a variable, such as `found["half_life"]`.

    Raises:
        MismatchError: for a posterior of another model or an unknown group.
        ModelError: if the function cannot be called, if two coordinates have the length of an axis,
            or if a coordinate has the length of no axis.
        DataError: for bad times or forcings.

    Example:
        ```python
        found = bd.evaluate(model, post, lambda m: np.log(2.0) / m.layer.vector_field.rate)
        print(found["value"].mean())
        ```
    """
    draws, shape = _draws_of_group(model, post, group)
    found = of_draws(model, post, draws, function, at, coords=coords)
    attributes = {"group": "prior" if post is None else group}
    return in_chains(found, shape).assign_attrs(attributes)


def of_draws(
    model: Model,
    post: xr.DataTree | None,
    draws: Mapping[str, np.ndarray],
    function: Callable[..., Any],
    at: Asked | None = None,
    *,
    coords: Mapping[str, Float[np.ndarray, " point"] | Sequence[str]] | None = None,
) -> xr.Dataset:
    """Compute a derived quantity as `evaluate` does, for draws that need not be those of a fit.

    Args:
        model: the model.
        post: the result of `fit`, which gives the start and the past forcings for `at`; None to
            take both from the dataset `at`.
        draws: draws `(draw, …)` of every random leaf, by path.
        function: as for `evaluate`.
        at: as for `evaluate`.
        coords: as for `evaluate`.

    Returns:
        A dataset over `draw` and the axes of the returned arrays.

    Raises:
        MismatchError: as for `evaluate`.
        ModelError: as for `evaluate`.
    """
    # 1. The function for one draw, at the requested times.
    inputs, times = None, None
    if at is not None:
        inputs, times = (
            _inputs_without_fit(model, at) if post is None else inputs_at(model, post, at)
        )
    _check_callable(function, 1 if at is None else 2)

    def one(draw):
        realised = realise(model, draw)
        if inputs is None:
            return _result_by_name(function, function(realised))
        prediction = realised.predict(inputs)
        found = _result_by_name(function, function(realised, prediction.values))
        return {name: jnp.where(prediction.ok, value, jnp.nan) for name, value in found.items()}

    # 2. Trace it once, so that errors of the user's function are reported.
    try:
        flat, held, _ = parted(one, {path: values[0] for path, values in draws.items()})
    except BayesDaslError:
        raise
    except Exception as error:
        reason = str(error)
        if isinstance(error, _TRACED):
            reason = (
                "it runs for all draws at once: write it with jax.numpy, without float(…), math, "
                "NumPy's functions and `if`"
            )
        kind = type(error).__name__
        raise ModelError(
            f"the function cannot be worked out of the model: {kind}: {reason}"
        ) from error
    # 3. Map it over all draws in batches.
    keep_programs()
    found = map_over_draws(flat, held, draws, batch=64)
    # 4. Coordinates: the given ones, the groups of a population, and the times.
    along = {name: np.asarray(values) for name, values in (coords or {}).items()}
    along = _group_names(model, inputs, along) | along
    if times is not None:
        along = {model.index: times.values, **along}
    variables = {}
    for name, values in found.items():
        dims = _dims_of_result(name, values.shape[1:], along)
        variables[name] = ("draw", *dims), np.asarray(values)
    used = {dim for dims, _ in variables.values() for dim in dims}
    if unused := [name for name in coords or () if name not in used]:
        raise ModelError(
            f"coords gives '{unused[0]}' {along[unused[0]].size} values, but no axis of the result "
            "has as many"
        )
    coordinates: dict[str, Any] = {name: values for name, values in along.items() if name in used}
    if times is not None and model.index in coordinates:
        attributes = times.attrs if post is None else fitted_observables(post)[model.index].attrs
        coordinates[model.index] = (model.index, along[model.index], attributes)
    return xr.Dataset(variables, coordinates)


def _group_names(
    model: Model, inputs: Inputs | None, given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the names of the groups of a population as a coordinate, by the name of its dimension.

    The dict is empty in three cases: there is no population; `inputs` has other groups than the
    model; or a given coordinate has as many values as there are groups.

    Args:
        model: the model.
        inputs: the inputs of its layer; None if the function needs no prediction.
        given: the user's coordinates, by name.
    """
    layer = model.layer
    if not isinstance(layer, AbstractPopulation):
        return {}
    every = np.arange(len(layer.members))
    asked = every if inputs is None else np.asarray(inputs.coordinates[layer.dim])
    if not np.array_equal(asked, every) or any(v.size == every.size for v in given.values()):
        return {}
    return {layer.dim: np.asarray(layer.members)}


def _inputs_without_fit(model: Model, at: Asked) -> tuple[Inputs, xr.DataArray]:
    """Return the inputs and times of a dataset that starts the model as in a fit to it.

    Raises:
        MismatchError: if `at` is no dataset, since times alone do not define the start.
    """
    if not isinstance(at, xr.Dataset):
        raise MismatchError(
            "without a fit times alone do not say where the model starts: give the data as a "
            "dataset"
        )
    return model.reader.driven(at), at[model.index]


def _check_callable(function: Callable[..., Any], number: int) -> None:
    """Raise ModelError unless a function takes `number` positional arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Python does not know the signature, such as those of some builtins.
        return
    try:
        signature.bind(*range(number))
    except TypeError as error:
        wanted = (
            "(model), or be given times by at="
            if number == 1
            else "(model, values), since `at` is given"
        )
        raise ModelError(f"the function must take {wanted}: {error}") from error


def _draws_of_group(
    model: Model, post: xr.DataTree | None, group: str
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Return draws `(draw, …)` by path, and their numbers of chains and of draws in each chain."""
    if group not in _GROUPS:
        raise MismatchError(f"group must be one of {', '.join(_GROUPS)}, not {group!r}")
    if post is None:
        if not isinstance(model, Model):
            raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
        # A fixed seed, so that repeated calls agree.
        drawn = draw_prior(model, _PRIOR_DRAWS, key=as_key(0))
        return {path: np.asarray(values) for path, values in drawn.items()}, (1, _PRIOR_DRAWS)
    draws = draws_of(model, post, group)
    return draws, (post[group].sizes["chain"], post[group].sizes["draw"])


def _result_by_name(function: Callable[..., Any], found: Any) -> dict[str, Any]:
    """Return what a user's function found as arrays by name.

    A single array has the name of the function; for a lambda it is called `value`.
    """
    if not isinstance(found, Mapping):
        name = name_of(function)
        found = {"value" if name == "<lambda>" else name: found}
    return {str(name): jnp.asarray(value, float) for name, value in found.items()}


def _dims_of_result(
    name: str, shape: tuple[int, ...], along: Mapping[str, np.ndarray]
) -> list[str]:
    """Return the name of each axis of an array.

    An axis takes the coordinate that has its length, or else a name such as `value_dim_0`.

    Args:
        name: the name of the array.
        shape: its shape without the axis of draws.
        along: the coordinates, by name.

    Raises:
        ModelError: if two coordinates have the length of an axis.
    """
    dims: list[str] = []
    for number, size in enumerate(shape):
        left = {dim: values for dim, values in along.items() if dim not in dims}
        fitting = [dim for dim, values in left.items() if values.shape == (size,)]
        if len(fitting) > 1:
            raise ModelError(
                f"an axis of '{name}' has {size} numbers, as have {' and '.join(fitting)}: give "
                "them different lengths"
            )
        dims.append(fitting[0] if fitting else f"{name}_dim_{number}")
    return dims

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
from ..data.layer_inputs import Inputs
from ..errors import BayesDaslError, MismatchError, ModelError
from ..layers.layer import AbstractPopulation
from ..model import Model
from ..priors import draw_prior
from ..random import realise
from .datatree import with_coordinates
from .forecasts import Asked, inputs_at
from .posterior import draws_of, fitted_observables

_BATCH = 64
_PRIOR_DRAWS = 1000
_GROUPS = ("posterior", "prior")
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
    """Work out a derived quantity for every draw: a half-life, a flux over time, what a network
    says along an input.

    `bd.evaluate(model, post, lambda m: {"half_life": jnp.log(2) / m.layer.vector_field.rate})`

    Args:
        model: the model of the fit.
        post: what `fit` returned, or None for a thousand draws of the prior.
        function: of the model with numbers in place of all that is unknown; if `at` is given, also
            of what its layer predicts there, `(time, …)` by name, whether it is observed or not.
            Returns a number, an array, or a dict of them.
        at: times, or a dataset with times and forcings, as for `forecast`. Without a fit it must be
            a dataset, and the model starts where it would in a fit to this one.
        group: "posterior", or "prior" for the prior draws of the fit.
        coords: what axes of the result run along, by name: numbers, or names such as those of
            schools. An axis belongs to the one of its length; those of the times and of the members
            of a population are known.

    Returns:
        A dataset over chain, draw and these axes; NaN where a solve failed. Figures show the unit
        that `found["half_life"].attrs["units"]` is given.

    Raises:
        MismatchError: for a posterior of another model or an unknown group.
        ModelError: if the function cannot be called, two coordinates of one length leave open which
            an axis is, or one has the length of none.
        DataError: for bad times or forcings.

    Example:
        ```python
        found = bd.evaluate(model, post, lambda m: np.log(2.0) / m.layer.vector_field.rate)
        print(found["value"].mean())
        ```
    """
    draws, shape = _draws(model, post, group)
    found = of_draws(model, post, draws, function, at, coords=coords)
    parts = {
        name: (v.dims[1:], v.values.reshape(*shape, *v.shape[1:]), v.attrs)
        for name, v in found.items()
    }
    variables = {name: (("chain", "draw", *dims), *rest) for name, (dims, *rest) in parts.items()}
    attributes = {"group": "prior" if post is None else group}
    return with_coordinates(xr.Dataset(variables, found.coords, attributes))


def of_draws(
    model: Model,
    post: xr.DataTree | None,
    draws: Mapping[str, np.ndarray],
    function: Callable[..., Any],
    at: Asked | None = None,
    *,
    coords: Mapping[str, Float[np.ndarray, " point"] | Sequence[str]] | None = None,
) -> xr.Dataset:
    """A derived quantity of any draws, path → `(draw, …)`, over `draw` and its axes: see
    `evaluate`.
    """
    inputs, times = None, None
    if at is not None:
        inputs, times = _before_a_fit(model, at) if post is None else inputs_at(model, post, at)
    _check_arguments(function, 1 if at is None else 2)

    def one(draw):
        realised = realise(model, draw)
        if inputs is None:
            return _named(function, function(realised))
        prediction = realised.predict(inputs)
        found = _named(function, function(realised, prediction.values))
        return {name: jnp.where(prediction.ok, value, jnp.nan) for name, value in found.items()}

    try:
        flat, held, _ = parted(one, {path: values[0] for path, values in draws.items()})
    except BayesDaslError:
        raise
    except _TRACED as error:
        raise ModelError(
            f"the function cannot be worked out of the model: {type(error).__name__}: it runs for "
            "all draws at once: "
            "write it with jax.numpy, without float(…), math, NumPy's functions and `if`"
        ) from error
    except Exception as error:  # whatever a user's function may raise
        raise ModelError(
            f"the function cannot be worked out of the model: {type(error).__name__}: {error}"
        ) from error
    keep_programs()
    each = jax.jit(
        lambda held, draws: jax.lax.map(lambda draw: flat(held, draw), draws, batch_size=_BATCH)
    )
    found = {name: np.asarray(values) for name, values in each(held, draws).items()}
    along = {name: np.asarray(values) for name, values in (coords or {}).items()}
    along = _members(model, inputs, along) | along
    if times is not None:
        along = {model.index: times.values, **along}
    variables = {
        name: (("draw", *_dims(name, values.shape[1:], along)), values)
        for name, values in found.items()
    }
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


def _members(
    model: Model, inputs: Inputs | None, given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The members of a population by their dimension, unless others are asked for or coordinates of
    as many given.
    """
    layer = model.layer
    if not isinstance(layer, AbstractPopulation):
        return {}
    every = np.arange(len(layer.members))
    asked = every if inputs is None else np.asarray(inputs.coordinates[layer.dim])
    known = any(values.size == every.size for values in given.values())
    return (
        {} if known or not np.array_equal(asked, every) else {layer.dim: np.asarray(layer.members)}
    )


def _before_a_fit(model: Model, at: Asked) -> tuple[Inputs, xr.DataArray]:
    if not isinstance(at, xr.Dataset):
        raise MismatchError(
            "without a fit times alone do not say where the model starts: give the data as a "
            "dataset"
        )
    return model.reader.driven(at), at[model.index]


def _check_arguments(function: Callable[..., Any], number: int) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # what Python knows nothing about, such as some builtins
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


def _draws(
    model: Model, post: xr.DataTree | None, group: str
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    if group not in _GROUPS:
        raise MismatchError(f"group must be one of {', '.join(_GROUPS)}, not {group!r}")
    if post is None:
        if not isinstance(model, Model):
            raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
        drawn = draw_prior(model, _PRIOR_DRAWS, key=as_key(0))
        return {path: np.asarray(values) for path, values in drawn.items()}, (1, _PRIOR_DRAWS)
    draws = draws_of(model, post, group)
    return draws, (post[group].sizes["chain"], post[group].sizes["draw"])


def _named(function: Callable[..., Any], found: Any) -> dict[str, Any]:
    name = getattr(function, "__name__", type(function).__name__)
    found = (
        found if isinstance(found, Mapping) else {"value" if name == "<lambda>" else name: found}
    )
    return {str(name): jnp.asarray(value, float) for name, value in found.items()}


def _dims(name: str, shape: tuple[int, ...], along: Mapping[str, np.ndarray]) -> list[str]:
    """The dimension of each axis: the coordinate of its length, or one of its own."""
    dims: list[str] = []
    for number, size in enumerate(shape):
        fitting = [
            dim for dim, values in along.items() if values.shape == (size,) and dim not in dims
        ]
        if len(fitting) > 1:
            raise ModelError(
                f"an axis of '{name}' has {size} numbers, as have {' and '.join(fitting)}: give "
                "them different lengths"
            )
        dims.append(fitting[0] if fitting else f"{name}_dim_{number}")
    return dims

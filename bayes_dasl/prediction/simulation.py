"""Simulate data from a model whose true values are known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from jaxtyping import Array

from .._jax.keys import as_key
from ..data.censoring import ABOVE, BELOW, CODE, LIMIT
from ..data.datasets import checked_index
from ..data.layer_inputs import Inputs
from ..errors import MismatchError, ModelError
from ..layers import AbstractFilter
from ..model import Model, check_shapes
from ..noise import Censored
from ..random import paths, realise, sample
from .datatree import names, plain_attributes
from .posterior import draws_of

TRUE = "true_"
"""The prefix of names of true values."""


def simulate(
    model: Model,
    template: xr.Dataset,
    values: Mapping[str, Any] | xr.DataTree | None = None,
    *,
    missing: bool = True,
    key: int | Array = 0,
) -> xr.Dataset:
    """Simulate observations of a model at the times of a dataset, and keep the true values.

    The solve starts as in a fit to the template: at `start=` of the layer, or else at the first
    time.

    Args:
        model: the model.
        template: a dataset with the times, forcings, places, groups and known errors, as for
            `fit`. Observations in it only define where values are missing.
        values: the true values: a dict by path, or by name as in results. Absent parameters are
            drawn from the prior given the others. Alternatively a posterior, from which one draw is
            taken; it also serves groups of the model without data in the fit. By default one draw
            of the prior.
        missing: whether values are missing where the template has none.
        key: a whole number or a JAX random key, for the draw and the observation noise.

    Returns:
        A copy of the template with simulated observations, in the units that the layer states.
        Further variables are `true_<observable>`, the prediction without noise; `true_<output>` for
        outputs that are not observed; and `true_<parameter>` for each parameter, by its name in
        results. `fit` ignores them. Values beyond a limit of `bd.noise.Censored` are set to that
        limit. If the template has flags of censoring, no simulated value is censored.

    Raises:
        MismatchError: for values that are not random leaves of the model or have another shape, or
            a posterior of another model.
        DataError: for times or forcings that the model cannot take.
        ModelError: if the solver fails, or for a model with a filter, which integrates out the path
            of the states.

    Example:
        >>> simulated = bd.simulate(model, data, {"growth": 0.5}, key=1)
        >>> post = bd.fit(model, simulated)
    """
    if not isinstance(model, Model):
        raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
    if isinstance(model.layer, AbstractFilter):
        raise ModelError(
            f"{type(model.layer).__name__} has the states integrated out, and so no path to "
            "simulate: take bd.equations.SDE"
        )
    checked_index(template, model.index)
    data = model.in_own_units(template)
    known = data if missing else data.drop_vars(list(model.observables), errors="ignore")
    inputs = dataclasses.replace(model.reader.driven(data), per_datum=model.reader.per_datum(known))
    check_shapes(model, inputs)
    key_values, key_noise = jax.random.split(as_key(key))
    draw = _true_values(model, values, key_values)
    # Inputs are constants of the program, since layers with fixed steps must know their times.
    program = jax.jit(lambda draw, key: _simulated(model, draw, inputs, key))
    predicted, observed, ok = program(draw, key_noise)
    if not ok:
        said = "this draw of the prior: take another key, or tighter priors"
        said = said if values is None else "these values"
        raise ModelError(f"the solver fails for {said}")
    # Observations where the template has data, and the truth everywhere.
    found = {}
    for name, array in observed.items():
        found[name] = _output_array(model, data, name, array)
        if missing and name in data:
            # `where` drops attributes.
            seen = found[name].where(data[name].notnull())
            found[name] = seen.assign_attrs(found[name].attrs)
    for name, array in predicted.items():
        found[f"{TRUE}{name}"] = _output_array(model, data, name, array)
    uncensored = _uncensored_codes(model, template)
    return template.assign(found | uncensored | _parameter_arrays(model, draw))


def _simulated(
    model: Model, draw: Mapping[str, Array], inputs: Inputs, key: Array
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Predict and simulate with one draw.

    Returns:
        The prediction of the layer, observations with noise, both by name, and whether the solver
        succeeded.
    """
    realised = realise(model, draw)
    prediction = realised.predict(inputs)
    noise = realised.conditional(prediction, inputs)
    keys = dict(zip(noise, jax.random.split(key, len(noise)), strict=True))
    if (cross := model.cross_correlation) is not None:
        # The same seed makes the noise of these observables correlated.
        keys |= dict.fromkeys(cross.observables, jax.random.fold_in(key, len(noise)))
    drawn = {}
    for name, distribution in noise.items():
        drawn[name] = getattr(distribution, "uncensored", distribution).sample(keys[name])
        # Censored values are reported at the limit.
        if limits := model.noise_of(name).limits:
            low = limits.get(BELOW, -np.inf)
            high = limits.get(ABOVE, np.inf)
            drawn[name] = jnp.clip(drawn[name], low, high)
    return dict(prediction.values), drawn, prediction.ok


def _true_values(
    model: Model, values: Mapping[str, Any] | xr.DataTree | None, key: Array
) -> dict[str, Array]:
    """Return one value of each random leaf, by path; `values` is as for `simulate`."""
    if isinstance(values, xr.DataTree):
        draws = draws_of(model, values)
        number = len(next(iter(draws.values())))
        # One draw of all, so that parameters stay correlated.
        at = int(jax.random.randint(key, (), 0, number))
        return {path: jnp.asarray(drawn[at]) for path, drawn in draws.items()}
    known = _given_by_path(model, {} if values is None else values)
    with (
        numpyro.handlers.seed(rng_seed=key),
        numpyro.handlers.substitute(data=known),
        numpyro.handlers.trace() as sites,
    ):
        sample(model)
    return {path: jnp.asarray(sites[path]["value"]) for path in paths(model)}


def _given_by_path(model: Model, values: Mapping[str, Any]) -> dict[str, Array]:
    """Return the given values by path.

    Raises:
        MismatchError: for an unknown name or another shape.
    """
    if not isinstance(values, Mapping):
        raise MismatchError(
            f"values are a dict by name, or a posterior, not {type(values).__name__}"
        )
    leaves = paths(model)
    path_of = {short: path for path, short in names(model).items()}
    found = {}
    for name, value in values.items():
        path = path_of.get(name, name)
        if path not in leaves:
            raise MismatchError(f"the model has no unknown '{name}'; it has {', '.join(path_of)}")
        try:
            array = np.asarray(value, float)
        except (TypeError, ValueError) as error:
            raise MismatchError(
                f"the value of '{name}' must be a number or an array of numbers, not {value!r}"
            ) from error
        if array.shape != leaves[path].shape:
            raise MismatchError(
                f"'{name}' has the shape {array.shape}, but the model's has {leaves[path].shape}"
            )
        found[path] = jnp.asarray(array)
    return found


def _output_array(model: Model, data: xr.Dataset, name: str, values: Array) -> xr.DataArray:
    """Return the values of an output over the index and places of the data, with its units."""
    dims = model.dims(name)
    attributes = plain_attributes(data[name].attrs) if name in data else {}
    if units := model.layer.units.get(name, ""):
        attributes["units"] = units
    coordinates = {dim: data[dim] for dim in dims if dim in data.coords}
    return xr.DataArray(np.asarray(values), coordinates, dims, attrs=attributes)


def _uncensored_codes(model: Model, template: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return flags and limits of censoring that mark no value as censored.

    Only those that the template has are returned, by the name of the variable.
    """
    found = {}
    for name in model.observables:
        noise = model.noise_of(name)
        if not isinstance(noise, Censored) or noise.limits:
            continue
        if (code := name + CODE) in template:
            found[code] = xr.zeros_like(template[code])
        if (limit := name + LIMIT) in template:
            found[limit] = xr.full_like(template[limit], np.nan, float)
    return found


def _parameter_arrays(model: Model, draw: Mapping[str, Array]) -> dict[str, xr.DataArray]:
    """Return the true values of all random leaves as variables `true_<parameter>`."""
    found = {}
    short = names(model)
    for path, leaf in paths(model).items():
        value = np.asarray(draw[path])
        name = f"{TRUE}{short[path]}"
        plain = [f"{name}_dim_{i}" for i in range(len(leaf.dims), value.ndim)]
        dims = [*leaf.dims, *plain]
        members = {dim: np.asarray(of) for dim, of in leaf.dims.items()}
        attributes = {"path": path, "group": leaf.group}
        if leaf.units:
            attributes["units"] = leaf.units
        found[name] = xr.DataArray(value, members, dims, attrs=attributes)
    return found

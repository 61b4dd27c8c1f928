"""Checks of data and shapes before a fit: refuse mistakes before anything is compiled."""

from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Float

from ..data.censoring import refuse_censored
from ..data.datasets import DATUM, FILLED, JOINT, checked_index, checked_times, observations
from ..data.dates import are_dates, has_dates, in_words
from ..data.layer_inputs import Inputs
from ..errors import BayesDaslError, DataError, ModelError, ShapeError
from ..layers._parts import is_layer, refuse_open_times
from ..layers._priors import check_priors
from ..layers.layer import AbstractLayer, AbstractPopulation, begins
from ..random import paths, sample
from .model import Model, Observed

# A number is a fill value if it is at least 1e15 and 1e8 times the next smaller one.
_FILLING = 1e15
_BEYOND = 1e8
# Above this number float64 cannot represent every whole number.
_COUNTED = 2.0**53


def check_data(model: Model, data: xr.Dataset) -> Observed:
    """Refuse data that the model cannot be fitted to, and return the observed arrays.

    Args:
        model: the model.
        data: the training data.

    Returns:
        The data of each observable, `(time, …)` in the units of the model, NaN where missing.

    Raises:
        DataError: if a variable is missing, or its values are impossible or probably wrong.
        ModelError: if the model has no random leaf, a name that results need, or a wrong shape.
    """
    if not isinstance(model, Model):
        raise ModelError(f"model must be a bd.Model, not {type(model).__name__}")
    # 1. The index and the random leaves.
    checked_index(data, model.index)
    if not paths(model):
        raise ModelError(
            "nothing in the model is random: put a distribution where a number is unknown"
        )
    check_priors(model)
    if has_dates(data, model.index):
        refuse_open_times(model.layer, model.noise, data)
    check_times(model, data)
    # 2. Names.
    variables = (*model.observables, *model.layer.forcings)
    for name in (*variables, *paths(model)):
        if "/" in name:
            raise ModelError(
                f"'{name}' has a slash, which names a group in a DataTree: choose another name"
            )
    refuse_names_of_results(model)
    refuse_unknown_units(model)
    for name in variables:
        if name not in data:
            role = "forcing"
            hint = ""
            if name in model.observables:
                role = "observable"
                hint = ": if nobody observes it, let observe= of the layer return what is"
            known = ", ".join(sorted(map(str, data.data_vars))) or "nothing"
            raise DataError(f"{role} '{name}' is not in the data; they hold {known}{hint}")
    # 3. Values, in the units of the model.
    data = model.in_own_units(data)
    for name in model.observables:
        if FILLED in data[name].attrs:
            raise DataError(
                f"'{name}' is an observable: leave its gaps as NaN, of which nothing is said, and "
                "fill forcings only"
            )
        refuse_censored(data, name, model.reader.reads(name))
    values = {name: observations(data, name, dims=model.dims(name)) for name in model.observables}
    inputs = model.inputs(data)
    for name in variables:
        refuse_fill_value(model, data, name)
    for name in model.observables:
        refuse_inexact_counts(model, data, name)
        refuse_ruled_out(model, name, values[name], data[model.index].values, inputs)
    # 4. Shapes, by tracing the model.
    check_shapes(model, inputs)
    return {name: jnp.asarray(array) for name, array in values.items()}


def check_times(model: Model, data: xr.Dataset) -> None:
    """Refuse times that a layer cannot predict, such as times between the steps of a `Difference`.

    Args:
        model: the model.
        data: a dataset with the index of the model.

    Raises:
        DataError: if a part of the layer cannot predict at a time.
        ModelError: if the data have dates and the layer states no unit of time.
    """
    times = checked_times(model.in_numbers(data), model.index)
    for part in jax.tree.leaves(model.layer, is_leaf=_looks_at_times):
        if _looks_at_times(part):
            part.refuse_times(times)


def _looks_at_times(node: object) -> bool:
    """Whether a part of a layer has a check of times of its own, `refuse_times`."""
    return hasattr(node, "refuse_times")


def refuse_names_of_results(model: Model) -> None:
    """Raise ModelError if one of several observables has a name that is used in results."""
    names = model.observables
    taken = {JOINT, DATUM, *(f"{n}_{beside}" for n in names for beside in (DATUM, *model.dims(n)))}
    for name in names if len(names) > 1 else ():
        if name in taken:
            raise ModelError(
                f"an observable cannot have the name '{name}', which results need: choose another "
                "name"
            )


def refuse_unknown_units(model: Model) -> None:
    """Raise ModelError if a layer states units of a name that is unknown to it.

    Known names are its states, outputs, forcings, axes and index, and variables that noise reads.
    """
    for layer, outputs in _layers_with_states(model.layer):
        axes = getattr(layer, "axes", ())
        read = (*layer.forcings, *axes, *model.reader.variables, layer.index)
        known = dict.fromkeys((*layer.initial, *outputs, *read))
        for name in layer.units:
            if name not in known:
                kind = type(layer).__name__
                raise ModelError(
                    f"units are given of '{name}', which {kind} does not have: it has "
                    f"{', '.join(known)}"
                )


def _layers_with_states(
    node: Any, outputs: tuple[str, ...] = ()
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield all layers with initial states at any depth of a tree, each with its outputs.

    Args:
        node: a layer, or any node of a tree.
        outputs: the outputs of an enclosing population; empty if there is none.
    """
    # The layer inside a population cannot name its outputs, so take those of the population.
    if isinstance(node, AbstractPopulation):
        outputs = node.outputs
    if isinstance(node, AbstractLayer) and isinstance(getattr(node, "initial", None), Mapping):
        yield node, outputs or node.outputs
    inside = lambda part: part is not node and isinstance(part, AbstractLayer)  # noqa: E731
    for part in jax.tree.leaves(node, is_leaf=inside):
        if inside(part):
            yield from _layers_with_states(part, outputs)


def refuse_fill_value(model: Model, data: xr.Dataset, name: str) -> None:
    """Raise DataError if a variable holds a number so large that it must mean "missing"."""
    role = "observable" if name in model.observables else "forcing"
    sizes = np.abs(np.asarray(data[name].values, float))
    once = np.unique(sizes[np.isfinite(sizes)])
    if once.size < 2 or once[-1] < _FILLING or once[-1] < _BEYOND * max(once[-2], 1.0):
        return
    place = tuple(np.argwhere(sizes == once[-1])[0])
    when = in_words(data[model.index].values[place[data[name].dims.index(model.index)]])
    raise DataError(
        f"{role} '{name}' is {data[name].values[place]:g} at {model.index} {when}, and at most "
        f"{once[-2]:g} elsewhere: this seems to be a fill value. Make it missing, by "
        f"data['{name}'].where(abs(data['{name}']) < {_FILLING:g}), or tell the reader of the "
        "file, as by bd.from_table(…, missing=…)"
    )


def refuse_inexact_counts(model: Model, data: xr.Dataset, name: str) -> None:
    """Raise DataError if counts are so large that float64 cannot represent them exactly."""
    if not getattr(model.noise_of(name).support, "is_discrete", False):
        return
    largest = float(np.nanmax(data[name].values))
    if largest > _COUNTED:
        raise DataError(
            f"observable '{name}' has counts up to {largest:g}, which floating-point numbers no "
            "longer tell apart: are they in other units, or is this a fill value? Above "
            f"{_COUNTED:.2g} take noise of numbers, such as LogNormalNoise"
        )


def refuse_ruled_out(
    model: Model,
    name: str,
    values: Float[np.ndarray, "time ..."],
    times: np.ndarray,
    inputs: Inputs,
) -> None:
    """Raise DataError if a datum lies outside the support of its noise.

    Args:
        model: the model.
        name: the observable.
        values: its data, NaN where missing.
        times: the index, for the error message.
        inputs: the inputs of the data, with the variables that the noise reads.
    """
    noise = model.reader.filled(name, inputs)
    outside, possible = noise.ruled_out(values)
    if not outside.any():
        return
    where = tuple(np.argwhere(outside)[0])
    shown = f"{values[where]:g}"
    rounded = values.copy()
    rounded[where] = float(shown)
    # 5.000000001 is no count. Rounded to 5 it would be one, so show all digits.
    if not noise.ruled_out(rounded)[0][where]:
        shown = repr(float(values[where]))
    raise DataError(
        f"observable '{name}' is {shown} at {model.index} {in_words(times[where[0]])}, which "
        f"{type(model.noise_of(name)).__name__} rules out: its data are {possible}"
    )


def _refuse_incomplete(found: dist.Distribution, what: str) -> None:
    """Raise ModelError if a distribution lacks a method that a fit or its results need.

    Args:
        found: the distribution.
        what: its name for the error message.
    """
    asked = {
        "mean": lambda: found.mean,
        "variance": lambda: found.variance,
        "log_prob": lambda: found.log_prob(jnp.ones(found.batch_shape)),
        "sample": lambda: found.sample(jax.random.key(0)),
    }
    for name, ask in asked.items():
        try:
            ask()
        except NotImplementedError:
            raise ModelError(
                f"{what} is a {type(found).__name__}, which has no {name}: write one"
            ) from None


def _instead_of_a_layer(model: Model, error: Exception) -> str:
    """Return a hint for the error message if an equation calls a layer; else an empty string.

    Args:
        model: the model.
        error: the error that the equations raised.
    """
    # Collect layers at any depth: `held.append` returns None, so that the traversal continues.
    held: list[AbstractLayer] = []
    jax.tree.leaves(model.layer, is_leaf=lambda node: is_layer(node) and bool(held.append(node)))
    called = [
        type(layer) for layer in held[1:] if f"{type(layer).__name__}.__call__()" in str(error)
    ]
    if not isinstance(error, TypeError) or not called:
        return ""
    kind = called[0]
    instead = getattr(
        kind, "in_a_function", "; a layer is a whole series: put its equations into this function"
    )
    return f": {kind.__name__} is a layer, and cannot be called in an equation{instead}"


def _mistake(error: Exception) -> str:
    """Return a hint if an error points to a frequent mistake in equations; else an empty string."""
    if isinstance(error, KeyError):
        return (
            ": if equations look that up among states or forcings, it is none: give a state its "
            "start in initial=, and name a forcing in forcings="
        )
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return ": write equations with jax.numpy, such as jnp.exp, not with NumPy or math"
    if isinstance(error, jax.errors.ConcretizationTypeError):
        return (
            ": equations run for all draws at once: jnp.where(condition, a, b) in place of `if`, "
            "and no float(…)"
        )
    return ""


def check_shapes(model: Model, inputs: Inputs) -> None:
    """Trace the model once, without compiling it, and refuse wrong shapes.

    Args:
        model: the model.
        inputs: its inputs for a dataset.

    Raises:
        ModelError: if the model cannot be evaluated, or an observable has a wrong shape. The
            message names the random leaves that are arrays.
    """
    leaves = paths(model)
    shapes: dict = {}

    def wanted(name):
        places = (inputs.coordinates[place].size for place in model.dims(name)[1:])
        return (*inputs.times.shape, *places)

    def evaluate():
        with numpyro.handlers.seed(rng_seed=0):
            realised = sample(model)
            prediction = realised.predict(inputs)
            noise = realised.conditional(prediction, inputs)
            for name, d in noise.items():
                if not isinstance(d, dist.Distribution):
                    raise ModelError(
                        f"the noise of '{name}' must return a distribution of NumPyro when called, "
                        f"not {type(d).__name__}"
                    )
            for name, d in noise.items():
                shapes[name] = d.batch_shape
                if shapes[name] == wanted(name):
                    _refuse_incomplete(d, f"the noise of '{name}'")

    # A wrong shape mostly comes from a scientific parameter that is an array by mistake.
    science = [leaf for leaf in leaves.values() if leaf.group == "science"]
    odd = [f"{leaf.path} {leaf.shape}" for leaf in science if leaf.shape]
    hint = ""
    if odd:
        hint = f"; look at the distributions of another shape than one number: {', '.join(odd)}"
    try:
        eqx.filter_eval_shape(evaluate)
    except ShapeError as error:
        raise ModelError(f"the model cannot be evaluated: {error}{hint}") from error
    except BayesDaslError:
        raise
    except Exception as error:  # a user's equation may raise anything
        hint = _instead_of_a_layer(model, error) or _mistake(error) or hint
        # Messages of JAX run over pages.
        said = str(error).partition("\n")[0]
        raise ModelError(
            f"the model cannot be evaluated: {type(error).__name__}: {said}{hint}"
        ) from error
    for name, shape in shapes.items():
        want = wanted(name)
        if shape != want:
            dims = "time" if len(want) == 1 else " and ".join(model.dims(name))
            raise ModelError(
                f"the model gives '{name}' the shape {shape}, but one number for each {dims} is "
                f"needed: {want}{hint}"
            )


def is_series(model: Model, data: xr.Dataset) -> bool:
    """Whether the rows of the data are ordered in time, so that later rows are the future."""
    return begins(model.layer) or model.index == "time" or are_dates(data[model.index])

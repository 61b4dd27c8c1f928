"""Checks of the parts of a model: layers, functions, and times without a stated origin."""

from typing import Any

import jax
import xarray as xr

from ..data.dates import refuse_unsaid
from ..errors import ModelError
from ..random import is_function
from .layer import AbstractLayer, start_of


def refuse_open_times(layer: AbstractLayer, noise: Any, data: xr.Dataset) -> None:
    """Refuse data with dates if the layer does not state its unit and origin of time.

    Args:
        layer: the layer of the model, whose `units` state unit and origin.
        noise: the noise of the model.
        data: a dataset with dates.

    Raises:
        DataError: if the layer states no unit of time; the message says how to state it.
        ModelError: if a number in the model is a time, such as `start`, and no origin is stated.
    """
    # `has_a_time` is the name, for messages, of a part with numbers that are times, such as a jump.
    start, timed = start_of(layer), lambda node: hasattr(node, "has_a_time")
    parts = [part for part in jax.tree.leaves((layer, noise), is_leaf=timed) if timed(part)]
    given = [f"the time of {part.has_a_time}" for part in parts]
    given += [f"start={start:g}"] if isinstance(start, float) else []
    refuse_unsaid(data, layer.index, layer.units.get(layer.index, ""), given)


def is_layer(part: Any) -> bool:
    """Whether a part is a layer, rather than a function of time, states and forcings."""
    # A hybrid is a layer only if one of its parts is; it says so by `layered`.
    return isinstance(part, AbstractLayer) and getattr(part, "layered", True)


def check_function(value: Any, where: str) -> None:
    """Raise ModelError unless a value is a function of time, states and forcings.

    Args:
        value: the argument to check.
        where: the name of the argument, for the error message.
    """
    if type(value).__module__.startswith("equinox.nn"):
        raise ModelError(
            f"{where} must be a function (t, y, u) that returns a dict: {type(value).__name__} "
            "knows no names, and its "
            "weights have no priors; put bd.Network(module, inputs, outputs) around it"
        )
    if not is_function(value) or is_layer(value):
        kind = f"the layer {type(value).__name__}" if is_layer(value) else repr(value)
        instead = getattr(type(value), "in_a_function", "") if is_layer(value) else ""
        raise ModelError(
            f"{where} must be a function (t, y, u) that returns a dict, such as bd.Network, not "
            f"{kind}{instead}"
        )


def check_part(value: Any, where: str) -> None:
    """Raise ModelError unless a value is a layer or a function of time, states and forcings.

    Args:
        value: the argument to check.
        where: the name of the argument, for the error message.
    """
    if not is_layer(value):
        check_function(value, where)

"""Parts of a model: which are whole layers, which are functions, and whether they say what their
times mean.
"""

from typing import Any

import jax
import xarray as xr

from ..data.dates import refuse_unsaid
from ..errors import ModelError
from ..random import is_function
from .layer import AbstractLayer, start_of


def refuse_open_times(layer: AbstractLayer, noise: Any, data: xr.Dataset) -> None:
    """Refuse a model that leaves open what its rates, or its numbers that are times, mean for data
    with dates.

    Args:
        layer: that of the model, which says it by its `units`.
        noise: that of the model.
        data: a dataset with dates.

    Raises:
        DataError: that says how to state it.
        ModelError: likewise.
    """
    start, timed = start_of(layer), lambda node: hasattr(node, "has_a_time")
    parts = [part for part in jax.tree.leaves((layer, noise), is_leaf=timed) if timed(part)]
    given = [f"the time of {part.has_a_time}" for part in parts]
    given += [f"start={start:g}"] if isinstance(start, float) else []
    refuse_unsaid(data, layer.index, layer.units.get(layer.index, ""), given)


def is_layer(part: Any) -> bool:
    """Whether a part is a whole layer, rather than a function of time, states and forcings."""
    return isinstance(part, AbstractLayer) and getattr(part, "layered", True)


def check_function(value: Any, where: str) -> None:
    """Refuse what is no function of time, states and forcings, such as a distribution or a whole
    layer.
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
    """Refuse what is neither a layer nor a function of time, states and forcings."""
    if not is_layer(value):
        check_function(value, where)

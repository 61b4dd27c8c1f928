"""Refuse inputs that were made without a layer and that contradict the layer which gets them."""

from typing import Any

from ..data.layer_inputs import Inputs
from ..errors import ModelError
from .layer import start_of


def refuse_assumed(layer: Any, inputs: Inputs) -> None:
    """Refuse inputs whose assumptions contradict the layer.

    `bd.inputs(data)` without a layer assumes a start and linear forcings, see `Inputs.assumed`.

    Args:
        layer: the layer that is called.
        inputs: its inputs, which may have been made without a layer.

    Raises:
        ModelError: if the start or the interpolation of a forcing differs from that of the layer.
            Also if the inputs lack a coordinate of the layer's predictions.
    """
    # `assumed` is None for inputs that were made for a layer: they agree with it.
    if (assumed := inputs.assumed) is None:
        return
    remedy = "make its inputs by bd.inputs(data, layer)"
    kind, start = type(layer).__name__, start_of(layer)
    if None not in (start, assumed.start) and start != assumed.start:
        raise ModelError(
            f"{kind} starts at {start}, but these inputs at the first time, {assumed.start:g}: "
            f"{remedy}"
        )
    for name, how in layer.interpolation.items():
        if name in assumed.linear and how != "linear":
            raise ModelError(
                f"{kind} reads the forcing '{name}' as '{how}', but these inputs have it linear: "
                f"{remedy}"
            )
    places = dict.fromkeys(dim for dims in layer.dims.values() for dim in dims)
    for name in places:
        if name in assumed.unread:
            raise ModelError(
                f"{kind} predicts over '{name}', but these inputs do not have its places: {remedy}"
            )

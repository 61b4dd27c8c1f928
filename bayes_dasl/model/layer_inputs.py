"""`inputs`: the times, forcings and coordinates of a dataset, for a call of a layer."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from ..data.datasets import inputs as inputs_of
from ..data.dates import as_numbers
from ..data.layer_inputs import Assumed, Inputs
from ..errors import DataError
from ..layers import AbstractLayer
from ..noise import NormalNoise
from .model import Model


def inputs(
    data: xr.Dataset,
    layer: AbstractLayer | None = None,
    *,
    start: Any = None,
    forcings: Iterable[str] | None = None,
    interpolation: Mapping[str, str] | None = None,
    index: str = "time",
    places: Iterable[str] = (),
    members: str | None = None,
    units: str = "",
) -> Inputs:
    """Return the inputs for a call of a layer: the times and forcings of a dataset.

    `layer(bd.inputs(data, layer))` is the prediction of a layer without random leaves. For a model
    with priors, a posterior or noise, see `bd.simulate`.

    With `layer`, all settings but the start are those of the layer. The arguments after `start` are
    only for inputs without a layer. A layer whose settings differ from these refuses the inputs.

    Args:
        data: a dataset whose index does not decrease. Rows with equal index are replicates.
        layer: the layer to call, if it is known.
        start: the time of the initial state, a number or a date. The default is the start of the
            layer, else the first time of the data.
        forcings: the variables that drive the model. By default all numeric variables that have the
            index as only dimension, have no gaps, and are equal in replicates.
        interpolation: "step" or "cubic" by forcing; other forcings are linear.
        index: the name of the coordinate along which rows lie.
        places: the names of other coordinates that the model reads, such as positions in space.
        members: the dimension of a population, along which forcings may differ.
        units: the unit in which dates are counted, such as `h` or `day since 2001-01-01`. By
            default days since 1970.

    Returns:
        Inputs with the start, times, forcings and coordinates.

    Raises:
        DataError: if times decrease, or if a forcing is unknown, has gaps or differs between
            replicates. Also if `layer` is given together with an argument after `start`.
    """
    places = tuple(places)
    if layer is None:
        kinds = interpolation or {}
        found = inputs_of(
            data,
            start=start,
            forcings=forcings,
            interpolation=interpolation,
            index=index,
            places=places,
            members=members,
            units=units,
        )
        unread = tuple(str(name) for name in data.dims if name not in (index, members, *places))
        linear = tuple(name for name in (*found.forcings, *found.own_forcings) if name not in kinds)
        # Read from the data, because `found.start` may be traced.
        first = float(as_numbers(data, index, units)[index].values[0]) if start is None else None
        return dataclasses.replace(found, assumed=Assumed(first, linear, unread))
    said = {
        "forcings": forcings is not None,
        "interpolation": interpolation is not None,
        "index": index != "time",
        "places": bool(places),
        "members": members is not None,
        "units": bool(units),
    }
    if twice := [name for name, is_given in said.items() if is_given]:
        raise DataError(
            f"the layer says its {' and '.join(twice)}: leave "
            f"{'it' if len(twice) == 1 else 'them'} out"
        )
    if not isinstance(layer, AbstractLayer):
        raise DataError(f"layer is a layer such as bd.ODE, not {type(layer).__name__}")
    # A model needs some noise; it does not change the inputs.
    return Model(layer, NormalNoise(1.0)).reader.driven(data, start=start)

"""`inputs`: times, forcings and places of a dataset, for a layer or for functions alone."""

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
    """Return the times and forcings of a dataset, with which a layer is called.

    `layer(bd.inputs(data, layer))` is the prediction of a layer without random leaves. For a model
    with priors, a posterior or noise, see `bd.simulate`.

    Args:
        data: a dataset whose index never falls; rows with the same index are replicates.
        layer: the layer to call, which knows its start, forcings, interpolation, index, places and
            members. Without it, defaults are assumed; a layer with other settings refuses such
            inputs.
        start: the time of the initial state, a number or a date. The default is that of the layer,
            else the first time of the data.
        forcings: without a layer, the variables that drive the model. By default all complete
            numeric variables along the index alone that are equal in replicates.
        interpolation: without a layer, "step" or "cubic" by forcing; the default is "linear".
        index: without a layer, the coordinate along which rows lie.
        places: without a layer, the other coordinates that the model reads.
        members: without a layer, the dimension of a population, along which forcings may differ.
        units: without a layer, the unit in which dates are counted: `h`, or `day since 2001-01-01`;
            by default days since 1970.

    Returns:
        Inputs with the start, times, forcings and coordinates.

    Raises:
        DataError: if times fall, if a forcing is unknown, has gaps or differs between replicates,
            or if an argument repeats a setting of the layer.
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
    # Any noise will do: it does not change the inputs.
    return Model(layer, NormalNoise(1.0)).reader.driven(data, start=start)

"""Times, forcings and places of a dataset, for a layer or for functions alone."""

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
    """Times and forcings of a dataset, without any observation: what a layer is called with.

    `layer(bd.inputs(data, layer))` is what a layer without random leaves predicts. For observations
    with noise, and for a model with priors or a posterior, see `bd.simulate`.

    Args:
        data: a dataset; its index never falls, and rows with the same value of it are replicates.
        layer: the layer that is to be called, which knows its start, forcings, interpolation,
            index, places and members. Without it a layer refuses inputs in which something else was
            assumed.
        start: the time of the initial state, in the units of the index, or a date. Unless given,
            that of the layer, else the first time of the data.
        forcings: without a layer, the variables that drive the model; unless given, every variable
            of numbers along the index alone of which none is missing and that is the same in
            replicates.
        interpolation: without a layer, which forcings are not "linear" between their data, but
            "step" or "cubic".
        index: without a layer, the coordinate that the data run along.
        places: without a layer, the other coordinates that the model looks at.
        members: without a layer, the dimension of a population, along which forcings may differ.
        units: without a layer, the unit that dates are counted in: `h`, or `day since 2001-01-01`;
            days since 1970 unless given.

    Raises:
        DataError: if times fall, a forcing is unknown, has gaps or differs between replicates, or
            something is given that the layer says.
    """
    if layer is None:
        kinds, asked = interpolation or {}, [*places]
        given = {
            "forcings": forcings,
            "interpolation": interpolation,
            "index": index,
            "places": asked,
        }
        given |= {"units": units}
        found = inputs_of(data, start=start, members=members, **given)
        unread = tuple(str(name) for name in data.dims if name not in (index, members, *asked))
        linear = tuple(name for name in (*found.forcings, *found.own_forcings) if name not in kinds)
        # As a number of the data: inputs may be made while a program is traced.
        first = float(as_numbers(data, index, units)[index].values[0]) if start is None else None
        return dataclasses.replace(found, assumed=Assumed(first, linear, unread))
    said = {
        "forcings": forcings is not None,
        "interpolation": interpolation is not None,
        "index": index != "time",
    }
    said |= {"places": bool([*places]), "members": members is not None, "units": bool(units)}
    if twice := [name for name, is_given in said.items() if is_given]:
        raise DataError(
            f"the layer says its {' and '.join(twice)}: leave "
            f"{'it' if len(twice) == 1 else 'them'} out"
        )
    if not isinstance(layer, AbstractLayer):
        raise DataError(f"layer is a layer such as bd.ODE, not {type(layer).__name__}")
    return Model(layer, NormalNoise(1.0)).driven(data, start=start)  # whose noise does not drive it

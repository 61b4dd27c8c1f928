"""The distribution of a datum given a draw: its parameters, kept with a forecast, make it anew."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

type Parameters = Mapping[str, Any]


class Conditional(NamedTuple):
    """A family of NumPyro's distributions and its parameters; the leading axis is the draw."""

    family: type[dist.Distribution]
    parameters: Parameters

    @property
    def distribution(self) -> dist.Distribution:
        return self.family(**self.parameters)


def alone(distribution: dist.Distribution) -> dist.Distribution:
    """The distribution of each datum, where draws of several hold together."""
    return getattr(distribution, "alone", distribution)


def parameters_of(distribution: dist.Distribution) -> dict[str, Any]:
    """What makes a distribution anew, each with as many axes as its batch; nothing where that is not enough."""
    distribution = alone(distribution)
    family, shape = type(distribution), distribution.batch_shape
    if getattr(dist, family.__name__, None) is not family or distribution.event_shape:
        return {}
    found = {name: jnp.asarray(getattr(distribution, name)) for name in family.arg_constraints}
    try:
        family(**found)
        whole = np.broadcast_shapes(*(v.shape for v in found.values())) == shape
    except (TypeError, ValueError):  # a distribution of a distribution, or parameters with axes of their own
        return {}
    return {name: v.reshape((1,) * (len(shape) - v.ndim) + v.shape) for name, v in found.items()} if whole else {}


def noise_group(families: Iterable[tuple[str, str]], noise: Mapping[str, Parameters], like: xr.Dataset) -> xr.Dataset:
    """The parameters of each observable's noise as a dataset, over the draws of its predictions.

    A parameter lacks the dimensions along which it does not change.
    """
    variables = {}
    for name, family in families:
        dims = like[name].dims
        for parameter, values in noise[name].items():
            kept = [axis for axis, size in enumerate(values.shape[1:]) if size > 1]
            shape = (*like[name].shape[:2], *(values.shape[1 + axis] for axis in kept))
            attributes = {"observable": name, "distribution": family, "parameter": parameter}
            own = (*dims[:2], *(dims[2 + axis] for axis in kept))
            variables[f"{name}.{parameter}"] = (own, np.asarray(values).reshape(shape), attributes)
    return xr.Dataset(variables, coords=like.coords)


def conditional(noise: xr.Dataset, like: xr.DataArray) -> Conditional | None:
    """The noise of an observable from the group `noise` of a forecast, for each draw of its predictions.

    None where the group does not say, as in forecasts that were made by hand.
    Shapes: parameters are `(chain · draw, time, …)`, of size 1 where they do not change.
    """
    held = [v for v in noise.data_vars.values() if v.attrs.get("observable") == like.name]
    family = getattr(dist, str(held[0].attrs["distribution"]), None) if held else None
    if family is None:
        return None
    parameters = {}
    for variable in held:
        values = variable.expand_dims([d for d in like.dims if d not in variable.dims]).transpose(*like.dims).values
        parameters[str(variable.attrs["parameter"])] = values.reshape(-1, *values.shape[2:])
    return Conditional(family, parameters)

"""The distribution of a datum given a draw: its parameters, kept with a forecast, make it anew."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

from .._statistics.distributions import NEW_DISTRIBUTIONS

type Parameters = Mapping[str, Any]


_BASE = "base_dist"
"""What a distribution around another one calls it."""


class Conditional(NamedTuple):
    """A family of distributions, as `family_of` names it, and its parameters; the leading axis is
    the draw.
    """

    family: str
    parameters: Parameters

    @property
    def distribution(self) -> dist.Distribution:
        return made(self.family, self.parameters)


def family_of(distribution: dist.Distribution) -> str:
    """`Normal`, or `ZeroInflatedProbs(Poisson)` for one around another."""
    inner = (
        getattr(distribution, _BASE, None)
        if _BASE in inspect.signature(type(distribution)).parameters
        else None
    )
    name = type(distribution).__name__
    return name if inner is None else f"{name}({family_of(inner)})"


def class_of(family: str) -> type[dist.Distribution] | None:
    """The class of the outermost distribution of a family; none for one that is not known here."""
    name = family.partition("(")[0]
    return NEW_DISTRIBUTIONS.get(name) or getattr(dist, name, None)


def made(family: str, parameters: Parameters) -> dist.Distribution:
    """The distribution of a family that has such parameters."""
    kind, inner = class_of(family), family.partition("(")[2]
    assert kind is not None
    if not inner:
        return kind(**parameters)
    own = {name: value for name, value in parameters.items() if "." not in name}
    of_inner = {n.partition(".")[2]: value for n, value in parameters.items() if "." in n}
    return kind(made(inner[:-1], of_inner), **own)


def constraint_of(family: str, parameter: str) -> Any:
    """Where a parameter may lie."""
    inner, _, rest = parameter.partition(".")
    if rest:
        return constraint_of(family.partition("(")[2][:-1], rest)
    kind = class_of(family)
    assert kind is not None
    return kind.arg_constraints[inner]


def alone(distribution: dist.Distribution) -> dist.Distribution:
    """The distribution of each datum, where draws of several hold together."""
    return getattr(distribution, "alone", distribution)


def parameters_of(distribution: dist.Distribution) -> dict[str, Any]:
    """What makes a distribution anew, each with as many axes as its batch; nothing where that is
    not enough.
    """
    distribution = alone(distribution)
    shape = distribution.batch_shape
    found = _parameters(distribution)
    try:
        if not found or distribution.event_shape:
            return {}
        made(family_of(distribution), found)
        whole = np.broadcast_shapes(*(v.shape for v in found.values())) == shape
    except (
        TypeError,
        ValueError,
    ):  # a distribution of a distribution, or parameters with axes of their own
        return {}
    return (
        {name: v.reshape((1,) * (len(shape) - v.ndim) + v.shape) for name, v in found.items()}
        if whole
        else {}
    )


def _parameters(distribution: dist.Distribution) -> dict[str, Any]:
    """Its parameters, and those of the one it is around by names such as `base_dist.rate`; nothing
    if not known.
    """
    family = family_of(distribution)
    if class_of(family) is not type(distribution):
        return {}
    found = {
        name: jnp.asarray(getattr(distribution, name)) for name in distribution.arg_constraints
    }
    if "(" not in family:
        return found
    inner = _parameters(getattr(distribution, _BASE))
    return found | {f"{_BASE}.{name}": value for name, value in inner.items()} if inner else {}


def noise_group(
    families: Iterable[tuple[str, str]], noise: Mapping[str, Parameters], like: xr.Dataset
) -> xr.Dataset:
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
    """The noise of an observable from the group `noise` of a forecast, for each draw of its
    predictions.

    None where the group does not say, as in forecasts that were made by hand.

    Shapes: parameters are `(chain · draw, time, …)`, of size 1 where they do not change.
    """
    held = [v for v in noise.data_vars.values() if v.attrs.get("observable") == like.name]
    family = str(held[0].attrs["distribution"]) if held else ""
    if class_of(family) is None:
        return None
    parameters = {}
    for variable in held:
        values = (
            variable.expand_dims([d for d in like.dims if d not in variable.dims])
            .transpose(*like.dims)
            .values
        )
        parameters[str(variable.attrs["parameter"])] = values.reshape(-1, *values.shape[2:])
    return Conditional(family, parameters)

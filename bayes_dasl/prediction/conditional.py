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

# The name under which a distribution holds another one that it modifies.
_BASE = "base_dist"


class Conditional(NamedTuple):
    """A family of distributions, as `family_of` names it, with parameters `(draw, …)`."""

    family: str
    parameters: Parameters

    @property
    def distribution(self) -> dist.Distribution:
        """The distribution for all draws."""
        return made(self.family, self.parameters)


def family_of(distribution: dist.Distribution) -> str:
    """The family of a distribution, such as `Normal` or `ZeroInflatedProbs(Poisson)`.

    Returns:
        The name, from which `made` rebuilds the distribution.
    """
    name = type(distribution).__name__
    if _BASE not in inspect.signature(type(distribution)).parameters:
        return name
    inner = getattr(distribution, _BASE, None)
    return name if inner is None else f"{name}({family_of(inner)})"


def class_of(family: str) -> type[dist.Distribution] | None:
    """The class of the outermost distribution of a family.

    Returns:
        The class; None for an unknown one.
    """
    name = family.partition("(")[0]
    return NEW_DISTRIBUTIONS.get(name) or getattr(dist, name, None)


def made(family: str, parameters: Parameters) -> dist.Distribution:
    """The distribution of a family with these parameters.

    Returns:
        The distribution.
    """
    kind = class_of(family)
    inner = family.partition("(")[2]
    assert kind is not None
    if not inner:
        return kind(**parameters)
    # Names with a dot, such as `base_dist.rate`, belong to the inner distribution.
    own = {name: value for name, value in parameters.items() if "." not in name}
    of_inner = {n.partition(".")[2]: value for n, value in parameters.items() if "." in n}
    return kind(made(inner[:-1], of_inner), **own)


def constraint_of(family: str, parameter: str) -> Any:
    """The constraint on a parameter, such as `positive`.

    Returns:
        The constraint of NumPyro.
    """
    inner, _, rest = parameter.partition(".")
    if rest:
        return constraint_of(family.partition("(")[2][:-1], rest)
    kind = class_of(family)
    assert kind is not None
    return kind.arg_constraints[inner]


def alone(distribution: dist.Distribution) -> dist.Distribution:
    """The marginal distribution of each datum, if a distribution draws several together.

    Returns:
        That distribution, or the same one if its data are independent.
    """
    return getattr(distribution, "alone", distribution)


def parameters_of(distribution: dist.Distribution) -> dict[str, Any]:
    """The parameters that rebuild a distribution, each with as many axes as its batch.

    Returns:
        Parameters by name; none if they do not suffice to rebuild it.
    """
    distribution = alone(distribution)
    shape = distribution.batch_shape
    found = _nested_parameters(distribution)
    try:
        if not found or distribution.event_shape:
            return {}
        # This raises if the parameters are not those of the constructor.
        made(family_of(distribution), found)
        if np.broadcast_shapes(*(v.shape for v in found.values())) != shape:
            return {}
    except (TypeError, ValueError):
        # A distribution of a distribution, or parameters with axes of their own.
        return {}
    return {name: v.reshape(_padded_shape(v.shape, len(shape))) for name, v in found.items()}


def _padded_shape(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (1,) * (axes - len(shape)) + shape


def _nested_parameters(distribution: dist.Distribution) -> dict[str, Any]:
    """Parameters by names such as `rate` or `base_dist.rate`; none for an unknown class."""
    family = family_of(distribution)
    if class_of(family) is not type(distribution):
        return {}
    own = distribution.arg_constraints
    found = {name: jnp.asarray(getattr(distribution, name)) for name in own}
    if "(" not in family:
        return found
    inner = _nested_parameters(getattr(distribution, _BASE))
    return found | {f"{_BASE}.{name}": value for name, value in inner.items()} if inner else {}


def noise_group(
    families: Iterable[tuple[str, str]], noise: Mapping[str, Parameters], like: xr.Dataset
) -> xr.Dataset:
    """The group `noise`: the parameters of each observable's noise.

    Args:
        families: observables with the family of their noise.
        noise: parameters `(draw, …)` by observable and name.
        like: the predictions, whose dimensions and coordinates the group takes.

    Returns:
        The group. A parameter lacks the dimensions along which it is constant.
    """
    variables = {}
    for name, family in families:
        dims = like[name].dims
        shape = like[name].shape[:2]
        for parameter, values in noise[name].items():
            kept = [axis for axis, size in enumerate(values.shape) if axis and size > 1]
            own = *dims[:2], *(dims[1 + axis] for axis in kept)
            sizes = *shape, *(values.shape[axis] for axis in kept)
            attributes = {"observable": name, "distribution": family, "parameter": parameter}
            variables[f"{name}.{parameter}"] = (own, np.asarray(values).reshape(sizes), attributes)
    return xr.Dataset(variables, coords=like.coords)


def conditional(noise: xr.Dataset, like: xr.DataArray) -> Conditional | None:
    """The noise of an observable from the group `noise` of a forecast.

    Shapes: parameters are `(chain · draw, time, …)`, of size 1 where they are constant.

    Returns:
        The distribution of each datum; None if the group lacks it, as in forecasts made by hand.
    """
    held = list(noise.filter_by_attrs(observable=like.name).data_vars.values())
    family = str(held[0].attrs["distribution"]) if held else ""
    if class_of(family) is None:
        return None
    parameters = {}
    for variable in held:
        lacking = [dim for dim in like.dims if dim not in variable.dims]
        values = variable.expand_dims(lacking).transpose(*like.dims).values
        parameters[str(variable.attrs["parameter"])] = values.reshape(-1, *values.shape[2:])
    return Conditional(family, parameters)

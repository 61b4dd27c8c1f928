"""The distribution of a datum given a draw, rebuilt from parameters stored in a forecast."""

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
    """The distribution of each datum in each draw.

    Args:
        family: the family of distributions, as named by `family_of`.
        parameters: arrays `(draw, …)` by the name of the parameter.
    """

    family: str
    parameters: Parameters

    @property
    def distribution(self) -> dist.Distribution:
        """The NumPyro distribution with all draws as batch."""
        return made(self.family, self.parameters)


def family_of(distribution: dist.Distribution) -> str:
    """Return the family of a distribution, such as `Normal` or `ZeroInflatedProbs(Poisson)`.

    Returns:
        The name, from which `made` rebuilds the distribution.
    """
    name = type(distribution).__name__
    if _BASE not in inspect.signature(type(distribution)).parameters:
        return name
    inner = getattr(distribution, _BASE, None)
    return name if inner is None else f"{name}({family_of(inner)})"


def class_of(family: str) -> type[dist.Distribution] | None:
    """Return the class of a family of distributions, without its inner distributions.

    Args:
        family: a name from `family_of`. The class of `ZeroInflatedProbs(Poisson)` is
            `ZeroInflatedProbs`.

    Returns:
        The class; None for an unknown family.
    """
    name = family.partition("(")[0]
    return NEW_DISTRIBUTIONS.get(name) or getattr(dist, name, None)


def made(family: str, parameters: Parameters) -> dist.Distribution:
    """Return the distribution of a family with given parameters.

    Args:
        family: a name from `family_of`.
        parameters: arrays by name; `base_dist.rate` is the `rate` of an inner distribution.

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
    """Return the constraint on a parameter of a family, such as `positive`.

    Args:
        family: a name from `family_of`.
        parameter: the parameter, such as `loc` or `base_dist.rate`.

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
    """Return the marginal distribution of each datum, for a distribution of several dependent data.

    Returns:
        The marginal distribution; the given one if its data are independent.
    """
    return getattr(distribution, "alone", distribution)


def parameters_of(distribution: dist.Distribution) -> dict[str, Any]:
    """Return the parameters that rebuild a distribution, each with as many axes as its batch.

    Returns:
        Parameters by name; empty if they do not suffice to rebuild the distribution.
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
    """Return parameters by names such as `rate` or `base_dist.rate`; empty for an unknown class."""
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
    """Return the group `noise` of a forecast: the parameters of each observable's noise.

    Args:
        families: pairs of an observable and the family of its noise.
        noise: parameters `(draw, …)`, first by observable and then by name.
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
    """Return the noise of an observable from the group `noise` of a forecast.

    Args:
        noise: the group.
        like: the predictions of the observable.

    Returns:
        The distribution of each datum, with parameters `(chain · draw, time, …)` of size 1 where
        they are constant. None if the group lacks the observable, as in a forecast made by hand.
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

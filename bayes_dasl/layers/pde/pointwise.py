"""Coefficients, sources and boundary values: numbers, arrays, or functions that are called at every point."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ...errors import ModelError
from ...random import Values, is_function, is_random, shape_of


def each(function: Callable, t: Any, y: Values, u: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    """`function(t, y, u)` at each of `shape` points; it sees one number of every state and forcing.

    So a `Network`, a `Basis` or a `Residual` of scalars acts on fields.
    """
    if not shape:
        return function(t, y, u)
    spread = lambda values: {k: jnp.broadcast_to(v, shape).reshape(-1) for k, v in values.items()}  # noqa: E731
    result = jax.vmap(lambda y, u: function(t, y, u), axis_size=math.prod(shape))(spread(y), spread(u))
    return jax.tree.map(lambda v: v.reshape(shape + v.shape[1:]), result)


def entry(result: Any, name: str, where: str) -> Any:
    """The entry `name` of a dict, or its only one; what is no dict is itself.

    Raises: ModelError if several other entries are there.
    """
    if not isinstance(result, Mapping):
        return result
    if name not in result and len(result) != 1:
        raise ModelError(f"{where} returns {', '.join(result) or 'nothing'}: one entry or one named '{name}' is needed")
    return result.get(name, next(iter(result.values())))


def by_field(result: Any, fields: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What a function gives of each field.

    Raises: ModelError if that is no dict, or holds what is no field.
    """
    if not isinstance(result, Mapping):
        raise ModelError(f"{what} must return a dict by field, such as {{'{next(iter(fields))}': …}}, not a number")
    for name in result:
        if name not in fields:
            raise ModelError(f"{what} has a rate for '{name}'; the fields are {', '.join(fields)}")
    return dict(result)


def of_field(value: Any, field: str, what: str) -> Any:
    """A coefficient of one field, where one value may serve all.

    Raises: ModelError if it is given by field but not for this one.
    """
    if not isinstance(value, Mapping):
        return value
    if field not in value:
        raise ModelError(f"{what} is given for {', '.join(value)} but not for the field '{field}'")
    return value[field]


def evaluate(
    value: Any, t: Any, y: Values, u: Mapping[str, Any], shape: tuple[int, ...], name: str, where: str
) -> Array:
    """A coefficient of `name` at points: one number, an array of them, or a function called at each of them.

    Raises: ModelError if the function gives anything but one number at each point.
    """
    if not is_function(value):
        return jnp.asarray(value, float)
    result = jnp.asarray(entry(each(value, t, y, u, shape), name, where), float)
    if result.shape != shape:
        got = result.shape[len(shape) :]
        raise ModelError(f"{where} must give one number at each point, but gives an array of shape {got}")
    return result


def check_value(value: Any, shapes: tuple[tuple[int, ...], ...], where: str) -> None:
    """Refuse what is neither a function nor a number, array or distribution of one of the given shapes."""
    if is_function(value):
        return
    if not is_random(value) and not eqx.is_array_like(value):
        raise ModelError(f"{where} must be a number, an array, a distribution or a function (t, y, u), not {value!r}")
    shape = shape_of(value)
    if shape not in shapes:
        wanted = " or ".join(str(s) for s in dict.fromkeys(shapes))
        raise ModelError(f"{where} has the shape {shape}, but {wanted} is needed")
    if known(value) and not np.all(np.isfinite(np.asarray(value))):
        raise ModelError(f"{where} must be finite, not {value!r}")


def known(value: Any) -> bool:
    """Whether a value is a number or an array that can be looked at."""
    return not is_function(value) and not is_random(value) and not isinstance(value, Tracer)

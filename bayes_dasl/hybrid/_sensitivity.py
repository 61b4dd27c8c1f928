"""A layer's values and what a small change of its parameters does to them, differentiable in their turn."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._tree import dotted, prepared
from .._types import Values
from ..data import Inputs
from ..layers import ODE, with_adjoint
from ..random import Module


def parameters(tree: Any, names: tuple[str, ...]) -> tuple[Float[Array, " k"], Callable[[Array], Any]]:
    """The numbers at some paths of a realised tree as one vector, and the tree for another such vector."""
    leaves, structure = jtu.tree_flatten_with_path(tree)
    at = [i for i, (path, _) in enumerate(leaves) if dotted(path) in names]
    flat, unravel = ravel_pytree([jnp.asarray(leaves[i][1], float) for i in at])

    def rebuild(numbers: Array) -> Any:
        changed = [leaf for _, leaf in leaves]
        for i, value in zip(at, unravel(numbers), strict=True):
            changed[i] = value
        return structure.unflatten(changed)

    return flat, rebuild


def tangents(
    layer: Any, names: tuple[str, ...], directions: Float[Array, "n k"], given: Inputs
) -> tuple[Values, dict[str, Float[Array, "n time"]]]:
    """The values of a layer, and their derivatives along directions of the parameters at `names`.

    Of an ODE these are solved for along with the states: a solver that can be differentiated backwards through its
    checkpoints cannot be differentiated forwards as well.
    """
    flat, rebuild = parameters(layer, names)
    if type(layer) is ODE and not layer.jumps:
        return _along(layer, rebuild, flat, directions, given)

    def predict(numbers):
        # Can be differentiated forwards and then backwards.
        twice = with_adjoint(rebuild(numbers), diffrax.DirectAdjoint(), diffrax.RecursiveCheckpointAdjoint)
        return dict(twice(given).values)

    one = lambda direction: jax.jvp(predict, (flat,), (direction,))  # noqa: E731
    return jax.vmap(one, out_axes=(None, 0))(directions)


class _Variational(Module):
    """The vector field of states and of their derivatives along each direction."""

    at: Callable = eqx.field(static=True)
    flat: Array
    directions: Array

    def __call__(self, t, y, u):
        states, moved = _parted(y)

        def one(direction, tangent):
            field = lambda numbers, states: dict(self.at(numbers)(t, states, u))  # noqa: E731
            return jax.jvp(field, (self.flat, states), (direction, tangent))

        rates, along = jax.vmap(one, in_axes=(0, 0), out_axes=(None, 0))(self.directions, moved)
        return _joined(rates, along)


_MOVED = "along "


def _joined(states: Values, moved: Values) -> dict[str, Any]:
    return {**states, **{_MOVED + name: value for name, value in moved.items()}}


def _parted(y: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    states = {name: value for name, value in y.items() if not name.startswith(_MOVED)}
    return states, {name: y[_MOVED + name] for name in states}


def _along(layer: ODE, rebuild: Callable, flat: Array, directions: Array, given: Inputs):
    initial = lambda p: {n: jnp.asarray(v, float) for n, v in rebuild(p).initial.items()}  # noqa: E731
    start, moved = jax.vmap(lambda d: jax.jvp(initial, (flat,), (d,)), out_axes=(None, 0))(directions)
    field = _Variational(lambda p: prepared(rebuild(p).vector_field), flat, directions)

    def observe(t, y, u):
        states, along = _parted(y)
        of = lambda p, s: dict(rebuild(p).observe(t, s, u)) if layer.observe else s  # noqa: E731
        values, moved = jax.vmap(lambda d, s: jax.jvp(of, (flat, states), (d, s)), out_axes=(None, 0))(
            directions, along
        )
        return _joined(values, moved)

    both = eqx.tree_at(
        lambda o: (o.vector_field, o.initial, o.observe),
        layer,
        (field, _joined(start, moved), observe),
        is_leaf=lambda x: x is None or x is layer.initial,
    )
    values, along = _parted(both(given).values)
    return values, {name: jnp.moveaxis(v, 1, 0) for name, v in along.items()}

"""Sensitivities of a layer: derivatives of its values with respect to parameters.

They can be differentiated in their turn, as samplers need it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import biject_to

from .._jax.tree import FrozenDict, dotted, prepared
from .._statistics.describe_distributions import free_shape
from ..data.layer_inputs import Inputs
from ..layers import AbstractTrajectory, with_adjoint
from ..layers._functions import method_of
from ..layers.layer import is_smooth
from ..random import Module, RandomLeaf, Values


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """The free coordinates of a leaf: its own numbers, or unconstrained ones, as for a simplex.

    A shared leaf moves at all of its `places` at once.
    """

    places: tuple[str, ...]
    shape: tuple[int, ...] = ()
    support: Any = None

    def __hash__(self) -> int:
        # The constraints of NumPyro cannot be hashed, but their types can.
        return hash((self.places, self.shape, type(self.support)))

    def free(self, value: Any) -> Array:
        """Return the coordinates of a value."""
        value = jnp.asarray(value, float)
        if self.support is None:
            return value
        return biject_to(self.support).inv(value)

    def value(self, free: Array) -> Array:
        """Return the value at some coordinates."""
        if self.support is None:
            return free
        return jnp.asarray(biject_to(self.support)(free))


def coordinates(leaves: Mapping[str, RandomLeaf]) -> FrozenDict:
    """Return the coordinates of random leaves by path, without those that only priors depend on."""
    return FrozenDict(
        (path, _coordinates(leaf)) for path, leaf in leaves.items() if leaf.places or leaf.within
    )


def standing(leaves: Mapping[str, RandomLeaf]) -> FrozenDict:
    """Return the coordinates of leaves and derived numbers in a tree, each as its own parameter."""
    worked_out = {place: Coordinates((place,)) for leaf in leaves.values() for place in leaf.within}
    return FrozenDict(
        {path: how for path, how in coordinates(leaves).items() if how.places} | worked_out
    )


def _coordinates(leaf: RandomLeaf) -> Coordinates:
    """Return the coordinates of one leaf, unconstrained if its support has another dimension."""
    shape = free_shape(leaf.distribution, leaf.shape)
    same = shape == leaf.shape
    return Coordinates(leaf.places, shape, None if same else leaf.distribution.support)


def parameters(
    tree: Any, leaves: Mapping[str, Coordinates]
) -> tuple[Float[Array, " k"], Callable[[Array], Any]]:
    """Return some leaves of a realised tree as one vector, and a function from vectors to trees."""
    held, structure = jtu.tree_flatten_with_path(tree)
    number = {dotted(path): i for i, (path, _) in enumerate(held)}
    moving = [how for how in leaves.values() if how.places[0] in number]
    flat, unravel = ravel_pytree([how.free(held[number[how.places[0]]][1]) for how in moving])

    def rebuild(numbers: Array) -> Any:
        changed = [leaf for _, leaf in held]
        for how, free in zip(moving, unravel(numbers), strict=True):
            for place in how.places:
                changed[number[place]] = how.value(free)
        return structure.unflatten(changed)

    return flat, rebuild


def tangents(
    layer: Any, leaves: Mapping[str, Coordinates], directions: Float[Array, "n k"], inputs: Inputs
) -> tuple[Values, dict[str, Float[Array, "n time ..."]]]:
    """Return the values of a layer, and their derivatives along directions of the parameters.

    For an ODE the variational equations are solved with the states: a solver with checkpoints
    supports reverse mode only, not forward mode inside it.

    Args:
        layer: a realised layer.
        leaves: the coordinates of the parameters.
        directions: directions in the space of the parameters, `(n, k)`.
        inputs: the inputs of the layer.

    Returns:
        Values by name, and derivatives `(n, time, …)` by name.
    """
    flat, rebuild = parameters(layer, leaves)
    if is_smooth(layer):
        return _along(layer, rebuild, flat, directions, inputs)

    def predict(numbers):
        # Can be differentiated forwards and then backwards.
        twice = with_adjoint(
            rebuild(numbers), diffrax.DirectAdjoint(), diffrax.RecursiveCheckpointAdjoint
        )
        return dict(twice(inputs).values)

    one = lambda direction: jax.jvp(predict, (flat,), (direction,))  # noqa: E731
    return jax.vmap(one, out_axes=(None, 0))(directions)


class _Variational(Module):
    r"""The variational equations of an ODE, along several directions d of the parameters p.

    $\dot y = f(y, p), \quad \dot s = \frac{\partial f}{\partial y} s + \frac{\partial f}{\partial
    p} d$
    """

    at: Callable = eqx.field(static=True)
    flat: Array
    directions: Array

    def __call__(self, t, y, u):
        states, moved = _parted(y)

        def one(direction, tangent):
            field = lambda numbers, states: dict(self.at(numbers)(t, states, u))  # noqa: E731
            return jax.jvp(field, (self.flat, states), (direction, tangent))

        rates, along = jax.vmap(one, in_axes=(0, 0), out_axes=(None, 0))(self.directions, moved)
        return _with_derivatives(rates, along)


# Prefix of the names of derivatives beside those of the states.
_MOVED = "along "


def _with_derivatives(states: Values, moved: Values) -> dict[str, Any]:
    """Join states and derivatives into one dict."""
    return {**states, **{_MOVED + name: value for name, value in moved.items()}}


def _parted(y: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate states and derivatives."""
    states = {name: value for name, value in y.items() if not name.startswith(_MOVED)}
    return states, {name: y[_MOVED + name] for name in states}


def _along(
    layer: AbstractTrajectory, rebuild: Callable, flat: Array, directions: Array, inputs: Inputs
):
    """Solve an ODE together with its variational equations."""
    # 1. Initial values and their derivatives.
    initial = lambda p: {n: jnp.asarray(v, float) for n, v in rebuild(p).initial.items()}  # noqa: E731
    start, moved = jax.vmap(lambda d: jax.jvp(initial, (flat,), (d,)), out_axes=(None, 0))(
        directions
    )
    # 2. The joint vector field, and outputs with their derivatives.
    field = _Variational(lambda p: prepared(rebuild(p).vector_field), flat, directions)

    def observe(t, y, u):
        states, along = _parted(y)

        def of(numbers, states):
            at = rebuild(numbers)
            observed = method_of(at.vector_field, at.observe)
            if observed:
                return dict(observed(t, states, u))
            return states

        values, moved = jax.vmap(
            lambda d, s: jax.jvp(of, (flat, states), (d, s)), out_axes=(None, 0)
        )(directions, along)
        return _with_derivatives(values, moved)

    # 3. The same layer with these parts in place of its own.
    both = eqx.tree_at(
        lambda o: (o.vector_field, o.initial, o.observe),
        layer,
        (field, _with_derivatives(start, moved), observe),
        is_leaf=lambda x: x is None or x is layer.initial,
    )
    values, along = _parted(both(inputs).values)
    return values, {name: jnp.moveaxis(v, 1, 0) for name, v in along.items()}

"""A layer's values and what a small change of its parameters does to them, differentiable in their
turn.
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
    """How far a leaf can move: in its own numbers, or in those of a support of another dimension,
    as of shares.

    A shared leaf moves in all of its `places` at once.
    """

    places: tuple[str, ...]
    shape: tuple[int, ...] = ()
    support: Any = None

    def __hash__(self) -> int:  # NumPyro's constraints have none
        return hash((self.places, self.shape, type(self.support)))

    def free(self, value: Any) -> Array:
        """The coordinates of a value."""
        value = jnp.asarray(value, float)
        return value if self.support is None else biject_to(self.support).inv(value)

    def value(self, free: Array) -> Array:
        return free if self.support is None else jnp.asarray(biject_to(self.support)(free))


def coordinates(leaves: Mapping[str, RandomLeaf]) -> FrozenDict:
    """The coordinates of random leaves, by path; of those that only the priors of others depend on
    there are none.
    """
    return FrozenDict(
        (path, _coordinates(leaf)) for path, leaf in leaves.items() if leaf.places or leaf.within
    )


def standing(leaves: Mapping[str, RandomLeaf]) -> FrozenDict:
    """The same of what stands in a tree itself: a number that is worked out of others counts as one
    of its own.
    """
    worked_out = {place: Coordinates((place,)) for leaf in leaves.values() for place in leaf.within}
    return FrozenDict(
        {path: how for path, how in coordinates(leaves).items() if how.places} | worked_out
    )


def _coordinates(leaf: RandomLeaf) -> Coordinates:
    shape = free_shape(leaf.distribution, leaf.shape)
    same = shape == leaf.shape
    return Coordinates(leaf.places, shape, None if same else leaf.distribution.support)


def parameters(
    tree: Any, leaves: Mapping[str, Coordinates]
) -> tuple[Float[Array, " k"], Callable[[Array], Any]]:
    """The coordinates of some leaves of a realised tree as one vector, and the tree for another
    such vector.
    """
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
    """The values of a layer, and their derivatives along directions of the parameters at `leaves`.

    Of an ODE these are solved for along with the states: a solver that can be differentiated
    backwards through its checkpoints cannot be differentiated forwards as well.
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


def _along(
    layer: AbstractTrajectory, rebuild: Callable, flat: Array, directions: Array, inputs: Inputs
):
    initial = lambda p: {n: jnp.asarray(v, float) for n, v in rebuild(p).initial.items()}  # noqa: E731
    start, moved = jax.vmap(lambda d: jax.jvp(initial, (flat,), (d,)), out_axes=(None, 0))(
        directions
    )
    field = _Variational(lambda p: prepared(rebuild(p).vector_field), flat, directions)

    def observe(t, y, u):
        states, along = _parted(y)

        def of(numbers, states):
            at = rebuild(numbers)
            observed = method_of(at.vector_field, at.observe)
            return dict(observed(t, states, u)) if observed else states

        values, moved = jax.vmap(
            lambda d, s: jax.jvp(of, (flat, states), (d, s)), out_axes=(None, 0)
        )(directions, along)
        return _joined(values, moved)

    both = eqx.tree_at(
        lambda o: (o.vector_field, o.initial, o.observe),
        layer,
        (field, _joined(start, moved), observe),
        is_leaf=lambda x: x is None or x is layer.initial,
    )
    values, along = _parted(both(inputs).values)
    return values, {name: jnp.moveaxis(v, 1, 0) for name, v in along.items()}

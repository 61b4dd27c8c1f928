"""Sensitivities of a layer: derivatives of its values with respect to parameters.

The sensitivities are themselves differentiable, because gradient-based samplers need this.
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
    """The coordinates in which a parameter is varied.

    They are the values of the parameter itself. If its support has a smaller dimension than the
    array, as a simplex has, they are the unconstrained values of NumPyro's bijection.

    Args:
        places: the dotted paths where the parameter stands. A shared parameter has several.
        shape: the shape of the coordinates.
        support: the support of the parameter; None if the coordinates are its own values.
    """

    places: tuple[str, ...]
    shape: tuple[int, ...] = ()
    support: Any = None

    def __hash__(self) -> int:
        # The constraints of NumPyro cannot be hashed, but their types can.
        return hash((self.places, self.shape, type(self.support)))

    def free(self, value: Any) -> Array:
        """Return the coordinates of a value of the parameter."""
        value = jnp.asarray(value, float)
        if self.support is None:
            return value
        return biject_to(self.support).inv(value)

    def value(self, free: Array) -> Array:
        """Return the value of the parameter at some coordinates."""
        if self.support is None:
            return free
        return jnp.asarray(biject_to(self.support)(free))


def coordinates(leaves: Mapping[str, RandomLeaf]) -> FrozenDict:
    """Return the coordinates of random leaves by path.

    Leaves that occur only in the priors of other leaves are left out.
    """
    return FrozenDict(
        (path, _coordinates(leaf)) for path, leaf in leaves.items() if leaf.places or leaf.within
    )


def standing(leaves: Mapping[str, RandomLeaf]) -> FrozenDict:
    """Return the coordinates of all numbers in a tree that are random or derived from random ones.

    A derived number counts as a parameter of its own.

    Args:
        leaves: the random leaves of the tree by path.

    Returns:
        Coordinates by path.
    """
    worked_out = {place: Coordinates((place,)) for leaf in leaves.values() for place in leaf.within}
    return FrozenDict(
        {path: how for path, how in coordinates(leaves).items() if how.places} | worked_out
    )


def _coordinates(leaf: RandomLeaf) -> Coordinates:
    """Return the coordinates of one leaf."""
    shape = free_shape(leaf.distribution, leaf.shape)
    same = shape == leaf.shape
    return Coordinates(leaf.places, shape, None if same else leaf.distribution.support)


def parameters(
    tree: Any, leaves: Mapping[str, Coordinates]
) -> tuple[Float[Array, " k"], Callable[[Array], Any]]:
    """Return parameters of a tree as one vector, and a function that inserts such a vector.

    Args:
        tree: a tree with numbers in place of random leaves.
        leaves: the coordinates of the parameters, by path.

    Returns:
        The vector of the coordinates, `(k,)`, and a function that returns the tree for other
        values of this vector.
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
    """Return the values of a layer, and their derivatives along directions of the parameters.

    For a plain ODE the variational equations are solved together with the states, because JAX
    cannot use forward mode through a solver with checkpoints.

    Args:
        layer: a layer with numbers in place of random leaves.
        leaves: the coordinates of the parameters, by path.
        directions: n directions in the space of the k coordinates, `(n, k)`.
        inputs: the inputs of the layer.

    Returns:
        The values, `(time, …)` by name, and the derivatives, `(n, time, …)` by name.
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

    y are the states, f is the vector field, and s the derivative of y along the direction d.

    Args:
        at: a function of the parameters that returns the vector field.
        flat: the parameters, `(k,)`.
        directions: the directions, `(n, k)`.
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


# Prefix of the name of a state, which gives the name of its derivative.
_MOVED = "along "


def _with_derivatives(states: Values, moved: Values) -> dict[str, Any]:
    """Join states and their derivatives into one dict; derivatives get a prefixed name."""
    return {**states, **{_MOVED + name: value for name, value in moved.items()}}


def _parted(y: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a joint dict into the states and their derivatives, each by state."""
    states = {name: value for name, value in y.items() if not name.startswith(_MOVED)}
    return states, {name: y[_MOVED + name] for name in states}


def _along(
    layer: AbstractTrajectory, rebuild: Callable, flat: Array, directions: Array, inputs: Inputs
):
    """Solve an ODE together with its variational equations; see `tangents`.

    Args:
        layer: the ODE.
        rebuild: a function of the parameters that returns the ODE.
        flat: the parameters, `(k,)`.
        directions: the directions, `(n, k)`.
        inputs: the inputs of the ODE.

    Returns:
        The values and the derivatives, as from `tangents`.
    """
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

"""A model without its solves: what it says once the states of its ODEs are given."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from .._jax.tree import dotted
from ..data.datasets import Inputs
from ..hybrid import AbstractHybrid
from ..layers import ODE, Algebraic, Prediction
from ..layers._parts import is_layer
from ..layers.ode import AroundODE
from ..model import Model

type States = dict[str, Array]
"""States of one ODE by name, `(time, …)`."""


class Solved(AroundODE):
    """An ODE whose states at the times of the data are known."""

    ode: ODE
    known: States

    def __init__(self, ode: ODE, known: States):
        self.ode, self.known = ode, known

    def __call__(self, inputs: Inputs) -> Prediction:
        return self.ode.predict(inputs, self.known, True, jnp.zeros((), int))


def can_be_given(layer: Any) -> bool:
    """Whether all that a layer solves are ODEs, from start to end, each for itself."""
    if isinstance(layer, AbstractHybrid):
        return all(can_be_given(part) for part in layer.parts.values() if is_layer(part))
    return type(layer) is ODE or isinstance(layer, Algebraic)


def _is_ode(node: Any) -> bool:
    return type(node) is ODE


def named_odes(layer: Any) -> list[tuple[str, ODE]]:
    """The ODEs of a layer by their dotted paths, in the order of its tree."""
    found = jtu.tree_flatten_with_path(layer, is_leaf=_is_ode)[0]
    return [(dotted(path), node) for path, node in found if _is_ode(node)]


def odes(layer: Any) -> list[ODE]:
    """The ODEs of a layer, in the order of its tree."""
    return [ode for _, ode in named_odes(layer)]


def given(model: Model, states: Sequence[States]) -> Model:
    """A model with the states of its ODEs in place of their solves."""
    left = list(states)
    return jax.tree.map(lambda node: Solved(node, left.pop(0)) if _is_ode(node) else node, model, is_leaf=_is_ode)

"""A model without its solves: what it says once the states of its ODEs are given."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .data import Inputs
from .hybrid import AbstractHybrid
from .layers import ODE, AbstractLayer, Algebraic, Prediction
from .layers._parts import is_layer
from .model import Model

type States = dict[str, Array]
"""States of one ODE by name, `(time, …)`."""


class Solved(AbstractLayer):
    """An ODE whose states at the times of the data are known."""

    ode: ODE
    known: States

    def __init__(self, ode: ODE, known: States):
        self.ode, self.known = ode, known

    @property
    def forcings(self) -> tuple[str, ...]:
        return self.ode.forcings

    @property
    def units(self) -> Mapping[str, str]:
        return self.ode.units

    @property
    def interpolation(self) -> Mapping[str, str]:
        return self.ode.interpolation

    @property
    def start(self) -> float | None:
        return self.ode.start

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.ode.outputs

    def __call__(self, inputs: Inputs) -> Prediction:
        return self.ode.predict(inputs, self.known, True, jnp.zeros((), int))


def can_be_given(layer: Any) -> bool:
    """Whether all that a layer solves are ODEs, from start to end, each for itself."""
    if isinstance(layer, AbstractHybrid):
        return all(can_be_given(part) for part in layer.parts.values() if is_layer(part))
    return type(layer) is ODE or isinstance(layer, Algebraic)


def _is_ode(node: Any) -> bool:
    return type(node) is ODE


def odes(layer: Any) -> list[ODE]:
    """The ODEs of a layer, in the order of its tree."""
    return [node for node in jax.tree.leaves(layer, is_leaf=_is_ode) if _is_ode(node)]


def given(model: Model, states: Sequence[States]) -> Model:
    """A model with the states of its ODEs in place of their solves."""
    left = list(states)
    return jax.tree.map(lambda node: Solved(node, left.pop(0)) if _is_ode(node) else node, model, is_leaf=_is_ode)

"""Layers without their solves: what they say at known states of their trajectories."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array

from .._jax.tree import dotted
from ..data.layer_inputs import Inputs
from ._prediction import AbstractTrajectory, AroundTrajectory, Prediction

type States = dict[str, Array]
"""States of one trajectory by name, `(time, …)`."""


class AtStates(AroundTrajectory):
    """A trajectory whose states at the times of the data are known, with the success and the steps of their solve."""

    ode: AbstractTrajectory
    known: States
    ok: Any
    steps: Any

    def __init__(self, ode: AbstractTrajectory, known: States, ok: Any = True, steps: Any = 0):
        self.ode, self.known, self.ok, self.steps = ode, known, ok, jnp.asarray(steps)

    def __call__(self, inputs: Inputs) -> Prediction:
        return self.ode.predict(inputs, self.known, self.ok, self.steps)


def _is_trajectory(node: Any) -> bool:
    return isinstance(node, AbstractTrajectory)


def named_trajectories(tree: Any) -> list[tuple[str, AbstractTrajectory]]:
    """The trajectories inside a tree by their dotted paths, in its order."""
    found = jtu.tree_flatten_with_path(tree, is_leaf=_is_trajectory)[0]
    return [(dotted(path), node) for path, node in found if _is_trajectory(node)]


def trajectories(tree: Any) -> list[AbstractTrajectory]:
    """The trajectories inside a tree, in its order."""
    return [trajectory for _, trajectory in named_trajectories(tree)]


def at_states(tree: Any, states: Sequence[States]) -> Any:
    """A tree with given states in place of the solves of its trajectories."""
    return at_solutions(tree, [(known,) for known in states])


def at_solutions(tree: Any, solutions: Sequence[tuple]) -> Any:
    """A tree with what `solve` returned in place of the solves of its trajectories."""
    left = list(solutions)
    return jax.tree.map(
        lambda node: AtStates(node, *left.pop(0)) if _is_trajectory(node) else node, tree, is_leaf=_is_trajectory
    )

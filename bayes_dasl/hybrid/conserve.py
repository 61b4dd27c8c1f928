"""Rates that keep totals constant, whatever a network says."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._errors import ModelError
from .._tree import FrozenDict
from .._types import Values, VectorField
from ..random import Module


class Conserve(Module):
    r"""A vector field whose rates are projected so that linear totals of the states stay constant.

    $\dot y = f - A^\top (A A^\top)^{-1} A f$, so that $A \dot y = 0$

    `totals` names each conserved total and gives the weight of every state in it:
    `{"mass": {"substrate": 1, "product": 1}}`. A hard constraint: it holds to round-off.
    Raises: ModelError for no totals, totals that depend on each other, or, when called, a state that there is not.
    """

    vector_field: VectorField
    totals: Mapping[str, Mapping[str, float]] = eqx.field(
        static=True, converter=lambda totals: FrozenDict((k, FrozenDict(v)) for k, v in totals.items())
    )

    def __check_init__(self):
        states = dict.fromkeys(state for total in self.totals.values() for state in total)
        if not states:
            raise ModelError("totals must name what is conserved and give the weight of each state in it")
        matrix = self._matrix(tuple(states))
        if jnp.linalg.matrix_rank(matrix) < len(matrix):
            raise ModelError(f"the totals {', '.join(self.totals)} depend on each other: leave one out")

    def _matrix(self, states: tuple[str, ...]) -> Any:
        return jnp.asarray([[total.get(state, 0.0) for state in states] for total in self.totals.values()])

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        rates = dict(self.vector_field(t, y, u))
        states = tuple(dict.fromkeys(state for total in self.totals.values() for state in total))
        unknown = [state for state in states if state not in rates]
        if unknown:
            raise ModelError(f"the totals weigh {', '.join(unknown)}; the states are {', '.join(rates)}")
        matrix = self._matrix(states)
        along = jnp.stack([rates[state] for state in states])
        excess = jnp.tensordot(matrix.T @ jnp.linalg.inv(matrix @ matrix.T) @ matrix, along, 1)
        return rates | dict(zip(states, along - excess, strict=True))

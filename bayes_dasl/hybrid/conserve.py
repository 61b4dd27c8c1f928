"""`Conserve`: project rates so that totals of the states stay constant."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._jax.tree import FrozenDict
from ..errors import ModelError
from ..layers._parts import check_function
from ..random import Module, Values, VectorField


def _frozen(totals: Any) -> FrozenDict:
    """Make nested totals hashable, or raise ModelError if they are not nested dicts."""
    groups = totals.values() if isinstance(totals, Mapping) else (None,)
    if not all(isinstance(weights, Mapping) for weights in groups):
        raise ModelError(
            f"totals must be a dict of dicts, such as {{'mass': {{'a': 1, 'b': 1}}}}, not "
            f"{totals!r}"
        )
    return FrozenDict((name, FrozenDict(weights)) for name, weights in totals.items())


class Conserve(Module):
    r"""A vector field with rates projected so that weighted sums of the states stay constant.

    $\dot y = f - A^\top (A A^\top)^{-1} A f$, so that $A \dot y = 0$

    y are the states, f the rates of `vector_field`, and the rows of A the weights of the conserved
    sums. The constraint is exact up to rounding.

    Args:
        vector_field: a function `(t, y, u)` that returns the rates of the states by name.
        totals: for each conserved sum, by its name, the weight of each state, as in `{"mass":
            {"substrate": 1, "product": 1}}`.

    Raises:
        ModelError: if `vector_field` is no function, or `totals` are empty or linearly dependent.
            When called, if a state in `totals` has no rate.
    """

    vector_field: VectorField
    totals: Mapping[str, Mapping[str, float]] = eqx.field(static=True, converter=_frozen)

    def __check_init__(self):
        check_function(self.vector_field, "vector_field")
        if not self._states:
            raise ModelError(
                "totals must name what is conserved and give the weight of each state in it"
            )
        matrix = self._matrix
        # Dependent totals would make A Aᵀ singular.
        if jnp.linalg.matrix_rank(matrix) < len(matrix):
            raise ModelError(
                f"the totals {', '.join(self.totals)} depend on each other: leave one out"
            )

    @property
    def _states(self) -> dict[str, None]:
        """The states with a weight in a conserved sum, in order; the values are None."""
        return dict.fromkeys(state for total in self.totals.values() for state in total)

    @property
    def _matrix(self) -> Any:
        """The matrix A, `(total, state)`: the weight of each state in each conserved sum."""
        states = self._states
        return jnp.asarray(
            [[total.get(state, 0.0) for state in states] for total in self.totals.values()]
        )

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        rates = dict(self.vector_field(t, y, u))
        states = self._states
        matrix = self._matrix
        unknown = [state for state in states if state not in rates]
        if unknown:
            raise ModelError(
                f"the totals weigh {', '.join(unknown)}; the states are {', '.join(rates)}"
            )
        along = jnp.stack([rates[state] for state in states])

        # The projection of f onto the row space of A is the part that changes the conserved sums.
        excess = jnp.tensordot(matrix.T @ jnp.linalg.inv(matrix @ matrix.T) @ matrix, along, 1)
        return rates | dict(zip(states, along - excess, strict=True))

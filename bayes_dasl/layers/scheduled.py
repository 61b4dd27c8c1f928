"""Interfaces of scheduled inputs of an ODE, such as doses."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float

from ..data.layer_inputs import Inputs
from ..random import Module, Values


class AbstractSchedule(Module):
    """Inputs of one solve with known times and amounts: jumps of states, and added rates."""

    ok: eqx.AbstractVar[Any]
    """Whether all times and amounts could be computed."""

    @property
    @abstractmethod
    def times(self) -> Float[Array, " changes"]:
        """Return the times of sudden changes."""

    @abstractmethod
    def __call__(
        self, acting: Bool[Array, " changes"], t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """States after the changes that are `acting`."""

    @abstractmethod
    def rates(self, t: Any, last: Any) -> dict[str, Any]:
        """Added rates of states at a time, constant after the time `last`."""


class AbstractScheduled(Module):
    """Inputs with unknown times or amounts, from which each solve makes a schedule."""

    members: eqx.AbstractVar[tuple[float | str, ...]]
    """The members of a population that they belong to; empty if they apply to any member."""
    start: eqx.AbstractVar[float]
    """Their first time, in the units of time of the layer."""
    has_a_time: eqx.AbstractClassVar[str]

    @abstractmethod
    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse inputs into an unknown state.

        Raises:
            ModelError: for a state that `shapes` does not name.
        """

    @abstractmethod
    def refuse_before(self, start: Any) -> None:
        """Refuse inputs before the start of a solve.

        Raises:
            ModelError: if an input is known to come before the start.
        """

    @abstractmethod
    def schedule(self, ode: Any, inputs: Inputs) -> AbstractSchedule:
        """The schedule of one solve of an ODE."""

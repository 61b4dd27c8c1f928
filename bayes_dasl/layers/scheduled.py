"""Scheduled inputs of an ODE, such as doses: what an ODE asks of them."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float

from ..data.layer_inputs import Inputs
from ..random import Module, Values


class AbstractSchedule(Module):
    """Inputs of which all times and amounts are known: sudden changes of states, and rates that add
    to theirs.
    """

    ok: eqx.AbstractVar[Any]
    """Whether they could be worked out."""

    @property
    @abstractmethod
    def times(self) -> Float[Array, " changes"]:
        """When states change suddenly."""

    @abstractmethod
    def __call__(
        self, acting: Bool[Array, " changes"], t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """The states after the changes that are `acting`."""

    @abstractmethod
    def rates(self, t: Any, last: Any) -> dict[str, Any]:
        """What adds to the rates of states at a time, of which nothing changes after the `last`
        one.
        """


class AbstractScheduled(Module):
    """Inputs whose times and amounts may be unknown: for each solve they make a schedule."""

    members: eqx.AbstractVar[tuple[float | str, ...]]
    """The members of a population that they belong to; none where they belong to any."""
    start: eqx.AbstractVar[float]
    """Their first time, in the units of time of the layer."""
    has_a_time: eqx.AbstractClassVar[str]

    @abstractmethod
    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse inputs into a state that there is not, by the shapes of all states. Raises:
        ModelError.
        """

    @abstractmethod
    def refuse_before(self, start: Any) -> None:
        """Refuse inputs that are known to come before the start of a solve.

        Raises:
            ModelError: if so.
        """

    @abstractmethod
    def schedule(self, ode: Any, inputs: Inputs) -> AbstractSchedule:
        """The schedule of one solve of an ODE."""

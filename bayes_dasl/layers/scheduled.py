"""Interfaces of inputs at given times into the states of an ODE, such as doses."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import equinox as eqx
from jaxtyping import Array, Bool, Float

from ..data.layer_inputs import Inputs
from ..random import Module, Values


class AbstractSchedule(Module):
    """The inputs of one solve, with known times and amounts.

    An input changes states suddenly, as a bolus, or adds to their rates, as an infusion. The field
    `ok` says whether all times and amounts could be computed.
    """

    ok: eqx.AbstractVar[Any]

    @property
    @abstractmethod
    def times(self) -> Float[Array, " changes"]:
        """The times of sudden changes."""

    @abstractmethod
    def __call__(
        self, acting: Bool[Array, " changes"], t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """Return the states after some of the sudden changes.

        Args:
            acting: for each of `times`, whether its change takes place now.
            t: the present time.
            y: the states before the changes, by name.
            u: the forcings by name.
        """

    @abstractmethod
    def rates(self, t: Any, last: Any) -> dict[str, Any]:
        """Return the rates that inputs add to states at a time, by state.

        Args:
            t: the time.
            last: the time after which the rates stay constant.
        """


class AbstractScheduled(Module):
    """Inputs whose times or amounts may depend on parameters; each solve computes its schedule.

    Fields: `members`, the names of the members of the population that get the inputs, empty if all
    get the same. `start`, the first time of the inputs, in the units of time of the layer.
    `has_a_time`, the name of the inputs in messages.
    """

    members: eqx.AbstractVar[tuple[float | str, ...]]
    start: eqx.AbstractVar[float]
    has_a_time: eqx.AbstractClassVar[str]

    @abstractmethod
    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse inputs into an unknown state.

        Args:
            shapes: the shape of each state, by name.

        Raises:
            ModelError: if an input changes a state that `shapes` does not name.
        """

    @abstractmethod
    def refuse_before(self, start: Any) -> None:
        """Refuse inputs before the start of a solve.

        Raises:
            ModelError: if the known time of an input lies before the start.
        """

    @abstractmethod
    def schedule(self, ode: Any, inputs: Inputs) -> AbstractSchedule:
        """Return the schedule of one solve.

        Args:
            ode: the ODE, with numbers in place of random leaves.
            inputs: the start, times and forcings of the solve.
        """

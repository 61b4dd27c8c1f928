"""Base class of layers with initial states."""

from typing import Any

import equinox as eqx

from ._functions import any_state
from .layer import AbstractLayer


class AbstractFromStates(AbstractLayer):
    """A layer whose solve starts from `initial`, a dict of states by name."""

    initial: eqx.AbstractVar[dict[str, Any]]

    @property
    def states(self) -> int:
        """Number of state variables."""
        return sum(value.size for value in any_state(self.initial).values())

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf of `initial`: the units of its state.

        Args:
            path: the names from the layer to the leaf.

        Returns:
            The units, or an empty string for any other leaf.
        """
        return self.units.get(path[1], "") if path[0] == "initial" else ""

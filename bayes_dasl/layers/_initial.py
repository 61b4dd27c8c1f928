"""Base class of layers with initial states."""

from typing import Any

import equinox as eqx

from ._functions import any_state
from .layer import AbstractLayer


class AbstractFromStates(AbstractLayer):
    """A layer with initial states, held in its field `initial` by name."""

    initial: eqx.AbstractVar[dict[str, Any]]

    @property
    def states(self) -> int:
        """The number of state variables; each element of an array counts."""
        return sum(value.size for value in any_state(self.initial).values())

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Return the units of a random leaf; those of the state if it is an initial value.

        Args:
            path: the names of fields and keys from the layer to the leaf.

        Returns:
            The units, or an empty string for any other leaf.
        """
        return self.units.get(path[1], "") if path[0] == "initial" else ""

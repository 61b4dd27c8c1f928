"""What layers have in common that go on from states at a start."""

from typing import Any

import equinox as eqx

from ._functions import any_state
from .layer import AbstractLayer


class AbstractFromStates(AbstractLayer):
    """A layer that goes on from the states in `initial`, a dict by name."""

    initial: eqx.AbstractVar[dict[str, Any]]

    @property
    def states(self) -> int:
        """How many numbers are carried along."""
        return sum(value.size for value in any_state(self.initial).values())

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf of `initial`: those of its state.

        Args:
            path: the names on the way from the layer to the leaf.
        """
        return self.units.get(path[1], "") if path[0] == "initial" else ""

"""Parts of a model that are linear in their weights, such as a basis or process noise."""

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Array, Float

from .._jax.tree import parts_inside
from ..random import Module


class AbstractLinear(Module):
    """A part that is linear in its weights, through `coefficients`.

    The coefficients include an unknown scale of the weights, so that nothing else depends on it.
    """

    weights_field: ClassVar[str] = "weights"
    is_process_noise: ClassVar[bool] = False

    @property
    @abstractmethod
    def coefficients(self) -> Float[Array, " size"]:
        """Coefficients of fixed features, linear in the weights."""

    @abstractmethod
    def with_coefficients(self, coefficients: Float[Array, " size"]) -> "AbstractLinear":
        """Replace the `coefficients`.

        Args:
            coefficients: the new coefficients of the features.

        Returns:
            The part with these coefficients.
        """


def linear_parts(tree: Any) -> list[tuple[str, AbstractLinear]]:
    """Dotted paths and parts of a tree that are linear in their weights."""
    return parts_inside(tree, is_linear)


def is_linear(node: Any) -> bool:
    """Whether a node is a part that is linear in its weights."""
    return isinstance(node, AbstractLinear)

"""Parts of a model that are linear in weights of their own, as samplers look for them."""

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Array, Float

from .._jax.tree import parts_inside
from ..random import Module


class AbstractLinear(Module):
    """Something with weights in a field, in which it is linear through `coefficients`.

    What scales the weights and is unknown stands in the coefficients, so that all else is the same
    for any scale.
    """

    weights_field: ClassVar[str] = "weights"
    is_process_noise: ClassVar[bool] = False

    @property
    @abstractmethod
    def coefficients(self) -> Float[Array, " size"]:
        """What fixed features are multiplied by, linear in the weights."""

    @abstractmethod
    def with_coefficients(self, coefficients: Float[Array, " size"]) -> "AbstractLinear":
        """The same with other `coefficients`.

        Args:
            coefficients: those of the fixed features.
        """


def linear_parts(tree: Any) -> list[tuple[str, AbstractLinear]]:
    """The parts inside a tree that are linear in weights, with their dotted paths."""
    return parts_inside(tree, is_linear)


def is_linear(node: Any) -> bool:
    """Whether something is linear in weights of its own."""
    return isinstance(node, AbstractLinear)

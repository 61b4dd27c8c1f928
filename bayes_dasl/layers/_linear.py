"""Parts of a model that are linear in their weights, such as a basis or process noise."""

from abc import abstractmethod
from typing import Any, ClassVar

from jaxtyping import Array, Float

from .._jax.tree import parts_inside
from ..random import Module


class AbstractLinear(Module):
    """A part of a model that is a linear combination of fixed functions, its features.

    The `coefficients` of the features are the weights times their unknown scale. No other field
    depends on this scale.

    Class variables: `weights_field` is the name of the field that holds the weights.
    `is_process_noise` says whether the weights are increments of process noise.
    """

    weights_field: ClassVar[str] = "weights"
    is_process_noise: ClassVar[bool] = False

    @property
    @abstractmethod
    def coefficients(self) -> Float[Array, " size"]:
        """The coefficients of the fixed features, which are linear in the weights."""

    @abstractmethod
    def with_coefficients(self, coefficients: Float[Array, " size"]) -> "AbstractLinear":
        """Return a copy of this part with other coefficients of its features.

        Args:
            coefficients: the new coefficients, `(size,)`.

        Returns:
            The part with these coefficients.
        """


def linear_parts(tree: Any) -> list[tuple[str, AbstractLinear]]:
    """Return the dotted path and the object of each `AbstractLinear` part of a tree."""
    return parts_inside(tree, is_linear)


def is_linear(node: Any) -> bool:
    """Whether a node of a tree is an `AbstractLinear` part."""
    return isinstance(node, AbstractLinear)

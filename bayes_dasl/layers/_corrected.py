"""Science with a learned correction (closure): multiply or remove the closures of a layer."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from ..random import Module, Scalar, Values


class AbstractCorrected(Module):
    """Science plus a learned correction, such as `Residual`.

    Fields: `science`, the scientific model; `closure`, the correction; `orthogonal`, the projection
    that removes from the closure what the science can explain, or None.
    """

    science: eqx.AbstractVar[Any]
    closure: eqx.AbstractVar[Any]
    orthogonal: eqx.AbstractVar[Any]


class _Amplified(Module):
    """A closure whose values are multiplied by a factor."""

    closure: Any
    factor: Scalar

    def __call__(self, t, y, u):
        return {name: self.factor * value for name, value in self.closure(t, y, u).items()}


class _Nothing(Module):
    """A closure that returns no corrections."""

    def __call__(self, t, y: Values, u: Values) -> Values:
        return {}


def amplified(layer: Any, factor: Scalar) -> Any:
    """Return the layer with all closures multiplied by a factor."""
    return _at_corrected(
        layer, lambda n: eqx.tree_at(lambda r: r.closure, n, _Amplified(n.closure, factor))
    )


def without_closures(layer: Any) -> Any:
    """Return the layer without its closures and their projections: the science alone."""
    parts = lambda r: (r.closure, r.orthogonal)  # noqa: E731
    bare = lambda node: eqx.tree_at(parts, node, (_Nothing(), None), is_leaf=lambda x: x is None)  # noqa: E731
    return _at_corrected(layer, bare)


def is_corrected(layer: Any) -> bool:
    """Whether any part of a layer has a closure."""
    return any(map(_is_corrected, jax.tree.leaves(layer, is_leaf=_is_corrected)))


def _is_corrected(node: Any) -> bool:
    return isinstance(node, AbstractCorrected)


def _at_corrected(layer: Any, change: Callable[[Any], Any]) -> Any:
    """Return the layer with `change` applied to each `AbstractCorrected` inside it."""

    def at(node):
        if not _is_corrected(node):
            return node
        # The science may itself be corrected: change the innermost first.
        return change(eqx.tree_at(lambda r: r.science, node, _at_corrected(node.science, change)))

    return jax.tree.map(at, layer, is_leaf=_is_corrected)

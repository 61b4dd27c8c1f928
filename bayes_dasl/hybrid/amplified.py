"""Hybrids whose learned corrections are larger or smaller than they are, or not there."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from ..random import Module, Scalar
from .residual import Residual


class _Amplified(Module):
    """A closure times a factor."""

    closure: Any
    factor: Scalar

    def __call__(self, t, y, u):
        return {name: self.factor * value for name, value in self.closure(t, y, u).items()}


def amplified(layer: Any, factor: Scalar) -> Any:
    """A layer whose corrections are multiplied by a factor."""
    return _at_residuals(layer, lambda n: eqx.tree_at(lambda r: r.closure, n, _Amplified(n.closure, factor)))


def without_closures(layer: Any) -> Any:
    """The science of a layer, in its place; what is left cannot be called."""
    return _at_residuals(layer, lambda node: eqx.tree_at(lambda r: r.closure, node, None))


def is_corrected(layer: Any) -> bool:
    """Whether there is a `Residual` in a layer."""
    return any(map(_is_residual, jax.tree.leaves(layer, is_leaf=_is_residual)))


def _is_residual(node: Any) -> bool:
    return isinstance(node, Residual)


def _at_residuals(layer: Any, change: Callable[[Residual], Any]) -> Any:
    def at(node):
        if not _is_residual(node):
            return node
        return change(eqx.tree_at(lambda r: r.science, node, _at_residuals(node.science, change)))

    return jax.tree.map(at, layer, is_leaf=_is_residual)

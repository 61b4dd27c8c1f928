"""Models with tighter solver tolerances."""

import copy
import math
from collections.abc import Callable
from typing import Any

import jax

from ..errors import ModelError
from ..random import is_random

# A step much finer than this is lost in rounding.
_FINEST_RTOL = 1e-13


def has_tolerances(model: Any) -> bool:
    """Whether a solver in the model has tolerances, so that it can be checked.

    Returns:
        Whether there is any `rtol` or `atol`.
    """
    return bool(tolerances(model))


def tightened(model: Any, factor: float = 100.0) -> Any:
    """The model with tighter tolerances, and with as many more steps as they may take.

    Every number called `rtol` or `atol` is a tolerance, at any depth: of a layer, or of a root
    finder in it.

    Args:
        model: a model, or a layer.
        factor: the factor by which tolerances are tightened.

    Returns:
        A copy of the model or layer.

    Raises:
        ModelError: if nothing in the model has tolerances.
    """
    if not has_tolerances(model):
        raise ModelError(
            "nothing in the model has tolerances (rtol, atol) to tighten: its solver cannot be "
            "checked"
        )
    return _tighten(model, factor)


def _own_tolerances(node: Any) -> dict[str, float]:
    held = {name: getattr(node, name, None) for name in ("rtol", "atol")}
    return {name: value for name, value in held.items() if isinstance(value, (int, float))}


def _stops_at(node: Any) -> Callable[[Any], bool]:
    """Whether a search below a node stops at a part: a random leaf, or a part with tolerances."""
    return lambda part: part is not node and (is_random(part) or bool(_own_tolerances(part)))


def tolerances(node: Any) -> dict[str, float]:
    """The loosest `rtol` and `atol` in a tree.

    Returns:
        Tolerances by name; empty if there are none.
    """
    loosest = _own_tolerances(node)
    for part in jax.tree.leaves(node, is_leaf=_stops_at(node)):
        for name, value in ({} if part is node else tolerances(part)).items():
            loosest[name] = max(value, loosest.get(name, 0.0))
    return loosest


def _tighten(node: Any, factor: float) -> Any:
    tight = jax.tree.map(
        lambda part: _tighten(part, factor) if _own_tolerances(part) else part,
        node,
        is_leaf=_stops_at(node),
    )
    finer = {name: value / factor for name, value in _own_tolerances(node).items()}
    if finer.get("rtol", 1.0) < _FINEST_RTOL:
        finer["rtol"] = min(node.rtol, _FINEST_RTOL)
    if finer and isinstance(getattr(node, "max_steps", None), int):
        # Steps shrink by factor^(1 / p) for order p: the square root is enough from order two on.
        finer["max_steps"] = math.ceil(node.max_steps * math.sqrt(factor))
    if finer and isinstance(getattr(node, "longest_step", None), float):
        # Methods of fixed steps are of order four.
        finer["longest_step"] = node.longest_step / factor**0.25
    tight = copy.copy(tight)
    for name, value in finer.items():
        # Not by the constructor, whose arguments may differ from the fields.
        object.__setattr__(tight, name, value)
    return tight

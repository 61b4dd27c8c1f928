"""Models with tighter solver tolerances."""

import copy
import math
from collections.abc import Callable
from typing import Any

import jax

from ..errors import ModelError
from ..random import is_random

# With a tighter relative tolerance, rounding errors would dominate.
_FINEST_RTOL = 1e-13


def has_tolerances(model: Any) -> bool:
    """Whether a solver in the model has tolerances, so that it can be checked.

    Args:
        model: a model, or a layer.

    Returns:
        True if any part has `rtol` or `atol`.
    """
    return bool(tolerances(model))


def tightened(model: Any, factor: float = 100.0) -> Any:
    """Return the model with tighter tolerances, and with larger limits on the number of steps.

    Every number named `rtol` or `atol` is a tolerance, at any depth of the model: of a layer, or of
    a root finder inside a layer. Fixed steps become shorter instead.

    Args:
        model: a model, or a layer.
        factor: the factor by which tolerances are tightened.

    Returns:
        A copy of the model or layer.

    Raises:
        ModelError: if no part of the model has tolerances.
    """
    if not has_tolerances(model):
        raise ModelError(
            "nothing in the model has tolerances (rtol, atol) to tighten: its solver cannot be "
            "checked"
        )
    return _tighten(model, factor)


def _own_tolerances(node: Any) -> dict[str, float]:
    """Return the `rtol` and `atol` of a part itself, by name, without those of inner parts."""
    held = {name: getattr(node, name, None) for name in ("rtol", "atol")}
    return {name: value for name, value in held.items() if isinstance(value, (int, float))}


def _stops_at(node: Any) -> Callable[[Any], bool]:
    """Return a predicate for parts at which a search below `node` stops.

    A search stops at random leaves and at parts with tolerances.
    """
    return lambda part: part is not node and (is_random(part) or bool(_own_tolerances(part)))


def tolerances(node: Any) -> dict[str, float]:
    """Return the loosest `rtol` and `atol` in a model or layer.

    Args:
        node: the model, layer or part of one.

    Returns:
        Tolerances by name; empty if there are none.
    """
    loosest = _own_tolerances(node)
    for part in jax.tree.leaves(node, is_leaf=_stops_at(node)):
        for name, value in ({} if part is node else tolerances(part)).items():
            loosest[name] = max(value, loosest.get(name, 0.0))
    return loosest


def _tighten(node: Any, factor: float) -> Any:
    """Return a copy of a part with tighter tolerances, also in its inner parts."""
    tight = jax.tree.map(
        lambda part: _tighten(part, factor) if _own_tolerances(part) else part,
        node,
        is_leaf=_stops_at(node),
    )
    finer = {name: value / factor for name, value in _own_tolerances(node).items()}
    if finer.get("rtol", 1.0) < _FINEST_RTOL:
        finer["rtol"] = min(node.rtol, _FINEST_RTOL)
    if finer and isinstance(getattr(node, "max_steps", None), int):
        # At order p steps shrink by factor^(1 / p), so the square root suffices for p of 2 or more.
        finer["max_steps"] = math.ceil(node.max_steps * math.sqrt(factor))
    if finer and isinstance(getattr(node, "longest_step", None), float):
        # Methods with fixed steps have order four.
        finer["longest_step"] = node.longest_step / factor**0.25
    tight = copy.copy(tight)
    for name, value in finer.items():
        # The constructor is not used, since its arguments may differ from the fields.
        object.__setattr__(tight, name, value)
    return tight

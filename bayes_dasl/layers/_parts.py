"""What may be part of a hybrid or a coupling, and what parts must agree on."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ModelError
from ..random import is_function
from ._prediction import AbstractLayer


def is_layer(part: Any) -> bool:
    """Whether a part is a whole layer, rather than a function of time, states and forcings."""
    return isinstance(part, AbstractLayer) and part.layered


def check_function(value: Any, where: str) -> None:
    """Refuse what is no function of time, states and forcings, such as a distribution or a whole layer."""
    if not is_function(value) or is_layer(value):
        kind = f"the layer {type(value).__name__}" if is_layer(value) else repr(value)
        raise ModelError(f"{where} must be a function (t, y, u) that returns a dict, such as bd.Network, not {kind}")


def check_part(value: Any, where: str) -> None:
    """Refuse what is neither a layer nor a function of time, states and forcings."""
    if not is_layer(value):
        check_function(value, where)


def agreed(what: str, stated: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """What parts state of names, from (part, name, value).

    Raises: ModelError if two of them state different things of one name.
    """
    owner: dict[str, tuple[str, str]] = {}
    for part, name, value in stated:
        first, other = owner.setdefault(name, (part, value))
        if other != value:
            raise ModelError(f"{what} of '{name}': '{other}' in '{first}' but '{value}' in '{part}'; choose one")
    return {name: value for name, (_, value) in owner.items()}


def agreed_interpolation(layers: Mapping[str, Any], read: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """How the forcings that layers read run between their data, as far as not linearly; `read` names them by layer."""
    kinds = agreed(
        "interpolation",
        ((name, f, layer.interpolation.get(f, "linear")) for name, layer in layers.items() for f in read[name]),
    )
    return {name: kind for name, kind in kinds.items() if kind != "linear"}

"""The unknown functions inside a layer: where they stand, and what they are called."""

from typing import Any

from .._jax.tree import parts_inside, short_names
from ..random import paths, with_possible


def is_unknown_function(node: Any) -> bool:
    """Whether a node names its `outputs`, and the ranges of inputs over which figures draw it."""
    return hasattr(node, "drawn_over") and hasattr(node, "outputs")


def unknown_functions(layer: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Where the unknown functions of a layer stand, and each with something possible in place of
    what is unknown.

    One that is shared stands in several places. Those that differ between the members of a
    population are left out.
    """
    leaves, found = paths(layer), {}
    for path, node in parts_inside(with_possible(layer), is_unknown_function):
        inside = lambda place, path=path: place.startswith(f"{path}.")  # noqa: E731
        own = tuple(
            name for name, leaf in leaves.items() if any(map(inside, leaf.places + leaf.within))
        )
        if own and not any(leaves[name].dims for name in own):
            found.setdefault(own, []).append((path, node))
    return [(tuple(path for path, _ in standing), standing[0][1]) for standing in found.values()]


def function_names(layer: Any) -> list[str]:
    """What the unknown functions of a layer are called, in their order: by the last two parts of
    their paths, or more.

    The last alone may be no more than `value`.
    """
    where = [places[0] for places, _ in unknown_functions(layer)]
    return list(short_names(where, least=dict.fromkeys(where, 2)).values())

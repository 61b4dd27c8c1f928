"""Find the unknown functions inside a layer, and name them."""

from typing import Any

from .._jax.tree import parts_inside, short_names
from ..random import paths, with_possible


def is_unknown_function(node: Any) -> bool:
    """Whether a node has `outputs`, and ranges of inputs over which figures draw it."""
    return hasattr(node, "drawn_over") and hasattr(node, "outputs")


def unknown_functions(layer: Any) -> list[tuple[tuple[str, ...], Any]]:
    """List the unknown functions of a layer: their places, and a copy with possible values.

    A shared function has several places. Functions that differ between the subjects of a population
    are left out.

    Args:
        layer: the layer.

    Returns:
        The dotted paths and the function, for each of them.
    """
    # Functions with the same random leaves are one shared function.
    leaves = paths(layer)
    found = {}
    for path, node in parts_inside(with_possible(layer), is_unknown_function):
        inside = lambda place, path=path: place.startswith(f"{path}.")  # noqa: E731
        own = tuple(
            name for name, leaf in leaves.items() if any(map(inside, leaf.places + leaf.within))
        )
        if own and not any(leaves[name].dims for name in own):
            found.setdefault(own, []).append((path, node))
    return [(tuple(path for path, _ in standing), standing[0][1]) for standing in found.values()]


def function_names(layer: Any) -> list[str]:
    """Name the unknown functions of a layer, in order, by the last parts of their paths.

    At least two parts are kept: the last alone may be no more than `value`.

    Args:
        layer: the layer.

    Returns:
        One name for each function.
    """
    where = [places[0] for places, _ in unknown_functions(layer)]
    return list(short_names(where, least=dict.fromkeys(where, 2)).values())

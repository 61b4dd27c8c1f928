"""Find the unknown functions inside a layer, and name them."""

from typing import Any

from .._jax.tree import parts_inside, short_names
from ..random import paths, with_possible


def is_unknown_function(node: Any) -> bool:
    """Whether a node is an unknown function, such as a `Network` or a `Basis`.

    Such a node has `outputs`, and in `drawn_over` the ranges of its inputs for figures.
    """
    return hasattr(node, "drawn_over") and hasattr(node, "outputs")


def unknown_functions(layer: Any) -> list[tuple[tuple[str, ...], Any]]:
    """List the unknown functions of a layer.

    Functions that differ between the members of a population are left out.

    Args:
        layer: the layer.

    Returns:
        For each function a pair: its dotted paths, several for a shared function, and a copy with
        example values in place of random leaves.
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
    """Return short names of the unknown functions of a layer.

    A name consists of the last parts of the function's path, at least two. The last part alone may
    be just `value`.

    Args:
        layer: the layer.

    Returns:
        One name for each function, in the order of `unknown_functions`.
    """
    where = [places[0] for places, _ in unknown_functions(layer)]
    return list(short_names(where, least=dict.fromkeys(where, 2)).values())

"""Tools for pytrees: dotted names of leaves, nodes along a path, short names, frozen gradients."""

import dataclasses
import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
from jax import lax

Path = tuple[Any, ...]


def key_name(key: Any) -> str:
    """Return the name of one entry of a JAX key path: an attribute, a key of a dict or an index.

    Raises:
        TypeError: if the entry has no name.
    """
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"a path cannot run through {type(key).__name__}")


def dotted(path: Path) -> str:
    """Return the dotted name of a JAX key path, such as `layer.initial.hare`."""
    return ".".join(key_name(key) for key in path)


def parts_inside(tree: Any, wanted: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    """Return the outermost nodes of a tree for which `wanted` is true.

    Returns:
        Pairs of the dotted path and the node.
    """
    found = jtu.tree_flatten_with_path(tree, is_leaf=wanted)[0]
    return [(dotted(path), node) for path, node in found if wanted(node)]


def below(path: str, name: str) -> str:
    """Join a dotted path and the name of a child of its node; either may be empty."""
    return f"{path}.{name}" if path and name else path or name


def child(node: Any, key: Any) -> Any:
    """Return the child of a node that one entry of a JAX key path selects.

    Raises:
        TypeError: if the entry is not an attribute, a dictionary key or a sequence index.
    """
    if isinstance(key, jtu.GetAttrKey):
        return getattr(node, key.name)
    if isinstance(key, jtu.DictKey):
        return node[key.key]
    if isinstance(key, jtu.SequenceKey):
        return node[key.idx]
    raise TypeError(f"a path cannot run through {type(key).__name__}")


def nodes_along(tree: Any, path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield pairs (node, key of its child) along a path, from the root to the leaf's parent."""
    node = tree
    for key in path:
        yield node, key
        node = child(node, key)


def stated_units(tree: Any, path: Path) -> str:
    """Return the units of a random leaf or a known number.

    Nodes along the path may state units. Those of the innermost such node are returned, or an empty
    string if there is none.

    Raises:
        TypeError: if the path runs through an object whose parts have no names.
    """
    # Inner nodes come later along the path, and override outer ones.
    units = ""
    for depth, (node, _) in enumerate(nodes_along(tree, path)):
        units = _units_by(node, path[depth:]) or units
    return units


def _units_by(node: Any, path: Path) -> str:
    """Return the units that a node states for a leaf; an empty string if it states none.

    A node states units by its method `__leaf_units__`, or else by the metadata of its fields.

    Args:
        node: the node.
        path: the path from the node to the leaf.
    """
    if hasattr(node, "__leaf_units__"):
        return node.__leaf_units__(tuple(key_name(key) for key in path))
    fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
    stated = {f.name: f.metadata.get("units", "") for f in fields}
    return stated.get(key_name(path[0]), "")


def prepared(tree: Any) -> Any:
    """Replace each node that has a method `prepared` by the result of `node.prepared()`.

    The method precomputes what stays constant during a solve.
    """
    return tree.prepared() if hasattr(tree, "prepared") else prepared_inside(tree)


def prepared_inside(tree: Any) -> Any:
    """Apply `prepared` to the nodes inside a node, but not to the node itself."""
    inside = lambda node: node is not tree and hasattr(node, "prepared")  # noqa: E731
    return jtu.tree_map(
        lambda node: node.prepared() if inside(node) else node, tree, is_leaf=inside
    )


def short_names(
    names: Iterable[str], reserved: Iterable[str] = (), least: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Return the shortest unambiguous suffix of each dotted name.

    A suffix starts with a part that is no number. For example, `layer.initial.hare` becomes `hare`,
    or `initial.hare` if `hare` is reserved.

    Args:
        names: dotted names.
        reserved: names that no suffix may equal, such as those of observables.
        least: for some names, the smallest number of parts in their suffix; 1 for all others.

    Returns:
        The suffix by name. It is the whole name if all suffixes are ambiguous or reserved.
    """
    taken = set(reserved)
    least = least or {}
    suffixes = {name: list(_suffixes(name, least.get(name, 1))) for name in names}
    # A suffix is unambiguous if only one name has it.
    counts = Counter(itertools.chain.from_iterable(suffixes.values()))
    return {
        name: next((s for s in candidates if counts[s] == 1 and s not in taken), name)
        for name, candidates in suffixes.items()
    }


def _suffixes(name: str, least: int) -> Iterator[str]:
    """Yield the suffixes of a dotted name, the shortest first.

    They have at least `least` parts, and their first part is no number.
    """
    parts = name.split(".")
    for start in range(len(parts) - least, -1, -1):
        if not parts[start].isdigit():
            yield ".".join(parts[start:])


def argument_names(function: Callable[..., Any], number: int) -> list[str]:
    """Return the names of the first `number` arguments of a function.

    An argument without a known name is named by its position, from 0.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function written in C may have no signature
        parameters = ()
    positional = [p.name for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
    names = positional[:number]
    return names + [str(i) for i in range(len(names), number)]


class FrozenDict(dict):
    """A hashable dict for static fields of a module, which JAX compares and hashes.

    Two such dicts are equal only if their items have the same order. For example, a network with
    its inputs in another order is a different program.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and list(self.items()) == list(other.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def frozen(tree: Any) -> Any:
    """Return a tree through whose arrays no gradient flows."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_array(x) else x, tree)

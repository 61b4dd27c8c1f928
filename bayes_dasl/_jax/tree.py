"""Pytrees: dotted names of leaves, nodes along a path, short names, and stopped gradients."""

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
    """Return the name of one step of a path: an attribute, a dictionary's key or an index.

    Raises:
        TypeError: if the step has no name.
    """
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"a path cannot run through {type(key).__name__}")


def dotted(path: Path) -> str:
    """Return the dotted name of a JAX key path, such as `layer.initial.hare`."""
    return ".".join(key_name(key) for key in path)


def parts_inside(tree: Any, wanted: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    """Return the outermost wanted nodes of a tree, with their dotted paths."""
    found = jtu.tree_flatten_with_path(tree, is_leaf=wanted)[0]
    return [(dotted(path), node) for path, node in found if wanted(node)]


def below(path: str, name: str) -> str:
    """Return the dotted path of a named child; path or name may be empty."""
    return f"{path}.{name}" if path and name else path or name


def child(node: Any, key: Any) -> Any:
    """Return the child of a node at one step of a path.

    Raises:
        TypeError: if the step has no name.
    """
    if isinstance(key, jtu.GetAttrKey):
        return getattr(node, key.name)
    if isinstance(key, jtu.DictKey):
        return node[key.key]
    if isinstance(key, jtu.SequenceKey):
        return node[key.idx]
    raise TypeError(f"a path cannot run through {type(key).__name__}")


def nodes_along(tree: Any, path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield pairs (node, key of its child) from the root down to the leaf's parent."""
    node = tree
    for key in path:
        yield node, key
        node = child(node, key)


def stated_units(tree: Any, path: Path) -> str:
    """Return the units of a leaf, random or known, as stated by the innermost node that does.

    Raises:
        TypeError: if the path runs through an object whose parts have no names.
    """
    # Inner nodes come later along the path, and override outer ones.
    units = ""
    for depth, (node, _) in enumerate(nodes_along(tree, path)):
        units = _units_by(node, path[depth:]) or units
    return units


def _units_by(node: Any, path: Path) -> str:
    """Return the units that a node states for a leaf, by its fields or its `__leaf_units__`."""
    if hasattr(node, "__leaf_units__"):
        return node.__leaf_units__(tuple(key_name(key) for key in path))
    fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
    stated = {f.name: f.metadata.get("units", "") for f in fields}
    return stated.get(key_name(path[0]), "")


def prepared(tree: Any) -> Any:
    """Return the tree with `node.prepared()` in place of each node that has this method.

    A node computes there whatever stays the same during a solve.
    """
    return tree.prepared() if hasattr(tree, "prepared") else prepared_inside(tree)


def prepared_inside(tree: Any) -> Any:
    """Return a node whose inner nodes are prepared, but not the node itself."""
    inside = lambda node: node is not tree and hasattr(node, "prepared")  # noqa: E731
    return jtu.tree_map(
        lambda node: node.prepared() if inside(node) else node, tree, is_leaf=inside
    )


def short_names(
    names: Iterable[str], reserved: Iterable[str] = (), least: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Return the shortest unambiguous suffix of each dotted name.

    A suffix is not reserved and starts with a word. `layer.initial.hare` becomes `initial.hare` if
    `hare` is reserved, for example by an observable.

    Args:
        names: dotted names.
        reserved: names that no suffix may equal.
        least: the least number of parts in the suffixes of some names.
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
    """Yield the suffixes of at least `least` parts that start with a word, shortest first."""
    parts = name.split(".")
    for start in range(len(parts) - least, -1, -1):
        if not parts[start].isdigit():
            yield ".".join(parts[start:])


def argument_names(function: Callable[..., Any], number: int) -> list[str]:
    """Return names of a function's first arguments, or their number if they have no name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function written in C may have no signature
        parameters = ()
    positional = [p.name for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
    names = positional[:number]
    return names + [str(i) for i in range(len(names), number)]


class FrozenDict(dict):
    """A hashable mapping for static fields, which JAX compares and hashes.

    The order counts: a network that takes its inputs in another order is another program.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and list(self.items()) == list(other.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def frozen(tree: Any) -> Any:
    """Return the tree with stopped gradients."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_array(x) else x, tree)

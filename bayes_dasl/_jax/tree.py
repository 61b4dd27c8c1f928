"""Pytrees: dotted names, the nodes that a path runs through, and gradients that stop at a tree."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
from jax import lax

Path = tuple[Any, ...]


def key_name(key: Any) -> str:
    """The name of one step of a path: an attribute, a dictionary's key or an index."""
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    raise TypeError(f"a path cannot run through {type(key).__name__}")


def dotted(path: Path) -> str:
    """`layer.initial.hare`, from a JAX key path."""
    return ".".join(key_name(key) for key in path)


def parts_inside(tree: Any, wanted: Callable[[Any], bool]) -> list[tuple[str, Any]]:
    """The parts inside a tree that are wanted, with their dotted paths; not what is inside of
    these.
    """
    found = jtu.tree_flatten_with_path(tree, is_leaf=wanted)[0]
    return [(dotted(path), node) for path, node in found if wanted(node)]


def below(path: str, name: str) -> str:
    """The dotted path of what has a name inside of what has a path; either may be empty."""
    return f"{path}.{name}" if path and name else path or name


def child(node: Any, key: Any) -> Any:
    """The child of `node` that one step of a path leads to."""
    if isinstance(key, jtu.GetAttrKey):
        return getattr(node, key.name)
    if isinstance(key, jtu.DictKey):
        return node[key.key]
    if isinstance(key, jtu.SequenceKey):
        return node[key.idx]
    raise TypeError(f"a path cannot run through {type(key).__name__}")


def nodes_along(tree: Any, path: Path) -> Iterator[tuple[Any, Any]]:
    """Pairs (node, key of its child) from the root down to the leaf's parent."""
    node = tree
    for key in path:
        yield node, key
        node = child(node, key)


def stated_units(tree: Any, path: Path) -> str:
    """The units that a tree states for one of its leaves, random or known; the innermost statement
    holds.

    Raises:
        TypeError: where the path runs through an object whose parts have no names.
    """
    units = ""
    for depth, (node, _) in enumerate(nodes_along(tree, path)):
        units = _units(node, path[depth:]) or units
    return units


def _units(node: Any, path: Path) -> str:
    """Units that a node states for the leaf that `path` leads to: by its fields, or by
    `__leaf_units__`.
    """
    if hasattr(node, "__leaf_units__"):
        return node.__leaf_units__(tuple(key_name(key) for key in path))
    fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
    stated = {f.name: f.metadata.get("units", "") for f in fields}
    return stated.get(key_name(path[0]), "")


def prepared(tree: Any) -> Any:
    """The tree in which every node that can work something out before a solve, by
    `node.prepared()`, has done so.
    """
    return tree.prepared() if hasattr(tree, "prepared") else prepared_inside(tree)


def prepared_inside(tree: Any) -> Any:
    """The same of everything inside a node, but not of the node itself."""
    inside = lambda node: node is not tree and hasattr(node, "prepared")  # noqa: E731
    return jtu.tree_map(
        lambda node: node.prepared() if inside(node) else node, tree, is_leaf=inside
    )


def short_names(
    names: Iterable[str], reserved: Iterable[str] = (), least: Mapping[str, int] | None = None
) -> dict[str, str]:
    """The shortest suffix of each dotted name that is unambiguous, is not reserved and starts with
    a word.

    `layer.initial.hare` becomes `initial.hare` if `hare` is reserved (an observable, say). Of some
    names the suffix has at `least` so many parts.
    """
    names, taken, least = list(names), set(reserved), least or {}
    suffixes = {name: list(_suffixes(name, least.get(name, 1))) for name in names}
    counts: dict[str, int] = {}
    for candidates in suffixes.values():
        for suffix in candidates:
            counts[suffix] = counts.get(suffix, 0) + 1
    return {
        name: next((s for s in suffixes[name] if counts[s] == 1 and s not in taken), name)
        for name in names
    }


def _suffixes(name: str, least: int) -> Iterator[str]:
    parts = name.split(".")
    for start in range(len(parts) - least, -1, -1):
        if not parts[start].isdigit():
            yield ".".join(parts[start:])


def argument_names(function: Callable[..., Any], number: int) -> list[str]:
    """Names of the first arguments of a function, or their number where it has none for them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function of C that does not tell
        parameters = ()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][
        :number
    ]
    return names + [str(i) for i in range(len(names), number)]


class FrozenDict(dict):
    """A mapping that can be a static field: JAX compares and hashes those.

    The order counts: a network that takes its inputs in another order is another program.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and list(self.items()) == list(other.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def frozen(tree: Any) -> Any:
    """A tree through which no gradient flows."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_array(x) else x, tree)

"""A model as a tree: what is inside what, what is inferred, with which prior, shape and units."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._statistics.describe_distributions import describe_distribution, free_shape
from ..errors import ModelError
from ..random import Module, RandomLeaf, Shared, is_random, paths

if TYPE_CHECKING:
    import matplotlib.figure
    import rich.tree

_WIDTH = 120
_LISTED = 8  # names of a setting that are all told
_BESIDE = "shared, and what others depend on"
_GROUP_COLOURS = {"science": "blue", "network": "dark_orange3"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A number of a model: inferred, with its prior, or known, with its value."""

    name: str
    random: bool
    what: str
    shape: tuple[int, ...]
    units: str
    group: str
    free: tuple[int, ...] | None = (
        None  # the shape of what may move, where it is not that of all elements
    )

    @property
    def size(self) -> int:
        return int(np.prod(self.shape if self.free is None else self.free, dtype=int))

    def __str__(self) -> str:
        sign = "~" if self.random else "="
        parts = [f"{self.name} {sign} {self.what}"]
        parts += [f"shape {self.shape}"] if self.shape else []
        parts += [f"[{self.units}]"] if self.units else []
        parts += [self.group] if self.random else []
        return "  ".join(parts)


@dataclasses.dataclass(frozen=True)
class Node:
    """A part of a model: its kind, its settings, its numbers and the parts inside it."""

    name: str
    kind: str
    group: str
    settings: Mapping[str, str]
    entries: tuple[Entry, ...]
    children: tuple[Node, ...]

    def all_entries(self) -> Iterator[Entry]:
        """Its numbers and those of all parts inside it."""
        yield from self.entries
        for child in self.children:
            yield from child.all_entries()

    @property
    def title(self) -> str:
        return ": ".join(part for part in (self.name, self.kind) if part)


@dataclasses.dataclass(frozen=True)
class Description:
    """The tree of a model: `print` it, or `draw()` it as a diagram.

    Args:
        root: the part that holds all others, with its kind, settings and numbers.
    """

    root: Node

    @property
    def unknowns(self) -> int:
        """How many numbers are inferred."""
        return sum(entry.size for entry in self.root.all_entries() if entry.random)

    def __rich__(self) -> rich.tree.Tree:
        return _rich(self.root)

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None, legacy_windows=False)
        console.print(self.__rich__())
        lines = console.file.getvalue().rstrip()  # type: ignore[attr-defined]
        return f"{lines}\n{self.unknowns} unknown numbers"

    def draw(self) -> matplotlib.figure.Figure:
        """The tree as a diagram: boxes for parts, science and network told apart by colour and
        edge.
        """
        from ..plots import plot_tree

        return plot_tree(self.root)


def describe(model: Module) -> Description:
    """What a model is made of: every part with its kind and settings, every number with its prior
    or value.

    Args:
        model: a `bd.Model`, or a part of one.

    Raises:
        ModelError: for what is no model or part of one.

    Example:
        ```python
        print(bd.describe(model))
        ```
    """
    if not isinstance(model, eqx.Module):
        raise ModelError(f"describe takes a bd.Model or a part of one, not {type(model).__name__}")
    leaves = paths(model)
    root = _node("", "", model, "science", leaves)
    entries = tuple(
        _inferred(path, leaf, leaf.places + leaf.within)
        for path, leaf in leaves.items()
        if path not in leaf.places
    )
    beside = Node(_BESIDE, "", "science", {}, entries, ())
    return Description(
        dataclasses.replace(root, children=(*root.children, beside)) if entries else root
    )


def _node(name: str, path: str, value: Any, group: str, leaves: Mapping[str, RandomLeaf]) -> Node:
    group = getattr(value, "random_group", group)
    settings, entries, children = {}, [], []
    for field, part, metadata in _parts(value):
        at = f"{path}.{field}" if path else field
        if metadata.get("hidden", False):
            continue
        if metadata.get("static", False) or not _is_part(part):
            settings |= {field: said} if (said := _setting(part)) else {}
        elif _is_number(part):
            entries.append(
                _inferred(field, leaves[at])
                if at in leaves
                else _known(field, part, metadata, group)
            )
        else:
            children.append(_node(field, at, part, group, leaves))
    return Node(name, _kind(value), group, settings, tuple(entries), tuple(children))


def _parts(value: Any) -> Iterator[tuple[str, Any, Mapping]]:
    """Name, value and metadata of every field or item."""
    if isinstance(value, Mapping):
        yield from ((str(key), item, {}) for key, item in value.items())
    elif isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", None) or map(str, range(len(value)))
        yield from ((name, item, {}) for name, item in zip(names, value, strict=True))
    elif dataclasses.is_dataclass(value):
        yield from (
            (f.name, getattr(value, f.name, None), f.metadata) for f in dataclasses.fields(value)
        )


def _is_part(value: Any) -> bool:
    """Whether something is a number or holds one, or is a part that a user wrote."""
    if _is_number(value) or isinstance(value, Module):
        return True
    inside = jax.tree.leaves(value, is_leaf=lambda x: is_random(x) or isinstance(x, Module))
    if isinstance(value, (Mapping, tuple, list)):
        return any(_is_number(x) or isinstance(x, Module) for x in inside)
    return isinstance(value, eqx.Module) and any(map(is_random, inside))


def _is_number(value: Any) -> bool:
    if is_random(value) or not eqx.is_array_like(value) or isinstance(value, bool):
        return is_random(value)
    # An array may also hold a key of random numbers, or text.
    return any(
        jnp.issubdtype(getattr(value, "dtype", float), kind) for kind in (np.number, np.bool_)
    )


def _setting(value: Any) -> str:
    """A setting in words; nothing for what is left at nothing, or has no name."""
    if value is None or (isinstance(value, (Mapping, tuple, list, str)) and not value):
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_setting(v)}" for k, v in value.items())
    if isinstance(value, (tuple, list)):
        number = len(value)
        some = value if number <= _LISTED else (*value[: _LISTED - 2], "…", value[-1])
        return (
            "("
            + ", ".join(map(_setting, some))
            + ")"
            + (f", {number} of them" if number > _LISTED else "")
        )
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, eqx.Module):
        return type(value).__name__
    return (getattr(value, "__name__", "") if callable(value) else str(value)).replace(
        "<lambda>", ""
    )


def _inferred(name: str, leaf: RandomLeaf, places: tuple[str, ...] = ()) -> Entry:
    where = f" in {' and '.join(places)}" if places else ""
    free = free_shape(leaf.distribution, leaf.shape)
    return Entry(
        name,
        True,
        describe_distribution(leaf.distribution) + where,
        leaf.shape,
        leaf.units,
        leaf.group,
        free,
    )


def _known(name: str, value: Any, metadata: Mapping, group: str) -> Entry:
    if is_random(value):  # one that is shared, or worked out of others
        what = describe_distribution(value) + (", shared" if isinstance(value, Shared) else "")
        return Entry(name, False, what, value.shape(), metadata.get("units", ""), group)
    return Entry(name, False, _value(value), np.shape(value), metadata.get("units", ""), group)


def _value(value: Any) -> str:
    """A known number, or the range of an array of them."""
    if not np.size(value):
        return "no numbers"
    if np.iscomplexobj(value):
        return f"{complex(value):.4g}" if not np.shape(value) else "known complex numbers"
    if not np.shape(value):
        return f"{float(value):.4g}"
    low, high = np.min(value), np.max(value)
    return (
        f"known numbers, all {low:.4g}" if low == high else f"known numbers, {low:.3g}…{high:.3g}"
    )


def _kind(value: Any) -> str:
    return "" if isinstance(value, (Mapping, tuple, list)) else type(value).__name__


def _rich(node: Node, tree: rich.tree.Tree | None = None) -> rich.tree.Tree:
    from rich.markup import escape
    from rich.tree import Tree

    colour = _GROUP_COLOURS.get(node.group, "default")
    settings = "  ".join(f"{name}={value}" for name, value in node.settings.items())
    label = f"[bold {colour}]{escape(node.title)}[/]  [dim]{escape(settings)}[/]".rstrip()
    branch = Tree(label) if tree is None else tree.add(label)
    for entry in node.entries:
        branch.add(escape(str(entry)))
    for child in node.children:
        _rich(child, branch)
    return branch

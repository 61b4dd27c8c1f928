"""`describe`: a model as a tree of its parts, with priors, shapes and units."""

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
from ..model import Model
from ..random import Module, RandomLeaf, Shared, is_random, paths
from .display import BESIDE, description_html, description_text

if TYPE_CHECKING:
    import matplotlib.figure
    import rich.tree

_WIDTH = 120
# Length of the longest tuple that is printed in full.
_LISTED = 8
_GROUP_COLOURS = {"science": "blue", "network": "dark_orange3"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A parameter of a model with its prior, or a known number with its value.

    Args:
        name: the name of the parameter or number.
        random: whether it is a parameter.
        what: the prior or the value in words.
        shape: the shape of the parameter or number.
        units: the units; empty if there are none.
        group: "science", "network" or "latent".
        free: the shape of the unconstrained parameter if it differs from `shape`, as for a simplex.
    """

    name: str
    random: bool
    what: str
    shape: tuple[int, ...]
    units: str
    group: str
    free: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """The number of unconstrained scalars."""
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
    """A part of a model.

    Args:
        name: the name of the part in its parent.
        kind: the name of its class; empty for a container.
        group: the group of its parameters, such as "science".
        settings: settings in words, by name.
        entries: the parameters and numbers of the part itself.
        children: the inner parts.
    """

    name: str
    kind: str
    group: str
    settings: Mapping[str, str]
    entries: tuple[Entry, ...]
    children: tuple[Node, ...]

    def all_entries(self) -> Iterator[Entry]:
        """Yield the entries of this part and of all inner parts."""
        yield from self.entries
        for child in self.children:
            yield from child.all_entries()

    @property
    def title(self) -> str:
        """The name and the kind, joined by a colon if the part has both."""
        return ": ".join(part for part in (self.name, self.kind) if part)


@dataclasses.dataclass(frozen=True)
class Description:
    """The tree of a model: `print` it, or `draw()` it as a diagram.

    Args:
        root: the outermost part, with its kind, settings and numbers.
    """

    root: Node

    @property
    def unknowns(self) -> int:
        """The number of inferred scalars."""
        return sum(entry.size for entry in self.root.all_entries() if entry.random)

    def __rich__(self) -> rich.tree.Tree:
        return _rich(self.root)

    def __str__(self) -> str:
        from rich.console import Console

        # In Jupyter a console of Rich would display the tree instead of writing it.
        console = Console(
            file=io.StringIO(),
            width=_WIDTH,
            color_system=None,
            force_jupyter=False,
            legacy_windows=False,
        )
        console.print(self.__rich__())
        lines = console.file.getvalue().rstrip()  # type: ignore[attr-defined]
        return f"{lines}\n{self.unknowns} unknown numbers"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return description_html(self)

    def draw(self) -> matplotlib.figure.Figure:
        """Draw the tree as a diagram, with science and network in different colours and borders.

        Returns:
            The figure.
        """
        from ..plots import plot_tree

        return plot_tree(self.root)


def describe(model: Module) -> Description:
    """Describe a model: all parts with their settings, all numbers with their priors or values.

    Args:
        model: a `bd.Model`, or a part of one.

    Returns:
        The tree of the model, to print or draw.

    Raises:
        ModelError: if `model` is no model or part of one.

    Example:
        ```python
        print(bd.describe(model))
        ```
    """
    if not isinstance(model, eqx.Module):
        raise ModelError(f"describe takes a bd.Model or a part of one, not {type(model).__name__}")
    leaves = paths(model)
    root = _node("", "", model, "science", leaves)
    # Shared parameters have a name instead of a path, so they are listed in a separate node.
    entries = tuple(
        _inferred(path, leaf, leaf.places + leaf.within)
        for path, leaf in leaves.items()
        if path not in leaf.places
    )
    if entries:
        beside = Node(BESIDE, "", "science", {}, entries, ())
        root = dataclasses.replace(root, children=(*root.children, beside))
    return Description(root)


def _model_text(self: Model) -> str:
    """Return the text of a model at the prompt."""
    try:
        return description_text(describe(self))
    except Exception:  # a traced model has no values, and the text of an object must not fail
        return eqx.tree_pformat(self)


# The core knows no display, so that these methods come from here.
Model.__repr__ = _model_text
Model._repr_html_ = lambda self: describe(self)._repr_html_()  # pyright: ignore


def _node(name: str, path: str, value: Any, group: str, leaves: Mapping[str, RandomLeaf]) -> Node:
    """Return the node of a part, with its settings, entries and inner parts.

    Args:
        name: the name of the part in its parent.
        path: the dotted path of the part in the model.
        value: the part.
        group: the group of the parent, which the part has unless it sets its own.
        leaves: the random leaves of the model, by path.
    """
    group = getattr(value, "random_group", group)
    settings = {}
    entries = []
    children = []
    for field, part, metadata in _parts(value):
        at = f"{path}.{field}" if path else field
        if metadata.get("hidden", False):
            continue
        if metadata.get("static", False) or not _is_part(part):
            settings |= {field: said} if (said := _setting(part)) else {}
        elif _is_number(part):
            inferred = at in leaves
            entries.append(
                _inferred(field, leaves[at]) if inferred else _known(field, part, metadata, group)
            )
        else:
            children.append(_node(field, at, part, group, leaves))
    return Node(name, _kind(value), group, settings, tuple(entries), tuple(children))


def _parts(value: Any) -> Iterator[tuple[str, Any, Mapping]]:
    """Yield the name, value and metadata of every field or item of a part."""
    if isinstance(value, Mapping):
        yield from ((str(key), item, {}) for key, item in value.items())
    elif isinstance(value, (tuple, list)):
        names = getattr(value, "_fields", None) or map(str, range(len(value)))
        yield from ((name, item, {}) for name, item in zip(names, value, strict=True))
    elif dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            yield f.name, getattr(value, f.name, None), f.metadata


def _is_part(value: Any) -> bool:
    """Whether a value is or contains a number, or is a module."""
    if _is_number(value) or isinstance(value, Module):
        return True
    inside = jax.tree.leaves(value, is_leaf=lambda x: is_random(x) or isinstance(x, Module))
    if isinstance(value, (Mapping, tuple, list)):
        return any(_is_number(x) or isinstance(x, Module) for x in inside)
    return isinstance(value, eqx.Module) and any(map(is_random, inside))


def _is_number(value: Any) -> bool:
    """Whether a value is a distribution, a number or an array of numbers."""
    if is_random(value) or not eqx.is_array_like(value) or isinstance(value, bool):
        return is_random(value)
    # An array may also hold a JAX random key, or text.
    return any(
        jnp.issubdtype(getattr(value, "dtype", float), kind) for kind in (np.number, np.bool_)
    )


def _setting(value: Any) -> str:
    """Return a setting in words.

    The text is empty for None, an empty container, and a function without a name.
    """
    if value is None or (isinstance(value, (Mapping, tuple, list, str)) and not value):
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_setting(v)}" for k, v in value.items())
    if isinstance(value, (tuple, list)):
        if len(value) <= _LISTED:
            return f"({', '.join(map(_setting, value))})"
        some = (*value[: _LISTED - 2], "…", value[-1])
        return f"({', '.join(map(_setting, some))}), {len(value)} of them"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, eqx.Module):
        return type(value).__name__
    name = getattr(value, "__name__", "") if callable(value) else str(value)
    return name.replace("<lambda>", "")


def _inferred(name: str, leaf: RandomLeaf, places: tuple[str, ...] = ()) -> Entry:
    """Return the entry of a parameter.

    `places` are the dotted paths at which a shared parameter occurs.
    """
    what = describe_distribution(leaf.distribution)
    if places:
        what += f" in {' and '.join(places)}"
    free = free_shape(leaf.distribution, leaf.shape)
    return Entry(name, True, what, leaf.shape, leaf.units, leaf.group, free)


def _known(name: str, value: Any, metadata: Mapping, group: str) -> Entry:
    """Return the entry of a known number, or of a shared or derived parameter.

    Args:
        name: the name of the number.
        value: the number or the random value.
        metadata: the metadata of its field, which may have `units`.
        group: the group of its part.
    """
    if is_random(value):
        what = describe_distribution(value) + (", shared" if isinstance(value, Shared) else "")
        return Entry(name, False, what, value.shape(), metadata.get("units", ""), group)
    return Entry(name, False, _value(value), np.shape(value), metadata.get("units", ""), group)


def _value(value: Any) -> str:
    """Return a known number in words, or the range of a known array."""
    if not np.size(value):
        return "no numbers"
    if np.iscomplexobj(value):
        if not np.shape(value):
            return f"{complex(value):.4g}"
        return "known complex numbers"
    if not np.shape(value):
        return f"{float(value):.4g}"
    low = np.min(value)
    high = np.max(value)
    if low == high:
        return f"known numbers, all {low:.4g}"
    return f"known numbers, {low:.3g}…{high:.3g}"


def _kind(value: Any) -> str:
    """Return the name of the class of a part; empty for a plain container."""
    if isinstance(value, (Mapping, tuple, list)):
        return ""
    return type(value).__name__


def _rich(node: Node, tree: rich.tree.Tree | None = None) -> rich.tree.Tree:
    """Convert a node to a tree of Rich; with `tree`, add it to this tree as a branch."""
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

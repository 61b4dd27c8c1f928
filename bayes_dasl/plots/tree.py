"""A model as a diagram of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..errors import MismatchError
from ._style import BLACK, GREY, STYLE, WIDTH, NotebookFigure, plain

_LOOKS = {
    "science": {
        "fc": "#DCEAF5",
        "ec": "#0072B2",
        "ls": "-",
    },
    "network": {
        "fc": "#FBEBCB",
        "ec": "#B37400",
        "ls": "--",
    },
}
_LINE, _GAP, _INDENT, _PAD = 0.17, 0.1, 0.32, 0.06  # inches
_MOST_ROWS = 10
_LETTERS_PER_INCH = 15.5


@dataclass(frozen=True)
class _Box:
    """The box of one part of a model.

    Args:
        node: the part, a node of the description.
        rows: rows of text below the title.
        depth: number of parts that contain this part.
        top: upper edge in inches; the vertical axis points down.
        parent: the box of the part that contains this part; None for the model.
    """

    node: Any
    rows: list[str]
    depth: int
    top: float
    parent: "_Box | None"

    @property
    def height(self) -> float:
        """Height in inches, for the title and one line per row."""
        return _LINE * (1 + len(self.rows)) + 2 * _PAD

    @property
    def bottom(self) -> float:
        """Lower edge in inches; the vertical axis points down."""
        return self.top + self.height


@mpl.rc_context(STYLE)
def plot_tree(root: Any) -> Figure:
    """Draw a model as a diagram: one box per part, with its parameters, indented below its parent.

    Boxes of the science have a blue edge, those of a network a dashed orange edge. A parameter with
    `~` is inferred. The parts of a network are counted, not drawn.

    Args:
        root: `describe(model).root`.

    Returns:
        The figure.

    Raises:
        MismatchError: if `root` is something else.
    """
    if not hasattr(root, "group"):
        raise MismatchError("give bd.describe(model).root")
    boxes: list[_Box] = []
    _add_boxes(boxes, root, 0, None)
    # The height of the figure follows from its boxes.
    height = boxes[-1].bottom + _GAP
    fig = NotebookFigure(figsize=(WIDTH, height))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.set_axis_off()
    for box in boxes:
        _draw_box(ax, box)
        if box.parent is not None:
            _connect(ax, box, box.parent)
    return fig


def _add_boxes(boxes: list[_Box], node: Any, depth: int, parent: _Box | None) -> None:
    """Append a box for a part, and for all parts in it, from top to bottom.

    Args:
        boxes: the boxes so far.
        node: the part, a node of the description.
        depth: number of parts that contain the part.
        parent: the box of the part that contains it.
    """
    # A network's layers say little: count their weights. A learned structure has named parts.
    is_structure = not any(child.kind and child.name == "module" for child in node.children)
    closed = node.group == "network" and not is_structure
    rows = [_entry_text(entry) for entry in node.entries]
    if closed and node.children:
        rows.append(_count_weights(node))
    if len(rows) > _MOST_ROWS:
        rows = [*rows[: _MOST_ROWS - 1], f"and {len(rows) - _MOST_ROWS + 1} more"]
    top = _GAP + (boxes[-1].bottom if boxes else 0.0)
    box = _Box(node, rows, depth, top, parent)
    boxes.append(box)
    for child in () if closed else node.children:
        _add_boxes(boxes, child, depth + 1, box)


def _count_weights(node: Any) -> str:
    """Return in words how many random weights a network has, in how many arrays."""
    arrays = [entry for child in node.children for entry in child.all_entries() if entry.random]
    return f"{sum(entry.size for entry in arrays)} weights in {len(arrays)} arrays"


def _entry_text(entry: Any) -> str:
    """Return a parameter of a model as text, such as `rate ~ LogNormal × 3 [1/d]`."""
    shape = f" × {'·'.join(map(str, entry.shape))}" if entry.shape else ""
    units = f" [{entry.units}]" if entry.units else ""
    return f"{entry.name} {'~' if entry.random else '='} {entry.what}{shape}{units}"


def _draw_box(ax: Axes, box: _Box) -> None:
    """Draw a rounded box with its title and rows, which are cut to the width of the box."""
    left = _GAP + box.depth * _INDENT
    width = WIDTH - _GAP - left
    look = {
        "boxstyle": "round,pad=0,rounding_size=0.05",
        "lw": 1.1,
        **_LOOKS[box.node.group],
    }
    ax.add_patch(FancyBboxPatch((left, box.top), width, box.height, **look))
    # The font is not measured: this many letters fit on average.
    letters = int((width - 2 * _PAD) * _LETTERS_PER_INCH)
    for i, row in enumerate([box.node.title, *box.rows]):
        text = row if len(row) <= letters else row[: letters - 1] + "…"
        place = left + _PAD, box.top + _PAD + _LINE * (i + 0.5)
        look = {
            "va": "center",
            "fontsize": 8,
            "weight": "normal" if i else "bold",
        }
        ax.text(*place, plain(text), color=BLACK, **look)


def _connect(ax: Axes, box: _Box, parent: _Box) -> None:
    """Draw a line from the lower edge of the box `parent` to the title of the box `box`."""
    x = _GAP + (box.depth - 0.5) * _INDENT
    middle = box.top + _LINE / 2 + _PAD
    # Down from the parent, then right to the box.
    corner = [x, x, x + 0.5 * _INDENT]
    ax.plot(corner, [parent.bottom, middle, middle], color=GREY, lw=0.9, zorder=0)

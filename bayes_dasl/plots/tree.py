"""A model as a diagram."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..errors import MismatchError
from ._style import BLACK, GREY, STYLE, WIDTH, plain

_FILL = {"science": "#DCEAF5", "network": "#FBEBCB"}
_EDGE = {"science": ("#0072B2", "-"), "network": ("#B37400", "--")}
_LINE, _GAP, _INDENT, _PAD = 0.17, 0.1, 0.32, 0.06  # inches
_MOST_ROWS = 10
_LETTERS_PER_INCH = 15.5


def plot_tree(root: Any) -> Figure:
    """Draw a description's tree: a box for each part, inside what it hangs from, with the numbers
    that it holds.

    Science has a blue edge, a network a dashed orange one; `~` marks what is inferred. What is
    inside a network is counted, not drawn.

    Args:
        root: `describe(model).root`.

    Raises:
        MismatchError: for anything else.
    """
    if not hasattr(root, "group"):
        raise MismatchError("give bd.describe(model).root")
    boxes = list(_boxes(root, 0, None))
    tops, height = [], _GAP
    for _, _, rows, _ in boxes:
        tops.append(height)
        height += _height(rows) + _GAP
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(WIDTH, height))
        ax = fig.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, WIDTH), ylim=(height, 0))
        ax.set_axis_off()
        for (node, depth, rows, parent), top in zip(boxes, tops, strict=True):
            _draw(ax, node, rows, depth, top)
            if parent is not None:
                _hang(ax, depth, tops[parent] + _height(boxes[parent][2]), top + _LINE / 2 + _PAD)
    return fig


def _boxes(
    node: Any, depth: int, parent: int | None, taken: list[int] | None = None
) -> Iterator[tuple]:
    """Every part that gets a box: the part, its depth, its rows and the number of the box that it
    hangs from.
    """
    taken = [0] if taken is None else taken
    number, closed = taken[0], node.group == "network" and not _is_learned_structure(node)
    taken[0] += 1
    rows = [*map(_row, node.entries), *([_counted(node)] if closed and node.children else [])]
    yield node, depth, _cut(rows), parent
    for child in () if closed else node.children:
        yield from _boxes(child, depth + 1, number, taken)


def _is_learned_structure(node: Any) -> bool:
    return not any(child.kind and child.name == "module" for child in node.children)


def _counted(node: Any) -> str:
    arrays = [entry for child in node.children for entry in child.all_entries() if entry.random]
    return f"{sum(entry.size for entry in arrays)} weights in {len(arrays)} arrays"


def _row(entry: Any) -> str:
    shape = f" × {'·'.join(map(str, entry.shape))}" if entry.shape else ""
    return f"{entry.name} {'~' if entry.random else '='} {entry.what}{shape}" + (
        f" [{entry.units}]" if entry.units else ""
    )


def _cut(rows: list[str]) -> list[str]:
    hidden = len(rows) - _MOST_ROWS
    return rows if hidden <= 0 else [*rows[: _MOST_ROWS - 1], f"and {hidden + 1} more"]


def _height(rows: list[str]) -> float:
    return _LINE * (1 + len(rows)) + 2 * _PAD


def _draw(ax: Axes, node: Any, rows: list[str], depth: int, top: float) -> None:
    left = _GAP + depth * _INDENT
    width = WIDTH - _GAP - left
    edge, line = _EDGE[node.group]
    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(
        FancyBboxPatch(
            (left, top),
            width,
            _height(rows),
            boxstyle=style,
            fc=_FILL[node.group],
            ec=edge,
            ls=line,
            lw=1.1,
        )
    )
    letters = int((width - 2 * _PAD) * _LETTERS_PER_INCH)
    for i, row in enumerate([node.title, *rows]):
        text = row if len(row) <= letters else row[: letters - 1] + "…"
        weight = "bold" if i == 0 else "normal"
        at = top + _PAD + _LINE * (i + 0.5)
        ax.text(left + _PAD, at, plain(text), va="center", fontsize=8, weight=weight, color=BLACK)


def _hang(ax: Axes, depth: int, above: float, middle: float) -> None:
    x = _GAP + (depth - 0.5) * _INDENT
    ax.plot([x, x, x + 0.5 * _INDENT], [above, middle, middle], color=GREY, lw=0.9, zorder=0)

"""The picture of the architecture: the rows of docs/design.md, and how many files of each import
files of which other.

Run: `uv run python docs/make_architecture.py`
"""

import sys
from collections import Counter
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bayes_dasl.plots._style import (  # noqa: E402
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    VERMILION,
)
from tests.studies.imports import Graph, working_tree  # noqa: E402
from tests.studies.structure import design_rows  # noqa: E402

PICTURE = ROOT / "docs" / "assets" / "architecture.png"
BANDS = (  # the last row of each, and what its rows are for
    ("plots", "on top", PURPLE),
    ("further parts", "subpackages", ORANGE),
    ("inference", "draws", BLUE),
    ("parts", "the model", GREEN),
    ("errors", "foundation", GREY),
)
BOXES, MATRIX = 4.0, 16.4  # left ends of the boxes and of the matrix, in heights of a row
LETTER = 0.215


def arrows(rows: list[tuple[str, list[str]]]) -> Counter[tuple[int, int]]:
    """Pairs of files of which one imports the other, by the numbers of their rows."""
    row_of = {module: number for number, (_, modules) in enumerate(rows) for module in modules}
    found: Counter[tuple[int, int]] = Counter()
    for path, targets in Graph(working_tree(ROOT, "bayes_dasl")).arrows.items():
        for target in targets:
            ends = [row_of.get(end.split("/")[1].removesuffix(".py")) for end in (path, target)]
            if None not in ends and ends[0] != ends[1]:
                found[ends[0], ends[1]] += 1
    return found


def bands(rows: list[tuple[str, list[str]]]) -> list[tuple[int, int, str, str]]:
    """First row, row after the last, label and colour of each band."""
    names, ends = [name for name, _ in rows], [0]
    ends += [names.index(last) + 1 for last, _, _ in BANDS]
    return [
        (begin, end, label, hue)
        for begin, end, (_, label, hue) in zip(ends, ends[1:], BANDS, strict=False)
    ]


def draw_rows(axes: Axes, rows: list[tuple[str, list[str]]]) -> None:
    """Names of rows, and a box for each module."""
    for begin, end, label, hue in bands(rows):
        axes.add_patch(Rectangle((-0.62, begin + 0.06), 0.22, end - begin - 0.12, color=hue, lw=0))
        axes.text(
            -0.95,
            (begin + end) / 2,
            label,
            rotation=90,
            ha="center",
            va="center",
            color=BLACK,
            size=9,
        )
        for number in range(begin, end):
            name, modules = rows[number]
            middle, left = number + 0.5, BOXES
            axes.text(0.0, middle, name, va="center", size=10, color=BLACK)
            for module in modules:
                width = LETTER * len(module) + 0.5
                box = FancyBboxPatch(
                    (left, number + 0.16), width, 0.68, boxstyle="round,pad=0,rounding_size=0.16",
                    facecolor=(hue, 0.16), edgecolor=hue, lw=1.0,
                )  # fmt: skip
                axes.add_patch(box)
                said = {"family": "DejaVu Sans Mono", "size": 9, "color": BLACK}
                axes.text(left + width / 2, middle, module, ha="center", va="center", **said)
                left += width + 0.22


def draw_matrix(axes: Axes, rows: list[tuple[str, list[str]]]) -> None:
    """A dot for each row that imports from another, right of the diagonal; left of it nothing may
    stand.
    """
    found, number = arrows(rows), len(rows)
    most = max(found.values())
    for begin, end, _, hue in bands(rows):
        for row in range(begin, end):
            axes.plot(
                [MATRIX + row + 1, MATRIX + number], [row + 0.5] * 2, color=FAINT, lw=0.7, zorder=0
            )
            axes.plot([MATRIX + row + 0.5] * 2, [0.0, row], color=FAINT, lw=0.7, zorder=0)
            axes.add_patch(
                Rectangle(
                    (MATRIX + row + 0.16, row + 0.16), 0.68, 0.68, facecolor=(hue, 0.30), lw=0
                )
            )
    for (row, column), files in found.items():
        upwards = column < row
        size = 14 + 170 * files / most
        axes.scatter(
            MATRIX + column + 0.5, row + 0.5, s=size, color=VERMILION if upwards else BLACK, lw=0, zorder=3,
            marker="X" if upwards else "o",
        )  # fmt: skip
    for column, (name, _) in enumerate(rows):
        axes.text(
            MATRIX + column + 0.42,
            -0.2,
            name,
            rotation=45,
            ha="left",
            va="bottom",
            size=9,
            color=BLACK,
        )
    legend_at, at = MATRIX + 0.4, number - 2.6
    axes.text(
        legend_at, at - 1.7, "A dot: the row imports the column.", size=9, color=BLACK, va="center"
    )
    axes.text(legend_at, at - 0.9, "Left of the diagonal: none.", size=9, color=BLACK, va="center")
    for step, files in enumerate((1, 10, most)):
        axes.scatter(
            legend_at + 0.25, at + 0.85 * step, s=14 + 170 * files / most, color=BLACK, lw=0
        )
        said = f"{files} pair{'s' if files > 1 else ''} of files"
        axes.text(legend_at + 0.85, at + 0.85 * step, said, size=9, color=BLACK, va="center")


def main() -> None:
    rows = design_rows(ROOT)
    with rc_context(STYLE):
        width, height = MATRIX + len(rows) + 2.9, len(rows) + 3.4
        figure = Figure(figsize=(0.335 * width, 0.335 * height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-1.5, MATRIX + len(rows) + 1.4), ylim=(len(rows) + 0.1, -3.3))
        axes.set_axis_off()
        draw_rows(axes, rows)
        draw_matrix(axes, rows)
        figure.savefig(PICTURE, dpi=160)


if __name__ == "__main__":
    main()

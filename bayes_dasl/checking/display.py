"""Text and HTML of models, descriptions and findings, for the prompt and for notebooks.

The HTML inherits its colours, so that it reads well in light and dark mode, and loads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING

from .._findings import LEVELS, Diagnosis

if TYPE_CHECKING:
    from .description import Description, Node

BESIDE = "shared, and what others depend on"
"""The name of the part that lists shared parameters."""

_COLUMNS = ("name", "prior", "units", "shape", "group")
# White text has a contrast of at least 4.5 on each.
_COLOURS = dict(zip(LEVELS, ("#1b7837", "#5f6368", "#a04d00", "#b3261e"), strict=True))
_BADGE = "padding:.1em .5em;border-radius:.6em;color:#fff;background:"
_CELL = "text-align:left;vertical-align:top;white-space:normal"


def description_text(description: Description) -> str:
    """Return the kind of a model and a line for each parameter."""
    rows = list(_parameters(description.root))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_title(description)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def description_html(description: Description) -> str:
    """Return a table of parameters, and below it the tree of all parts, folded."""
    rows = [(_faded(name), *map(escape, others)) for name, *others in _parameters(description.root)]
    tree = f"<details><summary>All parts</summary><pre>{escape(str(description))}</pre></details>"
    table = _html_table(_COLUMNS, rows) if rows else ""
    return f"<div><p><b>{escape(_title(description))}</b></p>{table}{tree}</div>"


def findings_html(diagnosis: Diagnosis) -> str:
    """Return the verdict and a table of findings, the worst first."""
    found = sorted(diagnosis.findings, key=lambda finding: -LEVELS.index(finding.level))
    rows = []
    for finding in found:
        badge = f'<span style="{_BADGE}{_COLOURS[finding.level]}">{finding.level}</span>'
        remedy = f"<br><i>Remedy:</i> {escape(finding.remedy)}" if finding.remedy else ""
        rows.append((badge, escape(finding.subject), escape(finding.message) + remedy))
    table = _html_table(("level", "subject", "result"), rows)
    return f"<div><p><b>{escape(diagnosis.verdict)}</b></p>{table}</div>"


def _title(description: Description) -> str:
    """Return the kinds of a model and its main parts, and the number of unknowns."""
    root = description.root
    kinds = []
    for child in root.children:
        # A container, such as the noise by observable, has no kind of its own.
        kinds += [child.kind] if child.kind else [inner.kind for inner in child.children]
    parts = ", ".join(dict.fromkeys(filter(None, kinds)))
    return f"{root.kind}{parts and f': {parts}'}; {description.unknowns} unknown numbers"


def _parameters(node: Node, at: str = "") -> Iterator[tuple[str, ...]]:
    """Yield the cells of each parameter of a part and its inner parts."""
    for entry in node.entries:
        if entry.random:
            shape = " × ".join(map(str, entry.shape))
            yield f"{at}{entry.name}", entry.what, entry.units, shape, entry.group
    for child in node.children:
        # Names of shared parameters are complete.
        yield from _parameters(child, "" if child.name == BESIDE else f"{at}{child.name}.")


def _faded(name: str) -> str:
    """Return a dotted name with all but its last part in a lighter tone."""
    part, dot, last = name.rpartition(".")
    return f'<span style="opacity:.7">{escape(part + dot)}</span>{escape(last)}'


def _html_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are HTML."""
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in header)
    lines = ("".join(f'<td style="{_CELL}">{cell}</td>' for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

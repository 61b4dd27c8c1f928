"""Tables of what was measured, and the sections of pages that hold them."""

from collections.abc import Iterable
from pathlib import Path


def table(lines: Iterable[Iterable[object]]) -> str:
    """A GitHub table; the first line is the header."""
    header, *body = [[str(cell) for cell in line] for line in lines]
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *body]
    )


def write_section(path: Path, name: str, content: str) -> None:
    """Replace what stands between the section's two markers.

    Raises: SystemExit if the page lacks them.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = path.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise SystemExit(f"{path} lacks the markers {begin} and {end}")
    before, rest = text.split(begin, 1)
    path.write_text(f"{before}{begin}\n{content}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")

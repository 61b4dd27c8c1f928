"""Words of the documentation, and random passages of it for a fresh reader.

    uv run python -m tests.studies.readability                        # words by folder
    uv run python -m tests.studies.readability paragraphs --seed 1    # 40 paragraphs of user pages
    uv run python -m tests.studies.readability docstrings --seed 1    # 30 docstrings with their code

Words are those of the prose: code blocks, front matter and link targets do not count. User pages are all pages except
those for developers. A paragraph has fifteen words or more; headings and tables are not paragraphs.
"""

import argparse
import ast
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import ROOT

DOCS = ROOT / "docs"
USER = ("index.md", "tutorials", "how-to", "explanation", "reference", "evidence")
NOT_PROSE = re.compile(
    r"^---\n.*?^---$|^```.*?^```$|<!--.*?-->|(?<=\])\([^)]*\)|^:::.*(\n +.*)*", re.M | re.S
)


def prose(page: Path) -> str:
    return NOT_PROSE.sub("", page.read_text(encoding="utf-8"))


def user_pages() -> list[Path]:
    return [page for page in sorted(DOCS.rglob("*.md")) if page.relative_to(DOCS).parts[0] in USER]


def words(page: Path) -> int:
    return len(prose(page).split())


def paragraphs() -> list[str]:
    """Each paragraph of the user pages, under its page and heading."""
    found = []
    for page in user_pages():
        heading = ""
        for part in re.split(r"\n\s*\n", prose(page)):
            if part.startswith("#"):
                heading = part.strip("# \n")
            elif len(part.split()) >= 15 and not part.lstrip().startswith("|"):
                found.append(f"{page.relative_to(DOCS)}, {heading}\n\n{part.strip()}")
    return found


def docstrings() -> Iterator[str]:
    """Each function or class with a docstring, as its file has it."""
    for file in sorted((ROOT / "bayes_dasl").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                lines = source.splitlines()[node.lineno - 1 : node.body[0].end_lineno]
                yield f"{file.relative_to(ROOT)}\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("paragraphs", "docstrings"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what is None:
        counted = Counter()
        for page in user_pages():
            counted[page.relative_to(DOCS).parts[0]] += words(page)
        for folder, count in counted.items():
            print(f"{count:6d} {folder}")
        longest = max(user_pages(), key=words)
        print(
            f"{counted.total():6d} in all; most on one page: {words(longest)}, {longest.relative_to(DOCS)}"
        )
        return
    passages, number = (
        (paragraphs(), 40) if options.what == "paragraphs" else (list(docstrings()), 30)
    )
    for place, passage in enumerate(random.Random(options.seed).sample(passages, number), start=1):
        print(f"--- {place}. {passage}\n")


if __name__ == "__main__":
    main()

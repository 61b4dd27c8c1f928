"""Build the documentation.

Every `python` block of a page is run, in order, and the page shows its output and figures. The
results are kept as notebooks in `docs/outputs`, so that only pages with changed code are run again:

    uv run python docs/build.py --run            # run the pages whose code has changed
    uv run python docs/build.py --run PAGE.md    # run one page again
    uv run python docs/build.py                  # build; fails if code has changed since it was run

A block that only shows code begins with ```` ```py ````. The fence of a block with a figure says
what the figure shows: ```` ```python alt="Level of the tank over time" ````.
"""

import argparse
import base64
import datetime
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring, tostring

import nbformat
from latex2mathml.converter import convert
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import bayes_dasl as bd

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
OUTPUTS = DOCS / "outputs"
SITE = ROOT / "site"
NO_PAGES = ("measurements", "outputs")
"""Folders of `docs` that are not part of the site."""
BLOCK = re.compile(r'^```python(?: alt="(?P<alt>[^"\n]*)")?\n(?P<code>.*?)^```$', re.M | re.S)
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\[(\[](?P<latex>.*?)\\[)\]]\s*</\1>', re.S
)
BREAKS = set("=≈∼~<>≤≥→∝+−")
"""Signs before which a formula in a line of text may be broken."""
ALIGNED = re.compile(r"^ *\S.* {2,}\S.*\n *\S.* {2,}\S", re.M)
"""Two lines of printed output in columns, which must not be wrapped."""
SETTINGS = """\
import matplotlib.pyplot as plt
plt.rcParams["figure.dpi"] = 90
from IPython.core.pylabtools import select_figure_formats
select_figure_formats(get_ipython(), {"png"}, bbox_inches="tight", facecolor="white")
"""


def pages() -> list[Path]:
    """The pages of the site, relative to `docs`."""
    found = (path.relative_to(DOCS) for path in sorted(DOCS.rglob("*.md")))
    return [page for page in found if page.parts[0] not in NO_PAGES]


def blocks(page: Path) -> list[re.Match]:
    """The code blocks of a page that are run."""
    return list(BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")))


def held(page: Path) -> Path:
    """The notebook with the outputs of a page."""
    return OUTPUTS / page.with_suffix(".ipynb")


def code_hash(page: Path) -> str:
    """A hash of all code of a page."""
    code = "\n".join(block["code"] for block in blocks(page))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def is_stale(page: Path) -> bool:
    """Whether code of a page has changed since it was run."""
    if not blocks(page):
        return False
    if not held(page).exists():
        return True
    return nbformat.read(held(page), 4).metadata["ran"]["code"] != code_hash(page)


def cells(page: Path) -> Iterator[nbformat.NotebookNode]:
    """The text and the code of a page as cells of a notebook."""
    text = (DOCS / page).read_text(encoding="utf-8")
    end = 0
    for block in blocks(page):
        if between := text[end : block.start()].strip():
            yield new_markdown_cell(between)
        yield new_code_cell(block["code"].rstrip())
        end = block.end()
    if after := text[end:].strip():
        yield new_markdown_cell(after)


def run(page: Path) -> None:
    """Run the code of a page in an empty folder, and keep its outputs."""
    notebook = new_notebook(cells=[new_code_cell(SETTINGS), *cells(page)])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=1800,
            kernel_name="python3",
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    del notebook.cells[0]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.metadata = {}
            for output in cell.outputs:
                if output.get("name") == "stderr":
                    print(f"{page}: {output.text}", file=sys.stderr)
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata["ran"] = {
        "code": code_hash(page),
        "date": datetime.date.today().isoformat(),
        "version": bd.__version__,
        "seconds": round(time.perf_counter() - began),
    }
    held(page).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, held(page))
    print(f"{page}: ran in {notebook.metadata['ran']['seconds']} s", flush=True)


def in_block(text: str) -> str:
    """Markdown for printed output; long lines are wrapped unless they are columns."""
    wrapped = "" if ALIGNED.search(text) else ".wrapped "
    return f'``` {{.text {wrapped}title="Output"}}\n{text.rstrip()}\n```'


def in_table(found: str) -> str:
    """A table of pandas as the site draws tables, with one line of headers."""
    found = re.sub(r"<style.*?</style>", "", found, flags=re.S)
    found = re.sub(r"<table[^>]*>", "<table>", found)
    found = re.sub(
        r"<th></th>(?P<names>(?:(?!</tr>).)*)</tr>\s*<tr[^>]*>\s*"
        r"<th>(?P<index>[^<]+)</th>(?:\s*<th></th>)+\s*</tr>",
        r"<th>\g<index></th>\g<names></tr>",
        found,
        flags=re.S,
    )
    found = re.sub(r"<th>[^<]+", lambda name: name[0].replace("_", "_<wbr>"), found)
    return f'<div class="output">{found.replace("<th></th>", "<td></td>")}</div>'


def shown(output: nbformat.NotebookNode, figure: Path, alt: str) -> str:
    """Markdown for one output of a cell; a figure is written to a file."""
    if output.output_type == "stream":
        return in_block(output.text)
    data = output.data
    if "image/png" in data:
        figure.write_bytes(base64.b64decode(data["image/png"]))
        return f"![{html.escape(alt)}]({figure.name})"
    if "text/html" in data:
        return in_table(data["text/html"])
    return in_block(data["text/plain"])


def with_outputs(page: Path, to: Path) -> str:
    """The Markdown of a page with the outputs of its blocks."""
    notebook = nbformat.read(held(page), 4)
    outputs = iter([cell.outputs for cell in notebook.cells if cell.cell_type == "code"])
    number = 0

    def replace(block: re.Match) -> str:
        nonlocal number
        found = [f"```python\n{block['code']}```"]
        for output in next(outputs, ()):
            number += 1
            figure = to.with_name(f"{page.stem}-{number}.png")
            found.append(shown(output, figure, block["alt"] or ""))
        return "\n\n".join(found)

    text = BLOCK.sub(replace, (DOCS / page).read_text(encoding="utf-8"))
    ran = notebook.metadata["ran"]
    return (
        f"{text.rstrip()}\n\n---\n\nThe code of this page ran in {ran['seconds']} s on two cores, on "
        f"{ran['date']}, with bayes_dasl {ran['version']}. "
        f"[Download it as a notebook]({page.stem}.ipynb).\n"
    )


def write_sources(to: Path) -> None:
    """Write the pages with their outputs, and all other files of the site."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(
        DOCS, to, ignore=shutil.ignore_patterns(*NO_PAGES, "*.md", "*.py", "__pycache__")
    )
    for page in pages():
        target = to / page
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (DOCS / page).read_text(encoding="utf-8")
        if blocks(page) and held(page).exists():
            text = with_outputs(page, target)
            shutil.copy(held(page), target.with_suffix(".ipynb"))
        target.write_text(text, encoding="utf-8")


def mathml(latex: str, display: str = "inline") -> Element:
    """A formula in MathML."""
    # The converter does not know \arg and \_, and takes \sim for a letter.
    latex = html.unescape(latex).strip().replace(r"\arg\min", r"\mathrm{arg}\min")
    text = convert(latex, xmlns="", display=display).replace(r"\_", "_")
    formula = fromstring(text.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"))
    for row in formula.iter("mrow"):
        for place, (part, after) in reversed(list(enumerate(pairwise(row), start=1))):
            if part.tag == "mi" and len(part.text or "") > 2 and after.tag != "mo":
                row.insert(place, Element("mspace", width="0.167em"))
    return formula


def in_page(found: re.Match) -> str:
    """A formula of a page, which browsers draw without a script."""
    if found[1] == "div":
        return tostring(mathml(found["latex"], "block"), encoding="unicode")
    return "".join(pieces(mathml(found["latex"])))


def in_words(latex: str) -> str:
    """A formula in a line of plain text, for the results of a search."""
    formula = mathml(latex)
    for tag, sign in (("mfrac", "/"), ("msub", "_"), ("msup", "^")):
        for part in formula.iter(tag):
            part[0].tail = sign
    return html.escape("".join(formula.itertext()), quote=False)


def pieces(formula: Element) -> Iterator[str]:
    """A long formula as a row of formulas, between which a browser may begin a new line."""
    short = len(list(formula.iter())) < 25
    opened, ended, rows = 0, False, [[]]
    for part in formula[0]:
        relation = part.tag == "mo" and part.text in BREAKS
        if rows[-1] and not (short or opened) and (relation or ended):
            if relation:
                part.set("form", "infix")
            rows.append([])
        ended = part.text == "," or (part.tag == "mspace" and part.get("width") == "1em")
        signs = [sign.text for sign in part.iter("mo")]
        opened += sum(signs.count(left) - signs.count(right) for left, right in ("()", "[]"))
        rows[-1].append(part)
    for row in rows:
        formula[0][:] = row
        yield tostring(formula, encoding="unicode")


def finish(site: Path) -> None:
    """Write the formulas of all pages as MathML, and link each figure to its file."""
    for path in site.rglob("*.html"):
        text = FORMULA.sub(in_page, path.read_text(encoding="utf-8"))
        text = re.sub(r'<img [^>]*src="([^"]+\.png)"[^>]*>', r'<a href="\1">\g<0></a>', text)
        path.write_text(text, encoding="utf-8")
    found = json.loads((site / "search.json").read_text(encoding="utf-8"))
    for item in found["items"]:
        for name in ("title", "text"):
            item[name] = re.sub(
                r"\\[(\[](.*?)\\[)\]]", lambda latex: in_words(latex[1]), item[name], flags=re.S
            )
    (site / "search.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def build() -> int:
    """Build the site; return 1 if there was a warning."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_sources(work / "docs")
        shutil.copy(ROOT / "mkdocs.yml", work)
        (work / "bayes_dasl").symlink_to(ROOT / "bayes_dasl")
        done = subprocess.run(
            [str(Path(sys.executable).with_name("zensical")), "build", "--strict", "--clean"],
            cwd=work,
            env=os.environ | {"NO_COLOR": "1"},
        )
        if done.returncode == 0:
            finish(work / "site")
            shutil.rmtree(SITE, ignore_errors=True)
            shutil.move(work / "site", SITE)
    return done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--run", nargs="*", type=Path, help="run pages; by default the changed ones"
    )
    asked = parser.parse_args()
    if asked.run is not None:
        chosen = [path.resolve().relative_to(DOCS) for path in asked.run]
        for page in chosen or filter(is_stale, pages()):
            run(page)
        return
    if stale := [str(page) for page in pages() if is_stale(page)]:
        raise SystemExit(f"run `uv run python docs/build.py --run`: changed are {', '.join(stale)}")
    raise SystemExit(build())


if __name__ == "__main__":
    main()

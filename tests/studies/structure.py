"""How the package is laid out, counted the same way in the working tree and in any git revision.

Run: `uv run python -m tests.studies.structure --before 8713163`; `--rev REV` counts a revision in the place of the
working tree, `--still` runs no NUTS.

What is counted:

- *Rooms*: files and folders directly in `bayes_dasl`, without `__init__.py` and `py.typed`. With `case_studies` and
  `.ci` added there were 51 when the count was first made.
- *Files*: all `.py` files of the package. `size.py` counts them, their lines and their tokens.
- *Arrows*: pairs of files of which one imports the other, also inside a function, not under `TYPE_CHECKING`. A name
  that a package's `__init__` only hands on counts as imported from the file that defines it, and no `__init__` is an
  end of an arrow. *Imports a file* are arrows over all files; also given over the files that are no `__init__`.
- *Longest chain*: the most arrows that can be followed from file to file.
- *Cycles*: groups of files that reach each other.
- *Engines*: public classes below `inference` with a method `run(self, problem, …)` that some `__init__` hands on.
  *Files that name an engine* have the name of its class in their code, as a name or as a word of a string, comments and
  docstrings aside: a new engine of the kind would touch these. Its own file does not count, nor its folder where no
  other engine lives there. An `__init__` that hands it on is counted apart: that is the export which each engine needs.
- *Reaches around the problem*: places below `inference` that read `.model`, `.inputs` or `.observed` of something
  called `problem`, and in how many files.
- *Private names that tests import*: names below a module or of a name that begins with `_`, one for each import in a
  file directly in `tests`. Those of *a room's own tests* are of the top-level room in which a module is called as the
  test file is (`test_keys.py` and `_jax/keys.py`; an `s` at the end aside).
- *The problem through a run of NUTS*: see `problem_walk.py`.
"""

import argparse
import ast
import re
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import ROOT
from .imports import Graph, Sources, imported, revision, working_tree
from .pages import table
from .problem_walk import walk

PACKAGE = "bayes_dasl"
AROUND = {"model", "inputs", "observed"}

type Counts = dict[str, str]


def design_rows(root: Path) -> list[tuple[str, list[str]]]:
    """Name and modules of each row in the table of docs/design.md, from the top."""
    text = (root / "docs" / "design.md").read_text(encoding="utf-8")
    lines = re.findall(
        r"^\| ([^|]+) \| (`[^|]+`) \| [^|]+ \|$",
        text.partition("| row |")[2].partition("\n\n")[0],
        re.M,
    )
    return [(name, re.findall(r"`(\w+)`", modules)) for name, modules in lines]


def chain(arrows: Mapping[str, frozenset[str]]) -> list[str]:
    """The files of the longest chain; an arrow that would close a circle is not followed."""
    longest: dict[str, list[str]] = {}

    def below(path: str, above: frozenset[str]) -> list[str]:
        if path not in longest:
            tails = [
                below(target, above | {path}) for target in sorted(arrows[path] - above - {path})
            ]
            longest[path] = [path, *max(tails, key=len, default=[])]
        return longest[path]

    return max((below(path, frozenset()) for path in sorted(arrows)), key=len)


def cycles(graph: Graph, arrows: Mapping[str, frozenset[str]]) -> list[set[str]]:
    """Groups of more than one file, each of which reaches all others."""
    reach = {
        path: {end for target in arrows[path] for end in graph.below([target])} for path in arrows
    }
    groups = {
        frozenset(end for end in reach[path] if path in reach.get(end, ())) for path in arrows
    }
    return [set(group) for group in groups if len(group) > 1]


def engines(sources: Sources) -> dict[str, str]:
    """The files of classes that run a problem, by name; what they derive from does not count."""
    return {
        node.name: path
        for path, text in sources.items()
        if path.startswith(f"{PACKAGE}/inference/")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and _runs(node)
    }


def _runs(node: ast.ClassDef) -> bool:
    return not node.name.startswith("Abstract") and any(
        isinstance(part, ast.FunctionDef)
        and part.name == "run"
        and [argument.arg for argument in part.args.args][:2] == ["self", "problem"]
        for part in node.body
    )


def words(text: str) -> set[str]:
    """All names in a source, and the words of its strings but docstrings."""
    tree, found = ast.parse(text), set()
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case (
                ast.Name(id=name)
                | ast.Attribute(attr=name)
                | ast.alias(name=name)
                | ast.ClassDef(name=name)
            ):
                found.add(name)
            case ast.Constant(value=str() as said) if id(node) not in docstrings:
                found |= set(re.findall(r"\w+", said))
    return found


def naming(sources: Sources) -> dict[str, tuple[list[str], list[str]]]:
    """For each engine the files that name it, and the `__init__` files that hand it on."""
    homes, said = engines(sources), {path: words(text) for path, text in sources.items()}
    found = {}
    for name, home in homes.items():
        folder = home.rpartition("/")[0]
        alone = [other for other in homes.values() if other.startswith(f"{folder}/")] == [home]
        own = f"{folder}/" if alone and folder != f"{PACKAGE}/inference" else home
        others = [path for path in said if name in said[path] and not path.startswith(own)]
        handing = [path for path in others if path.endswith("__init__.py")]
        if handing:
            found[name] = [path for path in others if path not in handing], handing
    return found


def reaches(sources: Sources) -> Iterator[tuple[str, str]]:
    """File and attribute of each place where an engine looks past the problem."""
    for path, text in sources.items():
        if path.startswith(f"{PACKAGE}/inference/"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Attribute) and node.attr in AROUND:
                    owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
                    if owner.strip("_") == "problem":
                        yield path, node.attr


def private_imports(tests: Sources) -> Iterator[tuple[str, str]]:
    """File and dotted name of each import of a private name by the test files themselves."""
    for path, text in tests.items():
        if path.count("/") == 1:
            for parts in imported(path, ast.parse(text)):
                name = ".".join(filter(None, parts))
                if name.startswith(f"{PACKAGE}.") and "._" in name:
                    yield path, name


def is_own(test: str, name: str, sources: Sources) -> bool:
    """Whether a test file is called as some module of the room that the name is from."""
    room = f"{PACKAGE}/{name.split('.')[1]}"
    files = [path for path in sources if path == f"{room}.py" or path.startswith(f"{room}/")]
    modules = {Path(path).stem.strip("_") for path in files} | {Path(room).name.strip("_")}
    return Path(test).stem.removeprefix("test_").rstrip("s") in {
        module.rstrip("s") for module in modules
    }


def counts(sources: Sources, tests: Sources, details: bool = False) -> Counts:
    graph = Graph(sources)
    arrows = graph.without_packages()
    rooms = {path.split("/")[1] for path in sources} - {"__init__.py"}
    lines = {path: len(text.splitlines()) for path, text in sources.items()}
    largest = max(lines, key=lambda path: lines[path])
    number, longest, named, around = (
        sum(map(len, arrows.values())),
        chain(arrows),
        naming(sources),
        [*reaches(sources)],
    )
    of_files = {name: len(files) for name, (files, _) in named.items()}
    private = [*private_imports(tests)]
    foreign = [(test, name) for test, name in private if not is_own(test, name, sources)]
    if details:
        for test, name in foreign:
            print(f"{test} imports {name}")
        print("longest chain:", " → ".join(_short(path) for path in longest))
        for name, (files, handing) in named.items():
            print(
                f"{name}: {', '.join(map(_short, files)) or 'nowhere'}; handed on by {len(handing)}"
            )
    return {
        "rooms at the top level": f"{len(rooms)}",
        "the same with `case_studies` and `.ci`": f"{len(rooms) + 2}",
        "longest chain of imports, arrows (files)": f"{len(longest) - 1} ({len(longest)})",
        "arrows between files": f"{number}",
        "imports a file: of all files": f"{number / len(sources):.1f}",
        "imports a file: of those that are no `__init__`": f"{number / len(arrows):.1f}",
        "largest file, lines": f"{lines[largest]} (`{_short(largest)}`)",
        "cycles": f"{len(cycles(graph, arrows))}",
        "engines": f"{len(named)}",
        "files that name an engine, beside its own: median (most)": (
            f"{statistics.median(of_files.values()):g} "
            f"({max(of_files.values())}: {max(of_files, key=lambda name: of_files[name])})"
        ),
        "`__init__` files that hand it on": f"{max(len(handing) for _, handing in named.values())}",
        "reaches of `inference` around the problem (files)": f"{len(around)} ({len({path for path, _ in around})})",
        "private names that tests import: all": f"{len(private)}",
        "private names that tests import: other than a room's own tests": f"{len(foreign)}",
    }


def _short(path: str) -> str:
    return path.removeprefix(f"{PACKAGE}/").removesuffix(".py")


def counted(name: str | None, *, still: bool, details: bool) -> Counts:
    """The counts of a revision, or of the working tree."""
    if name is None:
        found, sources = {}, working_tree(ROOT, PACKAGE)
        return counts(sources, working_tree(ROOT, "tests"), details) | ({} if still else walk(ROOT))
    sources = revision(ROOT, PACKAGE, name)
    found = counts(sources, revision(ROOT, "tests", name), details)
    if not still:
        with tempfile.TemporaryDirectory() as folder:
            for path, text in sources.items():
                file = Path(folder) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            found |= walk(Path(folder))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.structure", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--before", help="a git revision to stand beside the other one")
    parser.add_argument("--rev", help="a git revision in place of the working tree")
    parser.add_argument("--still", action="store_true", help="count by reading alone: run no NUTS")
    parser.add_argument(
        "--details", action="store_true", help="print the longest chain, and who names which engine"
    )
    asked = parser.parse_args()
    names = ([asked.before] if asked.before else []) + [asked.rev]
    columns = {
        name or "working tree": counted(name, still=asked.still, details=asked.details)
        for name in names
    }
    rows = list(next(iter(columns.values())))
    print(
        table(
            [
                ["counted", *columns],
                *([row, *(column[row] for column in columns.values())] for row in rows),
            ]
        )
    )


if __name__ == "__main__":
    main()

"""How large the package is and how hard it is to find one's way in it; limits hold each figure from getting worse.

Run: `uv run python -m tests.studies.size`. `--folders` adds tokens and files by folder, `--names` the private names
that several files define, `--tighten` writes today's figures to `tests/size_limits.json` where they are better than
the limits there; it never loosens one. `tests/test_size.py` compares figures and limits.

What is counted:

- *Tokens* are the names, operators and numbers that Python's `tokenize` finds, not comments, strings or docstrings.
  A *code line* holds a token. A *comment line* holds nothing but a comment, and none for a tool (`noqa`, `pyright`,
  `fmt`, `type`).
- *Files* of `fit`, of the core and of a subpackage do not include an `__init__` that only hands names on. Their tokens
  do not include it either. All files count in the first row.
- *`bd.fit` imports* is every file that the file with `fit` reaches by imports, itself included, also by imports inside
  functions, not by those under `TYPE_CHECKING`. A name counts as imported from the file that defines it.
- *Core* is all that is not in one of `SUBPACKAGES`.
- *Public names* are those of the pages in `docs/reference/api`, without methods and modules; `tests/test_extending.py` checks that the page
  is complete. *Flat* ones stand directly in `bd`.
- *A file suggests a name* if one word of its name (of the folder's for an `__init__`) begins like one word of the
  public name. They begin alike if their first five letters are the same, or all letters of the shorter word, three
  at least. `fitting.py` suggests `fit`, and `scores.py` suggests `score`.
- *`model.<Tab>`* is every public attribute that `dir` lists of a model of one ODE; *`ODE.<Tab>`* is the same of the
  class, and *`ode.<Tab>`* of an instance, which has its fields too.
- *Deep imports* are lines `from bayes_dasl.x.y import …` with two levels or more in a file directly in `tests`; a line
  counts once for each file and module.
- *Private names* are functions and classes `_name` at the top level of a module.
- *Nested expressions* hold a comprehension or conditional within another within a third.
"""

import argparse
import ast
import io
import json
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import ROOT
from .imports import Graph, Sources, working_tree
from .pages import table

PACKAGE = "bayes_dasl"
LIMITS = ROOT / "tests" / "size_limits.json"
SUBPACKAGES: tuple[str, ...] = (
    "baselines",
    "dosing",
    "engines",
    "equations",
    "extremes",
    "filtering",
    "many",
    "multiscale",
    "pde",
    "recalibration",
    "sensitivity",
    "updating",
    "weighting",
)
"""Folders and modules below the package that are not core, such as `pde` or `layers/pde` or `dosing`."""
MARGIN = 0.02
"""By this share a figure may be better than its limit before the limit must follow."""

CODE = {tokenize.NAME, tokenize.OP, tokenize.NUMBER}
FOR_TOOLS = re.compile(r"#\s*(noqa|pyright|fmt|type)\b")
NESTING = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp)


@dataclass(frozen=True)
class Figure:
    """A number with the direction in which it is better; `limited` if it has a limit."""

    value: float
    more_is_better: bool = False
    limited: bool = True

    def worse_than(self, limit: float) -> bool:
        return self.value < limit if self.more_is_better else self.value > limit

    def lags(self, limit: float) -> bool:
        """Whether the figure is so much better than its limit that the limit must follow."""
        gain = self.value - limit if self.more_is_better else limit - self.value
        return gain > MARGIN * abs(limit)

    def verdict(self, limit: float | None) -> str | None:
        """What is wrong between figure and limit, if anything."""
        if limit is None:
            return f"has no limit: set it to {self.value:g}"
        if self.worse_than(limit):
            return f"is {self.value:g}, worse than its limit {limit:g}"
        if self.lags(limit):
            return f"is {self.value:g}, better than its limit {limit:g}: {self.tighten} the limit to {self.value:g}"
        return None

    @property
    def tighten(self) -> str:
        return "raise" if self.more_is_better else "lower"


type Figures = dict[str, Figure]
type Limits = dict[str, float]


@dataclass(frozen=True)
class Text:
    """Counts of one file."""

    tokens: int
    code_lines: int
    comment_lines: int

    @classmethod
    def of(cls, source: str) -> "Text":
        tokens, code, comments = 0, set(), 0
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type in CODE:
                tokens += 1
                code.add(token.start[0])
            elif token.type == tokenize.COMMENT and not FOR_TOOLS.match(token.string):
                comments += token.line.lstrip().startswith("#")
        return cls(tokens, len(code), comments)


class Package:
    """A package's sources, with what is counted of them."""

    def __init__(self, sources: Sources):
        self.sources = sources
        self.graph = Graph(sources)
        self.trees = self.graph.trees
        self.texts = {path: Text.of(text) for path, text in sources.items()}
        self.defining = {path for path, tree in self.trees.items() if not only_hands_on(path, tree)}

    def tokens(self, paths: Iterable[str]) -> int:
        return sum(self.texts[path].tokens for path in paths)

    def needed(self, name: str) -> set[str]:
        """Files that define something and that a public name needs."""
        return self.graph.below([self.graph.home_of(name)]) & self.defining

    def public_names(self, page: str) -> dict[str, str]:
        """The names on the API page, without the package's own, and the files that define them."""
        listed = re.findall(rf"^::: {PACKAGE}\.(\S+)$", page, re.MULTILINE)
        # A method follows a class.
        names = [
            name for name in listed if not any(part[0].isupper() for part in name.split(".")[:-1])
        ]
        homes = {name: self.graph.home_of(f"{PACKAGE}.{name}") for name in names}
        return {
            name: path
            for name, path in homes.items()
            if not self.is_module(path, name.rpartition(".")[2])
        }

    def is_module(self, home: str, name: str) -> bool:
        """Whether a name is the file itself, which defines nothing of this name."""
        return stem(home) == name and name not in defined(self.trees[home])

    def by_part(self) -> dict[str, set[str]]:
        """Files of the core and of each subpackage."""
        found = {name: set() for name in ("core", *SUBPACKAGES)}
        for path in self.defining:
            found[part_of(path)].add(path)
        return found

    def private_names(self) -> dict[str, list[str]]:
        """Private functions and classes that more than one file defines, with these files; the most frequent first."""
        homes = defaultdict(set)
        for path, tree in self.trees.items():
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith("_"):
                    homes[node.name].add(path)
        found = {name: sorted(files) for name, files in homes.items() if len(files) > 1}
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))

    def nested(self) -> int:
        return sum(nested_expressions(tree) for tree in self.trees.values())


def only_hands_on(path: str, tree: ast.Module) -> bool:
    """Whether a file is an `__init__` of imports, docstrings, `__all__` and `__dir__` alone."""
    return path.endswith("/__init__.py") and all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__all__", "__dir__"))
        for node in tree.body
    )


def defined(tree: ast.Module) -> set[str]:
    """Functions, classes and values at the top level of a module."""
    found = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.TypeAlias(name=ast.Name(id=name)):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def part_of(path: str) -> str:
    """The subpackage that a file belongs to, or `core`; the longest that fits."""
    inner = path.partition("/")[2].removesuffix(".py")
    fitting = [name for name in SUBPACKAGES if inner == name or inner.startswith(f"{name}/")]
    return max(fitting, key=len, default="core")


def nested_expressions(tree: ast.AST, least: int = 3) -> int:
    """Expressions in which comprehensions and conditionals stand within each other at least so deep."""
    found = 0
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, NESTING):
            found += depth(node) >= least
        else:
            found += nested_expressions(node, least)
    return found


def depth(node: ast.AST) -> int:
    """How many comprehensions and conditionals stand within each other, the node included."""
    below = max(map(depth, ast.iter_child_nodes(node)), default=0)
    return below + isinstance(node, NESTING)


def suggests(path: str, name: str) -> bool:
    """Whether a word of the file's name begins like a word of a public name."""
    return any(
        alike(one, other) for one in words(stem(path)) for other in words(name.rpartition(".")[2])
    )


def stem(path: str) -> str:
    """The name of a module without its folder."""
    return path.removesuffix(".py").removesuffix("/__init__").rpartition("/")[2]


def words(name: str) -> list[str]:
    """Words of `snake_case` and `CamelCase`, in small letters."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+|\d+", name)]


def alike(one: str, other: str) -> bool:
    length = min(len(one), len(other), 5)
    return length >= 3 and one[:length] == other[:length]


def deep_imports(tests: Sources) -> set[tuple[str, str]]:
    """File and module of imports from two levels below the package or deeper, in files directly in `tests`."""
    line = re.compile(rf"^ *from ({PACKAGE}\.\w+\.[\w.]+) import", re.MULTILINE)
    direct = {path: text for path, text in tests.items() if path.count("/") == 1}
    return {(path, module) for path, text in direct.items() for module in line.findall(text)}


def shown() -> dict[str, list[str]]:
    """Public attributes that a user sees of a model and of an ODE, by what stands before `.<Tab>`."""
    import bayes_dasl as bd

    ode = bd.ODE(lambda t, y, u: {"x": -y["x"]}, {"x": 1.0})
    shown = {"model": bd.Model(ode, bd.NormalNoise(1.0)), "ODE": bd.ODE, "ode": ode}
    return {
        name: [each for each in dir(value) if not each.startswith("_")]
        for name, value in shown.items()
    }


def figures(package: Package, tests: Sources, page: str) -> Figures:
    """All figures, in the order of the table."""
    tokens = package.tokens(package.sources)
    code = sum(text.code_lines for text in package.texts.values())
    comments = sum(text.comment_lines for text in package.texts.values())
    lines = [line for text in package.sources.values() for line in text.splitlines()]
    fit, repeated = package.needed(f"{PACKAGE}.fit"), package.private_names()
    public = package.public_names(page)
    suggested = [name for name, path in public.items() if suggests(path, name)]
    # Comments and short lines are wanted, and both add lines; a split adds files. Neither has a limit.
    found = {
        "lines": Figure(len(lines), limited=False),
        "files": Figure(len(package.sources), limited=False),
        "code tokens": Figure(tokens),
        "tokens per code line": Figure(round(tokens / code, 2)),
        "comment lines per 100 code lines": Figure(
            round(100 * comments / code, 1), more_is_better=True
        ),
        "longest line": Figure(max(map(len, lines))),
        "files that `bd.fit` imports": Figure(len(fit)),
        "tokens that `bd.fit` imports": Figure(package.tokens(fit)),
    }
    for part, files in package.by_part().items():
        # What leaves the core may make a subpackage larger.
        found[f"files of {part}"] = Figure(len(files), limited=part == "core")
        found[f"tokens of {part}"] = Figure(package.tokens(files), limited=part == "core")
    return found | {
        "public names, flat": Figure(sum("." not in name for name in public)),
        "public names, total": Figure(len(public)),
        "public names that their file suggests, percent": Figure(
            round(100 * len(suggested) / len(public), 1), more_is_better=True
        ),
        **{
            f"names that `{name}.<Tab>` shows": Figure(len(names))
            for name, names in shown().items()
        },
        "deep imports in tests": Figure(len(deep_imports(tests))),
        "private names that several files define": Figure(len(repeated)),
        "files that define the same private name, most": Figure(
            max(map(len, repeated.values()), default=1)
        ),
        "nested expressions": Figure(package.nested()),
    }


def today() -> Figures:
    """The figures of the working tree."""
    pages = sorted((ROOT / "docs" / "reference" / "api").glob("*.md"))
    page = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    return figures(Package(working_tree(ROOT, PACKAGE)), working_tree(ROOT, "tests"), page)


def limits(path: Path = LIMITS) -> Limits:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def faults(found: Figures, limits: Limits) -> list[str]:
    """Figures that are worse than their limits or far better, and limits of no figure."""
    limited = {name: figure for name, figure in found.items() if figure.limited}
    verdicts = {name: figure.verdict(limits.get(name)) for name, figure in limited.items()}
    unknown = [f"{name}: no figure is called so" for name in limits if name not in limited]
    return [f"{name}: {verdict}" for name, verdict in verdicts.items() if verdict] + unknown


def tightened(found: Figures, limits: Limits) -> Limits:
    """The limits with today's figures where these are better or had no limit."""
    return limits | {
        name: figure.value
        for name, figure in found.items()
        if figure.limited and not (name in limits and figure.worse_than(limits[name]))
    }


def folders(package: Package) -> str:
    """A table of tokens and files by folder, `__init__` files included."""
    tokens, files = Counter(), Counter()
    for path in package.sources:
        folder = path.rpartition("/")[0]
        tokens[folder] += package.texts[path].tokens
        files[folder] += 1
    return table(
        [
            ["folder", "tokens", "files"],
            *([name, tokens[name], files[name]] for name in sorted(tokens)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.size", description="Size of the package, and its limits."
    )
    parser.add_argument(
        "--folders", action="store_true", help="print tokens and files by folder, too"
    )
    parser.add_argument(
        "--names", action="store_true", help="print private names that several files define, too"
    )
    parser.add_argument(
        "--tighten",
        action="store_true",
        help="write today's figures as limits where they are better",
    )
    asked = parser.parse_args()
    found = today()
    if asked.tighten:
        LIMITS.write_text(json.dumps(tightened(found, limits()), indent=2) + "\n", encoding="utf-8")
    held = limits()
    rows = ([name, f"{figure.value}", f"{held.get(name, '')}"] for name, figure in found.items())
    print(table([["figure", "today", "limit"], *rows]))
    package = Package(working_tree(ROOT, PACKAGE)) if asked.folders or asked.names else None
    if package and asked.folders:
        print("\n" + folders(package))
    if package and asked.names:
        repeated = package.private_names()
        print(
            "\n"
            + table(
                [
                    ["private name", "files"],
                    *([name, ", ".join(at)] for name, at in repeated.items()),
                ]
            )
        )


if __name__ == "__main__":
    main()

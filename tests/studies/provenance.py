"""Where a row comes from: the machine and its versions, and the code that made it."""

import ast
import dataclasses
import hashlib
import inspect
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from . import ROOT
from .imports import Graph, working_tree

PACKAGE = "bayes_dasl"


def place() -> str:
    """Machine and versions in words."""
    names = ("jax", "numpyro", "diffrax", "blackjax")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, {versions}"
    )


def fingerprint(*parts: Any) -> str:
    """A hash of the package's code behind functions, engines and models.

    That is the file of each function and class that occurs in them, at any depth, and every file
    that these import, as they stood when the process first asked. Comments, docstrings and layout
    do not count.
    """
    return code_hash(_graph(), modules_of(*parts))


def fingerprint_with(case_study: ModuleType, *parts: Any) -> str:
    """A fingerprint of fits, forecasts, scores and what else is in the parts, and of the case study
    behind them.
    """
    import bayes_dasl as bd  # not above: who measures another checkout imports that first

    said = meaning(Path(str(case_study.__file__)).read_text(encoding="utf-8"))
    return f"{fingerprint(bd.fit, bd.forecast, bd.score, *parts)}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"


def code_hash(graph: Graph, modules: Iterable[str]) -> str:
    """A hash of these modules and all that they import."""
    files = sorted(graph.below(map(graph.file_of, modules)))
    said = "\n".join(f"{path}\n{meaning(graph.sources[path])}" for path in files)
    return hashlib.sha256(said.encode("utf-8")).hexdigest()[:12]


def modules_of(*parts: Any) -> set[str]:
    """The modules of the package from which functions, classes and instances in a tree come."""
    found, seen, left = set(), set(), list(parts)
    while left:
        part = left.pop()
        if id(part) not in seen:
            seen.add(id(part))
            where = part if inspect.isfunction(part) or inspect.isclass(part) else type(part)
            found |= {where.__module__} if where.__module__.startswith(f"{PACKAGE}.") else set()
            left.extend(_inside(part))
    return found


def _inside(part: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(part) and not inspect.isclass(part):
        yield from (getattr(part, field.name, None) for field in dataclasses.fields(part))
    elif isinstance(part, Mapping):
        yield from part.values()
    elif isinstance(part, list | tuple):
        yield from part


@lru_cache
def _graph() -> Graph:
    return Graph(working_tree(ROOT, PACKAGE))


@lru_cache
def meaning(text: str) -> str:
    """Source without comments, docstrings and layout."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

"""Which file of a package imports which, read from the sources without running them.

A name that a package's `__init__` only hands on counts as imported from the file that defines it, wherever it was
handed through. Imports inside functions count, those under `TYPE_CHECKING` do not: they never run.
"""

import ast
import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

type Sources = Mapping[str, str]
"""Text by path, such as `bayes_dasl/inference/problem.py`."""


def working_tree(root: Path, package: str) -> Sources:
    """The sources of a package as they stand below `root`; an `__init__` with a stub hands on the names of the stub."""
    files = sorted((root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): _text(path) for path in files}


def _text(path: Path) -> str:
    stub = path.with_suffix(".pyi")
    return (stub if stub.exists() else path).read_text(encoding="utf-8")


def revision(root: Path, package: str, name: str) -> Sources:
    """The same of a git revision, which is not checked out."""
    with tarfile.open(fileobj=io.BytesIO(archive(root, package, name))) as tar:
        files = {
            member.name: tar.extractfile(member) for member in tar if member.name.endswith(".py")
        }
        return {
            path: file.read().decode("utf-8") for path, file in files.items() if file is not None
        }


def archive(root: Path, path: str, name: str) -> bytes:
    """A tar of a path of a git revision, such as a package; `.` is all of it."""
    return subprocess.run(
        ["git", "archive", name, path], cwd=root, check=True, capture_output=True
    ).stdout


class Graph:
    """Arrows between the files of a package."""

    def __init__(self, sources: Sources):
        self.sources = sources
        self._files = {_module(path): path for path in sources}
        self.trees = {path: ast.parse(text) for path, text in sources.items()}
        self._taken = {path: list(imported(path, tree)) for path, tree in self.trees.items()}
        self._handed = {
            (path, name): (target, name)
            for path, taken in self._taken.items()
            if _is_package(path)
            for target, name in taken
            if name
        }

    @cached_property
    def arrows(self) -> Mapping[str, frozenset[str]]:
        """From each file to those that it imports; a package taken as a whole stands for its `__init__`."""
        found = {}
        for path, taken in self._taken.items():
            targets = {self.defines(target, name) for target, name in taken}
            found[path] = frozenset(target for target in targets if target and target != path)
        return found

    def unresolved(self) -> list[tuple[str, str]]:
        """Imports from within the package that lead to no file of it."""
        package = next(iter(self.sources)).partition("/")[0]
        return [
            (path, f"{target}.{name}")
            for path, taken in self._taken.items()
            for target, name in taken
            if target.partition(".")[0] == package and not self.defines(target, name)
        ]

    def defines(self, target: str, name: str | None) -> str | None:
        """The file behind `from target import name`, if it is of this package."""
        if name and f"{target}.{name}" in self._files:
            return self._files[f"{target}.{name}"]
        path = self._files.get(target)
        if path and (path, name) in self._handed:
            return self.defines(*self._handed[path, name])
        return path

    def file_of(self, module: str) -> str:
        """The path of a module by its dotted name."""
        return self._files[module]

    def home_of(self, name: str) -> str:
        """The file that defines a name by its dotted public name, such as `lib.fields.Grid`."""
        package, *parts = name.split(".")
        path = self.file_of(package)
        for part in parts:
            found = self.defines(_module(path), part)
            if found is None:
                raise LookupError(f"{path} leads to no {part!r} of {name!r}")
            path = found
        return path

    def below(self, roots: Iterable[str]) -> set[str]:
        """The roots, and all files that they need."""
        found, left = set(), list(roots)
        while left:
            path = left.pop()
            if path not in found:
                found.add(path)
                left.extend(self.arrows[path])
        return found

    def without_packages(self) -> dict[str, frozenset[str]]:
        """Arrows between files that define something: all but the `__init__` of packages."""
        files = {path for path in self.sources if not _is_package(path)}
        return {path: self.arrows[path] & files for path in files}


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _is_package(path: str) -> bool:
    return path.endswith("/__init__.py")


def imported(path: str, tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """Module and name of each import that can run, the module absolute; no name where a module is imported."""
    here = _module(path).split(".")
    package = here if _is_package(path) else here[:-1]
    for node in _running(tree):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((target, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but the bodies of `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from (below for other in node.orelse for below in (other, *_running(other)))
        else:
            yield node
            yield from _running(node)

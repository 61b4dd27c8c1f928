"""What a module may know of the others, as far as imports alone do not say it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from tests.studies.imports import Graph, working_tree
from tests.studies.size import Text
from tests.studies.structure import chain

PACKAGE = ROOT / "bayes_dasl"
ENGINES = ("nuts", "descent", "smc", "svi", "many_chain", "swag", "laplace", "dropout")
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
OF_ENGINES = [
    name
    for name in FILES
    if name.startswith("engines/") or name.startswith(("inference/nuts/", "inference/descent/"))
]

INSIDE = {"model", "inputs", "observed"}
"""Of a problem: what an engine never looks at."""
UNKNOWN = {
    "layers",
    "hybrid",
    "unknown_functions",
    "networks",
    "noise",
    "model",
    "random",
    "prediction",
}
"""Rooms that an engine imports nothing from."""
MAY_NAME = (
    *("inference/__init__.py", "engines/__init__.py", "__init__.py", "many/"),
    *("updating/", "weighting/", "checking/", "study/", "cli.py"),
)
"""Where an engine's class may be named, besides its own folder: where users choose, and where one
is the default.
"""
DEFAULTS = {"fitting/fit_and_resume.py": {"NUTS"}}


def parsed(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imported(name: str) -> Iterator[tuple[str, ...]]:
    """The modules and names that a file imports, as paths below the package; its own are absolute
    too.
    """
    here = Path(name).parent.parts
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE.name:
                    yield tuple(alias.name.split(".")[1:])
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                base = here[: len(here) - node.level + 1]
            elif module[:1] == (PACKAGE.name,):
                base, module = (), module[1:]
            else:
                continue
            for alias in node.names:
                yield (*base, *module, alias.name)


def engines(name: str) -> set[str]:
    """Classes in a file that are engines: by name those that derive from one."""
    known, found = {"AbstractEngine"}, set()
    for node in parsed(name).body:
        if isinstance(node, ast.ClassDef) and known & {
            getattr(base, "id", "") for base in node.bases
        }:
            known.add(node.name)
            found.add(node.name)
    return found


def named(name: str) -> set[str]:
    """Every identifier in a file, those that are imported included; words in texts are none."""
    found = {path[-1] for path in imported(name)}
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.isidentifier()
        ):
            found.add(node.value)  # an annotation, or a test of a class by its name
    return found


HOMES = {engine: str(Path(name).parent) for name in OF_ENGINES for engine in engines(name)}


def test_the_engines_are_found():
    assert set(HOMES) == {
        "NUTS", "Warmed", "SMC", "SVI", "ManyChain", "Joint", "DeepEnsemble", "MCDropout", "SWAG", "Laplace",
    }  # fmt: skip
    assert len(OF_ENGINES) > 20
    found = {Path(name.split("/")[1]).stem for name in OF_ENGINES} - {"__init__"}
    assert found == set(ENGINES)


@pytest.mark.parametrize("name", OF_ENGINES)
def test_an_engine_does_not_look_inside_of_a_problem(name):
    looked = {
        node.attr: node.lineno for node in ast.walk(parsed(name)) if isinstance(node, ast.Attribute)
    }
    assert {attribute: line for attribute, line in looked.items() if attribute in INSIDE} == {}
    words = {node.value for node in ast.walk(parsed(name)) if isinstance(node, ast.Constant)}
    assert not words & INSIDE  # nor by getattr


@pytest.mark.parametrize("name", OF_ENGINES)
def test_an_engine_knows_no_layer_network_or_noise(name):
    assert sorted(path for path in imported(name) if path and path[0] in UNKNOWN) == []


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(MAY_NAME)])
def test_nobody_knows_an_engine_by_name(name):
    foreign = {engine for engine, home in HOMES.items() if not name.startswith(f"{home}/")}
    assert named(name) & foreign == DEFAULTS.get(name, set())


def test_no_chain_of_imports_is_long():
    """Whoever reads a file from the top of one needs no more than ten others."""
    longest = chain(Graph(working_tree(ROOT, PACKAGE.name)).without_packages())
    assert len(longest) - 1 <= 10, " → ".join(longest)


def test_no_file_is_long():
    sizes = {name: Text.of(path.read_text(encoding="utf-8")).tokens for name, path in FILES.items()}
    assert {name: number for name, number in sizes.items() if number > 4700} == {}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("__init__.py")])
def test_no_function_takes_the_place_of_a_module(name):
    """A package that hands on `decompose` has no module `decompose`, which nobody could reach any
    more.
    """
    folder = str(Path(name).parent)
    beside = {Path(other).stem for other in FILES if str(Path(other).parent) == folder} | {
        Path(other).parent.name
        for other in FILES
        if str(Path(other).parent.parent) == folder and other != name
    }
    handed = {
        alias.name
        for node in parsed(name).body
        if isinstance(node, ast.ImportFrom)
        and node.module  # `from . import x` is the module itself
        for alias in node.names
    }
    assert not handed & beside

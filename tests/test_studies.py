"""What stands around the studies: which file imports which, the fingerprint of a row's code, and
rows older than it.
"""

import json

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import AbstractEngine
from tests.studies import ROOT, problem_walk, structure
from tests.studies.faults import TASKS
from tests.studies.imports import Graph, working_tree
from tests.studies.mutants import misplaced
from tests.studies.mutations import MUTANTS
from tests.studies.pages import table, write_section
from tests.studies.provenance import code_hash, fingerprint, modules_of
from tests.studies.rows import age, held, keep, lacking, latest
from tests.studies.stricken import Wrong, compared
from tests.studies.victims import FITS, STUDY

PACKAGE = {
    "lib/__init__.py": "from .engines import Walk as Walk\n",
    "lib/engines/__init__.py": "from .walk import Walk as Walk\nfrom .jump import Jump as Jump\n",
    "lib/engines/walk.py": "from ..maths import step\nfrom .. import settings\n\nWalk = "
    "step(settings.SIZE)\n",
    "lib/engines/jump.py": "class Jump:\n    def run(self):\n        from ..late import far\n      "
    "  return far\n",
    "lib/maths.py": 'def step(size):\n    """One step."""\n    return 2 * size\n',
    "lib/settings.py": "SIZE = 1\n",
    "lib/late.py": "far = 3\n",
    "lib/report.py": (
        "from typing import TYPE_CHECKING\nfrom lib import Walk\nif TYPE_CHECKING:\n    from .late "
        "import far\n"
    ),
}


def changed(path: str, old: str, new: str) -> Graph:
    assert old in PACKAGE[path]
    return Graph(PACKAGE | {path: PACKAGE[path].replace(old, new)})


# ---- which file imports which


def test_names_handed_on_come_from_the_file_that_defines_them():
    arrows = Graph(PACKAGE).arrows
    assert arrows["lib/report.py"] == {"lib/engines/walk.py"}
    assert arrows["lib/engines/walk.py"] == {"lib/maths.py", "lib/settings.py"}


def test_imports_inside_functions_count_and_those_for_types_do_not():
    graph = Graph(PACKAGE)
    assert graph.arrows["lib/engines/jump.py"] == {"lib/late.py"}
    assert "lib/late.py" not in graph.below(["lib/report.py"])


def test_a_package_taken_as_a_whole_stands_for_all_that_it_hands_on():
    graph = Graph(PACKAGE | {"lib/shell.py": "from . import engines\n"})
    assert {"lib/engines/walk.py", "lib/engines/jump.py", "lib/late.py"} <= graph.below(
        ["lib/shell.py"]
    )


def test_every_import_within_the_package_is_found():
    graph = Graph(working_tree(ROOT, "bayes_dasl"))
    assert graph.unresolved() == []
    sampler = graph.file_of(bd.NUTS.__module__)
    folder = sampler.rpartition("/")[0]
    own = {
        path
        for path in graph.sources
        if path.startswith(folder) and not path.endswith("__init__.py")
    }
    assert len(own) > 1
    assert own <= graph.below([sampler])


# ---- the code of a row


@pytest.mark.parametrize(
    ("path", "old", "new", "differs"),
    [
        ("lib/engines/walk.py", "step(settings.SIZE)", "step(2)", True),
        ("lib/maths.py", "2 * size", "3 * size", True),
        ("lib/settings.py", "1", "2", True),
        ("lib/maths.py", "One step.", "A single step.", False),
        ("lib/maths.py", "return 2 * size", "return 2 * size  # as long as two", False),
        ("lib/late.py", "3", "4", False),
        ("lib/engines/jump.py", "class Jump", "class Leap", False),
    ],
)
def test_a_fingerprint_changes_with_the_code_that_an_engine_needs_and_no_other(
    path, old, new, differs
):
    before, after = (
        code_hash(graph, ["lib.engines.walk"])
        for graph in (Graph(PACKAGE), changed(path, old, new))
    )
    assert (before != after) == differs


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def decay(**settings) -> bd.Model:
    return bd.Model(
        bd.ODE(Decay(bd.between(0.1, 2.0)), {"y": 1.0}, **settings),
        bd.NormalNoise(dist.HalfNormal(1.0)),
    )


def test_modules_are_those_of_everything_inside_a_model():
    plain, steps = modules_of(decay()), modules_of(decay(solver=bd.pde.Chebyshev(8)))
    assert type(decay().layer).__module__ in plain
    assert type(decay().noise).__module__ in plain
    assert steps - plain == {bd.pde.Chebyshev.__module__}


def test_engines_and_models_have_fingerprints_of_their_own():
    engines = {
        fingerprint(bd.fit, engine, decay())
        for engine in (bd.NUTS(), bd.engines.SMC(), bd.engines.SVI())
    }
    assert len(engines) == 3
    assert fingerprint(bd.fit, bd.engines.SMC(), decay()) != fingerprint(
        bd.fit, bd.engines.SMC(), decay(solver=bd.pde.Chebyshev(8))
    )
    assert fingerprint(bd.fit, bd.NUTS(draws=10), decay()) == fingerprint(
        bd.fit, bd.NUTS(draws=20), decay()
    )


# ---- rows


def code(name: str, seed: int) -> str:
    return {"a": "code of a", "b": "new code of b"}[name]


TASK = ("name", "seed")


@pytest.fixture
def rows(tmp_path):
    """A row of today, one of older code, and one from before rows named their code."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"name": "a", "seed": 2}) + "\n" + '{"name": "a", "se')
    path.write_text(path.read_text() + "\n")
    keep(path, {"name": "a", "seed": 1}, "code of a")
    keep(path, {"name": "b", "seed": 1}, "old code of b")
    return path


def test_a_torn_row_is_left_out_and_a_row_says_where_it_comes_from(rows):
    assert [(row["name"], row["seed"]) for row in held(rows)] == [("a", 2), ("a", 1), ("b", 1)]
    assert held(rows)[-1]["code"] == "old code of b"
    assert "cores" in held(rows)[-1]["place"]


def test_what_is_older_than_the_code_is_done_again(rows):
    tasks = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert list(lacking(held(rows), TASK, tasks, code)) == [("a", 2), ("b", 1), ("b", 2)]
    keep(rows, {"name": "b", "seed": 1}, "new code of b")
    assert list(lacking(held(rows), TASK, tasks, code)) == [("a", 2), ("b", 2)]
    assert len(latest(held(rows), TASK)) == 3


def test_a_table_says_how_many_rows_are_older_than_the_code(rows):
    assert age(held(rows), TASK, code) == (
        "2 of 3 rows are older than the code; 1 are from before rows named the code that made them."
    )
    assert age([row for row in held(rows) if row.get("code") == "code of a"], TASK, code) == (
        "All 1 rows are of the code as it stands."
    )


def test_a_section_of_a_page_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- speed: begin -->\nold\n<!-- speed: end -->\nafter\n")
    write_section(page, "speed", table([["engine", "s"], ["NUTS", 3]]))
    assert page.read_text() == (
        "before\n<!-- speed: begin -->\n| engine | s |\n| --- | --- |\n| NUTS | 3 |\n<!-- speed: "
        "end -->\nafter\n"
    )
    with pytest.raises(SystemExit, match="lacks the markers"):
        write_section(page, "growth", "")


# ---- the mistakes that tests must see


def test_every_mistake_has_its_place_in_the_code():
    """Or the list would rot: a mutant is mended with the code that it changes,
    and never left out.
    """
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert misplaced() == {}
    for mutant in MUTANTS:
        assert mutant.old != mutant.new
        for test in mutant.tests:
            path, *names = test.split("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert all(name.partition("[")[0] in text for name in names), test


# ---- the counts of the structure

ENGINES = {
    "bayes_dasl/__init__.py": "from .inference import Walk as Walk\n",
    "bayes_dasl/inference/__init__.py": "from .walk import Walk as Walk\nfrom .jump import Jump as "
    "Jump\n",
    "bayes_dasl/inference/walk/__init__.py": "from .sampler import Walk as Walk\n",
    "bayes_dasl/inference/walk/sampler.py": (
        "from .steps import far\nclass Walk:\n    def run(self, problem, *, key):\n        return "
        "far(problem.model)\n"
    ),
    "bayes_dasl/inference/walk/steps.py": '"""Steps of Walk."""\ndef far(model): return "Walk"\n',
    "bayes_dasl/inference/jump.py": (
        "class Jump:\n    def run(self, problem, *, key):\n        return self._problem.inputs\n"
    ),
    "bayes_dasl/cost.py": (
        '"""Not a word of Jump counts here."""\nfrom .inference import Walk\nCOST = {Walk: 1, "Jump of two": 2}\n'
    ),
    "bayes_dasl/verdict.py": "from .cost import COST\nclass Inner:\n    def run(self, problem): "
    "...\n",
}


def test_the_longest_chain_and_what_every_file_imports():
    arrows = Graph(ENGINES).without_packages()
    assert [path.rpartition("/")[2] for path in structure.chain(arrows)] == [
        "verdict.py", "cost.py", "sampler.py", "steps.py",
    ]  # fmt: skip
    assert sum(map(len, arrows.values())) == 3
    assert structure.cycles(Graph(ENGINES), arrows) == []


def test_files_that_reach_each_other_are_a_cycle():
    graph = Graph(ENGINES | {"bayes_dasl/inference/walk/steps.py": "from ...verdict import COST\n"})
    (group,) = structure.cycles(graph, graph.without_packages())
    assert {path.rpartition("/")[2] for path in group} == {
        "verdict.py",
        "cost.py",
        "sampler.py",
        "steps.py",
    }


def test_who_names_an_engine_beside_its_own_folder():
    found = structure.naming(ENGINES)
    assert found["Walk"][0] == ["bayes_dasl/cost.py"]
    assert found["Jump"][0] == ["bayes_dasl/cost.py"]
    assert [len(handing) for _, handing in found.values()] == [2, 1]
    assert set(found) == {"Walk", "Jump"}


def test_reaches_around_the_problem():
    assert [attribute for _, attribute in structure.reaches(ENGINES)] == ["model", "inputs"]


def test_private_names_that_tests_import_and_those_of_a_rooms_own_tests():
    tests = {
        "tests/test_jump.py": "from bayes_dasl.inference.jump import _far, Jump\nfrom "
        "bayes_dasl._cost import COST\n",
        "tests/test_costs.py": "def test():\n    from bayes_dasl._cost import COST\n",
        "tests/studies/any.py": "from bayes_dasl._cost import COST\n",
    }
    sources = ENGINES | {"bayes_dasl/_cost.py": "COST = 1\n"}
    found = [
        (test, name, structure.is_own(test, name, sources))
        for test, name in structure.private_imports(tests)
    ]
    assert found == [
        ("tests/test_jump.py", "bayes_dasl.inference.jump._far", True),
        ("tests/test_jump.py", "bayes_dasl._cost.COST", False),
        ("tests/test_costs.py", "bayes_dasl._cost.COST", True),
    ]


def test_the_package_has_no_cycle():
    graph = Graph(working_tree(ROOT, "bayes_dasl"))
    assert structure.cycles(graph, graph.without_packages()) == []


def test_moves_of_a_problem_from_file_to_file_and_back():
    described = problem_walk._described(
        "handed on", [["fit", "nuts", "start", "start", "nuts"], ["nuts", "fit"]]
    )
    assert list(described.values()) == ["7", "3", "4, 1"]


# ---- what becomes of runs that meet a fault


def drawn(values: list[float]) -> dict[str, xr.DataTree]:
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"x": (("chain", "draw"), [values])})})
    tree.attrs["created"] = str(len(values))
    return {"posterior": tree}


def test_a_run_that_lacks_draws_or_differs_by_a_bit_is_seen():
    whole = drawn([0.0, 1.0, np.nan])
    assert compared("resumed", drawn([0.0, 1.0, np.nan]), whole) == ("resumed", 0, 0)
    assert compared("resumed", drawn([-0.0, np.nextafter(1.0, 2.0), np.nan]), whole) == (
        "resumed",
        0,
        2,
    )
    assert compared("resumed", drawn([0.0, 1.0]), whole).lost == 1
    told = drawn([0.0, 1.0, np.nan])
    told["posterior"].attrs["interrupted"] = 1
    assert compared("resumed", told, whole) == ("resumed", 0, 1)
    with pytest.raises(Wrong, match=r"ends with \[\]"):
        compared("resumed", {}, whole)


def test_every_engine_and_the_study_meet_faults():
    met = {engine for _, engine, _ in TASKS}
    assert met == {*FITS, STUDY}
    engines = {type(engine) for _, engine in FITS.values()}
    known = {
        kind
        for kind in [*(getattr(bd, name) for name in bd.__all__), *vars(bd.engines).values()]
        if isinstance(kind, type) and issubclass(kind, AbstractEngine)
    }
    assert engines == {
        kind
        for kind in known
        if kind.__module__.startswith(("bayes_dasl.inference.", "bayes_dasl.engines."))
    } - {AbstractEngine}
    assert len(TASKS) >= 40

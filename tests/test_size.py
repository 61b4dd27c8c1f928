"""The package does not grow beyond its limits, and the limits follow where it shrinks."""

import pytest

from tests.studies import size
from tests.studies.size import Figure, Package

SOURCES = {
    "bayes_dasl/__init__.py": "from .fitting import fit as fit\nfrom . import fields as fields\n",
    "bayes_dasl/fitting.py": (
        '"""Fit."""\n# Why.\nfrom .maths import step\n\ndef fit(x):\n    return step(x, 1)  # one\n\ndef _told(): ...\n'
    ),
    "bayes_dasl/maths.py": "def step(x, by):  # fmt: skip\n    return x + by\n",
    "bayes_dasl/fields/__init__.py": "from .boundary import Robin as Robin\n",
    "bayes_dasl/fields/boundary.py": "class Robin: ...\n\nclass _Told: ...\n\ndef _told(): ...\n",
}
PAGE = "::: bayes_dasl.fit\n::: bayes_dasl.fields\n::: bayes_dasl.fields.Robin\n::: bayes_dasl.fields.Robin.apply\n"
TESTS = {
    "tests/test_any.py": (
        "import bayes_dasl as bd\nfrom bayes_dasl.fields import Robin\nfrom bayes_dasl.fields.boundary import Robin\n"
        "def test():\n    from bayes_dasl.fields.boundary import _told\n"
    ),
    "tests/studies/any.py": "from bayes_dasl.fields.boundary import Robin\n",
}


def test_no_figure_is_worse_than_its_limit_nor_far_better():
    assert size.faults(size.today(), size.limits()) == [], (
        "see `python -m tests.studies.size --tighten`"
    )


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        (Figure(100), None),
        (Figure(98), None),
        (Figure(101), "tokens: is 101, worse than its limit 100"),
        (Figure(97), "tokens: is 97, better than its limit 100: lower the limit to 97"),
        (Figure(102, more_is_better=True), None),
        (Figure(99, more_is_better=True), "tokens: is 99, worse than its limit 100"),
        (
            Figure(103, more_is_better=True),
            "tokens: is 103, better than its limit 100: raise the limit to 103",
        ),
    ],
)
def test_a_limit_fails_on_both_sides(figure, says):
    assert size.faults({"tokens": figure}, {"tokens": 100}) == ([] if says is None else [says])


def test_every_figure_has_a_limit_and_every_limit_a_figure():
    found = {"tokens": Figure(5), "lines": Figure(9, limited=False)}
    assert size.faults(found, {"words": 3}) == [
        "tokens: has no limit: set it to 5",
        "words: no figure is called so",
    ]


def test_tightening_loosens_no_limit():
    found = {
        "better": Figure(99), "worse": Figure(101), "more": Figure(101, more_is_better=True),
        "fewer": Figure(99, more_is_better=True), "new": Figure(7), "free": Figure(1, limited=False),
    }  # fmt: skip
    held = dict.fromkeys(("better", "worse", "more", "fewer"), 100)
    assert size.tightened(found, held) == {
        "better": 99,
        "worse": 100,
        "more": 101,
        "fewer": 100,
        "new": 7,
    }


def test_a_small_package_by_hand(monkeypatch):
    monkeypatch.setattr(size, "SUBPACKAGES", ("fields",))
    found = {
        name: figure.value for name, figure in size.figures(Package(SOURCES), TESTS, PAGE).items()
    }
    shown = {
        name: found.pop(f"names that `{name}.<Tab>` shows") for name in ("model", "ODE", "ode")
    }
    assert shown["model"] > 5 and shown["ode"] > shown["ODE"] > 5
    assert found == {
        "lines": 18,
        "files": 5,
        "code tokens": 70,
        "tokens per code line": 5.83,
        "comment lines per 100 code lines": 8.3,
        "longest line": 36,
        "files that `bd.fit` imports": 2,
        "tokens that `bd.fit` imports": 36,
        "files of core": 2,
        "tokens of core": 36,
        "files of fields": 1,
        "tokens of fields": 14,
        "public names, flat": 1,
        "public names, total": 2,
        "public names that their file suggests, percent": 50.0,
        "deep imports in tests": 1,
        "private names that several files define": 1,
        "files that define the same private name, most": 2,
        "nested expressions": 0,
    }


def test_fit_needs_the_files_behind_a_package_and_not_its_init():
    whole = SOURCES | {
        "bayes_dasl/maths.py": "from . import fields\n\ndef step(x, by):\n    return fields.Robin\n"
    }
    files = ("fitting.py", "maths.py", "fields/boundary.py")
    assert Package(whole).needed("bayes_dasl.fit") == {f"bayes_dasl/{file}" for file in files}


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        ("[a if b else c for d in e]", 0),
        ("[[a if b else c for d in e] for f in g]", 1),
        ("a if b else c if d else e if f else g", 1),
        ("f(lambda: [{a: (b for b in c)} for a in d if [e for e in a]])", 0),
        (
            "{a: [f(b for b in c) for c in d] for d in e}, [[[a for a in b] for b in c] for c in d]",
            2,
        ),
    ],
)
def test_expressions_that_nest_three_deep(expression, number):
    assert size.nested_expressions(size.ast.parse(expression)) == number


@pytest.mark.parametrize(
    ("path", "name", "suggested"),
    [
        ("fitting/fit_and_resume.py", "fit", True),
        ("scores/scores.py", "score", True),
        ("prediction/simulation.py", "simulate", True),
        ("layers/ode.py", "ODE", True),
        ("layers/steady_state.py", "SteadyState", True),
        ("pde/finite_volume.py", "pde.FiniteVolume", True),
        ("descent/dropout.py", "MCDropout", True),
        ("pde/__init__.py", "PDE", True),
        ("equations/dde.py", "DDE", True),
        ("pde/boundary.py", "pde.Robin", False),
        ("model/model.py", "Model", True),
        ("networks/of_x.py", "from_x", False),
    ],
)
def test_a_file_suggests_a_name_if_a_word_of_both_begins_alike(path, name, suggested):
    assert size.suggests(f"bayes_dasl/{path}", name) == suggested

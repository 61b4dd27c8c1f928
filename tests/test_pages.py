"""The code of every page of the documentation runs, with few draws in place of the real fits."""

import dataclasses
import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import bayes_dasl as bd
from bayes_dasl.study import study_files
from tests.studies import release
from tests.studies.readability import user_pages, words

ROOT = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
build = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(build)
CODE = {str(page): "\n".join(b["code"] for b in build.blocks(page)) for page in build.pages()}
CODE = {page: code for page, code in CODE.items() if code}
FIT = bd.fit


def brief(engine):
    """An engine of the same type that draws little."""
    if engine is None or isinstance(engine, bd.NUTS):
        return bd.NUTS(chains=2, warmup=25, draws=25, map_starts=2, max_tree_depth=4)
    if isinstance(engine, bd.DeepEnsemble):
        descent = dataclasses.replace(engine.descent, steps=50)
        return dataclasses.replace(engine, members=4, descent=descent)
    return engine


def brief_fit(model, data, engine=None, **others):
    return FIT(model, data, brief(engine), **others)


LONG = [
    page
    for page in CODE
    if page.startswith(("tutorials/", "explanation/"))
    or page
    in (
        *("index.md", "reference/results.md"),
        *(
            f"how-to/{name}.md"
            for name in ("recalibrate", "average-models", "compare-models", "which-engine")
        ),
    )
]
"""Pages whose short form still takes more than nine seconds."""


@pytest.mark.thorough(*LONG)
@pytest.mark.parametrize("page", CODE)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bd, "fit", brief_fit)
    exec(compile(CODE[page], page, "exec"), {"__name__": "__main__"})
    plt.close("all")


def test_every_command_of_the_evidence_is_there():
    for command in release.commands():
        program, *words = command.split()
        if program == "python":
            assert importlib.util.find_spec(words[1]), command
        else:
            assert program == "bayes-dasl" and words[1] in study_files(), command


def test_user_pages_are_short():
    counted = {page: words(page) for page in user_pages()}
    assert sum(counted.values()) <= 25_000
    assert max(counted.values()) <= 2500


def test_outputs_of_pages_belong_to_their_code():
    assert [str(page) for page in build.pages() if build.is_stale(page)] == []


def test_every_output_belongs_to_a_page():
    kept = {path.relative_to(build.OUTPUTS) for path in build.OUTPUTS.rglob("*.ipynb")}
    assert kept == {Path(page).with_suffix(".ipynb") for page in CODE}

"""What the command line says besides its work: help, completion, JSON, lists, places of errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import quick_study
from typer.testing import CliRunner

import bayes_dasl as bd
from bayes_dasl.cli import app
from bayes_dasl.commands import _load_run
from bayes_dasl.errors import ModelError
from bayes_dasl.study import Run, Study, change_run, folder_name

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
runner = CliRunner()

STUDY = """
import bayes_dasl as bd
import quick_study


def equation(t, y, u):
    return {"y": -y["x"]}


def study():
    import dataclasses

    layer = bd.ODE(equation, {"y": 1.0})
    return dataclasses.replace(quick_study.study(), competitors={}, CHANGES)
"""


def invoke(*arguments: object):
    return runner.invoke(app, [str(argument) for argument in arguments])


def written(folder: Path, changes: str) -> Path:
    path = folder / "pond.py"
    path.write_text(STUDY.replace("CHANGES", changes))
    return path


def python(code: str, **environment: str) -> str:
    """What a fresh process prints, which need not have the package's dependencies loaded."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    return done.stdout + done.stderr


# ---- quick commands


def test_completion_names_commands_studies_and_files(tmp_path):
    asked = {"_BAYES_DASL_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    code = "from bayes_dasl.cli import app; app(prog_name='bayes-dasl')"
    said = python(code, **asked, COMP_WORDS="bayes-dasl run lyn").split()
    assert said == ["lynx-hare"]
    said = python(code, **asked | {"COMP_CWORD": "1"}, COMP_WORDS="bayes-dasl di").split()
    assert said == ["diagnose"]
    assert "_BAYES_DASL_COMPLETE=complete_bash" in python(code, _BAYES_DASL_COMPLETE="source_bash")


# ---- JSON and lists


CHECKED = {
    "decay": bd.checking.checks.Check(
        (bd.checking.checks.Finding("warning", "cost", "dear", "wait"),)
    )
}


def test_check_is_one_json_document_even_if_the_study_prints(tmp_path, monkeypatch):
    monkeypatch.setattr(Study, "check", lambda self, key: CHECKED)
    path = written(tmp_path, "data=print('loading') or quick_study.small_study.load()")
    result = invoke("check", path, "--json")
    assert result.exit_code == 0 and "loading" in result.stderr
    assert json.loads(result.stdout) == {"decay": CHECKED["decay"].to_dict()}


def test_list_says_field_time_and_data(monkeypatch, tmp_path):
    (tmp_path / "case_studies").mkdir()
    study = tmp_path / "case_studies" / "my_pond.py"
    study.write_text('"""A pond."""\nFIELD = "limnology"\nDATA = ("pond.csv",)\n')
    (tmp_path / "pk").mkdir()
    (tmp_path / "pk" / "theo_sd.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAYES_DASL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {row["name"]: row for row in json.loads(invoke("list", "--json").stdout)}
    assert found["theophylline"]["data"] == "downloaded"
    assert found["ethanol"]["data"] == "not downloaded"
    assert found["lynx-hare"]["data"] == "included" and found["lynx-hare"]["field"] == "ecology"
    # Another's file is not executed to find out.
    assert found["my-pond"] | {"file": ""} == {
        "name": "my-pond", "summary": "A pond.", "field": "limnology", "run_time": None,
        "data": None, "file": "",
    }  # fmt: skip
    assert "    field: ecology, run time: 5 min, data: included\n" in invoke("list").stdout


def test_runs_are_listed_with_their_verdicts(tmp_path):
    for name in ("done", "begun", "torn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text(json.dumps({"study": name, "key": 0}))
    (tmp_path / "torn" / "study.json").write_text("{")
    judged = {"sampling": "good", "model": "warning", "verdict": "It fits."}
    scores = {
        "diagnosis": {"mixture": judged, "a": {}},
        "scores": {"mixture": {"all": {"crps": 0.5}}},
    }
    (tmp_path / "done" / "scores.json").write_text(json.dumps(scores))
    rows = {row["study"]: row for row in json.loads(invoke("runs", tmp_path, "--json").stdout)}
    assert set(rows) == {"done", "begun"}
    assert rows["done"] | judged | {"forecast": "mixture", "crps": 0.5} == rows["done"]
    assert rows["begun"]["verdict"] is None and rows["begun"]["crps"] is None
    shown = invoke("runs", tmp_path).stdout
    assert "warning" in shown and "0.500" in shown
    assert "there is no run in" in invoke("runs", tmp_path / "done").stdout


# ---- options of a run


def test_a_quick_run_has_fewer_draws_and_origins_and_a_folder_of_its_own():
    study = quick_study.study()
    plain = Study("pond", study.model, study.data, 6.0)
    quick = change_run(plain, quick=True)
    assert quick.engine == bd.NUTS(chains=2, warmup=300, draws=500, map_starts=8)
    assert quick.origins == 1 and folder_name(quick) == "pond-quick"
    few = change_run(
        Study("pond", study.model, study.data, 6.0, engine=bd.NUTS(draws=9)), quick=True
    )
    assert few.engine.draws == 9
    other = change_run(plain, quick=True, engine="svi", draws=70)
    assert other.engine == bd.engines.SVI(steps=1000, chains=2, draws=70, particles=32)
    assert folder_name(other) == "pond-quick-70-draws-svi"
    assert change_run(plain) is plain and folder_name(plain) == "pond"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "HMC"}, "no engine 'HMC'; known are .*NUTS.*SVI"),
        ({"engine": "DeepEnsemble", "draws": 5}, "DeepEnsemble has no setting draws"),
    ],
)
def test_options_that_are_not_possible_are_refused(options, said):
    with pytest.raises(ModelError, match=said):
        change_run(quick_study.study(), **options)


def test_a_run_with_options_goes_on_with_them(tmp_path, monkeypatch):
    done = []

    def run(study, folder, **options):
        done.append((study.engine.draws, options["progress"]))
        Run(study, folder).claim(0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "run", run)
    result = invoke(
        "run", TESTS / "quick_study.py", "--draws", 7, "--out", tmp_path / "run", "--quiet"
    )
    assert result.exit_code == 130 and result.output == ""
    assert invoke("resume", tmp_path / "run", "--trust").exit_code == 130
    assert done == [(7, False), (7, None)]
    assert _load_run(tmp_path / "run", trust=True).study.overrides == {"draws": 7}


# ---- errors


def test_a_missing_file_is_no_such_file():
    assert invoke("run", "missing.py").stderr == "error: no such file: missing.py\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n\ndef study(:\n", "pond.py:3 (def study(:): SyntaxError: invalid syntax"),
        ("import nowhere\n", "pond.py:1 (import nowhere): ModuleNotFoundError: No module named"),
        ("def study():\n    return {}['x']\n", "pond.py:2 (return {}['x']): KeyError: 'x'"),
        (
            "import bayes_dasl as bd\n\ndef study():\n    bd.from_table('a.csv', 'y')\n",
            "pond.py:4 (bd.from_table('a.csv', 'y')): there is no file a.csv",
        ),
    ],
)
def test_an_error_in_a_study_file_has_file_and_line(tmp_path, text, said):
    (tmp_path / "pond.py").write_text(text)
    result = invoke("check", tmp_path / "pond.py")
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {said}")
    assert result.stderr.count("\n") == 1


def test_an_error_in_an_equation_has_file_and_line(tmp_path):
    path = written(tmp_path, "model=bd.Model(layer, bd.NormalNoise(bd.between(0.1, 1)))")
    place = 'pond.py:7 (return {"y": -y["x"]})'
    result = invoke("run", path, "--out", tmp_path / "run")
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {place}: the model cannot")
    checked = invoke("check", path)
    assert checked.exit_code == 4 and f", at {place}" in checked.stdout


def test_an_error_of_our_own_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("bayes_dasl.commands.verdicts_of_runs", lambda folder: 1 / 0)
    assert isinstance(invoke("runs").exception, ZeroDivisionError)


def test_a_warning_of_check_changes_the_exit_code_only_if_strict(monkeypatch):
    monkeypatch.setattr(Study, "check", lambda self, key: CHECKED)
    assert invoke("check", TESTS / "quick_study.py").exit_code == 0
    assert invoke("check", TESTS / "quick_study.py", "--strict").exit_code == 3

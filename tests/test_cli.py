"""The command line: every command, its exit code, one line for an error,
and Ctrl-C sent for real.
"""

import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from html import unescape
from importlib import metadata
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pandas as pd
import pytest
import quick_study
import xarray as xr
from typer.testing import CliRunner

import bayes_dasl as bd
from bayes_dasl import load
from bayes_dasl._runs import alone_in
from bayes_dasl.cli import app
from bayes_dasl.commands import _load_study
from bayes_dasl.prediction import fitted_observables
from bayes_dasl.reports._text import number, percent
from bayes_dasl.study import Run, Study, module_of, table_of

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
STUDY = TESTS / "quick_study.py"
LIMIT = 180.0  # seconds that a process may take before a test gives it up

runner = CliRunner()


def invoke(*arguments: object):
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The quick study, run once by the command line: its folder, and the result."""
    folder = tmp_path_factory.mktemp("cli") / "a [run]"
    return folder, invoke("run", STUDY, "--out", folder, "--key", 3)


@pytest.fixture
def copied(ran, tmp_path) -> Path:
    return shutil.copytree(ran[0], tmp_path / "run")


def code_of(folder: Path, own: str = "decay") -> int:
    """What the verdicts stand for: the sampling of every model, the fit of the study's own and of
    the mixture.
    """
    verdicts = json.loads((folder / "scores.json").read_text())["diagnosis"]
    fits = (verdicts[name]["model"] for name in (own, "mixture") if name in verdicts)
    levels = [*(verdict["sampling"] for verdict in verdicts.values()), *fits]
    return max(
        {"good": 0, "inconclusive": 0, "warning": 3, "bad": 4}[level]
        for level in levels
        if level is not None
    )


def assert_one_line(result, message: str) -> None:
    """An error is one line on the error stream, without a traceback, and exit code 1."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert re.fullmatch(rf"error: .*{message}.*\n", result.stderr), result.stderr
    assert "Traceback" not in result.output


# ---- commands


STRANGE = 'from pathlib import Path\n\nPath(__file__).with_name("executed").touch()\n'


@pytest.mark.parametrize(
    "command", [("diagnose",), ("report",), ("resume",), ("forecast", "--until", "9")]
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_file_that_only_a_run_folder_names_is_not_executed(
    tmp_path, monkeypatch, command, inside
):
    working = tmp_path if inside else tmp_path / "working"
    folder = tmp_path / "run"
    for made in (folder, tmp_path / "working"):
        made.mkdir()
    strange = (folder if inside else tmp_path) / "strange.py"
    strange.write_text(STRANGE)
    (folder / "study.json").write_text(
        json.dumps({"study": "strange", "key": 0, "source": str(strange)})
    )
    monkeypatch.chdir(working)
    assert_one_line(
        invoke(command[0], folder, *command[1:]),
        "would execute it: read that file, then add --trust",
    )
    assert not strange.with_name("executed").exists()
    assert_one_line(
        invoke(command[0], folder, *command[1:], "--trust"),
        r"strange\.py defines no function study\(\)",
    )
    assert strange.with_name("executed").exists()


def test_a_study_of_ours_comes_before_one_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "case_studies").mkdir()
    (tmp_path / "case_studies" / "lynx_hare.py").write_text(STRANGE)
    monkeypatch.chdir(tmp_path)
    assert _load_study("lynx-hare").label == "hybrid"
    assert not (tmp_path / "case_studies" / "executed").exists()


def test_a_name_that_a_spreadsheet_would_compute_is_quoted():
    draws = xr.Dataset(
        {"flow": (("chain", "draw", "time", "site"), np.ones((1, 9, 2, 2)), {"units": "=m/s"})},
        {"time": [0.0, 1.0], "site": ["=HYPERLINK(1)", "north"]},
    )
    rows = table_of(xr.DataTree.from_dict({"predictions": draws})).splitlines()
    assert rows[1].startswith("0.0,'=HYPERLINK(1),flow,'=m/s,1.0")
    assert rows[2].startswith("0.0,north,flow,")


def test_the_version_is_that_of_the_installed_package():
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout == f"bayes-dasl {metadata.version('bayes-dasl')}\n"
    assert bd.__version__ == metadata.version("bayes-dasl")


def test_list_names_the_case_studies(monkeypatch, tmp_path):
    (tmp_path / "case_studies").mkdir()
    (tmp_path / "case_studies" / "my_pond.py").write_text('"""A pond [2024]."""\n')
    (tmp_path / "case_studies" / "_hidden.py").write_text('"""No study."""\n')
    monkeypatch.chdir(tmp_path)
    result = invoke("list")
    assert result.exit_code == 0
    assert "my-pond  A pond [2024].\n" in result.stdout
    assert "lynx-hare  Lynx and hare pelts" in result.stdout
    assert (
        "influenza  Influenza in a boarding school" in result.stdout
    )  # whose docstring is a raw one
    assert "hidden" not in result.stdout


@pytest.mark.thorough
def test_check_prints_every_rung(tmp_path):
    result = invoke("check", written(tmp_path, "competitors={}"))
    assert result.exit_code == 0, result.output
    first, *rungs = result.stdout.splitlines()
    assert first == "decay: Ready to fit: every check passed."
    for rung, name in zip(
        rungs,
        (
            "data and model",
            "units of equations",
            "solver",
            "prior of y",
            "density and gradient",
            "cost",
        ),
        strict=True,
    ):
        assert rung.startswith(f"  ✓ {name}: "), rung
    assert "7 times from 0 to 6; observed: y (7); 3 unknown numbers" in rungs[0]
    assert "compilation included" in rungs[-1]


def test_check_says_by_its_exit_code_that_a_model_cannot_be_fitted(tmp_path):
    study = written(tmp_path, "data=small.data.assign(y=small.data['y'] * float('nan'))")
    result = invoke("check", study)
    assert result.exit_code == 4
    for name in ("decay", "inflow"):
        assert f"{name}: Not ready to fit: data and model." in result.stdout
    assert result.stdout.count("✕ data and model: observable 'y' has no value at all") == 2
    assert "Traceback" not in result.output


def test_run_ends_with_scores_verdicts_and_the_report(ran):
    folder, result = ran
    assert code_of(folder) and result.exit_code == 0, result.output
    for word in (
        "decay: fitting by Sifting",
        "inflow: fitting by Sifting",
        "CRPS",
        "climatology",
        "persistence",
        "after 6",
        "inflow: fitted at 1 of 1 origins",
        "A mixture of decay (",
    ):
        assert word in result.stdout
    assert result.stdout.count("★") == 1
    assert f"report: {folder / 'report.html'}" in result.stdout
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "posterior.nc", "forecast.nc", "inflow/posterior.nc", "inflow/forecast.nc",
        "origins.nc", "inflow/origins.nc", "mixture.nc", "scores.json", "forecast.csv", "report.html", "study.json",
    }  # fmt: skip
    assert json.loads((folder / "study.json").read_text())["source"] == str(STUDY)
    table = pd.read_csv(folder / "forecast.csv")
    expected = bd.quantiles(bd.load(folder / "mixture.nc"))
    np.testing.assert_array_equal(table["time"], expected["time"])
    np.testing.assert_allclose(table["q0.05"], expected["q0.05"], rtol=1e-6)


def test_what_a_study_asks_of_its_report_is_on_the_page_and_in_the_scores(ran):
    folder, _ = ran
    asked = json.loads((folder / "scores.json").read_text())["asked"]
    mixture, test = bd.load(folder / "mixture.nc"), quick_study.study().test
    bias = bd.scores.metrics.measured_by(mixture, test, {"bias": bd.scores.metrics.bias}).loc[
        "y", "bias"
    ]
    assert asked["metrics"]["mixture"]["y"]["bias"] == pytest.approx(bias)
    after = float(mixture["predictions"]["time"].max())
    known = float(mixture.attrs["train_end"])
    ever = bd.extremes.exceedance(mixture, "y", 5.0, during=(known + 1e-9, after))["ever"]
    assert asked["exceedance"]["y"]["levels"][0]["ever"] == pytest.approx(float(ever))
    page = unescape((folder / "report.html").read_text())
    assert f"above 5 mg/L: {100 * float(ever):.0f} %" in page and "Source: a hand." in page
    assert "<h3>Decayed</h3>" in page and "rate ~ " in page


def test_the_page_of_a_run_is_headed_by_the_mixture(ran):
    """By its words, its figure and its row of the scores; each model is beside it."""
    page = unescape((ran[0] / "report.html").read_text())
    found = json.loads((ran[0] / "scores.json").read_text())
    assert "<b>mixture of decay and inflow</b>" in page
    for sentence in found["mixture"]["words"]:
        assert sentence in page and sentence in ran[1].stdout
    figures = [page.index(f'id="figure-forecast-{name}"') for name in ("y", "decay-y", "inflow-y")]
    after = page.index('id="scores"')
    rows = [
        page.index(f'<th scope="row">{name}</th>', after)
        for name in (*found["scores"], *found["baselines"])
    ]
    assert figures == sorted(figures) and rows == sorted(rows) and rows[0] == min(rows)
    assert (
        '<tr class="own"><th scope="row">mixture</th>' in page and 'id="figure-comparison"' in page
    )


def test_a_run_mixes_by_what_its_models_forecast_within_the_training_data(ran):
    folders = {"decay": ran[0], "inflow": ran[0] / "inflow"}
    found = json.loads((ran[0] / "scores.json").read_text())["mixture"]
    ahead = {name: load(folder / "origins.nc") for name, folder in folders.items()}
    assert all(result["time"].values.tolist() == [[6.0]] for result in ahead.values())
    weights = bd.compare(ahead).weights
    assert found["weights"] == weights and (found["origins"], found["horizon"]) == (1, 1)
    mixed = bd.mixture(
        {name: load(folder / "forecast.nc") for name, folder in folders.items()}, weights
    )
    drawn = load(ran[0] / "mixture.nc")["predictions"].to_dataset()
    xr.testing.assert_identical(drawn, mixed["predictions"].to_dataset())


@pytest.mark.thorough
def test_another_key_in_the_same_folder_is_refused(ran):
    folder, _ = ran
    result = invoke("run", STUDY, "--out", folder, "--key", 4)
    assert_one_line(result, r"a \[run\] holds another run \(key 3\): choose another folder")


def test_diagnose_prints_the_findings_of_each_model(ran):
    result = invoke("diagnose", ran[0])
    assert result.exit_code == 0, result.output
    assert invoke("diagnose", ran[0], "--strict").exit_code == code_of(ran[0]) >= 3
    found = invoke("diagnose", ran[0], "--json").stdout
    saved = json.loads((ran[0] / "scores.json").read_text())["diagnosis"]
    assert json.loads(found) == saved
    for word in (
        "mixture: ",
        "decay: ",
        "inflow: ",
        "R-hat of science parameters: ",
        "divergences: ",
        "forecast draws",
    ):
        assert word in result.stdout


@pytest.mark.thorough
def test_a_number_is_the_same_wherever_it_is_shown(ran):
    """Scores, verdict, report and terminal take coverage, CRPS, R-hat, sizes and divergences from
    one source.
    """
    folder, result = ran
    found = json.loads((folder / "scores.json").read_text())
    page = " ".join(unescape(re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())).split())
    own = found["scores"]["mixture"]["all"]
    told, of_mixture = (
        {f["subject"]: f["message"] for f in found["diagnosis"][name]["findings"]}
        for name in ("decay", "mixture")
    )
    study, post, fc = (
        quick_study.study(),
        load(folder / "posterior.nc"),
        load(folder / "forecast.nc"),
    )

    inside, of = map(
        int, re.search(r"hold (\d+) of (\d+) values", of_mixture["held-out data"]).groups()
    )
    assert (inside / of, of) == (own["coverage_90"], own["n"])
    crps, coverage = number(own["crps"]), percent(own["coverage_90"])
    table = bd.score(load(folder / "mixture.nc"), study.test).loc["all"]
    assert (table["crps"], table["coverage_90"]) == (own["crps"], own["coverage_90"])
    assert f"CRPS {crps} mg/L" in page and f"90 % coverage {coverage} of test values inside" in page
    assert f"CRPS {crps} mg/L on {of} held-out values" in page
    assert re.search(
        rf"mixture\s+│\s+{re.escape(crps)}[ "
        rf"★]+│\s+{re.escape(number(own['rmse']))}\s+│\s+{coverage}",
        result.stdout,
    )

    rhat = re.search(r"highest (\d\.\d{3})", told["R-hat of science parameters"])[1]
    bulk = re.search(r"lowest bulk (\d+)", told["effective sample size of science parameters"])[1]
    assert f"largest R-hat {rhat} science parameters of decay" in page
    assert f"lowest bulk ESS {bulk} science parameters of decay" in page

    parts = bd.decompose(fc).sel(observable="y")
    ahead = parts.where(parts["time"] > study.split, drop=True).mean()
    assert f"epistemic {percent(float(ahead['epistemic'] / ahead['total']))}" in page

    competitors = {"inflow": load(folder / "inflow" / "forecast.nc")}
    printed = str(bd.diagnose(post, fc, study.test, competitors=competitors))
    shown = " ".join(invoke("diagnose", folder, "--trust").stdout.split())
    for subject, message in told.items():
        assert f"{subject}: {message}" in printed
        assert " ".join(message.split()) in page and " ".join(message.split()) in shown
    assert found["diagnosis"]["decay"]["verdict"] in result.stdout


@pytest.mark.thorough
def test_forecast_goes_further_ahead(copied):
    result = invoke("forecast", copied, "--until", 20, "--step", 2.5)
    assert result.exit_code == 0, result.output
    assert f"decay: {copied / 'forecast.nc'}" in result.stdout
    assert f"mixture: {copied / 'mixture.nc'}" in result.stdout
    for path in (copied / "forecast.nc", copied / "inflow" / "forecast.nc", copied / "mixture.nc"):
        times = load(path)["predictions"]["time"].values.tolist()
        assert times == sorted({*np.arange(0.0, 20.1, 2.5), *range(10)}), (
            "those of the data, and the grid"
        )


@pytest.mark.thorough
def test_an_edited_study_is_refused_unless_asked_what_if(copied, tmp_path, undrawn):
    edited = tmp_path / "edited_study.py"
    edited.write_text(STUDY.read_text().replace("rtol=1e-6", "rtol=1e-2"))
    note = json.loads((copied / "study.json").read_text())
    (copied / "study.json").write_text(json.dumps(note | {"source": str(edited)}))
    before = (copied / "forecast.nc").read_bytes()
    for command, *options in (["report"], ["forecast", "--until", 20]):
        refused = invoke(command, copied, "--trust", *options)
        assert_one_line(
            refused, r"decay: this posterior belongs to another model .*run it anew, or --what-if\)"
        )
    assert (copied / "forecast.nc").read_bytes() == before
    result = invoke("report", copied, "--trust", "--what-if")
    assert result.exit_code == 0, result.output
    assert "what if" in result.stdout
    assert "the forecast is no mixture: 'decay' is a what-if" in result.stdout
    found = {
        name: load(copied / name).attrs["what_if"] for name in ("forecast.nc", "inflow/forecast.nc")
    }
    assert found == {"forecast.nc": 1, "inflow/forecast.nc": 0}


def test_no_command_prints_help():
    result = invoke()
    assert "Usage" in result.output
    for command in ("list", "check", "run", "diagnose", "forecast", "report"):
        assert command in result.output


def test_scores_that_are_missing_are_dashes(ran, tmp_path, monkeypatch):
    """Where every draw of a forecast failed there is no score, and still a table."""
    found = json.loads((ran[0] / "scores.json").read_text())
    found["scores"]["inflow"]["all"] = dict.fromkeys(found["scores"]["inflow"]["all"])
    run = shutil.copytree(ran[0], tmp_path / "run")
    (run / "scores.json").write_text(json.dumps(found))
    monkeypatch.setattr(Run, "finish", lambda self, **_: None)  # which would score anew
    result = invoke("report", run, "--trust")
    assert result.exit_code == 0, result.output
    assert re.search(r"inflow\s+│\s+–\s+│\s+–\s+│\s+–", result.output)


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        ({}, 0),
        ({("decay", "sampling"): "warning"}, 3),
        ({("inflow", "sampling"): "warning"}, 3),
        ({("decay", "model"): "warning"}, 3),
        ({("decay", "model"): "warning", ("inflow", "sampling"): "bad"}, 4),
        ({("decay", "model"): "bad"}, 4),
        ({("inflow", "model"): "bad"}, 0),
        ({("decay", "model"): None}, 0),
        ({("mixture", "model"): "warning"}, 3),
    ],
)
def test_the_exit_code_tells_the_verdict_where_it_is_asked_to(
    ran, tmp_path, monkeypatch, levels, code
):
    """A competitor that does not fit is there to be beaten; one whose sampling is not to be trusted
    compares nothing.
    """
    found = json.loads((ran[0] / "scores.json").read_text())
    for name, verdict in found["diagnosis"].items():
        verdict |= {aspect: levels.get((name, aspect), "good") for aspect in ("sampling", "model")}
    run = shutil.copytree(ran[0], tmp_path / "run")
    (run / "scores.json").write_text(json.dumps(found))
    monkeypatch.setattr(Run, "finish", lambda self, **_: None)  # which would score anew
    assert invoke("report", run, "--trust").exit_code == 0
    assert invoke("report", run, "--trust", "--strict").exit_code == code
    assert code_of(run) == code


@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_run_judges_only_if_it_is_asked_to_be_strict(ran, tmp_path, monkeypatch, command):
    """It did its work, whatever the verdict."""
    run = shutil.copytree(ran[0], tmp_path / "run")
    monkeypatch.setattr(
        Study, "run", lambda self, folder, **_: Run(self, folder)
    )  # which has run before
    asked = (STUDY, "--out", run) if command == "run" else (run,)
    assert invoke(command, *asked).exit_code == 0
    assert invoke(command, *asked, "--strict").exit_code == code_of(run) >= 3


def test_help_tells_the_exit_codes():
    said = " ".join(invoke("--help").output.split())
    for code in (
        "0 for a command that did its work",
        "3 if there are reservations",
        "4 if",
        "1 for an error",
        "130 after Ctrl-C",
    ):
        assert code in said


# ---- errors


def written(folder: Path, changes: str) -> Path:
    """A study file that changes the small study."""
    path = folder / "changed_study.py"
    path.write_text(
        "import dataclasses\nimport bayes_dasl as bd\nimport quick_study\nimport small_study\n\n"
        "def study():\n    small = small_study.study()\n    return dataclasses.replace(small, "
        f"{changes})\n"
    )
    return path


def test_a_study_file_may_import_a_file_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_equations.py").write_text("RATE = 0.3\n")
    (tmp_path / "beside.py").write_text("from own_equations import RATE\n")
    assert module_of(str(tmp_path / "beside.py")).RATE == 0.3


def test_an_unknown_study_is_one_line():
    assert_one_line(
        invoke("run", "lynx-hares"), "there is no study 'lynx-hares'; known are .*lynx-hare"
    )
    assert_one_line(invoke("check", "absent.py"), r"no such file: absent\.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"study_file\.py defines no function study\(\)"),
        ("def study():\n    return 3\n", r"study\(\) of .*study_file\.py returns int, not a "
            r"bd\.Study"),
        ("import dataclasses, small_study as s\n\ndef study():\n    return "
            "dataclasses.replace(s.study(), split=99)\n",
         "a split at 99 leaves one side empty"),
    ],
)  # fmt: skip
def test_a_study_file_that_is_none_is_one_line(tmp_path, text, message):
    (tmp_path / "study_file.py").write_text(text)
    assert_one_line(invoke("run", tmp_path / "study_file.py", "--out", tmp_path / "run"), message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command", [["diagnose"], ["report"], ["forecast", "--until", "20"]], ids=lambda c: c[0]
)
def test_a_folder_without_a_run_is_one_line(tmp_path, command):
    assert_one_line(
        invoke(*command, tmp_path), r"is no run folder: it has no study\.json; make one with"
    )


@pytest.mark.parametrize(
    "command", [["diagnose"], ["report"], ["forecast", "--until", "20"]], ids=lambda c: c[0]
)
def test_a_torn_posterior_is_one_line(copied, command):
    whole = (copied / "posterior.nc").read_bytes()
    (copied / "posterior.nc").write_bytes(whole[: len(whole) // 2])
    assert_one_line(invoke(*command, copied), r"posterior\.nc is torn or not a netCDF file")


def test_a_torn_note_is_one_line(copied):
    (copied / "study.json").write_text("{")
    assert_one_line(invoke("report", copied), r"study\.json is torn or not one of ours")


def test_a_run_made_in_python_is_named(copied):
    note = json.loads((copied / "study.json").read_text())
    (copied / "study.json").write_text(json.dumps(note | {"source": ""}))
    assert_one_line(invoke("report", copied), r"was made in Python, from no study file")


@pytest.mark.thorough
def test_a_file_for_a_folder_is_one_line(tmp_path):
    (tmp_path / "run").write_text("mine")
    assert_one_line(invoke("run", STUDY, "--out", tmp_path / "run"), "is a file, not a folder")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.thorough
def test_a_folder_in_which_another_process_is_at_work_is_one_line(copied):
    entered, left = Event(), Event()

    def at_work():
        with alone_in(copied):
            entered.set()
            left.wait(LIMIT)

    other = Thread(target=at_work)
    other.start()
    try:
        assert entered.wait(LIMIT)
        before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
        commands = (
            ["run", STUDY, "--out", copied, "--key", 3],
            ["resume", copied],
            ["report", copied],
        )
        for command in (*commands, ["forecast", copied, "--until", 20]):
            assert_one_line(
                invoke(*command),
                "another process is at work in .*run: wait until it has ended, or choose",
            )
        assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
    finally:
        left.set()
        other.join()


def test_a_forecast_to_the_past_is_one_line(ran):
    assert_one_line(invoke("forecast", ran[0], "--until", -1), "until must lie after 0")


def test_markup_in_a_message_is_printed_as_it_stands(tmp_path):
    """Brackets are not taken for the terminal's colours."""
    assert_one_line(
        invoke("diagnose", tmp_path / "[bold]x[/y]"), r"\[bold\]x\[/y\] is no run folder"
    )


# ---- Ctrl-C


START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bayes_dasl.cli "
    "import app; app()"
)


class Command:
    """`bayes-dasl` in a process of its own; its progress bar goes to a terminal that the test can
    read.
    """

    def __init__(self, *arguments: object):
        self._screen, terminal = pty.openpty()
        self._shown = b""
        search = os.pathsep.join([str(ROOT), str(TESTS)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=terminal, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": search, "COLUMNS": "200", "TERM": "xterm"},
        )  # fmt: skip
        os.close(terminal)

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        os.close(self._screen)

    def wait_for(self, pattern: str) -> None:
        """Read the screen until it shows `pattern`."""
        end = time.monotonic() + LIMIT
        while not re.search(pattern.encode(), self._shown):
            assert time.monotonic() < end, self._shown[-2000:]
            assert self.process.poll() is None, (self.process.stdout.read(), self._shown[-2000:])
            self._read(0.2)

    def _read(self, patience: float) -> None:
        if select.select([self._screen], [], [], patience)[0]:
            try:
                self._shown += os.read(self._screen, 65536)
            except OSError:  # the other end is closed
                time.sleep(0.05)

    def interrupt(self, number: int = signal.SIGINT) -> str:
        """Send Ctrl-C, or another signal, and return what stands on the output once the process has
        ended.
        """
        self.process.send_signal(number)
        end = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < end, self._shown[-2000:]
            self._read(0.2)
        self._read(0.2)
        assert b"Traceback" not in self._shown, self._shown[-4000:].decode()
        return self.process.stdout.read()


@pytest.mark.thorough("2-130", "1-129")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_run_with_its_code(tmp_path, monkeypatch, number, code):
    """As Ctrl-C does, wherever it comes; the tests below and `tests/studies/faults.py` send it to
    another process.
    """

    def fit(*_, **__):
        os.kill(os.getpid(), number)
        pytest.fail("not heard")

    # A process that was begun in the background is born to ignore Ctrl-C.
    before = {n: signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("bayes_dasl.study.fits.fit", fit)
    try:
        result = invoke("run", STUDY, "--out", tmp_path / "run")
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert result.exit_code == code, result.output
    assert result.stdout.splitlines()[-1].startswith(
        "stopped: nothing is half-written; run the same command again"
    )
    assert os.listdir(tmp_path / "run") == ["study.json"]


LONG = "competitors={}, model=quick_study.model(), engine=bd.NUTS(chains=2, warmup=%d, draws=%d)"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_ctrl_c_while_sampling_keeps_the_draws_and_says_how_to_go_on(
    tmp_path, monkeypatch, undrawn, number, code
):
    study, folder = written(tmp_path, LONG % (100, 10_000_000)), tmp_path / "the run"
    with Command("run", study, "--out", folder, "--key", 5) as command:
        command.wait_for(r"sampling.*[1-9]\d*0/10000000")
        output = command.interrupt(number)
        assert command.process.returncode == code, output
    assert set(os.listdir(folder)) == {"study.json", "posterior.nc", "checkpoint"}
    post = load(folder / "posterior.nc")
    drawn = post["posterior"].sizes["draw"]
    assert post.attrs["interrupted"] == 1
    assert 25 <= drawn < 10_000_000
    assert drawn % 25 == 0
    assert post["posterior"]["rate"].notnull().all()
    assert (
        f"stopped after {drawn} of 10000000 draws of each chain; they are kept in "
        f"{folder}/posterior.nc" in output
    )
    report, again = (
        shlex.split(line, comments=True) for line in re.findall(r"  (bayes-dasl .*)", output)
    )
    assert again == ["bayes-dasl", "resume", str(folder), "--trust"]
    result = invoke(*report[1:])
    assert result.exit_code == 0, result.output
    assert set(os.listdir(folder)) - {"checkpoint"} == {
        *("study.json", "posterior.nc", "forecast.nc", "forecast.csv", "scores.json", "report.html")
    }
    assert load(folder / "forecast.nc")["predictions"].sizes["draw"] == drawn
    assert (
        f"stopped after {drawn} of 10000000 draws" in invoke("diagnose", folder, "--trust").stdout
    )

    began = []

    def fit(*_, **__):
        began.append(True)
        raise KeyboardInterrupt

    monkeypatch.setattr("bayes_dasl.study.fits.fit", fit)
    assert invoke(*again[1:]).exit_code == 130
    assert began
    assert load(folder / "posterior.nc")["posterior"].sizes["draw"] == drawn


@pytest.mark.slow
def test_ctrl_c_before_the_first_draw_leaves_nothing_half_written(tmp_path):
    """While programs are still compiled, and in the warm-up: two processes side by side."""
    study = written(tmp_path, LONG % (100_000_000, 50))
    early, late = tmp_path / "early", tmp_path / "late"
    with (
        Command("run", study, "--out", early) as compiling,
        Command("run", study, "--out", late) as warming,
    ):
        for command, phase, folder in (
            (compiling, "finding modes", early),
            (warming, r"warm-up.*[1-9]\d*0/100000000", late),
        ):
            command.wait_for(phase)
            output = command.interrupt()
            assert command.process.returncode == 130, output
            assert set(os.listdir(folder)) == {"study.json", "checkpoint"}
            last = output.strip().splitlines()[-1]
            assert last.startswith(
                "stopped: nothing is half-written; run the same command again, or bayes-dasl resume"
            )


FORCED = """
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd


class Bucket(bd.Module):
    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": (1 - self.share) * y["store"] + u["rain"]}

    def flow(self, t, y, u):
        return {"flow": self.share * y["store"]}


def study():
    days = np.arange("2001-01-01", "2001-01-13", dtype="datetime64[D]").astype("datetime64[ns]")
    data = xr.Dataset({"rain": ("time", np.ones(12)), "flow": ("time", np.linspace(3.0, 1.0, 12))}, {"time": days})
    layer = bd.Difference(Bucket(bd.between(0.1, 0.6)), {"store": 10.0}, Bucket.flow, forcings="rain")
    return bd.Study("wet", bd.Model(layer, bd.NormalNoise(0.5)), data, "2001-01-09", engine=Sifting(draws=20))
"""


@pytest.fixture(scope="module")
def forced(tmp_path_factory):
    """A run of a study whose data have dates and a forcing."""
    folder = tmp_path_factory.mktemp("forced")
    (folder / "wet_study.py").write_text(FORCED)
    result = invoke("run", folder / "wet_study.py", "--out", folder / "run")
    assert "after 2001-01-09" in result.stdout, result.output
    return folder / "run"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of such a run that has fitted nothing yet."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "wet_study.py").write_text(FORCED)
    run = Run(_load_study(str(folder / "wet_study.py")), folder / "run")
    run.claim(0)
    return run.folder


def future(path, column="time", days=5):
    dates = np.arange("2001-01-11", "2001-01-31", dtype="datetime64[D]")[:days]
    path.write_text("\n".join([f"{column},rain", *(f"{day},{2.0}" for day in dates)]) + "\n")
    return path


@pytest.mark.thorough
def test_forecasts_with_a_file_of_forcings(forced, tmp_path, undrawn):
    """Its rows stand for those of the data at the same times, and go on after them."""
    result = invoke("forecast", forced, "--trust", "--forcing", future(tmp_path / "future.csv"))
    assert result.exit_code == 0, result.output
    found = load(forced / "forecast.nc")["predictions"]
    assert found["time"].values[-1] == np.datetime64("2001-01-15") and found.sizes["time"] == 15
    result = invoke(
        "forecast",
        forced,
        "--trust",
        "--forcing",
        future(tmp_path / "future.csv"),
        "--until",
        "2001-01-13",
    )
    assert result.exit_code == 0, result.output
    assert load(forced / "forecast.nc")["predictions"]["time"].values[-1] == np.datetime64(
        "2001-01-13"
    )
    table = xr.Dataset(
        {"rain": ("time", [2.0])}, {"time": np.array(["2001-01-13"], "datetime64[ns]")}
    )
    table.to_netcdf(tmp_path / "future.nc", engine="h5netcdf")
    result = invoke("forecast", forced, "--trust", "--forcing", tmp_path / "future.nc")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: future(path, "date"), "has no 'time'; it holds date, rain"),
        (lambda path: path.write_text("time,snow\n2001-01-13,1\n"), "has no 'rain'"),
        (
            lambda path: path.write_text("time,rain\nnoon,1\n"),
            "'time' is 'noon' in line 2, which is no number",
        ),
        (
            lambda path: path.write_text("time,rain\n13.01.2001,1\n"),
            "may be a date: say how dates are written",
        ),
        (
            lambda path: path.write_text("time,rain\n13,1\n"),
            "time holds numbers here, but dates in the data of the",
        ),
        (lambda path: path.write_text(""), "cannot be read as CSV: the table has no rows"),
        (lambda path: None, "there is no file"),
    ],
    ids=["another column", "another forcing", "text", "other dates", "numbers", "empty", "none"],
)
def test_a_bad_file_of_forcings_is_one_line(begun, tmp_path, write, said):
    write(tmp_path / "future.csv")
    assert_one_line(
        invoke("forecast", begun, "--trust", "--forcing", tmp_path / "future.csv"), said
    )


def test_update_takes_in_new_rows_and_forecasts_go_on(forced, tmp_path):
    run = shutil.copytree(forced, tmp_path / "run")
    rows = [f"2001-01-{day},1,{flow}" for day, flow in ((12, 1.0), (13, ""), (14, 1.5), (15, ""))]
    (tmp_path / "new.csv").write_text("\n".join(["time,rain,flow", *rows]) + "\n")
    before = load(run / "posterior.nc")
    result = invoke("update", run, tmp_path / "new.csv", "--trust")
    assert result.exit_code == 0, result.output
    assert "model: knows the data up to 2001-01-14 by importance weights" in result.stdout
    after = load(run / "posterior.nc")
    assert (
        fitted_observables(after).sizes["time"] == 14
        and fitted_observables(before).sizes["time"] == 9
    )
    xr.testing.assert_identical(
        load(run / "posterior.fit.nc")["posterior"].to_dataset(), before["posterior"].to_dataset()
    )
    # A later table goes on after the last update, of which the study's own data know nothing.
    (tmp_path / "next.csv").write_text("time,rain,flow\n2001-01-15,1,1.4\n")
    result = invoke("update", run, tmp_path / "next.csv", "--trust")
    assert result.exit_code == 0 and "up to 2001-01-15" in result.stdout, result.output
    # What is known by the same values is left out; another value is refused.
    known = "nothing to update by"
    assert_one_line(invoke("update", run, tmp_path / "new.csv", "--trust"), known)
    (tmp_path / "other.csv").write_text("time,rain,flow\n2001-01-14,1,9.5\n")
    assert_one_line(
        invoke("update", run, tmp_path / "other.csv", "--trust"),
        "knows 'flow' at time 2001-01-14 already",
    )
    assert after["observed_data"]["flow_time"].values[-2:].astype("M8[D]").astype(str).tolist() == [
        "2001-01-12",
        "2001-01-14",
    ]
    # The posterior knows the observation of the 14th by now, of which the study's own data know
    # nothing.
    (tmp_path / "later.csv").write_text(
        "time,rain,flow\n2001-01-14,1,1.5\n2001-01-15,1,1.4\n2001-01-16,1,\n"
    )
    result = invoke("forecast", run, "--trust", "--forcing", tmp_path / "later.csv")
    assert result.exit_code == 0 and "observation" not in result.stdout, result.output
    assert load(run / "forecast.nc")["predictions"]["time"].values[-1] == np.datetime64(
        "2001-01-16"
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("time,rain\n2001-01-13,1\n", "holds no observable: it needs flow"),
        ("time,flow\n2001-01-13,1\n", "has no 'rain'"),
        ("time,rain,flow\n13,1,1\n", "time holds numbers here, but dates in the data of the study"),
        (
            "time,rain,flow\n2001-02-13,1,1\n",
            "forcings are known up to 2001-01-12 and from 2001-02-13 on",
        ),
    ],
)
def test_a_bad_table_of_new_rows_is_one_line(forced, tmp_path, table, said):
    (tmp_path / "new.csv").write_text(table)
    before = (forced / "posterior.nc").read_bytes()
    assert_one_line(invoke("update", forced, tmp_path / "new.csv", "--trust"), said)
    assert (forced / "posterior.nc").read_bytes() == before


def test_a_forecast_says_which_observations_it_does_not_use(begun, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "forecast", lambda *_, **__: {})
    path = tmp_path / "grown.csv"
    path.write_text(
        "time,rain,flow\n2001-01-12,1,0.9\n2001-01-13,1,0.8\n2001-01-14,1,\n2001-01-15,1,0.7\n"
    )
    result = invoke("forecast", begun, "--trust", "--forcing", path)
    said = (
        f"{path} holds 2 observations that the data of the run and its posterior lack: the "
        "forecast does not use them"
    )
    assert result.exit_code == 0 and said in result.stdout
    assert f"first run bayes-dasl update {begun} {path} --trust" in result.stdout
    assert (
        "observation" not in invoke("forecast", begun, "--trust", "--forcing", future(path)).stdout
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "'rain' is missing or not finite at time 2001-01-13"),
        ("wet", "'rain' must hold numbers"),
    ],
)
def test_a_gap_or_words_in_a_file_of_forcings_are_one_line(forced, tmp_path, value, said):
    (tmp_path / "future.csv").write_text(f"time,rain\n2001-01-13,{value}\n")
    assert_one_line(
        invoke("forecast", forced, "--trust", "--forcing", tmp_path / "future.csv"), said
    )


def test_a_forecast_until_no_time_is_one_line(begun, ran):
    assert_one_line(
        invoke("forecast", begun, "--trust", "--until", "2001-02-01"),
        "needs forcings: give a file of them by --forcing",
    )
    assert_one_line(
        invoke("forecast", begun, "--trust"),
        "say until when to forecast, by --until, or give a file",
    )
    assert_one_line(
        invoke("forecast", ran[0], "--until", "soon"), "a number of 'time' is needed, not 'soon'"
    )
    assert_one_line(
        invoke("forecast", ran[0], "--forcing", "future.csv"), "this study needs no forcings"
    )

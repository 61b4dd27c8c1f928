"""Studies and their run folders: whole files or none, nothing lost, the same run or a refusal."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pytest
import quick_study
import small_study
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl import load
from bayes_dasl.errors import (
    DataError,
    Interrupted,
    MismatchError,
    ModelError,
    ReadError,
    WriteError,
)
from bayes_dasl.study import Run, fits, forecast_times, future_times, scores, studies as bundle

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def words_alone(undrawn):
    """The page of the first run has its figures; those of the others are not looked at."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The quick study, run once in Python, and what it said."""
    said = []
    run = quick_study.study().run(tmp_path_factory.mktemp("study") / "run", key=3, say=said.append)
    return run, said


@pytest.fixture(scope="module")
def post(ran):
    return load(ran[0].folder / "posterior.nc")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def refuse_constants(name: str) -> None:
    raise AssertionError(f"JSON knows no {name}")


# ---- a run


@pytest.mark.thorough
def test_a_run_fills_its_folder(ran):
    run, said = ran
    assert set(contents(run.folder)) == {
        "posterior.nc", "forecast.nc", "inflow/posterior.nc", "inflow/forecast.nc",
        "origins.nc", "inflow/origins.nc", "mixture.nc", "scores.json", "forecast.csv", "report.html", "study.json",
    }  # fmt: skip
    assert said[0] == f"decay: fitting by {run.study.engine!r}"
    assert said[0].startswith("decay: fitting by Sifting(chains=2, draws=50, ")
    assert said[-1] == "forecasts made and mixed"
    assert any(finding.subject == "solver accuracy" for finding in run.diagnose()["decay"].findings)
    html = (run.folder / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>") or html.lower().startswith("<!doctype html>")
    assert "inflow" in html


@pytest.mark.thorough
def test_scores_are_json_for_every_model_and_baseline(ran):
    run, _ = ran
    text = (run.folder / "scores.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse_constants)
    assert found["study"] == "decay"
    assert found["split"] == 6.0
    assert list(found["scores"]) == ["mixture", "decay", "inflow"]
    assert set(found["baselines"]) == {"climatology", "persistence"}
    assert list(found["diagnosis"]) == ["mixture", "decay", "inflow"]
    table = bd.score(load(run.folder / "forecast.nc"), run.study.test)
    assert found["scores"]["decay"]["y"]["crps"] == table.loc["y", "crps"]
    assert found["scores"]["decay"]["y"]["n"] == 3
    kernel = "a kernel estimate from the draws"
    assert found["attrs"]["decay"] == {
        "log_score": {"y": "exact"},
        "failed_draws": 0,
        "times_left_out": 0,
    }
    assert found["attrs"]["climatology"]["log_score"] == {"y": kernel}
    assert found["scores"]["decay"]["y"]["crps"] < found["baselines"]["climatology"]["y"]["crps"]


@pytest.mark.thorough
def test_the_note_says_what_made_the_run(ran):
    run, _ = ran
    note = json.loads((run.folder / "study.json").read_text(encoding="utf-8"))
    assert note["study"] == "decay"
    assert note["key"] == 3
    assert note["engine"] == repr(run.study.engine)
    assert note["data_sha256"] == load(run.folder / "posterior.nc").attrs["data_sha256"]


@pytest.mark.thorough
def test_the_forecast_covers_training_and_test_times(ran):
    run, _ = ran
    fc = load(run.folder / "forecast.nc")
    assert fc.attrs["train_end"] == 6.0
    assert np.isin(run.study.data["time"].values, fc["predictions"]["time"].values).all()


@pytest.mark.thorough
def test_a_second_run_keeps_whole_fits(ran, monkeypatch):
    run, _ = ran
    before, said = contents(run.folder), []
    monkeypatch.setattr(fits, "fit", lambda *_, **__: pytest.fail("fitted again"))
    run.study.run(run.folder, key=3, say=said.append)
    assert said[:2] == ["decay: already fitted, kept", "inflow: already fitted, kept"]
    after = contents(run.folder)
    assert set(after) == set(before)
    for name in ("posterior.nc", "inflow/posterior.nc", "scores.json", "study.json"):
        assert after[name] == before[name], name


@pytest.mark.thorough
def test_what_killed_writes_left_goes_at_the_next_start(ran, tmp_path, monkeypatch):
    folder = shutil.copytree(ran[0].folder, tmp_path / "run")
    before = contents(folder)
    for name in (
        ".posterior.nc.k3x_9qab.partial",
        ".study.json.abcdefgh.partial",
        "inflow/.forecast.nc.x.partial",
    ):
        (folder / name).write_bytes(b"half")
    (folder / ".lock").touch()  # of a killed process, which locks nothing any more
    monkeypatch.setattr(Run, "finish", lambda *_, **__: None)
    ran[0].study.run(folder, key=3)
    assert contents(folder) == before


@pytest.mark.thorough
def test_another_prior_is_not_taken_for_the_same_fit(ran, tmp_path, monkeypatch):
    """The folder's posterior has the same random leaves, but it is another model's."""
    run, _ = ran
    folder = shutil.copytree(run.folder, tmp_path / "run")
    layer = bd.ODE(
        small_study.Decay(bd.between(0.2, 0.5)), {"y": dist.Normal(10.0, 1.0)}, units={"y": "mg/L"}
    )
    other = dataclasses.replace(run.study, model=bd.Model(layer, run.study.model.noise))

    class FittedAgain(Exception):
        pass

    def fit(*_, **__):
        raise FittedAgain

    monkeypatch.setattr(fits, "fit", fit)
    said = []
    finished = (folder / "posterior.nc").read_bytes()
    for number in (1, 2):
        with pytest.raises(FittedAgain):
            other.run(folder, key=3, say=said.append)
        aside = folder / f"posterior.old-{number}.nc"
        assert aside.read_bytes() == finished and not (folder / "posterior.nc").exists()
        assert any(f"moved to {aside}" in line for line in said)
        (folder / "posterior.nc").write_bytes(finished)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a ", ".", "..", ".hidden", "end.", "a/b", "a\\b", "a:b", "new\nline", "checkpoint", "Posterior.nc",
     "nul", "x" * 300, "checkpoint.old-1", "Climatology"],
)  # fmt: skip
def test_a_name_is_no_path(name):
    study = quick_study.study()
    competitor = next(iter(study.competitors.values()))
    with pytest.raises(ModelError, match=r"named|name of"):
        dataclasses.replace(study, competitors={name: competitor})
    with pytest.raises(ModelError, match=r"named|name of"):
        dataclasses.replace(study, label=name)
    if name != "Climatology":
        with pytest.raises(ModelError, match=r"a study cannot be named|the name of a study"):
            dataclasses.replace(study, name=name)


def test_names_that_differ_in_case_only_are_refused():
    study = quick_study.study()
    competitor = next(iter(study.competitors.values()))
    with pytest.raises(ModelError, match="two models are named 'hare' and 'Hare'"):
        dataclasses.replace(study, competitors={"hare": competitor, "Hare": competitor})
    dataclasses.replace(study, competitors={"lynx–hare, with a network": competitor})


def test_names_that_differ_in_how_an_accent_is_written_are_refused():
    """Some systems take them for one folder."""
    study = quick_study.study()
    competitor = next(iter(study.competitors.values()))
    with pytest.raises(ModelError, match="which some systems take for the same"):
        dataclasses.replace(study, competitors={"h\u00e9": competitor, "he\u0301": competitor})


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "key", "named"),
    [
        (lambda s: s, 4, "key 3"),
        (lambda s: dataclasses.replace(s, engine=bd.NUTS(draws=60)), 3, "engine Sifting"),
        (lambda s: dataclasses.replace(s, name="growth"), 3, "study decay"),
        (lambda s: dataclasses.replace(s, data=s.data * 1.01), 3, "data_sha256"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(ran, change, key, named):
    run, _ = ran
    before = contents(run.folder)
    study = change(run.study)
    with pytest.raises(MismatchError, match=f"holds another run .*{named}.*choose another folder"):
        study.run(run.folder, key=key)
    assert contents(run.folder) == before


@pytest.mark.thorough
def test_data_that_no_model_looks_at_do_not_count(ran):
    """A column of text, such as a station's name, neither stops a run nor makes it another one."""
    run, _ = ran
    wider = run.study.data.assign(station=("time", ["north"] * 10))
    Run(dataclasses.replace(run.study, data=wider), run.folder).claim(3)


@pytest.mark.thorough
def test_a_torn_note_is_named(ran, tmp_path):
    (tmp_path / "study.json").write_text('{"study": "dec')
    with pytest.raises(ReadError, match=r"study.json is torn"):
        ran[0].study.run(tmp_path, key=3)


def test_check_reports_on_each_model():
    """Here with data that neither suits; the command line's tests climb the whole ladder."""
    study = small_study.study()
    found = dataclasses.replace(study, data=study.data.rename(y="z")).check()
    assert list(found) == ["decay", "inflow"]
    for result in found.values():
        assert result.verdict == "Not ready to fit: data and model."
        assert "observable 'y' is not in the data; they hold z" in str(result)


# ---- bad input, before any work


def no_fit(*_, **__):
    pytest.fail("a fit began")


@pytest.mark.thorough
def test_a_rival_that_does_not_suit_the_data_is_refused_before_any_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(fits, "fit", no_fit)
    competitor = bd.Model(small_study.model().layer, bd.PoissonNoise())
    study = dataclasses.replace(small_study.study(), competitors={"counts": competitor})
    with pytest.raises(DataError, match="which PoissonNoise rules out: its data are whole numbers"):
        study.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_a_derived_quantity_that_cannot_be_worked_out_is_refused_before_any_fit(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(fits, "fit", no_fit)
    study = dataclasses.replace(
        quick_study.study(), derived=lambda model: {"half_life": model.layer.nothing}
    )
    with pytest.raises(ModelError, match="cannot be worked out of the model: AttributeError"):
        study.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_the_report_has_derived_quantities(ran, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(
        bundle, "report", lambda *_, derived, **__: given.update(derived) or bd.reports.Report("")
    )
    study = dataclasses.replace(
        ran[0].study, derived=lambda model: {"half_life": 0.5 / model.layer.function.rate}
    )
    Run(study, shutil.copytree(ran[0].folder, tmp_path / "run")).finish()
    rate = load(ran[0].folder / "posterior.nc")["posterior"]["rate"].values
    np.testing.assert_allclose(given["half_life"].values, 0.5 / rate, rtol=1e-12)


@pytest.mark.thorough
def test_a_gap_in_the_future_of_a_forcing_is_refused_before_any_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(fits, "fit", no_fit)
    study = small_study.study()
    data = study.data.assign(rain=("time", np.where(np.arange(10) == 8, np.nan, 1.0)))
    layer = bd.ODE(small_study.Decay(bd.between(0.1, 1.0)), {"y": 10.0}, forcings=("rain",))
    competitor = bd.Model(layer, bd.NormalNoise(0.2))
    forced = dataclasses.replace(study, data=data, competitors={"rain": competitor})
    with pytest.raises(DataError, match="forcing 'rain' is missing or not finite at time 8"):
        forced.run(tmp_path / "run")


def test_times_of_a_study_whose_rival_needs_forcings():
    """Only the data say what the forcing was, so no time between them is forecast."""
    study = small_study.study()
    layer = bd.ODE(small_study.Decay(bd.between(0.1, 1.0)), {"y": 10.0}, forcings=("rain",))
    competitor = bd.Model(layer, bd.NormalNoise(0.2))
    forced = dataclasses.replace(
        study, data=study.data.assign(rain=("time", np.ones(10))), competitors={"rain": competitor}
    )
    assert forecast_times(forced).sizes["time"] == 10
    assert forecast_times(study).sizes["time"] == 91
    asked = dataclasses.replace(study, options=bd.ReportOptions(thresholds={"y": 5.0}))
    assert forecast_times(asked).sizes["time"] == 10  # each has noise of its own, which may exceed
    with pytest.raises(DataError, match="needs forcings"):
        future_times(forced, 20.0, 1.0)


def halving(**steps) -> bd.Model:
    """A difference equation without forcings, whose states there are at whole steps only."""
    layer = bd.Difference(
        lambda t, y, u: {"y": 0.7 * y["y"]}, {"y": dist.Normal(10.0, 1.0)}, **steps
    )
    return bd.Model(layer, bd.NormalNoise(scale=dist.LogNormal(-1.0, 0.5)))


@pytest.mark.parametrize("model", [halving(), halving(start=0.0), halving(start=-1.0, length=0.5)])
def test_no_time_between_two_steps_is_forecast(model):
    study = dataclasses.replace(quick_study.study(), options=bd.ReportOptions())
    assert forecast_times(study).sizes["time"] == 91
    for stepping in (
        dataclasses.replace(study, model=model),
        dataclasses.replace(study, competitors={"steps": model}),
    ):
        np.testing.assert_array_equal(forecast_times(stepping)["time"], study.data["time"])
        stepping.refuse_bad_input()


@pytest.mark.parametrize("start", [None, "2001-01-01"])
def test_no_date_between_two_steps_is_forecast(start):
    days = np.arange("2001-01-01", "2001-01-11", dtype="M8[D]").astype("M8[ns]")
    data = small_study.load().drop_vars("time").assign_coords(time=days)
    study = bd.Study("halving", halving(start=start), data, "2001-01-07")
    np.testing.assert_array_equal(forecast_times(study)["time"], days)
    study.refuse_bad_input()


def test_a_short_difference_equation_without_forcings_is_forecast_and_reported(tmp_path):
    study = bd.Study(
        "halving", halving(), small_study.load(), 6.0, engine=Sifting(draws=20, proposals=20_000)
    )
    run = study.run(tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    run.finish()
    assert (tmp_path / "run" / "report.html").is_file()


def short_of_the_forecast() -> bd.Model:
    """Process noise up to the last training time, so that nothing after it can be forecast."""
    noise = bd.layers.ProcessNoise({"y": dist.HalfNormal(0.1)}, grid=(0.0, 6.0, 4))
    layer = bd.ODE(small_study.Decay(bd.between(0.1, 1.0)), {"y": 10.0}, process_noise=noise)
    return bd.Model(layer, bd.NormalNoise(0.2))


def with_an_infinite_test_datum() -> xr.Dataset:
    data = small_study.load()
    return data.assign(y=data["y"].where(data["time"] < 8, np.inf))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": short_of_the_forecast()},
            "time 9 lies beyond the grid of the process noise, which ends at 6",
        ),
        ({"data": with_an_infinite_test_datum()}, "observable 'y' is infinite at time 8"),
        (
            {"options": bd.ReportOptions(window=(100, 200))},
            "fewer than two times are forecast in the window",
        ),
    ],
    ids=["process noise", "infinite", "window"],
)
def test_what_would_fail_after_the_fits_is_refused_before_and_no_check_says_ready(
    changes, said, tmp_path, monkeypatch
):
    monkeypatch.setattr(fits, "fit", no_fit)
    ready = bundle.Check((bundle.Finding("good", "cost", "cheap"),))
    monkeypatch.setattr(bundle, "check", lambda *_, **__: ready)
    study = dataclasses.replace(quick_study.study(), competitors={}, **changes)
    with pytest.raises(DataError, match=said):
        study.run(tmp_path / "run")
    [found] = study.check().values()
    assert found.verdict == "Not ready to fit: forecast and report." and said in str(found)


@pytest.mark.parametrize(
    ("until", "step"),
    [(0.0, 1.0), (20.0, 0.0), (20.0, -1.0), (np.inf, 1.0), (20.0, np.inf), (np.nan, 1.0)],
)
def test_future_times_that_are_none_are_refused(until, step):
    with pytest.raises(DataError, match="until must lie after 0 and the step must be positive"):
        future_times(small_study.study(), until, step)


def test_future_times():
    """Beside the grid all times of the data, so that a verdict goes on looking at what was held
    out.
    """
    found = future_times(small_study.study(), 18.3, 6.1)
    np.testing.assert_allclose(found, [0, 1, 2, 3, 4, 5, 6, 6.1, 7, 8, 9, 12.2, 18.3])
    assert (
        future_times(small_study.study(), 0.9, 0.1).size == 19
    )  # neither 0 nor what rounding makes of it twice


@pytest.mark.thorough
@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="there is no /proc, a folder that nobody can write"
)
def test_a_folder_that_cannot_be_written_is_refused_before_any_fit(monkeypatch):
    monkeypatch.setattr(fits, "fit", no_fit)
    with pytest.raises(WriteError, match=r"cannot write /proc/run: "):
        small_study.study().run("/proc/run")


@pytest.mark.thorough
@pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1])
def test_a_torn_posterior_is_named(ran, tmp_path, left):
    whole = (ran[0].folder / "posterior.nc").read_bytes()
    torn = tmp_path / "posterior.nc"
    torn.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(ReadError, match=r"posterior.nc is torn or not a netCDF file"):
        load(torn)


@pytest.mark.thorough
def test_a_missing_posterior_is_named(ran, tmp_path):
    with pytest.raises(ReadError, match=r"there is no file .*posterior\.nc"):
        Run(ran[0].study, tmp_path).fitted()


@pytest.mark.thorough
def test_a_torn_posterior_stops_a_second_run(ran, tmp_path, monkeypatch):
    """It may hold what somebody wants to rescue: it is not written over."""
    monkeypatch.setattr(fits, "fit", no_fit)
    folder = shutil.copytree(ran[0].folder, tmp_path / "run")
    whole = (folder / "posterior.nc").read_bytes()
    (folder / "posterior.nc").write_bytes(whole[:5000])
    with pytest.raises(ReadError, match="torn"):
        ran[0].study.run(folder, key=3)
    assert (folder / "posterior.nc").read_bytes() == whole[:5000]


SAVE_UNDER_LIMITS = """
import resource, sys
from bayes_dasl.errors import WriteError
from bayes_dasl.prediction import load, save
post = load(sys.argv[1])
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(post, sys.argv[2])
    except WriteError as error:
        print(limit, error)
"""


@pytest.mark.thorough
def test_a_file_that_cannot_grow_leaves_nothing_behind(ran, tmp_path):
    """A limit on the size of files fails in the middle of writing, as a full disk does."""
    source, target = ran[0].folder / "posterior.nc", tmp_path / "posterior.nc"
    target.write_bytes(b"older")
    limits = ["1000", "20000", str(source.stat().st_size // 2)]
    done = subprocess.run(
        [sys.executable, "-c", SAVE_UNDER_LIMITS, source, target, *limits],
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split(" ", 1)[0] for line in said] == limits
    assert all(
        f"cannot write {target}: File too large; nothing was left half-written" in line
        for line in said
    )
    assert done.stderr == ""
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture
def refuges(tmp_path, monkeypatch):
    """The temporary folder, of which a test sees what is put there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def assert_rescued(error: WriteError, refuges: Path, post: xr.DataTree, path: Path) -> None:
    [refuge] = refuges.rglob("posterior.nc")
    assert str(path) in str(error)
    assert f"the draws are safe in {refuge}" in str(error)
    rescued = load(refuge)
    assert rescued.attrs == post.attrs
    xr.testing.assert_identical(rescued["posterior"].to_dataset(), post["posterior"].to_dataset())


@pytest.mark.thorough
def test_draws_find_a_refuge_where_the_folder_is_lost_during_the_fit(
    ran, post, tmp_path, refuges, monkeypatch
):
    folder = tmp_path / "run"

    def fit_while_the_folder_is_lost(*_, **__):
        shutil.rmtree(folder)
        folder.write_text("a file in its place")
        return post

    monkeypatch.setattr(fits, "fit", fit_while_the_folder_is_lost)
    with pytest.raises(WriteError) as caught:
        ran[0].study.run(folder, key=3)
    assert_rescued(caught.value, refuges, post, folder / "posterior.nc")
    assert folder.read_text() == "a file in its place"


@contextlib.contextmanager
def tiny_disk(folder: Path, size: str):
    """A file system of its own with little room, or a skip where mounting is not possible."""
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.thorough
def test_draws_find_a_refuge_where_the_disk_is_full(ran, post, tmp_path, refuges, monkeypatch):
    monkeypatch.setattr(fits, "fit", lambda *_, **__: post)
    with tiny_disk(tmp_path / "disk", "32k") as disk:
        with pytest.raises(WriteError, match=r"cannot write .*posterior\.nc") as caught:
            ran[0].study.run(disk / "run", key=3)
        assert_rescued(caught.value, refuges, post, disk / "run" / "posterior.nc")
        assert set(contents(disk)) == {"run/study.json"}


@pytest.mark.thorough
def test_a_full_disk_after_the_fit_leaves_the_older_forecast(ran, tmp_path):
    """The fits are whole, the new forecast is larger than what room there is."""
    whole = contents(ran[0].folder)
    room = sum(-(-len(data) // 4096) * 4096 for data in whole.values())
    with tiny_disk(tmp_path / "disk", f"{room + 64 * 1024}") as disk:
        folder = shutil.copytree(ran[0].folder, disk / "run")
        with pytest.raises(WriteError, match=r"cannot write .*forecast\.nc"):
            Run(ran[0].study, folder).forecast(np.linspace(0.0, 20.0, 5000))
        assert contents(folder) == whole


# ---- interruption, as far as it needs no signal (the command line's tests send one)


@pytest.mark.thorough
def test_a_report_says_which_models_are_not_fitted_yet(ran, tmp_path):
    folder, (competitor,) = (
        shutil.copytree(ran[0].folder, tmp_path / "run"),
        ran[0].study.competitors,
    )
    (folder / competitor / "posterior.nc").unlink()
    said = []
    Run(ran[0].study, folder).finish(say=said.append)
    assert said[:2] == ["forecasts made", f"left out, since not fitted yet: {competitor}"]
    assert said[2].startswith(
        f"the forecast is no mixture: {competitor} did not forecast the end of the training data yet"
    )


@pytest.mark.thorough
def test_an_interrupted_fit_is_kept_and_fitted_again(ran, post, tmp_path, monkeypatch):
    partial = post.copy()
    partial.attrs |= {"interrupted": 1, "draws_requested": 200}
    monkeypatch.setattr(fits, "fit", lambda *_, **__: partial)
    study, folder = dataclasses.replace(ran[0].study, competitors={}), tmp_path / "run"
    with pytest.raises(
        Interrupted, match=r"stopped after 50 of 200 draws of each chain; they are kept in .*\.nc"
    ):
        study.run(folder, key=3)
    assert load(folder / "posterior.nc").attrs["interrupted"] == 1
    assert set(contents(folder)) == {"posterior.nc", "study.json"}
    begun = []

    def fit(model, *_, **__):
        begun.append(model)
        return post

    monkeypatch.setattr(fits, "fit", fit)
    monkeypatch.setattr(Run, "finish", lambda *_, **__: None)
    study.run(folder, key=3)
    assert begun == [study.model]
    assert load(folder / "posterior.nc").attrs["interrupted"] == 0


def test_names_of_models_are_checked():
    with pytest.raises(ModelError, match="two models are named 'inflow'"):
        dataclasses.replace(small_study.study(), label="inflow")


def test_rivals_and_options_are_checked(unchecked):
    other = bd.Model(
        bd.Algebraic(lambda t, y, u: {"z": t}), bd.NormalNoise(dist.LogNormal(0.0, 1.0))
    )
    study = small_study.study()
    both = study.data.assign(z=study.data["y"])
    with pytest.raises(
        MismatchError, match="'other' forecasts z, but is compared with a model of y"
    ):
        dataclasses.replace(study, data=both, competitors={"other": other}).refuse_bad_input()
    with pytest.raises(DataError, match=r"options are bd.ReportOptions\(…\), not dict"):
        dataclasses.replace(small_study.study(), options={"thresholds": {"y": 5.0}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": (20.0, 30.0)}, "fewer than two times"),
        ({"return_periods": {"y": [2]}, "block": 50}, "fill no block"),
        (
            {"metrics": {"each": lambda x, y: x - y}},
            "the metric 'each' takes what was predicted .* TypeError",
        ),
    ],
)
def test_what_the_report_could_not_show_is_refused_before_any_fit(options, said):
    study = dataclasses.replace(small_study.study(), options=bd.ReportOptions(**options))
    with pytest.raises(DataError, match=said):
        study.refuse_bad_input()


def test_blocks_of_dates_are_looked_at_before_any_fit():
    days = np.arange("2001-01-01", "2001-03-01", dtype="datetime64[D]").astype("datetime64[ns]")
    held = xr.Dataset({"y": ("time", np.ones(days.size))}, {"time": days})
    asked = bd.ReportOptions(return_periods={"y": [2]}, block="month")
    model = bd.Model(bd.Algebraic(lambda t, y, u: {"y": t}), bd.NormalNoise(1.0))
    good = bd.Study("days", model, held, "2001-01-20", options=asked)
    scores.check_asked(good, held["time"])
    with pytest.raises(DataError, match="fill no block of one month"):
        scores.check_asked(dataclasses.replace(good, split="2001-02-10"), held["time"])


def test_of_a_forecast_that_failed_json_has_no_nan():
    held = xr.Dataset(
        {"y": (("chain", "draw", "time"), np.full((1, 20, 3), np.nan))}, {"time": np.arange(3.0)}
    )
    options = bd.ReportOptions(thresholds={"y": 1.0})
    found = scores.asked(
        {"model": xr.DataTree.from_dict({"predictions": held})}, xr.Dataset(), options
    )
    assert found["exceedance"]["y"]["levels"] == [{"level": 1.0, "ever": None, "times": None}]

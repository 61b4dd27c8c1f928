"""Many fits of a study file: rows, what is made of them, and the command."""

import os
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import quick_study
import xarray as xr
from test_cli import assert_one_line, invoke

import bayes_dasl as bd
from bayes_dasl import commands
from bayes_dasl._runs.console import LastingConsole
from bayes_dasl.commands import _load_study
from bayes_dasl.errors import Interrupted, ModelError, ReadError
from bayes_dasl.many import comparison, measure_and_tidy as measured
from bayes_dasl.study import module_of, study_files

TESTS = Path(__file__).resolve().parent
ALONE = TESTS / "many_study.py"


@pytest.mark.thorough("2")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_tasks_of_a_file_are_done_and_tabled(tmp_path, workers):
    result = invoke("study", ALONE, "--out", tmp_path, "--workers", workers)
    assert result.exit_code == 0, result.output
    assert "8 of 8 tasks are done" in result.output and " 27" in result.output
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 8
    assert pd.read_csv(tmp_path / "largest-powers.csv")["power"].tolist() == [9, 27]
    assert (tmp_path / "powers.png").stat().st_size > 1000
    again = invoke("study", ALONE, "--out", tmp_path, "--workers", workers)
    assert "8 of 8 tasks are done" in again.output and "7 of 8" not in again.output


def test_the_quick_form_is_few_tasks_of_the_same(tmp_path):
    result = invoke("study", ALONE, "--quick", "--out", tmp_path, "--workers", 0)
    assert "4 of 4 tasks are done" in result.output
    result = invoke("study", ALONE, "--out", tmp_path, "--workers", 0)
    assert "4 of 8 tasks are done" in result.output  # those of the quick form are there


def test_only_some_tasks_are_done_and_tabled(tmp_path):
    some = ("--out", tmp_path, "--workers", 0, "--only", "number=1.0", "--only", "number=3")
    assert "4 of 4 tasks are done" in invoke("study", ALONE, *some).output
    result = invoke("study", ALONE, *some, "--only", "exponent=2", "--table")
    assert result.exit_code == 0
    assert pd.read_csv(tmp_path / "largest-powers.csv")["power"].tolist() == [9]
    assert (
        "4 of 8 tasks are done" in invoke("study", ALONE, "--out", tmp_path, "--workers", 0).output
    )


def test_where_a_summary_needs_other_tasks_the_rows_are_made_all_the_same(tmp_path):
    text = ALONE.read_text().replace(
        "    figure, axes",
        "    bd.many.paired(rows, 'power', between='exponent', against=3)\n    figure, axes",
    )
    (tmp_path / "own.py").write_text(text)
    result = invoke(
        "study",
        tmp_path / "own.py",
        "--out",
        tmp_path / "rows",
        "--workers",
        0,
        "--only",
        "exponent=2",
    )
    assert result.exit_code == 0 and "makes no tables of these tasks alone" in result.output
    assert len((tmp_path / "rows" / "rows.jsonl").read_text().splitlines()) == 4
    assert (
        invoke(
            "study", tmp_path / "own.py", "--out", tmp_path / "rows", "--quick", "--workers", 0
        ).exit_code
        == 1
    )


def test_tasks_that_say_nothing_of_an_argument_can_be_asked_for(tmp_path):
    text = (
        "def tasks(quick):\n    return [{'x': 1}, {'x': 2, 'y': 'a'}]\n\n\ndef row(x, y=''):\n    "
        "return {'z': x}\n"
    )
    (tmp_path / "own.py").write_text(text)
    module = module_of(str(tmp_path / "own.py"))
    for only, expected in (["y="], [1]), (["y=a"], [2]), (["y=", "y=a"], [1, 2]), ([], [1, 2]):
        assert (
            comparison.rows_of(module, tmp_path / "rows", only=only, workers=0)["x"].tolist()
            == expected
        )


@pytest.mark.parametrize(
    ("only", "message"),
    [
        (["number"], "'number' is no argument of a task with its value, such as model=hybrid"),
        (["seed=1"], "no task has an argument 'seed': there are number, exponent"),
        (["exponent=4"], "no task has exponent=4: it is 2, 3"),
        (["number="], "no task is as all of these ask: number="),
    ],
)
def test_what_no_task_is_asked_for_by_only(tmp_path, only, message):
    asked = [part for each in only for part in ("--only", each)]
    assert_one_line(invoke("study", ALONE, "--out", tmp_path, *asked), message)


def test_a_table_does_no_task(tmp_path):
    assert_one_line(
        invoke("study", ALONE, "--table", "--out", tmp_path),
        "holds no row of these tasks by this code",
    )
    invoke("study", ALONE, "--quick", "--out", tmp_path, "--workers", 0)
    told = ALONE.read_text().replace("Largest powers", "Most")
    (tmp_path / "many_study.py").write_text(told)  # what is made of rows may change without them
    result = invoke("study", tmp_path / "many_study.py", "--table", "--out", tmp_path)
    assert "Most" in result.output
    result = invoke("study", ALONE, "--table", "--out", tmp_path)
    assert result.exit_code == 0 and "4 of 8 tasks have no row by this code yet" in result.output


def test_a_task_that_failed_ends_in_an_error_and_loses_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("MANY_STUDY_FAILS", "1")
    result = invoke("study", ALONE, "--out", tmp_path, "--workers", 0)
    assert (
        result.exit_code == 1
        and "2 of 8 tasks failed, such as by ValueError: three is too many"
        in " ".join(result.output.split())
    )
    monkeypatch.delenv("MANY_STUDY_FAILS")
    assert (
        "8 of 8 tasks are done" in invoke("study", ALONE, "--out", tmp_path, "--workers", 0).output
    )


def test_a_study_without_tasks_says_so():
    assert_one_line(
        invoke("study", TESTS / "quick_study.py"), "has no many fits: it defines no functions tasks"
    )


def unreachable(name, source):
    raise ReadError(f"{name}: set BAYES_DASL_DATA")


@pytest.mark.thorough(*(name for name in sorted(study_files()) if name != "theophylline"))
@pytest.mark.parametrize("name", sorted(study_files()))
def test_every_case_study_is_found_by_its_name_alone(name, tmp_path, monkeypatch):
    """Also from elsewhere; one whose data are not to be had says that, and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("case_studies._data._fetched", unreachable)
    assert callable(module_of(name).study)
    try:
        assert _load_study(name).source == name
    except ReadError as error:
        assert "BAYES_DASL_DATA" in str(error)


def test_a_package_of_another_place_is_not_taken_for_the_one_that_is_asked_for(tmp_path):
    (tmp_path / "case_studies").mkdir()
    for file in ("__init__.py", "lynx_hare.py"):
        (tmp_path / "case_studies" / file).write_text("")
    module_of("lynx-hare")
    with pytest.raises(ReadError, match=r"case_studies\.lynx_hare already"):
        module_of(str(tmp_path / "case_studies" / "lynx_hare.py"))


def doubled(model):
    return {"twice": 2 * model.layer.function.rate}


def test_a_row_says_what_score_and_diagnose_say():
    study = quick_study.study()
    near, far = study.test.isel(time=slice(2)), study.test.isel(time=slice(2, None))
    fed = quick_study.model(inflow=0.5)
    ahead = {"near": near, "far": far, "fed": (fed, near)}
    row = bd.many.measure(study.model, study.train, ahead, study.engine, derived=doubled, key=3)
    post = bd.fit(study.model, study.train, study.engine, key=3, progress=False)
    expected = bd.score(bd.forecast(study.model, post, near, key=3), near).loc["y"]
    assert row["scores"]["near"]["y"]["crps"] == pytest.approx(expected["crps"], rel=1e-5)
    assert row["scores"]["far"]["y"]["n"] == far.sizes["time"]
    other = bd.score(bd.forecast(fed, post, near, key=3, what_if=True), near).loc["y"]
    assert row["scores"]["fed"]["y"]["crps"] == pytest.approx(other["crps"], rel=1e-5)
    assert row["verdict"]["sampling"] == bd.diagnose(post).sampling
    twice = 2 * post["posterior"]["rate"].values
    assert row["derived"]["twice"]["median"] == pytest.approx(np.median(twice), rel=1e-6)
    assert row["fit_s"] > 0 and row["memory_mb"] > 50


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the system cannot be told to forget it"
)
def test_the_memory_of_earlier_tasks_is_not_counted():
    much = np.ones(2**26)  # 512 MiB
    before = measured._peak()
    del much
    measured._forget_peak()
    assert measured._peak() < before - 400


def test_a_fit_that_was_stopped_is_not_measured(monkeypatch):
    study = quick_study.study()
    stopped = xr.DataTree(xr.Dataset(attrs={"interrupted": 1}))
    monkeypatch.setattr(measured, "fit", lambda *_, **__: stopped)
    with pytest.raises(Interrupted, match="nothing is measured"):
        bd.many.measure(study.model, study.train, {"near": study.test}, study.engine)


def test_small_numbers_keep_their_digits():
    draws = xr.Dataset({"diffusivity": (("chain", "draw"), np.full((1, 4), 1.23456789e-10))})
    assert measured._derived_quantiles(draws)["diffusivity"]["low"] == pytest.approx(
        1.23456789e-10, rel=1e-8
    )


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "a dict of tables and figures, not NoneType"),
        ("{'Powers': 3}", "'Powers' of the summary is a table or a figure, not int"),
        ("{'Powers (a)': rows, 'powers, a': rows}", "would both be written as powers-a"),
    ],
)
def test_what_a_summary_must_return(tmp_path, returned, said):
    (tmp_path / "own.py").write_text(
        f"def tasks(quick):\n    yield {{'x': 1}}\n\n\ndef row(x):\n    return {{'y': x}}\n\n\n"
        f"def summary(rows):\n    return {returned}\n"
    )
    assert_one_line(
        invoke("study", tmp_path / "own.py", "--out", tmp_path / "rows", "--workers", 0), said
    )


def test_rows_are_old_where_a_file_beside_changed_that_the_study_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "beside_study.py").write_text("FACTOR = 2\n")
    text = "from beside_study import FACTOR\n\n\ndef row(x):\n    return {'y': FACTOR * x}\n"
    (tmp_path / "own.py").write_text(f"{text}\n\ndef tasks(quick):\n    return [{{'x': 1}}]\n")
    module = module_of(str(tmp_path / "own.py"))
    before = comparison._code_of(module)
    assert comparison._code_of(module) == before
    (tmp_path / "another.py").write_text("FACTOR = 4\n")
    assert comparison._code_of(module) == before
    (tmp_path / "beside_study.py").write_text("FACTOR = 3\n")
    assert comparison._code_of(module) != before


class Line(bd.Module):
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.slope * t}


def test_members_are_scored_one_by_one_too():
    one = bd.Algebraic(Line(bd.varying(dist.Normal(0.0, 1.0))), index="t")
    model = bd.Model(bd.Each(one, members=["a", "b"], dim="member"), bd.NormalNoise(0.1))
    times = np.arange(1.0, 7.0)
    y = np.stack(
        [times, times + np.where(times > 4, 3.0, 0.0)], axis=1
    )  # b is off by three in the end
    data = xr.Dataset({"y": (("t", "member"), y)}, {"t": times, "member": ["a", "b"]})
    train, ahead = bd.split(data, t=4.0)
    row = bd.many.measure(
        model, train, {"far": ahead}, bd.engines.Laplace(draws=50, starts=1), each="member"
    )
    assert [*row["scores"]] == ["far", "far, a", "far, b"]
    whole, a, b = (part["y"] for part in row["scores"].values())
    assert (
        a["rmse"] < 0.2
        and b["rmse"] == pytest.approx(3.0, abs=0.3)
        and (a["n"], whole["n"]) == (2, 4)
    )
    assert whole["crps"] == pytest.approx((a["crps"] + b["crps"]) / 2, rel=1e-5)
    with pytest.raises(ModelError, match="no dimension of 'far', which has t, member"):
        bd.many.measure(model, train, {"far": (model, ahead)}, each="subject")


def test_rows_become_a_long_table_and_differences_are_paired():
    def scores(crps):
        return {"ahead": {"y": {"crps": crps, "rmse": crps and 2 * crps}}}

    crps = {
        ("science", 0): 1.0,
        ("science", 1): 3.0,
        ("hybrid", 0): 0.5,
        ("hybrid", 1): 2.7,
        ("mlp", 0): 9.0,
    }
    rows = [
        {"model": m, "seed": s, "scores": scores(value), "fit_s": 1.0}
        for (m, s), value in crps.items()
    ]
    rows.append({"model": "mlp", "seed": 1, "failed": "ValueError"})
    table = bd.many.tidy(rows)
    assert len(table) == 5 and {*table.columns} >= {
        "model",
        "seed",
        "ahead",
        "observable",
        "crps",
        "rmse",
        "fit_s",
    }
    found = bd.many.paired(table, "crps", between="model", against="science")
    assert found.loc["hybrid", "difference"] == pytest.approx(-0.4)
    assert found.loc["hybrid", "error"] == pytest.approx(np.std([-0.5, -0.3], ddof=1) / np.sqrt(2))
    assert found.loc["hybrid", "better"] == 2 and found.loc["mlp", "pairs"] == 1
    assert np.isnan(found.loc["mlp", "error"])
    numbered = table.assign(size=table["model"].map({"science": 10, "hybrid": 20, "mlp": 40}))
    assert bd.many.paired(numbered, "crps", between="size", against=10).loc[
        20, "difference"
    ] == pytest.approx(-0.4)
    with pytest.raises(ModelError, match="no model 'none' to compare with"):
        bd.many.paired(table, "crps", between="model", against="none")
    alone = bd.many.paired(
        table.query("model == 'science'"), "crps", between="model", against="science"
    )
    assert alone.empty and "difference" in alone
    worst = table.assign(crps=table["crps"].where(table["model"] != "hybrid", np.inf))
    ruled_out = bd.many.paired(worst, "crps", between="model", against="science", over="seed").loc[
        "hybrid"
    ]
    assert (
        ruled_out["difference"] == np.inf and ruled_out["better"] == 0 and ruled_out["pairs"] == 2
    )
    with pytest.raises(ModelError, match="there is no column size, block: there are model"):
        bd.many.paired(table, "crps", between="size", against=10, over="block")
    with pytest.raises(ModelError, match="choose one observable first"):
        bd.many.paired(pd.concat([table, table]), "crps", between="model", against="science")
    depth = {"depth": {"low": 1.0, "median": 2.0, "high": 3.0}}
    told = [row | {"derived": depth} for row in rows[:2]]
    derived = bd.many.tidy(told + rows[2:], "derived")
    assert derived["seed"].tolist() == [0, 1] and derived["high"].tolist() == [3.0, 3.0]
    assert {*derived["quantity"]} == {"depth"} and "crps" not in derived
    both = {"both": {end: [value, 9.0] for end, value in depth["depth"].items()}}
    each = bd.many.tidy([rows[0] | {"derived": both}], "derived")
    assert each["quantity"].tolist() == ["both[0]", "both[1]"] and each["median"].tolist() == [
        2.0,
        9.0,
    ]
    with pytest.raises(ModelError, match="'low' of the tasks is called as a column of derived"):
        bd.many.tidy([{"low": 1}], "derived")
    unknown = [row | {"scores": scores(None)} for row in rows[:2]]
    assert bd.many.medians(bd.many.tidy(unknown), "crps", by="model").eq("").all().all()
    assert bd.many.tidy(rows, "derived").groupby(["model", "quantity"])["median"].median().empty
    with pytest.raises(ModelError, match="'crps' of the tasks is called as a column"):
        bd.many.tidy([{"crps": 3, "scores": scores(1.0)}])


def test_medians_stand_with_the_lowest_and_the_highest():
    crps = {
        ("science", "near"): [1.0, 1.1, 1.5],
        ("science", "far"): [2.0],
        ("mlp", "near"): [0.12341, 0.12339],
    }
    lines = [
        {"model": m, "ahead": a, "crps": value}
        for (m, a), values in crps.items()
        for value in values
    ]
    table = pd.DataFrame([*lines, {"model": "mlp", "ahead": "far", "crps": np.nan}])
    found = bd.many.medians(table, "crps", by=["model"], across="ahead")
    assert found.loc["science"].to_dict() == {"near": "1.10 (1.00 to 1.50)", "far": "2.00"}
    assert found.loc["mlp"].to_dict() == {"near": "0.123", "far": ""}
    assert (
        bd.many.medians(table, "crps", by=["ahead", "model"]).loc[("near", "science"), "crps"]
        == "1.10 (1.00 to 1.50)"
    )
    seconds = bd.many.medians(table.assign(fit_s=1234.5), ["crps", "fit_s"], by="model").loc["mlp"]
    assert seconds.to_dict() == {"crps": "0.123", "fit_s": "1234"}
    optional = table.assign(weights=np.where(table["model"] == "mlp", "equal", None))
    assert (
        len(bd.many.medians(optional, "crps", by=["model", "weights"])) == 2
    )  # also of what has none


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": "rmse", "by": "model"}, "no column rmse: there are model, ahead, crps"),
        ({"values": "crps", "by": []}, "must be columns, each named once"),
        ({"values": "crps", "by": "model", "across": "model"}, "must be columns, each named once"),
        ({"values": "ahead", "by": "model"}, "no medians of ahead, which holds no numbers"),
    ],
)
def test_medians_refuse_what_has_none(options, message):
    table = pd.DataFrame({"model": ["mlp"], "ahead": ["near"], "crps": [1.0]})
    with pytest.raises(ModelError, match=message):
        bd.many.medians(table, options.pop("values"), **options)


@pytest.mark.parametrize("columns", [None, "40"])
def test_a_table_in_a_file_loses_no_text(capsys, monkeypatch, columns):
    """It is wide, or as wide as is asked for, and then breaks what is longer."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(commands, "console", LastingConsole(highlight=False))
    long = "x" * 100
    commands._print_table("Scores", pd.DataFrame({"model": [long], "crps": [0.123]}))
    found = capsys.readouterr().out
    assert found.count("x") == 100 and "0.123" in found and (long in found) == (columns is None)

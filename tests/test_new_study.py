"""`bayes-dasl new`: which columns it takes for what, and that what it writes runs."""

import re
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from typer.testing import CliRunner

import bayes_dasl as bd
from bayes_dasl.cli import app
from bayes_dasl.commands import _load_study
from bayes_dasl.data import guess_columns as guessing
from bayes_dasl.errors import DataError

runner = CliRunner()
RNG = np.random.default_rng(0)
DAYS = pd.date_range("2021-03-01", periods=60)


def pond() -> pd.DataFrame:
    """A dated series with gaps, units in the header and a column of words."""
    level = np.where(np.arange(60) % 7 == 3, np.nan, 12 + RNG.normal(size=60))
    german = DAYS.strftime("%d.%m.%Y")
    return pd.DataFrame({"Datum": german, "Water level (cm)": level, "note": ["a", "b"] * 30})


def river() -> pd.DataFrame:
    """Rain drives a flow; three days are left out, and -9999 is a missing flow."""
    flow = np.where(np.arange(60) == 9, -9999.0, 2 + RNG.random(60))
    rain = np.where(np.arange(60) == 20, np.nan, RNG.random(60))
    days = DAYS.strftime("%Y-%m-%d")
    table = pd.DataFrame({"date": days, "rain [mm/day]": rain, "flow [mm/day]": flow})
    return table.drop(index=[30, 31, 40])


def plants() -> pd.DataFrame:
    """Heights of six plants, each with one pot size."""
    rows = [
        (f"P{plant}", day, 1 + day * (1 + 0.1 * plant), 10 + plant)
        for plant in range(6)
        for day in (0, 2, 5, 9, 14, 21, 30)
    ]
    return pd.DataFrame(rows, columns=["plant", "day", "height (cm)", "pot"])


def reactor() -> pd.DataFrame:
    """Two values at irregular times of numbers, one of them a count."""
    times = np.cumsum(RNG.random(40))
    counts = RNG.poisson(30, 40)
    return pd.DataFrame(
        {"time (min)": times, "conc (mol/L)": np.exp(-times), "cells count": counts}
    )


def years() -> pd.DataFrame:
    """Two years of every fifth day."""
    return pd.DataFrame(
        {"date": pd.date_range("2020-01-01", periods=150, freq="5D"), "warm": RNG.normal(size=150)}
    )


TABLES = {"pond": pond, "river": river, "plants": plants, "reactor": reactor, "years": years}


def new(name: str, *options: str):
    TABLES[name]().to_csv(f"{name}.csv", index=False)
    return runner.invoke(app, ["new", name, "--from", f"{name}.csv", *options])


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TABLES)
def test_what_is_written_is_ready_to_run(name):
    result = new(name)
    assert result.exit_code == 0, result.output
    text = Path(f"{name}.py").read_text()
    assert max(map(len, text.splitlines())) <= 100 and text.count("EDIT") >= 5
    study = _load_study(f"{name}.py")
    study.refuse_bad_input()
    assert study.name == name and study.test.sizes["time"] >= 2
    CHECKS[name](study, text)


def is_pond(study, text):
    level = study.data["water_level"]
    assert level.attrs["units"] == "cm" and level.sizes["time"] == 51  # days with a value
    assert study.split == "2021-04-16"  # the last of four fifths of them
    initial, train = study.model.layer.initial["water_level"], study.train["water_level"].values
    assert initial.loc == pytest.approx(train[0], rel=1e-2)
    assert initial.scale == pytest.approx(train.std(), rel=1e-2)
    assert "# Left out: 'note', which holds text, such as 'a', in 60 of 60 rows." in text
    assert not hasattr(study.model.layer.vector_field, "year")


def is_river(study, text):
    """The forcing is known on each day, and the code of a missing value is none."""
    assert study.model.layer.forcings == ("rain",) and "import jax.numpy" not in text
    assert study.data.sizes["time"] == 60 and study.data["rain"].notnull().all()
    assert float(study.data["flow"].min()) > 0 and study.data["flow"].isnull().sum() == 4


def is_plants(study, text):
    assert isinstance(study.model.layer, bd.Each) and study.model.observables == ("height",)
    assert list(study.data["subject"].values) == [f"P{i}" for i in range(6)]
    assert study.data["time"].attrs["units"] == "day"
    assert "'pot', which is one number of each subject" in text


def is_reactor(study, text):
    """Each column has the noise of its kind."""
    noises = study.model.noise
    assert isinstance(noises["cells_count"], bd.NegativeBinomialNoise)
    assert isinstance(noises["conc"], bd.LogNormalNoise)


def is_years(study, text):
    equation = study.model.layer.vector_field
    assert equation.year == pytest.approx(365.25) and isinstance(equation.sine, dist.Normal)


CHECKS = {
    "pond": is_pond, "river": is_river, "plants": is_plants, "reactor": is_reactor, "years": is_years,
}  # fmt: skip


@pytest.mark.parametrize("name", ["pond", "river", "reactor", "years"])
def test_the_hybrid_of_the_comments_is_ready_to_run(name):
    new(name)
    path = Path(f"{name}.py")
    begun, hybrid, ended = re.split(r"(?s)( +# competitors=.*?# \},\n)", path.read_text())
    path.write_text(begun + hybrid.replace("# ", "") + ended)
    study = _load_study(f"{name}.py")
    study.refuse_bad_input()
    assert set(study.competitors) == {"hybrid"}


def test_a_value_that_is_named_is_driven_by_the_rest():
    result = new("reactor", "--value", "conc")
    assert "forcings: cells count" in result.output
    assert _load_study("reactor.py").model.observables == ("conc",)


def test_a_column_of_flags_is_not_forecast(tmp_path):
    table = pond().assign(below=np.arange(60) % 9 == 0).astype({"below": int})
    table.to_csv("flagged.csv", index=False)
    result = runner.invoke(app, ["new", "flagged", "--from", "flagged.csv"])
    assert "left out: below, which flags rows" in result.output
    assert _load_study("flagged.py").model.observables == ("water_level",)


def test_a_study_is_not_replaced_unasked():
    new("pond")
    result = new("pond")
    assert result.exit_code == 1 and "pond.py exists" in result.stderr
    assert new("pond", "--force").exit_code == 0


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": [1.0, 2.0], "y": [2.0, 3.0]}, "no column seems to hold times; the columns are x, y"),
        ({"date": ["2020-01-01", "2020-01-02"], "y": ["a", "b"]}, "y: holds text"),
    ],
)
def test_a_table_without_times_or_values_is_refused(columns, said):
    with pytest.raises(DataError, match=said):
        guessing.guess_columns(pd.DataFrame(columns))


def test_of_two_meanings_of_dates_the_one_in_order_is_first():
    days = pd.date_range("2021-01-05", periods=8).strftime("%d/%m/%Y")
    guess = guessing.guess_columns(pd.DataFrame({"when": days, "y": np.arange(8.0)}))
    assert guess.time == "when" and guess.date_formats[0] == "%d/%m/%Y"


def test_from_table_suggests_the_column_of_times():
    table = river().rename(columns={"date": "Messtag"})
    with pytest.raises(DataError, match=r"no column 'time' for times; .*say time='Messtag'"):
        bd.from_table(table, "flow")
    with pytest.raises(DataError, match=r"its columns are a, flow$"):
        bd.from_table(pd.DataFrame({"a": [1.0], "flow": [2.0]}), "flow")

"""The examples that come with the package: they are what their script makes, and models take them."""

import json

import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import DataError
from tests.studies import example_data as script

NAMES = ["tank", "lynx_hare", "catchment", "theophylline", "influenza", "heat"]


def test_the_list_has_one_line_for_each_example():
    listed = bd.example_data()
    assert list(listed.index) == NAMES
    assert listed.loc["lynx_hare", "rows"] == 21
    assert len(str(listed).splitlines()) == len(NAMES) + 2, "pandas would wrap or cut titles"
    assert "..." not in str(listed)


def test_an_unknown_name_is_refused_with_the_names():
    with pytest.raises(DataError, match="no example 'tanks'; the examples are tank, lynx_hare"):
        bd.example_data("tanks")


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_what_the_script_makes(name):
    made, of = script.EXAMPLES[name].make(), script.EXAMPLES[name]
    held = pd.read_csv(script.FOLDER / f"{name}.csv", parse_dates=of.dates)
    pd.testing.assert_frame_equal(held, made, check_dtype=False, rtol=1e-12)
    assert (script.FOLDER / f"{name}.csv").stat().st_size < 200_000


def test_the_index_is_what_the_script_makes():
    held = json.loads((script.FOLDER / "index.json").read_text(encoding="utf-8"))
    assert held == script.index()


@pytest.mark.parametrize("name", NAMES)
def test_source_licence_and_units_are_told(name):
    found = bd.example_data(name)
    assert found.attrs["source"] and found.attrs["licence"]
    if isinstance(found, xr.Dataset):
        assert {n: v.attrs["units"] for n, v in found.variables.items()} == script.EXAMPLES[
            name
        ].units
    else:
        assert set(found.attrs["units"]) <= set(found.columns)


def test_from_table_takes_the_tables_with_their_units():
    tank = bd.from_table(bd.example_data("tank"), "level", forcings="inflow")
    assert tank.sizes == {"time": 97} and tank["inflow"].attrs["units"] == "m/h"
    pelts = bd.from_table(bd.example_data("lynx_hare"), ["hare", "lynx"], time="year")
    assert float(pelts["lynx"].sel(time=1904.0)) == 59.4 and pelts["time"].attrs["units"] == "year"
    boys = bd.from_table(bd.example_data("influenza"), "in_bed", time="date")
    assert float(boys["in_bed"].sel(time="1978-01-27")) == 298


def test_the_catchment_has_gaps_of_its_gauge_and_of_one_forcing():
    weather = ["rain", "potential_evaporation"]
    data = bd.from_table(bd.example_data("catchment"), "discharge", time="date", forcings=weather)
    assert data.sizes["time"] == 2191
    assert {n: int(v.isnull().sum()) for n, v in data.items()} == {
        "discharge": 67, "rain": 0, "potential_evaporation": 4,
    }  # fmt: skip
    filled = bd.data.fill_gaps(data, potential_evaporation="interpolate")
    assert not filled["potential_evaporation"].isnull().any()
    # Some of the rain evaporates, and the rest leaves by the river.
    mean = data.mean("time")
    assert float(mean["discharge"]) < float(mean["rain"])
    assert float(mean["discharge"] + mean["potential_evaporation"]) > float(mean["rain"])


def test_the_subjects_of_the_drug_have_doses_and_samples():
    table = bd.example_data("theophylline")
    data = bd.from_table(table, "conc", subject="subject", covariates="weight")
    assert data.sizes["subject"] == 12 and int(data["conc"].count()) == 120
    assert data["weight"].attrs["units"] == "kg"
    doses = bd.dosing.doses(table, "depot", subject="subject")
    assert len(doses.members) == 12


def test_the_rod_is_a_field_over_time_and_place():
    rod = bd.example_data("heat")
    assert rod["temperature"].dims == ("time", "x") and rod.sizes == {"time": 24, "x": 16}
    # Heat comes in at x = 0 only: temperatures fall along the rod and rise with time, up to noise.
    assert (rod["temperature"].diff("x") < 0.5).all() and (
        rod["temperature"].diff("time") > -0.5
    ).all()

"""Regions that warm by a factor of the globe's: what it is made of, what is left out, and a table
of known truth.
"""

import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import bayes_dasl as bd
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import climate_regions
from case_studies._data import SOURCES, Source
from case_studies.climate_regions import CENTRES, FIRST, KINDS, LAST, SPLIT, Pattern, Weather

NAME = "climate/bomregions2021.pkl.xz"
FACTORS = dict(zip(CENTRES, (1.4, 1.3, 1.1, 0.9, 1.4, 1.2, 1.1), strict=True))
SCATTER = 0.1


def bent(year):
    """A global temperature that rises from 1960 on, in K."""
    return 0.02 * np.clip(np.asarray(year) - 1960.0, 0.0, None)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Tables of the same form, where each region warms by a factor that is known."""
    (tmp_path / "climate").mkdir()
    years, draw = np.arange(1900, 2022), np.random.default_rng(0)
    columns = {
        "Year": years,
        "SOI": 7.0 * draw.normal(size=122),
        "IOD": 0.25 * draw.normal(size=122),
    }
    for name, factor in FACTORS.items():
        told = 20.0 + factor * bent(years) + SCATTER * draw.normal(size=122)
        columns |= {
            f"{name}AVt": np.where(years < 1910, np.nan, told),
            f"{name}Rain": 500.0 + 10.0 * factor,
        }
    pd.DataFrame(columns).to_pickle(tmp_path / NAME, compression="xz")
    globe = pd.DataFrame({"time": np.arange(1850, 2025) + 0.5, "GMST": bent(np.arange(1850, 2025))})
    globe.to_csv(tmp_path / "climate/igcc_annual_averages.csv", index=False)
    monkeypatch.setenv("BAYES_DASL_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_anomalies_are_those_from_1961_to_1990_and_nothing_is_missing_from_1910_on():
    data = climate_regions.load()
    assert data["time"].values[[0, -1]].tolist() == [1910.5, LAST] and bool(
        data.notnull().all().to_array().all()
    )
    base = data.sel(time=slice(1961, 1991))
    assert base.sizes["time"] == 30
    np.testing.assert_allclose(base["anomaly"].mean("time"), 0.0, atol=1e-12)
    assert float(base["warming"].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(data["wetness"].sel(region="tas")) == pytest.approx(np.log(509.0))
    slopes = (
        data["anomaly"].sel(time=slice(1980, None)).polyfit("time", 1)["polyfit_coefficients"][0]
        / 0.02
    )
    error = SCATTER / 0.02 / np.sqrt(np.sum((np.arange(42) - 20.5) ** 2))
    np.testing.assert_allclose(slopes, [*FACTORS.values()], atol=4 * error)


def test_the_warming_is_smooth_and_up_to_a_year_made_of_what_was_known_then(folder):
    early = climate_regions.smoothed(SPLIT)
    late = slice(1975, SPLIT)  # no line that ends there reaches the bend
    np.testing.assert_allclose(early.sel(time=late).diff("time"), 0.02, rtol=1e-6)
    path = folder / "climate/igcc_annual_averages.csv"
    table = pd.read_csv(path)
    table.loc[table["time"] > SPLIT, "GMST"] += 1.0
    table.to_csv(path, index=False)
    other = climate_regions.smoothed(SPLIT)
    np.testing.assert_array_equal(
        other.sel(time=slice(None, SPLIT)), early.sel(time=slice(None, SPLIT))
    )
    assert (other > early).sel(time=slice(SPLIT + 0.5, None)).all()


@pytest.mark.usefixtures("folder")
def test_of_a_region_that_is_left_out_and_of_later_years_the_fit_sees_no_anomaly():
    data = climate_regions.load(SPLIT)
    train = climate_regions.masked(data, SPLIT, ["tas"])
    assert train["time"].values[-1] == SPLIT and bool(
        train["anomaly"].sel(region="tas").isnull().all()
    )
    assert bool(train["anomaly"].drop_sel(region="tas").notnull().all()) and bool(
        train["soi"].notnull().all()
    )
    study = climate_regions.study()
    assert bool(study.train["anomaly"].sel(region="nsw").isnull().all())


def test_a_region_warms_by_its_factor_and_by_what_the_networks_add():
    place, u = {"wetness": 6.0}, {"warming": 0.5, "soi": 7.0}
    assert Pattern(place, 1.3)(2000.5, {}, u)["anomaly"] == pytest.approx(0.65)
    of = lambda value, name: lambda t, y, u: {name: value * u["wetness"]}  # noqa: E731
    bent = Pattern(place, 1.3, bends=(of(0.1, "bend"),), oceans=of(0.02, "anomaly"))
    assert bent(2000.5, {}, u)["anomaly"] == pytest.approx(1.3 * np.exp(0.6) * 0.5 + 0.12)


def test_a_year_has_its_weather_and_all_regions_have_the_same():
    years = np.zeros(112)
    years[[0, 90]] = 0.3, -0.3
    weather = Weather(jnp.asarray(years))
    found = [float(weather(t)) for t in (FIRST, FIRST + 1, SPLIT)]
    assert found == pytest.approx([0.3, 0.0, -0.3])
    u = {"warming": 0.5}
    with_it, without = (
        Pattern({}, 1.3, weather=w)(SPLIT, {}, u)["anomaly"] for w in (weather, None)
    )
    assert float(with_it - without) == pytest.approx(-0.3)


@pytest.mark.thorough(*[kind for kind in KINDS if kind != "hybrid"])
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", KINDS)
def test_every_model_of_the_study_predicts_all_regions(kind):
    data = climate_regions.load()
    model = climate_regions.model_of(data, kind)
    drawn = draw_prior(model, 1, key=jax.random.key(0))
    realised = realise(model, {path: values[0] for path, values in drawn.items()})
    inputs = model.inputs(data)  # whose times a program knows
    found = eqx.filter_jit(lambda layer: layer(inputs))(realised.layer)
    assert bool(found.ok) and found.values["anomaly"].shape == (112, 7)
    if kind in ("fixed", "one factor"):
        told = np.outer(data["warming"], climate_regions.pattern(realised)["pattern"])
        left = found.values["anomaly"] - told  # weather, which all regions have alike
        np.testing.assert_allclose(left, np.tile(left[:, :1], 7), atol=1e-5)


@pytest.mark.thorough
@pytest.mark.usefixtures("folder")
def test_factors_of_a_table_whose_truth_is_known_are_found_and_that_of_a_region_left_out_is_less_certain():
    data = climate_regions.load()
    model = climate_regions.model_of(data, "population")
    post = bd.fit(
        model,
        climate_regions.masked(data, LAST, ["sa"]),
        bd.engines.Laplace(),
        key=0,
        progress=False,
    )
    factors = post["posterior"].dataset["factor"]
    middle, spread = factors.mean(("chain", "draw")), factors.std(("chain", "draw"))
    known = [name for name in CENTRES if name != "sa"]
    error = SCATTER / float(np.sqrt((data["warming"] ** 2).sum()))
    for name in known:
        assert float(middle.sel(region=name)) == pytest.approx(FACTORS[name], abs=4 * error)
    assert float(spread.sel(region="sa")) > 3 * float(spread.sel(region=known).max())


def test_tasks_leave_out_each_region_and_a_summary_pairs_them():
    quick, full = climate_regions.tasks(True), climate_regions.tasks(False)
    assert {task["left_out"] for task in quick} == {*CENTRES} and len(quick) < len(full)
    scores = dict.fromkeys(
        ("rmse", "mae", "crps", "log_score", "coverage_50", "coverage_90", "n"), 0.5
    )
    rows = [task | {"scores": {"all years": {"anomaly": scores}}, "fit_s": 1.0} for task in quick]
    found = climate_regions.summary(pd.DataFrame(rows))
    assert (
        found["CRPS against one factor, fitted up to 2021, all years"].loc["hybrid", "pairs"] == 7
    )
    assert (
        found["Regions left out"]["rmse"] == 0.5
    ).all() and "All regions, later years" not in found

    def ahead(task):  # of all regions nothing is left out, and their errors are others
        each = ["since 2001"] if task["left_out"] == "none" else ["all years", "since 2001"]
        return {
            name: {"anomaly": scores | {"rmse": 0.5 + (task["left_out"] == "none")}}
            for name in each
        }

    found = climate_regions.summary(
        pd.DataFrame([task | {"scores": ahead(task), "fit_s": 1.0} for task in full])
    )
    assert (found["Regions left out"]["rmse"] == 0.5).all()
    assert (found["All regions, later years"]["rmse"] == 1.5).all()
    assert sum(name.startswith("CRPS against") for name in found) == 4


@pytest.fixture
def real() -> None:
    """The table itself, where it is at hand: it is not among the shared files, and a test fetches
    nothing.
    """
    import pooch

    source = SOURCES[NAME]
    assert isinstance(source, Source)
    folder = os.environ.get("BAYES_DASL_DATA")
    held = [Path(pooch.os_cache("bayes_dasl")) / source.url.rsplit("/", 1)[1]]
    held += [Path(folder) / NAME] if folder else []
    if not any(path.is_file() for path in held):
        pytest.skip(
            f"{NAME} is neither in the folder that BAYES_DASL_DATA names nor in the cache of pooch"
        )


@pytest.mark.usefixtures("real")
def test_the_table_is_that_of_the_bureau_of_meteorology():
    data = climate_regions.load()
    assert data.sizes == {"time": 112, "region": 7} and bool(data["anomaly"].notnull().all())
    warmer = data["anomaly"].sel(region="qld", time=1911.5) - data["anomaly"].sel(
        region="qld", time=1910.5
    )
    assert float(warmer) == pytest.approx(22.32 - 22.66)
    assert float(data["soi"].sel(time=1910.5)) == pytest.approx(12.733, abs=1e-3)

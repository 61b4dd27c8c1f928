"""From a table of daily rain and flow, with dates and gaps, to the forecast of rain that nobody
knows.
"""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd

TRUTH = {"share": 0.08, "half": 30.0, "scale": 0.15}


class Store(bd.Module):
    """A catchment that stores rain and lets it go."""

    share: bd.Scalar = bd.field(units="1/day")
    half: bd.Scalar = bd.field(units="mm")

    def __call__(self, t, y, u):
        lost = u["demand"] * y["store"] / (y["store"] + self.half)
        return {"store": jnp.maximum((1 - self.share) * y["store"] + u["rain"] - lost, 0.0)}

    def flow(self, t, y, u):
        return {"flow": self.share * y["store"]}


def write_table(path):
    """Ten months of rain, demand and flow in mm/day; four days of rain and ten of flow lack."""
    days = pd.date_range("2001-01-01", "2001-10-31", name="time")
    rng = np.random.default_rng(0)
    rain = np.where(rng.uniform(size=len(days)) < 0.35, rng.gamma(1.0, 9.0, len(days)), 0.0)
    demand = 2.0 - 1.5 * np.cos(2 * np.pi * days.day_of_year / 365)
    store, flow = 60.0, []
    for fallen, wanted in zip(rain, demand, strict=True):
        flow.append(TRUTH["share"] * store * rng.lognormal(0.0, TRUTH["scale"]))
        lost = wanted * store / (store + TRUTH["half"])
        store = max((1 - TRUTH["share"]) * store + fallen - lost, 0.0)
    table = pd.DataFrame({"rain": rain, "demand": demand, "flow": flow}, index=days)
    table.iloc[100:104, 0] = np.nan
    table.iloc[150:160, 2] = np.nan
    table.round(3).to_csv(path)


def read(path):
    units = {"rain": "mm/day", "demand": "mm/day", "flow": "mm/day"}
    data = bd.from_table(path, "flow", forcings=("rain", "demand"), units=units)
    data = bd.data.fill_gaps(data, rain="climatology")
    return data, *bd.split(data, time="2001-08-31")


def test_a_table_with_dates_becomes_data(tmp_path):
    write_table(tmp_path / "rain_and_flow.csv")
    data, train, _ = read(tmp_path / "rain_and_flow.csv")
    assert data["time"].dtype.kind == "M"
    said = "4 of 304 values filled by climatology, at most 4 in a row"
    assert data["rain"].attrs["filled"] == said
    assert train["time"].values[-1] == np.datetime64("2001-08-31")


@pytest.fixture(scope="module")
def river(tmp_path_factory):
    """Data, fit, and forecasts over the data and of the month after them."""
    folder = tmp_path_factory.mktemp("daily")
    write_table(folder / "rain_and_flow.csv")
    data, train, test = read(folder / "rain_and_flow.csv")
    layer = bd.Difference(
        Store(share=bd.between(0.01, 0.5), half=bd.between(5.0, 200.0)),
        initial={"store": bd.between(10.0, 200.0)},
        observe=Store.flow,
        forcings=("rain", "demand"),
        units={"time": "day", "store": "mm"},
    )
    model = bd.Model(layer, {"flow": bd.LogNormalNoise(bd.between(0.05, 0.5))})
    assert bd.check(model, train).level != "bad"
    post = bd.fit(model, train, bd.NUTS(chains=2, draws=300), progress=False)
    fc = bd.forecast(model, post, data)

    later = pd.date_range("2001-11-01", "2001-11-30", name="time")
    usual = pd.DataFrame({"rain": 3.0, "demand": 0.7}, index=later).to_xarray()
    dry = usual.assign(rain=0.0 * usual["rain"])
    ahead = {name: xr.concat([test, x], "time") for name, x in (("usual", usual), ("dry", dry))}
    futures = bd.forecast(model, post, ahead)
    begins = np.arange(0, 270, 10)
    months = xr.DataArray(
        [data["rain"].values[b : b + 30] for b in begins], dims=("member", "time")
    ).transpose("time", "member")
    ensemble = bd.forecast(model, post, xr.concat([test, usual.assign(rain=months)], "time"))
    parts = bd.decompose(ensemble).sel(observable="flow")
    return SimpleNamespace(
        folder=folder, train=train, test=test, post=post, fc=fc, futures=futures, parts=parts
    )


@pytest.mark.slow
def test_dates_go_from_the_table_to_the_forecast(river):
    assert river.fc["predictions"]["time"].values[-1] == np.datetime64("2001-10-31")
    assert river.fc.attrs["train_end"] == "2001-08-31"


@pytest.mark.slow
def test_the_fit_finds_what_the_table_was_made_of(river):
    """But for the rain of four days, which nobody knows."""
    post = river.post["posterior"]
    for name, truth in TRUTH.items():
        assert abs(float(post[name].mean()) - truth) < 4 * float(post[name].std()), name
    assert bd.score(river.fc, river.test).loc["flow", "coverage_90"] > 0.8


@pytest.mark.slow
def test_futures(river):
    dry, usual = (
        river.futures[name]["predictions"]["flow"].isel(time=-1).median()
        for name in ("dry", "usual")
    )
    assert float(dry) < float(usual)
    assert 0.3 < float((river.parts["forcing"] / river.parts["total"]).isel(time=-1)) < 1.0


@pytest.mark.slow
def test_verdict_figures_and_report_take_dates(river):
    assert bd.diagnose(river.post, river.fc, river.test).model is not None
    bd.plots.plot_forecast(river.fc, river.train, river.test, "flow").savefig(
        river.folder / "flow.png"
    )
    bd.plots.plot_scenarios(river.futures, None, "flow").savefig(river.folder / "futures.png")
    page = bd.report(river.post, river.fc, river.test, title="Daily flow")
    assert page.save(river.folder / "flow.html").stat().st_size > 1000


@pytest.mark.slow
def test_the_catchment_of_the_wheel_takes_another_river(river):
    """Without snow, with names, priors and starts of its own, and the same with a network."""
    from case_studies.catchment import Catchment, Soil, daily, scattered, with_network

    soil = Soil(capacity=bd.between(20.0, 300.0))
    equations = Catchment(snow=None, soil=soil, rain="rain", demand="demand")
    for each in (equations, with_network(equations, river.train)):
        layer = daily(each, soil=bd.between(10.0, 200.0))
        described = str(bd.describe(bd.Model(layer, {"flow": scattered()})))
        assert "capacity ~ " in described and "snow" not in described

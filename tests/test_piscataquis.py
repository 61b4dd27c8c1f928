"""Daily flow of the Piscataquis: water that is neither made nor lost, degree-days, dates and gaps of the files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import piscataquis
from case_studies.piscataquis import (
    Bucket,
    Catchment,
    Hybrid,
    Snow,
    Soil,
    efficiencies,
    hamon,
    load,
    sac_sma,
    spun_up,
    taken,
)

SNOW = Snow(falls_below=-1.0, melts_above=1.0, degree_day=3.0, ground=0.5)
KNOWN = Catchment(SNOW, Soil(200.0, 3.0, 1.2, 0.6), percolation=2.0, quick=0.4, alpha=0.5, slow=0.05, lag=1.5)
DAY = jax.jit(KNOWN.day)
FULL = {"snow": 80.0, "soil": 150.0, "quick": 12.0, "slow": 30.0, "first": 3.0, "second": 2.0}
EMPTY = dict.fromkeys(FULL, 0.0)


def days(number, seed=0):
    rng = np.random.default_rng(seed)
    rain = np.where(rng.uniform(size=number) < 0.4, rng.gamma(0.6, 12.0, number), 0.0)
    warm = 12.0 * np.sin(np.arange(number) / 58.0) + rng.normal(0.0, 4.0, number)
    return [
        {"rain": jnp.asarray(r), "temperature": jnp.asarray(w), "demand": jnp.asarray(max(w, 0.1) / 5)}
        for r, w in zip(rain, warm, strict=True)
    ]


def closure(scale):
    """A network with weights of one draw of their prior, whose outputs are about `scale`."""
    inputs = (*piscataquis.FORCINGS, "filled", "pack")
    net = bd.Network.mlp(inputs, ("evaporation", "melt", "quick"), scale=scale, width=6)
    return realise(net, {path: value[0] for path, value in draw_prior(net, 1, key=jax.random.key(0)).items()})


def corrected(scale):
    hybrid = Hybrid(KNOWN, closure(scale))
    return jax.jit(lambda y, u: hybrid.day(y, u))  # a jitted method would have its arrays hashed


@pytest.mark.parametrize("make", [lambda: DAY, lambda: corrected(1.0)], ids=["science", "hybrid"])
@pytest.mark.parametrize("start", [FULL, EMPTY], ids=["full", "empty"])
def test_no_water_is_made_or_lost(start, make):
    """What is stored at the end is what was, and what rained, less what flowed and evaporated."""
    day = make()
    stores, balance = start, sum(start.values())
    for u in days(40):
        stores, flow, lost = day(stores, u)
        assert flow >= 0 and lost >= 0 and all(store >= 0 for store in stores.values())
        balance += u["rain"] - flow - lost
    assert float(sum(stores.values())) == pytest.approx(float(balance), rel=1e-12)


def test_the_network_of_the_hybrid_has_a_say_and_none_where_it_is_small():
    u = days(40)[1] | {"rain": jnp.asarray(8.0), "temperature": jnp.asarray(6.0)}
    science, nearly, changed = (day(FULL, u) for day in (DAY, corrected(1e-9), corrected(1.0)))
    np.testing.assert_allclose(jax.tree.leaves(nearly), jax.tree.leaves(science), rtol=1e-8)
    for name in ("snow", "soil", "quick"):
        assert abs(float(changed[0][name] / science[0][name]) - 1) > 1e-3
    assert abs(float(changed[2] / science[2]) - 1) > 1e-3


def test_a_deep_pack_melts_by_degrees():
    """Ten kelvin above the threshold of 1 °C: three millimetres for each, and half a millimetre from the ground."""
    dry = {"rain": 0.0, "temperature": 11.0}
    left, melt = SNOW(1e7, dry)
    assert float(melt) == pytest.approx(30.5, rel=1e-5)
    assert float(left + melt) == 1e7
    _, melt = SNOW(20.0, dry)
    assert float(melt) == pytest.approx(20.0 * (1 - np.exp(-30.5 / 20.0)), rel=1e-4)
    _, melt = SNOW(1e7, dry | {"temperature": -30.0})
    assert float(melt) == pytest.approx(0.5, rel=1e-4)


def test_rain_falls_as_snow_in_the_cold():
    for temperature, rain in ((-20.0, 0.0), (-1.0, 5.0), (20.0, 10.0)):
        _, water = Snow(-1.0, 50.0, 3.0, 1e-9)(0.0, {"rain": 10.0, "temperature": temperature})
        assert float(water) == pytest.approx(rain, abs=1e-6)


def test_no_more_is_taken_than_there_is():
    np.testing.assert_allclose(taken(jnp.array([0.0, 5.0, 1e9]), 1e4), [0.0, 5.0, 1e4], rtol=1e-4)


def test_the_bucket_balances():
    store, balance = {"store": 100.0}, 100.0
    equations = Bucket(quick=0.1, alpha=1.0, evaporation=0.0)
    for u in days(20):
        store, flow = equations.day(store, u)
        balance += u["rain"] - flow
    assert float(store["store"]) == pytest.approx(float(balance), rel=1e-12)


def test_the_layer_says_the_flow_of_the_same_day():
    forcings = days(5)
    columns = {name: ("time", [float(u[name]) for u in forcings]) for name in forcings[0]}
    data = xr.Dataset(columns, {"time": np.arange("2001-01-01", "2001-01-06", dtype="M8[D]").astype("M8[ns]")})
    model = bd.Model(bd.Difference(KNOWN, FULL, Catchment.flow, forcings=piscataquis.FORCINGS), bd.NormalNoise(1.0))
    inputs, stores, flows = model.inputs(data), FULL, []
    for u in forcings:
        stores, flow, _ = DAY(stores, u)
        flows.append(float(flow))
    found = jax.jit(lambda: model.predict(inputs).values["flow"])()
    np.testing.assert_allclose(found, flows, rtol=1e-12)


def test_hamon_by_hand():
    """A day of twelve hours at 20 °C, whose saturated air is under 23.4 hPa: 216.7 · 23.4 / 293.3 = 17.3 g/m³."""
    assert hamon(20.0, 43200.0) == pytest.approx(0.1651 * 17.28, rel=2e-3)
    assert hamon(20.0, 21600.0) == pytest.approx(hamon(20.0, 43200.0) / 2)


def test_efficiencies_by_hand():
    time = {"time": np.arange(5.0)}
    observed = xr.DataArray([1.0, 2.0, 4.0, 5.0, np.nan], time)
    assert efficiencies(observed.fillna(9.0), observed) == pytest.approx({"nse": 1.0, "kge": 1.0})
    # Twice the flow: mean square error (1 + 4 + 16 + 25) / 4 against a variance of 2.5; both ratios are 2.
    assert efficiencies(2 * observed, observed) == pytest.approx({"nse": 1 - 11.5 / 2.5, "kge": 1 - np.sqrt(2.0)})


WEATHER = """  45.06
 318.00
 771486538
Year Mnth Day Hr\tdayl(s)\tprcp(mm/day)\tsrad(W/m2)\tswe(mm)\ttmax(C)\ttmin(C)\tvp(Pa)
2000 02 28 12\t39000.00\t0.00\t176.19\t0.00\t4.00\t-6.00\t213.05
2000 02 29 12\t39100.00\t3.10\t165.06\t0.00\t5.00\t1.00\t260.00
2000 03 01 12\t39200.00\t0.00\t165.06\t0.00\t2.00\t0.00\t260.00
"""
FLOW = """YR MNTH DY HR SWE PRCP RAIM TAIR PET ET MOD_RUN OBS_RUN
2000 02 29 12   0.0   3.1   0.0  3.0   1.5   1.5   2.4   -999.0000
2000 03 01 12   0.0   0.0   0.0  1.0   1.5   1.5   2.0   0.0000
"""


def test_files_become_dates_and_gaps(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYES_DASL_DATA", str(tmp_path))
    (tmp_path / "hydrology").mkdir()
    (tmp_path / "hydrology/camels_01031500_lump_cida_forcing_leap.txt").write_text(WEATHER)
    (tmp_path / "hydrology/camels_01031500_05_model_output.txt").write_text(FLOW)
    data = load()
    np.testing.assert_array_equal(data["time"], np.array(["2000-02-28", "2000-02-29", "2000-03-01"], "M8"))
    np.testing.assert_array_equal(data["flow"], [np.nan, np.nan, 0.0])
    np.testing.assert_allclose(data["temperature"], [-1.0, 3.0, 1.0])
    np.testing.assert_allclose(data["rain"], [0.0, 3.1, 0.0])
    assert {name: data[name].attrs["units"] for name in data.data_vars} == piscataquis.UNITS
    np.testing.assert_array_equal(spun_up(data, "2000-02-29", "2000-02-29")["flow"], [np.nan, 0.0])
    np.testing.assert_array_equal(sac_sma(), [2.4, 2.0])


@pytest.fixture
def real(shared_file, monkeypatch):
    monkeypatch.setenv("BAYES_DASL_DATA", str(shared_file("data/manifest.csv").parent))
    return piscataquis.study()


@pytest.mark.thorough
def test_the_study(real):
    """Fourteen years after one of spin-up, twenty to forecast, daily and without a gap in the weather."""
    data = real.data
    assert np.unique(np.diff(data["time"])) == np.timedelta64(1, "D")
    assert all(bool(np.isfinite(data[name]).all()) for name in piscataquis.FORCINGS)
    assert int(real.train["flow"].notnull().sum()) == 5113 and int(real.test["flow"].notnull().sum()) == 7305
    dry = data["time"].values[data["flow"].values == 0]
    assert dry.size == 18 and dry.min() == np.datetime64("2014-11-27")
    real.refuse_bad_input()


def test_what_sac_sma_reaches(real):
    """The figures that are to be beaten, 0.745 and 0.809, as said of these years."""
    assert efficiencies(sac_sma(), real.test["flow"]) == pytest.approx({"nse": 0.745, "kge": 0.809}, abs=5e-3)

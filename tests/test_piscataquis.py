"""Daily flow of the Piscataquis: the density of its models, dates and gaps of the files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import pose
from case_studies import piscataquis
from case_studies.catchment import Catchment, daily, scattered, spun_up
from case_studies.piscataquis import Bucket, efficiencies, load, sac_sma


def test_the_bucket_balances():
    store, balance = {"store": 100.0}, 100.0
    equations = Bucket(quick=0.1, alpha=1.0, evaporation=0.0)
    for rain in np.random.default_rng(0).gamma(0.3, 12.0, 20):
        store, flow = equations.day(store, {"rain": jnp.asarray(rain), "demand": 1.0})
        balance += rain - flow
    assert float(store["store"]) == pytest.approx(float(balance), rel=1e-12)


def winter():
    """Sixty days of weather about zero, and a flow."""
    rng, days = np.random.default_rng(0), 60
    rain = np.where(rng.uniform(size=days) < 0.4, rng.gamma(0.6, 12.0, days), 0.0)
    warm = 6.0 * np.sin(np.arange(days) / 9.0) + rng.normal(0, 2.0, days)
    columns = {"rain": rain, "temperature": warm, "demand": np.maximum(warm, 0.1) / 5}
    columns["flow"] = rng.gamma(2.0, 1.5, days)
    time = np.arange("2001-01-01", "2001-03-02", dtype="M8[D]").astype("M8[ns]")
    variables = {
        name: ("time", values, {"units": piscataquis.UNITS[name]})
        for name, values in columns.items()
    }
    return xr.Dataset(variables, {"time": time})


@pytest.mark.parametrize(
    ("make", "known"),
    [(lambda data: bd.Model(daily(Catchment()), {"flow": scattered()}), (-537.8241399939645, -363.02376483689034)),
     (piscataquis.hybrid, (-549.9362324770668, -385.71726483233624))],
    ids=["science", "hybrid"],
)  # fmt: skip
def test_the_log_density_is_that_of_the_study_with_its_own_equations(make, known):
    """Numbers of the version whose study of Maine held the equations itself."""
    data = winter()
    problem = pose(make(data), data)
    found = jax.jit(jax.vmap(lambda z: problem.log_density(z)))(
        jnp.outer(jnp.array([0.0, 0.3]), jnp.ones(problem.dimension))
    )
    np.testing.assert_allclose(found, known, rtol=1e-10)


def test_efficiencies_by_hand():
    time = {"time": np.arange(5.0)}
    observed = xr.DataArray([1.0, 2.0, 4.0, 5.0, np.nan], time)
    assert efficiencies(observed.fillna(9.0), observed) == pytest.approx({"nse": 1.0, "kge": 1.0})
    # Twice the flow: mean square error (1 + 4 + 16 + 25) / 4 against a variance of 2.5; both ratios
    # are 2.
    assert efficiencies(2 * observed, observed) == pytest.approx(
        {"nse": 1 - 11.5 / 2.5, "kge": 1 - np.sqrt(2.0)}
    )


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
    np.testing.assert_array_equal(
        data["time"], np.array(["2000-02-28", "2000-02-29", "2000-03-01"], "M8")
    )
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
    """Fourteen years after one of spin-up, twenty to forecast, daily and without a gap in the
    weather.
    """
    data = real.data
    assert np.unique(np.diff(data["time"])) == np.timedelta64(1, "D")
    assert all(bool(np.isfinite(data[name]).all()) for name in piscataquis.FORCINGS)
    assert (
        int(real.train["flow"].notnull().sum()) == 5113
        and int(real.test["flow"].notnull().sum()) == 7305
    )
    dry = data["time"].values[data["flow"].values == 0]
    assert dry.size == 18 and dry.min() == np.datetime64("2014-11-27")
    real.refuse_bad_input()


def test_what_sac_sma_reaches(real):
    """The figures that are to be beaten, 0.745 and 0.809, as said of these years."""
    assert efficiencies(sac_sma(), real.test["flow"]) == pytest.approx(
        {"nse": 0.745, "kge": 0.809}, abs=5e-3
    )

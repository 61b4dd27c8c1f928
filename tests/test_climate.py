"""The earth's balance of energy: what goes in is kept or radiated,
and what the priors are about.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import climate
from case_studies.climate import AGENTS, PER_DOUBLING, TO_THE_OCEAN, ZJ_PER_YEAR, Earth

YEARS = np.arange(1850.5, 2025.0)
KNOWN = Earth(
    8.0, 100.0, 1.2, 0.7, 1.3, scales=dict.fromkeys(AGENTS, 1.0), land_ratio=1.5, heat_level=0.0
)


def forced(**agents) -> xr.Dataset:
    flux = {agent: ("time", np.full(YEARS.size, agents.get(agent, 0.0))) for agent in AGENTS}
    return xr.Dataset(flux, {"time": YEARS})


def predicted(equations, data, layer_of=climate.yearly):
    layer = layer_of(equations)
    layer = eqx.tree_at(lambda layer: layer.initial, layer, {"surface": 0.0, "deep": 0.0})
    inputs = climate.observed(layer).inputs(data)
    return eqx.filter_jit(lambda layer: layer(inputs))(layer).values


def test_what_the_layers_gain_is_what_the_sky_sends_less_what_they_radiate():
    y, u = (
        {"surface": jnp.asarray(1.1), "deep": jnp.asarray(0.4)},
        dict.fromkeys(AGENTS, jnp.asarray(0.5)),
    )
    rates = KNOWN.rates(y, KNOWN.forced(u), KNOWN.feedback_at(1.1))
    gained = KNOWN.heat(rates)
    down = KNOWN.exchange * (y["surface"] - y["deep"])
    # Uptake that is more effective than forcing radiates the more.
    radiated = KNOWN.feedback * y["surface"] + (KNOWN.efficacy - 1) * down
    assert gained == pytest.approx(0.5 * len(AGENTS) - radiated)


def test_from_year_to_year_is_what_a_solver_says_of_all_times():
    """Of forcings that change slowly; a year's mean is the state in the middle of it."""
    data = forced()
    data["greenhouse"] = "time", 0.02 * (YEARS - YEARS[0])
    by_year, by_solver = (predicted(KNOWN, data, of) for of in (climate.yearly, climate.continuous))
    for name, within in {"temperature": 0.002, "land": 0.003, "heat": 2.0}.items():
        np.testing.assert_allclose(by_year[name][20:], by_solver[name][20:], atol=within)


def test_twice_the_carbon_dioxide_warms_by_the_climate_sensitivity_in_the_end():
    quick = eqx.tree_at(lambda e: e.deep_capacity, KNOWN, 2.0)  # the deep ocean takes millennia
    found = predicted(quick, forced(greenhouse=PER_DOUBLING))
    told = float(
        climate.sensitivity(climate.observed(climate.yearly(quick)))["climate_sensitivity"]
    )
    assert found["temperature"][-1] == pytest.approx(told, rel=0.01)
    assert found["land"][-1] == pytest.approx(1.5 * found["temperature"][-1])


def test_where_the_feedback_bends_the_sensitivity_is_where_as_much_is_radiated():
    weaker = bd.Basis(
        bd.bases.Polynomial(-1.0, 4.0, 1),
        "warming",
        "factor",
        np.asarray([0.0, -0.3]),
        positive=True,
    )
    quick = eqx.tree_at(lambda e: e.deep_capacity, dataclasses.replace(KNOWN, bend=weaker), 2.0)
    told = float(
        climate.sensitivity(climate.observed(climate.yearly(quick)))["climate_sensitivity"]
    )
    assert told > PER_DOUBLING / KNOWN.feedback
    assert predicted(quick, forced(greenhouse=PER_DOUBLING))["temperature"][-1] == pytest.approx(
        told, rel=0.01
    )


def test_heat_is_counted_in_zettajoules_of_the_ocean():
    """1 W m⁻² over the earth is some 16 ZJ in a year."""
    assert pytest.approx(16.1, abs=0.05) == ZJ_PER_YEAR
    still = eqx.tree_at(
        lambda e: (e.feedback, e.efficacy), KNOWN, (1e-9, 1.0)
    )  # nothing is radiated
    found = predicted(still, forced(solar=1.0))["heat"]
    assert found[-1] - found[0] == pytest.approx(
        ZJ_PER_YEAR * TO_THE_OCEAN * (YEARS[-1] - YEARS[0]), rel=1e-3
    )


@pytest.fixture
def data(shared_file, monkeypatch):
    monkeypatch.setenv(
        "BAYES_DASL_DATA", str(shared_file("data/climate/igcc_annual_averages.csv").parents[1])
    )
    return climate.load()


def test_the_data_are_those_of_the_assessment(data):
    assert (
        data["temperature"].sel(time=2024.5) == pytest.approx(1.523)
        and data["heat"].notnull().sum() == 54
    )
    total = sum(data[agent] for agent in AGENTS).sel(time=2024.5)
    assert float(total) == pytest.approx(3.302828, abs=0.02)  # of the file's own total


def test_scenarios_are_the_past_and_then_greenhouse_gases_that_grow_at_several_rates(data):
    every = climate.scenarios(data)
    for name, share in climate.SCENARIOS.items():
        asked = every[name]
        assert asked["time"][-1] == 2100.5 and all(asked[agent].notnull().all() for agent in AGENTS)
        xr.testing.assert_allclose(
            asked["greenhouse"].sel(time=slice(None, 2024.5)), data["greenhouse"]
        )
        grown = float(asked["greenhouse"][-1] - data["greenhouse"][-1])
        before = float(data["greenhouse"].sel(time=2024.5) - data["greenhouse"].sel(time=2004.5))
        assert grown == pytest.approx(share * before * 76 / 20)
        for agent in ("aerosol", "surface"):
            assert float(asked[agent][-1]) == pytest.approx(float(data[agent][-1]))
        for agent in ("solar", "volcanic"):
            assert float(asked[agent][-1]) == pytest.approx(float(data[agent].mean()))


def test_a_twin_is_observed_as_the_earth_is_up_to_2024(data):
    twins = [climate.simulated(bent, seed) for bent, seed in ((0.0, 0), (-0.3, 0), (0.0, 1))]
    until = slice(None, 2024.5)
    for twin in twins:
        for name in climate.OBSERVED:
            np.testing.assert_array_equal(twin[name].sel(time=until).isnull(), data[name].isnull())
            assert twin[name].sel(time=slice(2025, None)).notnull().all()
        assert twin["heat_error"].sel(time=until).equals(data["heat_error"])
    straight, bent, other = twins
    warmer = (bent - straight)["temperature"]  # of the same weather
    assert float(warmer[-1]) > 0.3 and float(np.abs(warmer.diff("time")).max()) < 0.03
    off = (other - straight) / np.sqrt(2)
    assert [round(float(off[name].std()), 1) for name in ("temperature", "land")] == [
        0.1,
        pytest.approx(0.15, abs=0.06),
    ]
    assert 0.5 < xr.corr(off["temperature"], off["land"]) < 0.9
    assert 0.3 < np.corrcoef(off["temperature"][1:], off["temperature"][:-1])[0, 1] < 0.7
    assert 0.7 < float((off["heat"] / data["heat_error"]).std()) < 1.3


def test_what_is_ahead_goes_on_from_the_fit(data):
    assert [*climate.spans(data, climate.SPLIT)] == ["ahead"]
    found = climate.spans(climate.simulated(0.0, 0), climate.SPLIT)
    assert [*found] == ["ahead", "2100"] and all(
        part["time"][0] == 2001.5 for part in found.values()
    )
    assert found["ahead"]["time"][-1] == 2024.5
    seen = found["2100"]["temperature"].dropna("time")["time"]
    assert (seen[0], seen[-1]) == (2075.5, 2100.5)


def test_tables_are_of_each_world_and_say_whether_the_truth_was_held():
    score = dict.fromkeys(
        ("rmse", "mae", "crps", "log_score", "coverage_50", "coverage_90", "n"), 0.5
    )
    told = {"climate_sensitivity": {"low": 2.0, "median": 3.0, "high": 4.0}}
    row = {"until": 2000.5, "seed": 0, "fit_s": 1.0, "memory_mb": 1.0, "derived": told}
    rows = [
        row | {"world": "earth", "model": "science", "scores": {"ahead": {"temperature": score}}},
        *(
            row
            | {
                "world": world,
                "model": name,
                "scores": {"2100": {"temperature": score}},
                "true_sensitivity": truth,
            }
            for world, name, truth in (
                ("twin", "science", 3.5),
                ("twin", "hybrid", 4.5),
                ("bent twin", "mlp", 4.5),
            )
        ),
    ]
    found = climate.summary(pd.DataFrame(rows))
    assert [title for title in found if "twin" in title] == [
        "CRPS of the temperature of a twin (2100), less that of the science"
    ]
    held = found["Climate sensitivity"].set_index(["world", "model"])["held"]
    assert held["twin", "science"] and not held["twin", "hybrid"]


OTHERS = (
    "science",
    "hybrid, science fixed",
    "transformer",
    "gaussian_process",
    "neural_ode",
    "pinn",
)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fixed", "mlp", "hybrid", *OTHERS])
def test_every_model_of_the_study_predicts_the_years(data, name):
    made = climate.models(climate.masked(data, climate.SPLIT))[name]()
    drawn = draw_prior(made, 1, key=jax.random.key(0))
    realised = realise(made, {path: values[0] for path, values in drawn.items()})
    inputs = made.inputs(data)  # whose times a program knows
    found = eqx.filter_jit(lambda layer: layer(inputs))(realised.layer)
    assert bool(found.ok) and {*made.observables} == {"temperature", "land", "heat"}
    assert found.values["heat"].shape == (175,)


@pytest.mark.parametrize("left_out", ["land", "heat"])
def test_a_model_may_be_without_an_observable(data, left_out):
    made = climate.models(climate.masked(data, climate.SPLIT))[f"science, without {left_out}"]()
    assert {*made.observables} == {"temperature", "land", "heat"} - {left_out}
    assert (made.cross_correlation is None) == (left_out == "land")


def test_the_yardstick_is_a_straight_line_through_the_years_from_1970(data):
    known = data["temperature"].sel(time=slice(1970.0, 2001.0))
    line = np.polynomial.Polynomial.fit(known["time"], known, 1)
    came = data["temperature"].sel(time=slice(2001.0, None))
    assert np.sqrt(np.mean((line(came["time"].values) - came.values) ** 2)) == pytest.approx(
        0.127, abs=5e-4
    )

"""The channel: laws that every mixing length has, and the points that are fitted and forecast."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import bayes_dasl as bd
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import fluids
from case_studies.fluids import Mixed, VanDriest

KNOWN = VanDriest(0.41, 26.0)


@eqx.filter_jit
def velocities(law, heights, reynolds):
    def at(y):
        return law(0.0, {}, {"log_height": jnp.log(y), "log_reynolds": jnp.log(reynolds)})[
            "velocity"
        ]

    return jax.vmap(at)(jnp.asarray(heights))


def test_at_the_wall_friction_alone_slows_and_further_out_the_logarithm_rules():
    near, reynolds = np.array([0.5, 1.0, 2.0]), 1e5
    np.testing.assert_allclose(velocities(KNOWN, near, reynolds), near, rtol=0.01)
    low, high = velocities(KNOWN, np.array([300.0, 600.0]), reynolds)
    assert high - low == pytest.approx(np.log(2.0) / 0.41, rel=0.01)
    assert low == pytest.approx(np.log(300.0) / 0.41 + 5.3, abs=0.2)  # of the textbooks


def with_weights(weights: float) -> Mixed:
    def factor(name, low, high):
        family = bd.bases.HilbertGP(low, high, 4, length=(high - low) / 4, amplitude=0.2)
        return bd.Basis(family, name, "factor", weights=weights * np.ones(4), positive=True)

    return Mixed(0.41, 26.0, inner=factor("log_y", -1.0, 8.0), outer=factor("height", 0.0, 1.0))


def test_a_factor_of_one_changes_nothing_and_more_mixing_slows_the_middle():
    heights = np.array([5.0, 50.0, 500.0])
    usual = velocities(KNOWN, heights, 600.0)
    np.testing.assert_allclose(velocities(with_weights(0.0), heights, 600.0), usual, rtol=1e-6)
    assert (velocities(with_weights(0.5), heights, 600.0)[1:] < usual[1:]).all()


def test_under_the_prior_a_law_drifts_the_more_the_farther_its_reynolds_number_is():
    law = fluids.hybrid()
    draws = draw_prior(law, 200, key=jax.random.key(0))

    def drift(draw, reynolds):
        at = {"log_y": jnp.log(50.0), "log_reynolds": jnp.log(reynolds)}
        return jnp.log(realise(law, draw).drift(0.0, {}, at)["factor"])

    sizes = jnp.asarray([180.0, 550.0, 720.0, 2000.0])
    found = jax.vmap(lambda draw: jax.vmap(lambda reynolds: drift(draw, reynolds))(sizes))(draws)
    far, near, same, high = np.std(found - found[:, 2:3], axis=0)
    assert same == 0 and 2 * near < far < 0.5 and near < high


@pytest.fixture
def data(shared_file, monkeypatch):
    monkeypatch.setenv("BAYES_DASL_DATA", str(shared_file("data/fluid/HJ_Re550.prof").parents[1]))


@pytest.mark.usefixtures("data")
def test_points_are_those_of_the_profiles_by_either_choice():
    table = fluids.profile(550)
    assert table["reynolds"].iloc[0] == pytest.approx(546.7, abs=0.5)
    assert table["height"].max() <= fluids.HIGHEST * 547 and table["centre"].iloc[
        0
    ] == pytest.approx(21.0, abs=0.2)
    fourth, log = fluids.chosen(table, "fourth"), fluids.chosen(table, "log")
    assert len(fourth) == -(-len(table) // 4) and 25 < len(log) <= 40
    assert np.ptp(np.diff(np.log(log["height"]))) < 0.4 < np.ptp(np.diff(np.log(fourth["height"])))
    study = fluids.study()
    assert study.train.sizes["row"] + study.test.sizes["row"] == fluids.load().sizes["row"]
    reynolds = np.exp(study.test["log_reynolds"].values)
    assert (
        reynolds.min() < 200
        and reynolds.max() > 1900
        and not ((reynolds > 400) & (reynolds < 1000)).any()
    )


HYBRIDS = ("hybrid", "hybrid, one law for all", "hybrid, science fixed")
BESIDE = ("series", "parallel", "residual", "hierarchical")


@pytest.mark.thorough("van Driest", *HYBRIDS[1:], *BESIDE, "fixed", "mlp", "gaussian_process")
@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    "name", ["van Driest", *HYBRIDS, *BESIDE, "fixed", "mlp", "gaussian_process"]
)
def test_every_model_of_the_study_predicts_the_profiles(name):
    train = fluids.rows_of(fluids.TRAINED)
    made = fluids.models(train)[name]()
    drawn = draw_prior(made, 1, key=jax.random.key(0))
    realised = realise(made, {path: values[0] for path, values in drawn.items()})
    found = eqx.filter_jit(realised.layer)(made.inputs(train))
    assert bool(found.ok) and found.values["velocity"].shape == (train.sizes["row"],)


@pytest.mark.usefixtures("data")
def test_tables_tell_other_engines_from_a_models_own():
    score = dict.fromkeys(
        ("rmse", "mae", "crps", "log_score", "coverage_50", "coverage_90", "n"), 0.5
    )
    row = {
        "model": "hybrid",
        "points": "log",
        "number": 40,
        "seed": 0,
        "scores": {"180 log": {"velocity": score}},
    }
    row |= {"fit_s": 3.0, "forecast_s": 1.0, "memory_mb": 900.0} | {
        "derived": {"karman": dict(low=0.3, median=0.4, high=0.5)}
    }
    found = fluids.summary(pd.DataFrame([row, row | {"engine": "SVI"}]))
    assert [name for *_, name in found["CRPS"].index] == ["hybrid", "hybrid, SVI"]
    costs = found["Other scores, and costs"].loc[("log", "hybrid, SVI", "180 log")]
    assert costs[["mae", "fit_s", "memory_mb"]].tolist() == ["0.500", "3.00", "900"]
    assert found["Van Driest's numbers"].loc[("log", "hybrid, SVI", "karman"), "high"] == "0.500"

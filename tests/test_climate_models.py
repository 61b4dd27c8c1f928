"""Two layers of heat by the year: laws that they have, and where one experiment ends and the next
begins.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise
from case_studies import climate_models
from case_studies.climate_models import LEVEL, YEARS, Planet

KNOWN = Planet(8.0, 100.0, 1.2, 0.7, 1.3, forcing=7.2, curve=1.0)
DRIVEN = {"share": 1.0, "carried": 1.0}


def test_in_the_end_all_is_as_warm_as_forcing_and_feedback_say_and_nothing_is_gained():
    states = {"surface": 0.0, "deep": 0.0}
    step = jax.jit(lambda y: KNOWN(0.0, y, DRIVEN))
    for _ in range(3000):
        states = step(states)
    assert states["surface"] == pytest.approx(7.2 / 1.2, rel=1e-4) and states[
        "deep"
    ] == pytest.approx(6.0, rel=1e-4)
    assert KNOWN.observe(0.0, states, DRIVEN)["flux"] == pytest.approx(0.0, abs=1e-3)


def test_what_is_gained_in_a_year_is_the_forcing_less_what_is_radiated_and_the_efficacy_takes():
    states = {"surface": 3.0, "deep": 1.0}
    after, seen = KNOWN(0.0, states, DRIVEN), KNOWN.observe(0.0, states, DRIVEN)
    warm, deep = (3.0 + after["surface"]) / 2, (1.0 + after["deep"]) / 2
    assert seen["temperature"] == pytest.approx(warm)
    assert seen["flux"] == pytest.approx(7.2 - 1.2 * warm - 0.3 * 0.7 * (warm - deep), rel=0.01)


def test_where_nothing_is_carried_over_an_experiment_begins_anew():
    begins = {"share": 0.5, "carried": 0.0}
    warm, cold = (KNOWN(0.0, {"surface": at, "deep": at}, begins) for at in (5.0, 0.0))
    assert warm == cold


def test_the_forcing_grows_from_nothing_somewhat_faster_than_with_the_logarithm():
    share = climate_models.share_of_forcing(np.asarray([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(share, [0.0, 0.476, 1.0], atol=1e-3)
    flatter = Planet(8.0, 100.0, 1.2, 0.7, 1.3, forcing=7.2, curve=0.9).forced({"share": share[1]})
    assert flatter == pytest.approx(7.2 * 0.513, abs=0.01)


def test_where_the_function_is_one_a_feedback_is_its_own_number():
    family = bd.bases.HilbertGP(-1.0, 9.0, 10, length=3.0, amplitude=0.15)
    function = bd.Basis(family, "warming", "factor", np.linspace(-1.0, 2.0, 10), positive=True)
    bent = Planet(8.0, 100.0, 1.2, 0.7, 1.3, bend=function, forcing=7.2, curve=1.0)
    assert bent.feedback_at(jnp.asarray(LEVEL)) == pytest.approx(1.2)
    assert bent.feedback_at(jnp.asarray(1.0)) != pytest.approx(1.2, abs=0.01)
    own = function(0.0, {}, {"warming": jnp.asarray(LEVEL)})["factor"]
    assert own != pytest.approx(1.0, abs=0.01)


@pytest.fixture
def data(shared_file, monkeypatch) -> xr.Dataset:
    monkeypatch.setenv(
        "BAYES_DASL_DATA",
        str(shared_file("data/climate/cmip6_tas_1pctCO2_14models.csv").parents[1]),
    )
    return climate_models.load()


def test_both_experiments_of_all_models_are_there(data):
    assert data.sizes == {"time": 2 * YEARS, "model": 14} and bool(
        data["temperature"].notnull().all()
    )
    assert float(data["temperature"].sel(model="CESM2", time=1)) == 1.109
    assert data["carried"].values[[0, 1, YEARS, YEARS + 1]].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert float(data["share"][YEARS + 139]) == pytest.approx(
        1.0, abs=0.01
    )  # four times after 139 years


@pytest.mark.thorough
@pytest.mark.parametrize("name", climate_models.VARIANTS)
def test_every_variant_predicts_both_experiments(data, name):
    model = climate_models.model_of(**climate_models.VARIANTS[name])
    drawn = draw_prior(model, 1, key=jax.random.key(0))
    realised = realise(model, {path: values[0] for path, values in drawn.items()})
    inputs = model.inputs(data)  # whose times a program knows
    found = eqx.filter_jit(lambda layer: layer(inputs))(realised.layer)
    assert bool(found.ok) and found.values["temperature"].shape == (2 * YEARS, 14)
    assert climate_models.sensitivity(realised)["climate_sensitivity"].shape == (14,)
    assert np.all(found.values["temperature"][YEARS] < found.values["temperature"][YEARS - 1])

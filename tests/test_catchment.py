"""A catchment: water that is neither made nor lost, degree-days, and a river without snow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise
from case_studies.catchment import (
    Catchment,
    Hybrid,
    Snow,
    Soil,
    daily,
    hamon,
    scattered,
    taken,
    with_network,
)

SNOW = Snow(falls_below=-1.0, melts_above=1.0, degree_day=3.0, ground=0.5)
KNOWN = Catchment(
    SNOW, Soil(200.0, 3.0, 1.2, 0.6), percolation=2.0, quick=0.4, alpha=0.5, slow=0.05, lag=1.5
)
DAY = jax.jit(KNOWN.day)
FULL = {"snow": 80.0, "soil": 150.0, "quick": 12.0, "slow": 30.0, "first": 3.0, "second": 2.0}
EMPTY = dict.fromkeys(FULL, 0.0)


def days(number, seed=0):
    rng = np.random.default_rng(seed)
    rain = np.where(rng.uniform(size=number) < 0.4, rng.gamma(0.6, 12.0, number), 0.0)
    warm = 12.0 * np.sin(np.arange(number) / 58.0) + rng.normal(0.0, 4.0, number)
    return [
        {
            "rain": jnp.asarray(r),
            "temperature": jnp.asarray(w),
            "demand": jnp.asarray(max(w, 0.1) / 5),
        }
        for r, w in zip(rain, warm, strict=True)
    ]


def closure(scale):
    """A network with weights of one draw of their prior, whose outputs are about `scale`."""
    inputs = (*KNOWN.forcings, "filled", "pack")
    net = bd.Network.mlp(inputs, ("evaporation", "melt", "quick"), scale=scale, width=6)
    return realise(
        net, {path: value[0] for path, value in draw_prior(net, 1, key=jax.random.key(0)).items()}
    )


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
    """Ten kelvin above the threshold of 1 °C: three millimetres for each, and half a millimetre
    from the ground.
    """
    left, melt = SNOW(1e7, 0.0, 11.0)
    assert float(melt) == pytest.approx(30.5, rel=1e-5)
    assert float(left + melt) == 1e7
    _, melt = SNOW(20.0, 0.0, 11.0)
    assert float(melt) == pytest.approx(20.0 * (1 - np.exp(-30.5 / 20.0)), rel=1e-4)
    _, melt = SNOW(1e7, 0.0, -30.0)
    assert float(melt) == pytest.approx(0.5, rel=1e-4)


def test_rain_falls_as_snow_in_the_cold():
    for temperature, rain in ((-20.0, 0.0), (-1.0, 5.0), (20.0, 10.0)):
        _, water = Snow(-1.0, 50.0, 3.0, 1e-9)(0.0, 10.0, temperature)
        assert float(water) == pytest.approx(rain, abs=1e-6)


def test_no_more_is_taken_than_there_is():
    np.testing.assert_allclose(taken(jnp.array([0.0, 5.0, 1e9]), 1e4), [0.0, 5.0, 1e4], rtol=1e-4)


def test_the_layer_says_the_flow_of_the_same_day():
    forcings = days(5)
    columns = {name: ("time", [float(u[name]) for u in forcings]) for name in forcings[0]}
    data = xr.Dataset(
        columns, {"time": np.arange("2001-01-01", "2001-01-06", dtype="M8[D]").astype("M8[ns]")}
    )
    model = bd.Model(daily(KNOWN, **FULL), bd.NormalNoise(1.0))
    inputs, stores, flows = model.inputs(data), FULL, []
    for u in forcings:
        stores, flow, _ = DAY(stores, u)
        flows.append(float(flow))
    found = jax.jit(lambda: model.predict(inputs).values["flow"])()
    np.testing.assert_allclose(found, flows, rtol=1e-12)


def test_hamon_by_hand():
    """A day of twelve hours at 20 °C, whose saturated air is under 23.4 hPa: 216.7 · 23.4 / 293.3 =
    17.3 g/m³.
    """
    assert hamon(20.0, 43200.0) == pytest.approx(0.1651 * 17.28, rel=2e-3)
    assert hamon(20.0, 21600.0) == pytest.approx(hamon(20.0, 43200.0) / 2)


RIVER = Catchment(
    snow=None, soil=Soil(capacity=bd.between(20.0, 300.0)), lag=1.0, rain="P", demand="PET"
)


def river(number=60):
    """A river of a warm country, whose table has other names and no temperature, with flows of
    known parameters.
    """
    weather = days(number)
    columns = {
        "P": [float(u["rain"]) for u in weather],
        "PET": [float(u["demand"]) for u in weather],
    }
    variables = {name: ("time", values, {"units": "mm/day"}) for name, values in columns.items()}
    time = np.arange("2001-01-01", number, dtype="M8[D]").astype("M8[ns]")
    data = xr.Dataset(variables, {"time": time})
    known = dataclasses.replace(
        KNOWN, snow=None, soil=Soil(90.0, 3.0, 1.2, 0.6), rain="P", demand="PET"
    )
    truth = bd.Model(daily(known), bd.NormalNoise(1.0))
    inputs = truth.inputs(data)
    flow = np.asarray(jax.jit(lambda: truth.predict(inputs).values["flow"])())
    return data.assign(flow=("time", flow, {"units": "mm/day"}))


@pytest.mark.parametrize(
    "make", [lambda data: RIVER, lambda data: with_network(RIVER, data)], ids=["science", "hybrid"]
)
def test_a_river_without_snow_has_its_own_names_and_priors(make):
    """There is no snow among the stores and parameters, and no temperature in the data."""
    data = river()
    model = bd.Model(daily(make(data), soil=bd.between(20.0, 90.0)), {"flow": scattered()})
    assert model.layer.forcings == ("P", "PET") and "snow" not in model.layer.initial
    assert not [path for path in paths(model) if "snow" in path or "lag" in path]
    problem = pose(model, data)
    assert np.isfinite(jax.jit(lambda z: problem.log_density(z))(jnp.zeros(problem.dimension)))


def test_snow_makes_no_difference_where_it_is_hot():
    hot = jax.jit(dataclasses.replace(KNOWN, snow=None).day)
    snowless = {name: value for name, value in FULL.items() if name != "snow"}
    for u in days(5):
        stores, flow, _ = DAY(snowless | {"snow": 0.0}, u | {"temperature": jnp.asarray(40.0)})
        snowless, same, _ = hot(snowless, u)
        assert float(same) == pytest.approx(float(flow), rel=1e-9)
        assert float(stores.pop("snow")) == pytest.approx(0.0, abs=1e-9)
        np.testing.assert_allclose(jax.tree.leaves(stores), jax.tree.leaves(snowless), rtol=1e-9)


def test_no_water_is_made_or_lost_without_snow():
    known = realise(
        RIVER,
        {path: value[0] for path, value in draw_prior(RIVER, 1, key=jax.random.key(0)).items()},
    )
    day = jax.jit(lambda y, u: known.day(y, u))
    stores = {name: value for name, value in FULL.items() if name != "snow"}
    balance = sum(stores.values())
    for u in days(40):
        stores, flow, lost = day(stores, {"P": u["rain"], "PET": u["demand"]})
        balance += u["rain"] - flow - lost
    assert float(sum(stores.values())) == pytest.approx(float(balance), rel=1e-12)


def test_a_prior_of_the_user_takes_the_place_of_the_default():
    given = dist.LogNormal(0.0, 1.0)
    assert Catchment(quick=given).quick is given and Snow(ground=0.5).ground == 0.5


def test_something_else_is_no_catchment(unchecked):
    with pytest.raises(ModelError, match="daily takes a Catchment"):
        daily(3.0)


def test_a_store_that_the_catchment_lacks_is_refused():
    with pytest.raises(
        ModelError, match="no store 'snow': its stores are soil, quick, slow, first, second"
    ):
        daily(RIVER, snow=3.0)

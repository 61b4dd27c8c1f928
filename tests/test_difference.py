"""Difference equations against closed forms and loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import realise


class Bucket(bd.Module):
    """A store that rain fills and that drains by a share a day."""

    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": (1 - self.share) * y["store"] + u["rain"]}

    def flow(self, t, y, u):
        return {"flow": self.share * y["store"], "level": y["store"]}


DAYS = np.arange(0.0, 30.0)
RAIN = np.random.default_rng(0).gamma(0.5, 4.0, 30)
DATA = xr.Dataset({"rain": ("time", RAIN)}, {"time": DAYS})


def by_loop(share=0.3, store=10.0):
    stores = [store]
    for rain in RAIN[:-1]:
        stores.append((1 - share) * stores[-1] + rain)
    return np.array(stores)


def predicted(layer, data=DATA, values=None):
    model = bd.Model(layer, bd.NormalNoise(1.0))
    return realise(model, values or {}).predict(model.inputs(data))


def bucket(share=0.3, store=10.0, **more):
    return bd.Difference(
        Bucket(share), {"store": store}, Bucket.flow, **({"forcings": "rain"} | more)
    )


class TestAgainstALoop:
    @pytest.mark.thorough
    def test_states_and_fluxes(self):
        found = predicted(bucket())
        assert found.ok
        np.testing.assert_allclose(found.values["level"], by_loop(), rtol=1e-12)
        np.testing.assert_allclose(found.values["flow"], 0.3 * by_loop(), rtol=1e-12)

    @pytest.mark.thorough
    def test_at_some_of_the_days(self):
        some = DATA.isel(time=[0, 3, 4, 20])
        every = bd.Model(bucket(), bd.NormalNoise(1.0)).inputs(DATA)
        model = bd.Model(bucket(), bd.NormalNoise(1.0))
        found = model.predict(dataclasses.replace(every, times=jnp.asarray(some["time"].values)))
        np.testing.assert_allclose(found.values["level"], by_loop()[[0, 3, 4, 20]], rtol=1e-12)

    def test_steps_of_another_length(self):
        halving = bd.Difference(lambda t, y, u: {"x": y["x"] / 2}, {"x": 8.0}, length=0.5)
        found = predicted(halving, xr.Dataset(coords={"time": [1.0, 1.5, 3.0]}))
        np.testing.assert_allclose(found.values["x"], [8.0, 4.0, 0.5])

    def test_sums_and_means(self):
        found = predicted(bucket(sums={"flow": 7}, means={"level": None}))
        flow, level = 0.3 * by_loop(), by_loop()
        weekly = [flow[max(0, k - 6) : k + 1].sum() for k in range(30)]
        np.testing.assert_allclose(found.values["flow"], weekly, rtol=1e-12)
        np.testing.assert_allclose(
            found.values["level"], np.cumsum(level) / np.arange(1, 31), rtol=1e-12
        )

    @pytest.mark.thorough
    def test_gradient(self):
        def total(share):
            return jnp.sum(predicted(bucket(share)).values["flow"])

        h = 1e-6
        numerical = (total(0.3 + h) - total(0.3 - h)) / (2 * h)
        assert jax.grad(total)(0.3) == pytest.approx(float(numerical), rel=1e-6)


class TestFailure:
    @pytest.mark.thorough
    def test_is_a_value_with_a_finite_gradient(self):
        class Explodes(bd.Module):
            power: bd.Scalar

            def __call__(self, t, y, u):
                return {"x": jnp.exp(self.power * y["x"])}

        model = bd.Model(
            bd.Difference(Explodes(dist.LogNormal(0.0, 0.1)), {"x": 2.0}), bd.NormalNoise(1.0)
        )
        data = xr.Dataset({"x": ("time", np.ones(8))}, {"time": np.arange(8.0)})
        value, gradient = jax.jit(jax.value_and_grad(pose(model, data).log_density))(jnp.zeros(1))
        assert value == -np.inf and np.isfinite(gradient).all()

    def test_times_beside_the_grid_are_refused(self):
        model = bd.Model(bucket(dist.Beta(2.0, 2.0)), {"flow": bd.NormalNoise(1.0)})
        data = DATA.assign(flow=("time", RAIN)).assign_coords(time=np.append(DAYS[:-1], 29.5))
        with pytest.raises(DataError, match=r"29\.5 lies between two steps"):
            bd.fit(model, data, progress=False)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"length": 0.0}, "length of a step must be positive"),
            ({"sums": {"rain": 7}}, "sums and means are of flow, level"),
            ({"sums": {"flow": 0}}, "whole number of steps"),
            ({"sums": {"flow": 7}, "means": {"flow": 7}}, "either a sum or a mean"),
        ],
    )
    def test_refusals(self, more, message):
        with pytest.raises(ModelError, match=message):
            bucket(**more)

    def test_other_states_are_refused(self):
        model = bd.Model(
            bd.Difference(lambda t, y, u: {"z": y["x"]}, {"x": 1.0}),
            bd.NormalNoise(dist.HalfNormal(1.0)),
        )
        with pytest.raises(ModelError, match="the step returns z, but the states are x"):
            pose(model, xr.Dataset({"x": ("time", np.ones(3))}, {"time": np.arange(3.0)}))


@pytest.mark.thorough
def test_fit_and_forecast():
    truth = 0.3 * by_loop()
    rng = np.random.default_rng(1)
    data = DATA.assign(flow=("time", truth * np.exp(0.1 * rng.normal(size=30))))
    model = bd.Model(
        bucket(dist.Beta(2.0, 2.0), dist.LogNormal(2.0, 0.5)),
        {"flow": bd.LogNormalNoise(dist.HalfNormal(0.5))},
    )
    train, test = bd.split(data, time=20)
    post = bd.fit(model, train, bd.NUTS(chains=2, draws=300), progress=False)
    low, high = np.quantile(post["posterior"]["share"], [0.005, 0.995])
    assert low < 0.3 < high and high - low < 0.1
    fc = bd.forecast(model, post, data)
    assert float(bd.score(fc, test).loc["flow", "coverage_95"]) > 0.6
    np.testing.assert_allclose(
        fc["unobserved"]["level"].mean(("chain", "draw"))[-5:], by_loop()[-5:], rtol=0.2
    )

"""The model as a NumPyro model: its density against SciPy, its draws, missing data, failure, and
what it refuses.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.handlers import seed, trace
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy import stats

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.layers import AbstractLayer, Prediction
from bayes_dasl.model import check_data
from bayes_dasl.prediction import push
from bayes_dasl.random import paths, realise

RTOL = 1e-8
TIMES = np.array([0.0, 0.5, 1.0, 2.0])


class Decay(bd.Module):
    rate: bd.Scalar = bd.field(units="1/h")

    def __call__(self, t, y, u):
        return {"a": -self.rate * y["a"], "b": self.rate * y["a"]}


class Line(AbstractLayer):
    """a = slope · t and b = 1 + t: a layer without a solver."""

    slope: Any
    forcings: tuple[str, ...] = eqx.field(default=(), static=True)
    units: dict[str, str] = eqx.field(default_factory=dict, static=True)

    @property
    def outputs(self):
        return ("a", "b")

    def __call__(self, inputs):
        values = {"a": self.slope * inputs.times, "b": 1 + inputs.times}
        return Prediction(values, jnp.asarray(True), {"steps": jnp.asarray(1)})


def dataset(**variables):
    return xr.Dataset({name: ("time", v) for name, v in variables.items()}, {"time": TIMES})


DATA = dataset(a=[1.9, np.nan, 1.1, 0.4], b=[0.1, 0.7, np.nan, np.nan])
RATE, START, SCALE = dist.LogNormal(-0.5, 0.4), dist.Gamma(4.0, 2.0), dist.HalfNormal(0.5)


def decay(units=None):
    layer = bd.ODE(Decay(RATE), {"a": START, "b": 0.0}, units=units or {}, rtol=RTOL, atol=RTOL)
    return bd.Model(layer, {"a": bd.LogNormalNoise(SCALE), "b": bd.NormalNoise(0.3)})


def line(slope=None, noise=None):
    slope = dist.Normal(1.0, 0.5) if slope is None else slope
    return bd.Model(Line(slope), bd.NormalNoise(SCALE) if noise is None else noise)


def density_by_hand(params, spread=0.3, swap=False):
    """Prior and likelihood of `decay` in SciPy, from the closed form of its equations."""
    rate, start, scale = (
        params[p] for p in ("layer.vector_field.rate", "layer.initial.a", "noise.a.scale")
    )
    a = start * np.exp(-rate * TIMES)
    data = {"a": DATA["a"].values, "b": DATA["b"].values}
    if swap:
        data = {"a": data["b"], "b": data["a"]}
    seen = {name: ~np.isnan(y) for name, y in data.items()}
    prior = stats.lognorm(0.4, scale=np.exp(-0.5)).logpdf(rate) + stats.gamma(4, scale=0.5).logpdf(
        start
    )
    return (
        prior
        + stats.halfnorm(scale=0.5).logpdf(scale)
        + stats.lognorm(scale, scale=a).logpdf(data["a"])[seen["a"]].sum()
        + stats.norm(start - a, spread).logpdf(data["b"])[seen["b"]].sum()
    )


@pytest.fixture(scope="module")
def value_and_gradient():
    """Log density of `decay` and its gradient, compiled once."""
    return jax.jit(jax.value_and_grad(lambda params: log_density(decay(), (DATA,), {}, params)[0]))


class TestDensity:
    points = tuple(
        dict(
            zip(
                ("layer.vector_field.rate", "layer.initial.a", "noise.a.scale"), values, strict=True
            )
        )
        for values in ((0.8, 2.0, 0.3), (0.3, 1.2, 0.9))
    )

    @pytest.mark.parametrize("params", points)
    def test_against_scipy(self, value_and_gradient, params):
        ours = float(value_and_gradient(params)[0])
        assert ours == pytest.approx(density_by_hand(params), abs=1000 * RTOL)
        for wrong in ({"spread": 1.2 * 0.3}, {"swap": True}):
            assert ours != pytest.approx(density_by_hand(params, **wrong), abs=0.01)

    @pytest.mark.parametrize("params", points)
    def test_gradient_against_central_differences(self, value_and_gradient, params):
        gradient, step = value_and_gradient(params)[1], 1e-5
        for name, value in params.items():
            high, low = (density_by_hand(params | {name: value + sign * step}) for sign in (1, -1))
            assert float(gradient[name]) == pytest.approx((high - low) / (2 * step), rel=1e-5), name

    def test_missing_data_change_nothing(self):
        params = {"layer.slope": 1.1, "noise.scale": 0.4}
        full = dataset(a=[0.1, 0.4, 1.2, 2.2], b=[1.0, 1.4, 2.2, 2.9])
        gaps = full.where(full["time"] != 1.0)
        whole, part = (float(log_density(line(), (d,), {}, params)[0]) for d in (full, gaps))
        lost = stats.norm([1.1, 2.0], 0.4).logpdf([1.2, 2.2]).sum()
        assert whole - part == pytest.approx(lost)


class TestFailure:
    def test_has_density_minus_infinity_and_a_finite_gradient(self):
        field = RiseField(dist.HalfNormal(1.0))
        model = bd.Model(bd.ODE(field, {"y": 1.0}, max_steps=128), bd.LogNormalNoise(0.5))
        data = dataset(y=[1.0, np.nan, 1.5, 2.0])

        def density(rise):
            return log_density(model, (data,), {}, {"layer.vector_field.rise": rise})[0]

        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(density)))(jnp.asarray([0.2, 3.0]))
        assert np.isfinite(values[0])
        assert values[1] == -np.inf
        assert np.isfinite(gradients).all()

        draws = {"layer.vector_field.rise": np.array([0.2, 3.0])}
        pushed = push(model, model.inputs(data), draws, observed=check_data(model, data))
        assert pushed.ok.tolist() == [True, False]
        assert np.isnan(pushed.mean["y"]).all(1).tolist() == [False, True]
        likelihood = stats.lognorm(0.5, scale=1 / (1 - 0.2 * TIMES)).logpdf(data["y"])
        np.testing.assert_allclose(pushed.log_likelihood["y"][0], likelihood, rtol=1e-4)
        np.testing.assert_array_equal(
            pushed.log_likelihood["y"][1], [-np.inf, np.nan, -np.inf, -np.inf]
        )


class RiseField(bd.Module):
    """y' = k y² leaves every bound at t = 1 / k."""

    rise: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rise * y["y"] ** 2}


class TestNumPyro:
    def test_sites(self):
        with trace() as sites, seed(rng_seed=0):
            line()(DATA)
        assert set(sites) == {"layer.slope", "noise.scale", "solver_ok", "a", "b"}
        assert [name for name in "ab" if sites[name]["is_observed"]] == ["a", "b"]
        np.testing.assert_array_equal(np.isnan(DATA["a"]), sites["a"]["value"] != DATA["a"])

    def test_what_the_data_lack_is_drawn(self):
        with trace() as sites, seed(rng_seed=0):
            line()(DATA[["a"]])
        assert {name: sites[name]["is_observed"] for name in "ab"} == {"a": True, "b": False}
        assert sites["b"]["value"].shape == TIMES.shape

    @pytest.mark.thorough
    @pytest.mark.parametrize("spread", [0.3, 0.36])
    def test_predictive_draws_the_observables(self, spread):
        model = line(noise={"a": bd.NormalNoise(spread), "b": bd.LogNormalNoise(0.2)})
        draws = Predictive(model, num_samples=3000)(jax.random.key(0), model.inputs(DATA))
        assert {"a", "b", "layer.slope"} <= set(draws)
        first = stats.kstest(draws["a"][:, 0], stats.norm(0, 0.3).cdf).pvalue
        assert (first > 1e-3) == (spread == 0.3)
        slope = stats.norm(TIMES[-1], np.hypot(0.5 * TIMES[-1], spread))
        assert stats.kstest(draws["a"][:, -1], slope.cdf).pvalue > 1e-3
        assert stats.kstest(draws["b"][:, 2], stats.lognorm(0.2, scale=2).cdf).pvalue > 1e-3

    @pytest.mark.thorough
    def test_predictive_takes_inputs_of_any_times(self):
        later = bd.inputs(xr.Dataset(coords={"time": np.arange(9.0)}))
        assert Predictive(line(), num_samples=2)(jax.random.key(0), later)["b"].shape == (2, 9)


class TestNoise:
    def test_one_for_all_is_one_random_leaf(self):
        model = line()
        assert list(paths(model)) == ["layer.slope", "noise.scale"]
        assert model.observables == ("a", "b")
        assert model.noise_of("a") is model.noise_of("b")
        params = {"layer.slope": 1.0, "noise.scale": 0.7}
        likelihood = (
            stats.norm(TIMES, 0.7).logpdf(DATA["a"]),
            stats.norm(1 + TIMES, 0.7).logpdf(DATA["b"]),
        )
        prior = stats.norm(1, 0.5).logpdf(1.0) + stats.halfnorm(scale=0.5).logpdf(0.7)
        expected = prior + np.nansum(likelihood)
        assert float(log_density(model, (DATA,), {}, params)[0]) == pytest.approx(expected)

    def test_a_dict_gives_each_its_own_and_may_leave_some_out(self):
        both = line(noise={"b": bd.NormalNoise(SCALE), "a": bd.NormalNoise(dist.HalfNormal(0.5))})
        assert [p for p in paths(both) if "noise" in p] == ["noise.a.scale", "noise.b.scale"]
        assert line(noise={"b": bd.NormalNoise(SCALE)}).observables == ("b",)

    def test_conditional_distribution(self):
        model = realise(line(noise={"a": bd.NormalNoise(0.3), "b": bd.LogNormalNoise(SCALE)}), DRAW)
        given = model.conditional(model.layer(model.inputs(DATA)), model.inputs(DATA))
        np.testing.assert_allclose(given["a"].mean, 2 * TIMES)
        np.testing.assert_allclose(given["b"].mean, stats.lognorm(0.5, scale=1 + TIMES).mean())

    def test_the_second_output_alone_is_seen_as_itself(self):
        model = realise(line(noise={"b": bd.NormalNoise(SCALE)}), DRAW)
        given = model.conditional(model.layer(model.inputs(DATA)), model.inputs(DATA))
        assert list(given) == ["b"]
        np.testing.assert_allclose(given["b"].mean, 1 + TIMES)

    @pytest.mark.parametrize(
        ("noise", "message"),
        [
            (
                {"c": bd.NormalNoise(1.0)},
                "observable 'c' is not an output of the model; its outputs are a, b",
            ),
            ({"a": 1.0}, "noise must be a noise model such as bd.NormalNoise"),
            (1.0, "noise must be a noise model such as bd.NormalNoise"),
        ],
    )
    def test_refused(self, unchecked, noise, message):
        with pytest.raises(ModelError, match=message):
            line(noise=noise)


DRAW = {"layer.slope": jnp.asarray(2.0), "noise.b.scale": jnp.asarray(0.5)}


class TestPriorsAreReplaced:
    def test_by_tree_at(self):
        other = eqx.tree_at(lambda m: m.layer.slope, line(), dist.Normal(5.0, 2.0))
        params = {"layer.slope": 1.4, "noise.scale": 0.4}
        before, after = (float(log_density(m, (DATA,), {}, params)[0]) for m in (line(), other))
        expected = stats.norm(5, 2).logpdf(1.4) - stats.norm(1, 0.5).logpdf(1.4)
        assert after - before == pytest.approx(expected)

    def test_by_a_number(self):
        fixed = eqx.tree_at(lambda m: m.layer.slope, line(), 3.0)
        assert list(paths(fixed)) == ["noise.scale"]


UNITS = {"a": "mg/L", "b": "mg/L"}


class TestData:
    good = dataset(a=[1.9, 1.5, np.nan, 0.4], b=[0.1, 0.7, 1.0, 1.2])

    @pytest.mark.thorough
    def test_accepted(self):
        observed = check_data(decay(UNITS), self.good)
        assert list(observed) == ["a", "b"]
        np.testing.assert_array_equal(observed["a"], self.good["a"])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d[["a"]], "observable 'b' is not in the data; they hold a"),
            (
                lambda d: d.assign(a=d["a"] - 1.5),
                r"'a' is \S+ at time 0\.5, which LogNormalNoise rules out: its data are greater "
                r"than 0",
            ),
            (
                lambda d: d.assign(b=d["b"].assign_attrs(units="kg")),
                "'b' is in 'kg' but the model works in 'mg/L'",
            ),
            (lambda d: d.assign(b=d["b"] * np.inf), "'b' is infinite at time 0"),
            (lambda d: d.isel(time=[1, 0]), "time must increase"),
        ],
    )
    def test_refused(self, change, message):
        with pytest.raises(DataError, match=message):
            check_data(decay(UNITS), change(self.good))

    @pytest.mark.thorough
    def test_units_that_agree(self):
        check_data(decay(UNITS), self.good.assign(b=self.good["b"].assign_attrs(units="mg/L")))

    def test_units_of_parameters_and_states(self):
        units = {path: leaf.units for path, leaf in paths(decay(UNITS)).items()}
        assert units == {
            "layer.vector_field.rate": "1/h",
            "layer.initial.a": "mg/L",
            "noise.a.scale": "",
        }

    @pytest.mark.parametrize("given", [None, -1.0])
    def test_start_of_the_layer(self, given):
        layer = bd.ODE(Decay(RATE), {"a": 1.0, "b": 0.0}, start=given)
        model = bd.Model(layer, bd.NormalNoise(1.0))
        assert float(model.inputs(self.good).start) == (0.0 if given is None else given)
        assert float(model.inputs(self.good, start=-2.0).start) == -2.0

    def test_a_missing_forcing_is_refused(self):
        layer = bd.ODE(Decay(RATE), {"a": 1.0, "b": 0.0}, forcings=("rain",))
        with pytest.raises(DataError, match="forcing 'rain' is not in the data; they hold a, b"):
            check_data(bd.Model(layer, bd.NormalNoise(1.0)), self.good)

    def test_counts_must_be_whole(self):
        with pytest.raises(
            DataError,
            match=r"observable 'b' is \S+ at time \S+, which PoissonNoise rules out: its data are "
            r"whole numbers",
        ):
            check_data(line(noise={"b": bd.PoissonNoise()}), self.good)


class TestRefusals:
    """What is wrong with a model is said before anything is compiled."""

    data = TestData.good

    def test_nothing_is_random(self):
        with pytest.raises(ModelError, match="nothing in the model is random"):
            check_data(line(1.0, bd.NormalNoise(1.0)), self.data)

    @pytest.mark.parametrize(
        ("layer", "kind"), [(1.0, "float"), (bd.NormalNoise(1.0), "NormalNoise")]
    )
    def test_no_layer(self, unchecked, layer, kind):
        with pytest.raises(ModelError, match=f"layer must be a layer such as bd.ODE, not {kind}"):
            bd.Model(layer, bd.NormalNoise(1.0))

    def test_no_model(self, unchecked):
        with pytest.raises(ModelError, match=r"model must be a bd\.Model, not Line"):
            check_data(Line(1.0), self.data)

    def test_a_prior_over_several_numbers_is_named(self):
        slope = dist.Normal(jnp.zeros(3), 1.0)
        with pytest.raises(ModelError, match=r"look at the distributions .*: layer.slope \(3,\)"):
            check_data(line(slope), self.data)

    def test_a_prediction_of_another_shape_is_named(self, unchecked):
        model = line(dist.Normal(jnp.zeros((2, 1)), 1.0))
        with pytest.raises(
            ModelError, match=r"the model gives 'a' the shape \(2, 4\), .* is needed: \(4,\)"
        ):
            check_data(model, self.data)

    @pytest.mark.parametrize(
        "rates",
        [
            lambda t, y, u: {"y": jnp.ones(2)},
            lambda t, y, u: {"y": "fast"},
            lambda t, y: {"y": 1.0},
        ],
    )
    def test_a_vector_field_that_cannot_be_evaluated(self, rates):
        model = bd.Model(bd.ODE(rates, {"y": RATE}), bd.NormalNoise(1.0))
        with pytest.raises(ModelError, match="the model cannot be evaluated"):
            check_data(model, dataset(y=np.ones(4)))

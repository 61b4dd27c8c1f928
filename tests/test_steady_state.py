"""Steady states against closed forms: values, gradients, which one is found, failure, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.optimize import minimize

import bayes_dasl as bd
from bayes_dasl import SteadyState
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose

ALGEBRA = 10 * np.sqrt(np.finfo(float).eps)
DILUTION = np.array([0.1, 0.2, 0.3, 0.5])
FED = 10.0


def given(index="reactor", rows=4, **forcings):
    data = xr.Dataset(
        {name: (index, v) for name, v in forcings.items()}, {index: np.arange(float(rows))}
    )
    return bd.inputs(data, forcings=list(forcings), index=index)


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


class Chemostat(bd.Module):
    """Monod growth in a stirred vessel."""

    mu: bd.Scalar
    half: bd.Scalar
    gain: bd.Scalar

    def __call__(self, t, y, u):
        growth = self.mu * y["s"] / (self.half + y["s"]) * y["x"]
        return {"x": growth - u["d"] * y["x"], "s": u["d"] * (FED - y["s"]) - growth / self.gain}


PARAMETERS = jnp.asarray([0.8, 1.2, 0.4])


def chemostat(p=PARAMETERS, **options):
    options = {"forcings": ("d",), "index": "reactor"} | options
    return SteadyState(Chemostat(*p), {"x": 0.1, "s": 9.0}, **options)


def closed_form(p):
    mu, half, gain = p
    substrate = half * DILUTION / (mu - DILUTION)
    return {"x": gain * (FED - substrate), "s": substrate}


class TestChemostat:
    inputs = given(d=DILUTION)

    @pytest.mark.thorough
    def test_values_and_gradients(self):
        weights = np.random.default_rng(0).normal(size=4)

        def loss(values):
            return jnp.sum(weights * values["x"]) + jnp.sum(values["s"] ** 2)

        def ours(p):
            prediction = chemostat(p)(self.inputs)
            return loss(prediction.values), prediction

        batch = PARAMETERS * jnp.asarray([[1.0, 1.0, 1.0], [1.2, 0.9, 1.1]])
        exact = jax.jit(jax.vmap(jax.grad(lambda p: loss(closed_form(p)))))(batch)
        reverse = jax.jit(jax.value_and_grad(ours, has_aux=True))
        forward = jax.jit(jax.jacfwd(ours, has_aux=True))
        for p, slopes in zip(batch, exact, strict=True):
            np.testing.assert_allclose(reverse(p)[1], slopes, rtol=1e-6)
            np.testing.assert_allclose(forward(p)[0], slopes, rtol=1e-6)
        finite = [
            reverse(PARAMETERS + d)[0][0] - reverse(PARAMETERS - d)[0][0] for d in 1e-5 * np.eye(3)
        ]
        np.testing.assert_allclose(np.array(finite) / 2e-5, exact[0], rtol=1e-6)
        prediction = reverse(PARAMETERS)[0][1]
        assert bool(prediction.ok)
        for name, form in closed_form(PARAMETERS).items():
            np.testing.assert_allclose(prediction.values[name], form, atol=ALGEBRA)
        washed_out = reverse(PARAMETERS * jnp.asarray([0.1, 1.0, 1.0]))[0][1]
        assert bool(washed_out.ok)
        np.testing.assert_allclose(washed_out.values["x"], 0, atol=ALGEBRA)
        np.testing.assert_allclose(washed_out.values["s"], FED, atol=ALGEBRA)

    @pytest.mark.thorough
    def test_observe(self):
        class Ratio(bd.Module):
            gain: bd.Scalar

            def __call__(self, t, y, u):
                return {"ratio": self.gain * y["x"] / u["d"] + t}

        layer = chemostat(observe=Ratio(2.0))
        assert layer.outputs == ("ratio",)
        assert chemostat().outputs == ("x", "s")
        assert chemostat().states == 2
        expected = 2 * closed_form(PARAMETERS)["x"] / DILUTION + np.arange(4)
        np.testing.assert_allclose(
            solve(layer, self.inputs).values["ratio"], expected, atol=ALGEBRA
        )


class Harvested(bd.Module):
    harvest: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": y["y"] * (1 - y["y"]) - self.harvest}


class Relaxing(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rate * (2 - y["y"])}


class TestWhichOneIsFound:
    def harvested(self, guess, harvest=0.1):
        """y' = y (1 - y) - h has the stable state (1 + sqrt(1 - 4 h)) / 2 and an unstable one."""
        return solve(
            SteadyState(Harvested(jnp.asarray(harvest)), {"y": jnp.asarray(guess)}),
            given("time", 1),
        )

    @pytest.mark.thorough("0.12", "0.5")
    @pytest.mark.parametrize("guess", [0.12, 0.5, 30.0])
    def test_the_one_that_attracts(self, guess):
        prediction = self.harvested(guess)
        assert bool(prediction.ok)
        assert float(prediction.values["y"][0]) == pytest.approx(
            (1 + np.sqrt(0.6)) / 2, abs=ALGEBRA
        )

    def test_from_near_an_unstable_one(self):
        """Newton's method alone would stay at zero."""
        assert float(self.harvested(1e-9, harvest=0.0).values["y"][0]) == pytest.approx(
            1.0, abs=ALGEBRA
        )

    @pytest.mark.thorough
    def test_the_guess_selects(self):
        bistable = lambda t, y, u: {"y": y["y"] - y["y"] ** 3}  # noqa: E731
        for guess, expected in ((0.1, 1.0), (-0.1, -1.0)):
            values = solve(
                SteadyState(bistable, {"y": jnp.asarray(guess)}), given("time", 1)
            ).values["y"]
            assert float(values[0]) == pytest.approx(expected, abs=ALGEBRA)

    @pytest.mark.thorough("1e-09", "1000000000.0")
    @pytest.mark.parametrize("rate", [1e-9, 1.0, 1e9])
    def test_whatever_the_unit_of_time(self, rate):
        prediction = solve(SteadyState(Relaxing(jnp.asarray(rate)), {"y": 1.0}), given("time", 1))
        assert bool(prediction.ok)
        assert float(prediction.values["y"][0]) == pytest.approx(2.0, abs=ALGEBRA)

    @pytest.mark.slow
    def test_enzyme_kinetics(self):
        """Fed at a rate f, a Michaelis–Menten reaction holds s at k f / (v - f)."""
        fed = np.array([0.1, 0.5, 0.9])
        field = lambda t, y, u: {"s": u["f"] - 1.0 * y["s"] / (0.3 + y["s"])}  # noqa: E731
        layer = SteadyState(field, {"s": 0.0}, forcings=("f",), index="sample")
        prediction = solve(layer, given("sample", 3, f=fed))
        np.testing.assert_allclose(prediction.values["s"], 0.3 * fed / (1 - fed), atol=ALGEBRA)


FAILING = {
    "it oscillates": (lambda t, y, u: {"a": y["b"], "b": -y["a"]}, {"a": 1.0, "b": 0.0}),
    "it grows": (lambda t, y, u: {"a": y["a"]}, {"a": 1.0}),
    "it explodes": (lambda t, y, u: {"a": y["a"] ** 2}, {"a": 1.0}),
    "it leaves where rates exist": (lambda t, y, u: {"a": -1 - jnp.sqrt(y["a"])}, {"a": 1.0}),
    "there is none": (lambda t, y, u: {"a": y["a"] * (1 - y["a"]) - 0.3}, {"a": 0.5}),
    "a total is conserved": (
        lambda t, y, u: {"a": y["b"] - y["a"], "b": y["a"] - y["b"]},
        {"a": 1.0, "b": 0.0},
    ),
}


REVERSE = ("it leaves where rates exist", "there is none", "a total is conserved")


class TestFailure:
    @pytest.mark.thorough(
        "it oscillates-False",
        "it explodes-False",
        "it leaves where rates exist-True",
        "a total is conserved-True",
    )
    @pytest.mark.parametrize(
        ("reason", "reverse"),
        [
            *(
                pytest.param(
                    reason,
                    reason in REVERSE,
                    marks=pytest.mark.slow if reason == "it grows" else (),
                )
                for reason in FAILING
            ),
            *(
                pytest.param(reason, reason not in REVERSE, marks=pytest.mark.slow)
                for reason in FAILING
            ),
        ],
    )
    def test_is_flagged(self, reason, reverse):
        field, guess = FAILING[reason]

        def solve(scale):
            scaled = lambda t, y, u: {name: scale * rate for name, rate in field(t, y, u).items()}  # noqa: E731
            prediction = SteadyState(scaled, guess, max_steps=200)(given("time", 1))
            value = jnp.sum(prediction.values["a"])
            return value, (value, prediction.ok)

        differentiate = jax.grad if reverse else jax.jacfwd
        gradient, (value, ok) = jax.jit(differentiate(solve, has_aux=True))(1.0)
        assert not bool(ok)
        assert float(gradient) == 0.0
        assert np.isfinite(value)


class TestInAModel:
    model = bd.Model(
        chemostat((bd.between(0.6, 1.0), bd.between(0.5, 3.0), bd.between(0.2, 0.8))),
        noise={"x": bd.NormalNoise(0.05), "s": bd.NormalNoise(0.05)},
    )
    noise = np.random.default_rng(3).normal(0, 0.05, (2, 4))
    data = xr.Dataset(
        {
            "d": ("reactor", DILUTION),
            "x": ("reactor", np.asarray(closed_form(PARAMETERS)["x"]) + noise[0]),
            "s": ("reactor", np.asarray(closed_form(PARAMETERS)["s"]) + noise[1]),
        },
        {"reactor": np.arange(4.0)},
    )

    @pytest.mark.slow
    def test_gradient_of_the_posterior(self):
        """And its top, which lies as near to the truth as its curvature says."""
        problem = pose(self.model, self.data)
        density = jax.jit(jax.value_and_grad(problem.log_density))
        position = np.asarray(problem.prior(1, key=jax.random.key(0))[0])
        value, gradient = density(position)
        assert np.isfinite(value)
        numerical = [
            float(density(position + d)[0] - density(position - d)[0]) / 2e-5
            for d in 1e-5 * np.eye(3)
        ]
        np.testing.assert_allclose(gradient, numerical, rtol=1e-5)
        top = minimize(lambda x: [-np.asarray(v) for v in density(x)], position, jac=True).x
        curvature = [(density(top - d)[1] - density(top + d)[1]) / 2e-4 for d in 1e-4 * np.eye(3)]
        sd = np.sqrt(np.diag(np.linalg.inv(curvature)))
        truth = dict(zip(("mu", "half", "gain"), PARAMETERS, strict=True))
        truth = problem.unconstrain({path: truth[path.split(".")[-1]] for path in problem.sites})
        assert (np.abs(top - truth) < 3 * sd).all()
        assert (sd < 0.5).all()

    @pytest.mark.slow
    def test_fit(self):
        post = bd.fit(self.model, self.data, bd.NUTS(chains=2, warmup=150, draws=150), key=0)[
            "posterior"
        ]
        for name, truth in zip(("mu", "half", "gain"), PARAMETERS, strict=True):
            low, high = np.quantile(post[name], [0.005, 0.995])
            assert low < truth < high


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"guess": {}}, "guess must be a dict"),
            (
                {"guess": {"x": dist.Normal(0.0, 1.0)}},
                r"guess\['x'\] only says where the system starts",
            ),
            ({"guess": {"x": np.ones(2)}}, r"guess\['x'\] must be a number"),
            ({"rtol": 0.0}, "rtol and atol must be positive"),
            ({"max_steps": 0}, "max_steps at least 1"),
        ],
    )
    def test_when_built(self, options, message):
        options = {
            "vector_field": Chemostat(1.0, 1.0, 1.0),
            "guess": {"x": 1.0, "s": 1.0},
        } | options
        with pytest.raises(ModelError, match=message):
            SteadyState(**options)

    def test_rates_of_other_states(self):
        layer = SteadyState(lambda t, y, u: {"z": 1.0}, {"y": 1.0})
        with pytest.raises(
            ModelError, match="the vector field returns rates for z but the states are y"
        ):
            layer(given("time", 1))

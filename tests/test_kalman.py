"""The Kalman layer against Gaussian processes, dense joint Gaussians and a particle filter."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from arviz_stats.base.array import array_stats
from scipy.linalg import expm
from scipy.stats import multivariate_normal, norm
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.data import Inputs
from bayes_dasl.data.layer_inputs import Past
from bayes_dasl.equations import SDE
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.filtering import Kalman
from bayes_dasl.inference import pose
from bayes_dasl.random import paths

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
# Errors of the solver add up over some tens of intervals and steps.
GLOBAL = 100 * TIGHT["rtol"]


def given(times, past=None, start=0.0, forcings=None, **values):
    """Inputs at some times; `past` are the times of the observations `values`, by default the same
    times.
    """
    seen = Past(
        jnp.asarray(times if past is None else past), {n: jnp.asarray(v) for n, v in values.items()}
    )
    return Inputs(
        jnp.asarray(start), jnp.asarray(times), forcings or {}, past=seen if values else None
    )


@eqx.filter_jit
def filtered(layer, inputs, variances):
    return layer(inputs, variances)


def log_likelihood(prediction, variances, observed):
    """The sum over all data that are not missing."""
    total = 0.0
    for name, y in observed.items():
        sd = jnp.sqrt(prediction.variances[name] + variances[name])
        density = dist.Normal(prediction.values[name], sd).log_prob(jnp.nan_to_num(y))
        total += jnp.sum(jnp.where(jnp.isnan(y), 0.0, density))
    return total


class Reversion(bd.Module):
    """The drift of an Ornstein–Uhlenbeck process."""

    rate: Any
    mean: Any

    def __call__(self, t, y, u):
        return {"x": self.rate * (self.mean - y["x"])}


RATE, LEVEL, AMPLITUDE, START, START_SD, NOISE = 0.7, 1.3, 0.5, 0.4, 0.3, 0.2


def process(rate=RATE, mean=LEVEL, amplitude=AMPLITUDE, first=START, first_sd=START_SD, **options):
    return Kalman(
        Reversion(rate, mean), {"x": amplitude}, {"x": first}, {"x": first_sd}, **TIGHT | options
    )


def mean_of(t):
    return LEVEL + (START - LEVEL) * np.exp(-RATE * t)


def covariance_of(s, t):
    """Of the Ornstein–Uhlenbeck process, between two sets of times."""
    s, t = np.asarray(s)[:, None], np.asarray(t)[None]
    stationary = AMPLITUDE**2 / (2 * RATE)
    return (START_SD**2 - stationary) * np.exp(-RATE * (s + t)) + stationary * np.exp(
        -RATE * np.abs(s - t)
    )


def draw_process(times, seed):
    """Data of the process, from its joint Gaussian."""
    joint = covariance_of(times, times) + NOISE**2 * np.eye(len(times))
    # The default, by singular values, gives other draws on other machines.
    return np.random.default_rng(seed).multivariate_normal(
        mean_of(times), joint, method="cholesky"
    ), joint


class TestOrnsteinUhlenbeck:
    times = np.sort(np.random.default_rng(0).uniform(0.1, 8.0, 15))

    def test_marginal_likelihood(self):
        y, joint = draw_process(self.times, 1)
        prediction = filtered(process(), given(self.times, x=y), {"x": NOISE**2})
        assert bool(prediction.ok)
        exact = multivariate_normal(mean_of(self.times), joint).logpdf(y)
        assert float(log_likelihood(prediction, {"x": NOISE**2}, {"x": y})) == pytest.approx(
            exact, abs=1e-8
        )

    def test_missing_values(self):
        y, joint = draw_process(self.times, 2)
        y[[0, 4, 5, 14]] = np.nan
        seen = ~np.isnan(y)
        prediction = filtered(process(), given(self.times, x=y), {"x": NOISE**2})
        exact = multivariate_normal(mean_of(self.times)[seen], joint[np.ix_(seen, seen)]).logpdf(
            y[seen]
        )
        assert float(log_likelihood(prediction, {"x": NOISE**2}, {"x": y})) == pytest.approx(
            exact, abs=1e-8
        )

    def test_forecast_uses_what_lies_strictly_before(self):
        y, joint = draw_process(self.times, 3)
        asked = np.sort(np.concatenate([self.times[3:6], [0.0, 0.05, 2.0, 5.0, 8.5, 20.0]]))
        prediction = filtered(process(), given(asked, self.times, x=y), {"x": NOISE**2})
        for i, t in enumerate(asked):
            known = self.times < t
            gain = np.linalg.solve(
                joint[np.ix_(known, known)], covariance_of(self.times[known], [t])
            )[:, 0]
            mean = mean_of(t) + gain @ (y - mean_of(self.times))[known]
            variance = (
                covariance_of([t], [t])[0, 0] - gain @ covariance_of(self.times[known], [t])[:, 0]
            )
            assert float(prediction.values["x"][i]) == pytest.approx(mean, abs=GLOBAL)
            assert float(prediction.variances["x"][i]) == pytest.approx(variance, abs=GLOBAL)

    @pytest.mark.thorough("False")
    @pytest.mark.parametrize("past", [False, True])
    def test_without_observations(self, past):
        inputs = given(self.times, x=np.full(15, np.nan)) if past else given(self.times)
        prediction = filtered(process(), inputs, {"x": NOISE**2})
        np.testing.assert_allclose(prediction.values["x"], mean_of(self.times), atol=GLOBAL)
        np.testing.assert_allclose(
            prediction.variances["x"], np.diag(covariance_of(self.times, self.times)), atol=GLOBAL
        )

    @pytest.mark.slow
    def test_traced_or_known_times_are_the_same(self):
        y, _ = draw_process(self.times, 4)
        inputs = given(self.times[2:], self.times, x=y)
        known = jax.jit(lambda: process()(inputs, {"x": NOISE**2}))()
        traced = filtered(process(), inputs, {"x": NOISE**2})
        np.testing.assert_allclose(known.values["x"], traced.values["x"], atol=1e-13)
        np.testing.assert_allclose(known.variances["x"], traced.variances["x"], atol=1e-13)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("scale", "atol"),
        [pytest.param(1e-4, 1e-6, marks=pytest.mark.slow), (1.0, 0.1), (1e4, 1e-6)],
    )
    def test_tolerance_is_relative_to_the_spread(self, scale, atol):
        """Whatever the units, and whatever `atol` of the states,
        covariances are right to `rtol`.
        """
        y, _ = draw_process(self.times, 5)
        parts = {"mean": LEVEL, "amplitude": AMPLITUDE, "first": START, "first_sd": START_SD}
        layer = process(
            **{name: scale * part for name, part in parts.items()}, rtol=1e-6, atol=atol
        )
        exact = filtered(process(), given(self.times, x=y), {"x": NOISE**2}).variances["x"]
        ours = filtered(
            layer, given(self.times, x=scale * y), {"x": (scale * NOISE) ** 2}
        ).variances["x"]
        np.testing.assert_allclose(ours / scale**2, exact, rtol=1e-5)


class TestTwoStates:
    """A linear system with two observables at each time, some missing, against the dense joint
    Gaussian.
    """

    matrix = np.array([[-0.4, 0.9], [-1.1, -0.3]])
    amplitude, level, mean = np.array([0.3, 0.6]), np.array([0.5, -0.2]), np.array([1.0, 0.2])
    sd, gains, noise = (
        np.array([0.4, 0.0]),
        np.array([[1.0, 0.5], [-0.3, 2.0]]),
        np.array([0.04, 0.25]),
    )
    times = np.array([0.0, 0.3, 0.9, 1.0, 2.4, 4.0])
    missing = ((1, 0), (3, 1), (4, 0), (4, 1))

    def layer(self, **options):
        a, b, c, d = self.matrix.ravel()

        def drift(t, y, u):
            return {
                "p": a * y["p"] + b * y["q"] + self.level[0],
                "q": c * y["p"] + d * y["q"] + self.level[1],
            }

        def observe(t, y, u):
            return {
                name: g[0] * y["p"] + g[1] * y["q"]
                for name, g in zip("ab", self.gains, strict=True)
            }

        parts = ({"p": 0.3, "q": 0.6}, {"p": 1.0, "q": 0.2}, {"p": 0.4})
        return Kalman(drift, *parts, observe=observe, **TIGHT | options)

    def joint(self):
        """Mean and covariance of all data, one time after the other: matrix exponentials (Van Loan
        1978).
        """
        noise = np.diag(self.amplitude**2)
        block = np.block([[-self.matrix, noise], [np.zeros((2, 2)), self.matrix.T]])
        fixed = np.linalg.solve(self.matrix, self.level)
        means, covariances = [], []
        for t in self.times:
            flow, part = expm(self.matrix * t), expm(block * t)
            means.append(flow @ (self.mean + fixed) - fixed)
            covariances.append(flow @ np.diag(self.sd**2) @ flow.T + part[2:, 2:].T @ part[:2, 2:])
        n = len(self.times)
        dense = np.zeros((2 * n, 2 * n))
        for i in range(n):
            for j in range(i, n):
                shared = covariances[i] @ expm(self.matrix * (self.times[j] - self.times[i])).T
                dense[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = self.gains @ shared @ self.gains.T
        dense = np.triu(dense) + np.triu(dense, 1).T
        return np.ravel([self.gains @ m for m in means]), dense

    def data(self):
        mean, dense = self.joint()
        noisy = dense + np.diag(np.tile(self.noise, len(self.times)))
        y = np.random.default_rng(6).multivariate_normal(mean, noisy, method="cholesky")
        for row, column in self.missing:
            y[2 * row + column] = np.nan
        return y

    def test_each_value_is_conditional_on_those_before_it(self):
        y, (mean, dense) = self.data(), self.joint()
        variances = dict(zip("ab", self.noise, strict=True))
        noisy = dense + np.diag(np.tile(self.noise, len(self.times)))
        prediction = filtered(self.layer(), given(self.times, a=y[::2], b=y[1::2]), variances)
        assert bool(prediction.ok)
        for i in range(len(y)):
            name, row = "ab"[i % 2], i // 2
            before = np.flatnonzero(~np.isnan(y[:i]))
            gain = np.linalg.solve(noisy[np.ix_(before, before)], dense[before, i])
            expected = mean[i] + gain @ (y - mean)[before]
            assert float(prediction.values[name][row]) == pytest.approx(expected, abs=GLOBAL)
            expected = dense[i, i] - gain @ dense[before, i]
            assert float(prediction.variances[name][row]) == pytest.approx(expected, abs=GLOBAL)

    @pytest.mark.thorough
    def test_the_product_is_the_joint_density(self):
        y, (mean, dense) = self.data(), self.joint()
        seen = ~np.isnan(y)
        noisy = dense + np.diag(np.tile(self.noise, len(self.times)))
        exact = multivariate_normal(mean[seen], noisy[np.ix_(seen, seen)]).logpdf(y[seen])
        variances = dict(zip("ab", self.noise, strict=True))
        prediction = filtered(self.layer(), given(self.times, a=y[::2], b=y[1::2]), variances)
        ours = log_likelihood(prediction, variances, {"a": y[::2], "b": y[1::2]})
        assert float(ours) == pytest.approx(exact, abs=1e-8)

    @pytest.mark.thorough
    def test_an_observable_without_noise_is_predicted_only(self):
        y = self.data()
        some = filtered(self.layer(), given(self.times, a=y[::2]), {"a": self.noise[0]})
        nothing = np.full(len(self.times), np.nan)
        all_of_them = given(self.times, a=y[::2], b=nothing)
        both = filtered(self.layer(), all_of_them, dict(zip("ab", self.noise, strict=True)))
        for name in "ab":
            np.testing.assert_allclose(some.values[name], both.values[name], atol=1e-12)


class TestMoments:
    @pytest.mark.thorough
    def test_noise_that_grows_with_its_state(self):
        """Geometric Brownian motion: P' = 2 a P + (s m)² has the solution (s x₀)² t exp(2 a t)."""
        layer = Kalman(
            lambda t, y, u: {"x": 0.3 * y["x"]},
            lambda t, y, u: {"x": 0.2 * y["x"]},
            {"x": 1.5},
            {},
            **TIGHT,
        )
        times = np.array([0.5, 1.0, 3.0])
        prediction = filtered(layer, given(times), {})
        np.testing.assert_allclose(prediction.values["x"], 1.5 * np.exp(0.3 * times), rtol=GLOBAL)
        np.testing.assert_allclose(
            prediction.variances["x"], 0.09 * times * np.exp(0.6 * times), rtol=GLOBAL
        )

    @pytest.mark.thorough
    def test_a_state_driven_by_noise_that_it_does_not_have(self):
        """Position under a white force: variance s² t³ / 3, from nothing; the solver must not
        crawl.
        """
        layer = Kalman(
            lambda t, y, u: {"x": y["v"], "v": 0.0}, {"v": 0.4}, {"x": 0.0, "v": 0.0}, {}
        )
        prediction = filtered(layer, given([1.0, 2.0]), {})
        np.testing.assert_allclose(
            prediction.variances["x"], 0.16 * np.array([1, 8]) / 3, rtol=1e-5
        )
        assert int(prediction.stats["steps"]) < 60

    @pytest.mark.slow
    def test_a_jump_of_a_forcing_at_a_datum(self):
        layer = Kalman(
            lambda t, y, u: {"x": u["dose"]},
            {"x": 0.1},
            {"x": 0.0},
            {},
            forcings=("dose",),
            interpolation={"dose": "step"},
        )
        data = xr.Dataset({"dose": ("time", [1.0, 3.0, 0.0, 2.0])}, {"time": [0.0, 1.0, 2.0, 5.0]})
        every = bd.inputs(data, forcings=layer.forcings, interpolation=layer.interpolation)
        np.testing.assert_allclose(filtered(layer, every, {}).values["x"], [0, 1, 4, 4], atol=1e-10)
        # Jumps between the times that are asked for count too.
        some = eqx.tree_at(lambda i: i.times, every, jnp.asarray([0.5, 1.5, 4.0]))
        for prediction in (jax.jit(lambda: layer(some, {}))(), filtered(layer, some, {})):
            np.testing.assert_allclose(prediction.values["x"], [0.5, 2.5, 4.0], atol=1e-10)

    @pytest.mark.thorough
    def test_a_sharp_datum_after_a_vague_start(self):
        """The textbook update of the covariance loses every digit here; Joseph's form none."""
        layer = Kalman(lambda t, y, u: {"x": 0.0}, {"x": 1e-6}, {"x": 0.0}, {"x": 1e5}, **TIGHT)
        prediction = filtered(layer, given([0.0, 1.0], x=[3.0, 3.0]), {"x": 1e-12})
        assert float(prediction.variances["x"][1]) == pytest.approx(2e-12, rel=1e-5)


class Logistic(bd.Module):
    rate: Any
    capacity: Any

    def __call__(self, t, y, u):
        return {"x": self.rate * y["x"] * (1 - y["x"] / self.capacity)}


RATE_UP, CAPACITY, FIRST = 0.9, 2.0, 0.6


def grown(x, amplitude, rng, substeps):
    """Logistic growth under additive noise, one unit of time on (stochastic Heun, of weak order
    2).
    """
    h = 1.0 / substeps
    for _ in range(substeps):
        step = amplitude * math.sqrt(h) * rng.normal(size=x.shape)
        rate = RATE_UP * x * (1 - x / CAPACITY)
        ahead = x + h * rate + step
        x = x + 0.5 * h * (rate + RATE_UP * ahead * (1 - ahead / CAPACITY)) + step
    return x


def logistic_data(amplitude, noise):
    rng, x, values = np.random.default_rng(7), np.array([FIRST]), []
    for _ in range(12):
        x = grown(x, amplitude, rng, 100)
        values.append(x[0] + noise * rng.normal())
    return np.array(values)


def particle_filters(amplitude, noise, data, filters=24, particles=3000):
    """Log likelihoods by independent bootstrap filters (Gordon, Salmond & Smith 1993), systematic
    resampling.
    """
    rng, x, total = (
        np.random.default_rng(0),
        np.full((filters, particles), FIRST),
        np.zeros(filters),
    )
    for datum in data:
        x = grown(x, amplitude, rng, 10)
        weights = norm.pdf(datum, x, noise)
        total += np.log(weights.mean(axis=1))
        for row, weight in zip(x, weights, strict=True):
            positions = (np.arange(particles) + rng.uniform()) / particles
            chosen = np.searchsorted(np.cumsum(weight / weight.sum()), positions)
            row[:] = row[np.minimum(chosen, particles - 1)]
    return total


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("amplitude", "noise"), [(0.05, 0.1), pytest.param(0.025, 0.05, marks=pytest.mark.slow)]
)
def test_logistic_growth_against_a_particle_filter(amplitude, noise):
    """Within Monte-Carlo error and the bias of the linearisation, which falls with the spread.

    In an interval of length 1 the filter leaves out |f''| P / 2 = r P / K of the mean. This changes
    a term of the log likelihood by as much times the innovation over its variance.
    """
    data, times = logistic_data(amplitude, noise), np.arange(1.0, 13.0)
    inputs, variances = given(times, x=data), {"x": noise**2}

    def likelihood(layer):
        prediction = filtered(layer, inputs, variances)
        return float(log_likelihood(prediction, variances, {"x": data})), prediction

    parts = ({"x": amplitude}, {"x": FIRST}, {})
    ours, prediction = likelihood(Kalman(Logistic(RATE_UP, CAPACITY), *parts))
    others = particle_filters(amplitude, noise, data)
    error = 4 * others.std(ddof=1) / math.sqrt(len(others))
    # A mean of logarithms lies below the logarithm of the mean by half the variance.
    reference = others.mean() + others.var() / 2
    innovations = np.abs(data - prediction.values["x"]) / (prediction.variances["x"] + noise**2)
    bias = float(np.sum(RATE_UP / CAPACITY * prediction.variances["x"] * innovations))
    assert abs(ours - reference) < error + bias
    assert error + bias < 0.15
    assert abs(likelihood(Kalman(Logistic(0.8, CAPACITY), *parts))[0] - reference) > error + bias


class TestGradients:
    times = np.linspace(0.0, 4.0, 6)
    y = np.array([0.3, 0.5, np.nan, 0.9, 1.4, 1.1])
    values = {"rate": 0.9, "capacity": 2.0, "gain": 0.3, "start": 0.2, "sd": 0.1, "noise": 0.05}  # noqa: RUF012

    def loss(self, p, **options):
        layer = Kalman(
            Logistic(p["rate"], p["capacity"]),
            lambda t, y, u: {"x": p["gain"] * jnp.sqrt(1 + y["x"] ** 2)},
            {"x": p["start"]},
            {"x": p["sd"]},
            observe=lambda t, y, u: {"z": y["x"] + 0.2 * y["x"] ** 2},
            rtol=1e-11,
            atol=1e-11,
            **options,
        )
        prediction = layer(given(self.times, z=self.y), {"z": p["noise"]})
        return log_likelihood(prediction, {"z": p["noise"]}, {"z": self.y})

    @pytest.mark.thorough
    @pytest.mark.parametrize("mode", [pytest.param("forward", marks=pytest.mark.slow), "reverse"])
    def test_against_finite_differences_under_jit_and_vmap(self, mode):
        batch = {name: jnp.asarray([v, 1.1 * v]) for name, v in self.values.items()}
        value_and_slope = jax.jit(jax.vmap(jax.value_and_grad(self.loss)))
        _, reverse = value_and_slope(batch)
        if mode == "forward":
            forward = jax.jit(
                jax.vmap(jax.jacfwd(lambda p: self.loss(p, adjoint=diffrax.ForwardMode())))
            )(batch)
            for name in self.values:
                np.testing.assert_allclose(forward[name], reverse[name], rtol=1e-6)
        for name in self.values:
            ahead, behind = (
                value_and_slope(batch | {name: batch[name] + step})[0] for step in (1e-4, -1e-4)
            )
            np.testing.assert_allclose((ahead - behind) / 2e-4, reverse[name], rtol=1e-6, atol=1e-6)


class TestFailure:
    """Of three drifts one blows up; all are batched."""

    ks = jnp.asarray([0.1, 5.0, 0.3])

    def solve(self, k):
        layer = Kalman(
            lambda t, y, u: {"x": k * y["x"] ** 2}, {"x": 0.1}, {"x": 1.0}, {}, max_steps=100
        )
        prediction = layer(given([0.5, 1.0, 2.0], x=[1.0, 1.0, 1.0]), {"x": 0.1})
        density = log_likelihood(prediction, {"x": 0.1}, {"x": jnp.ones(3)})
        return jnp.where(prediction.ok, density, -jnp.inf), prediction

    @pytest.mark.slow
    def test_is_flagged_and_finite(self):
        (value, prediction), gradient = jax.jit(
            jax.vmap(jax.value_and_grad(self.solve, has_aux=True))
        )(self.ks)
        assert prediction.ok.tolist() == [True, False, True]
        for part in (prediction.values["x"], prediction.variances["x"], gradient):
            assert np.isfinite(part).all()
        assert np.isfinite(value).tolist() == [True, False, True]

    @pytest.mark.thorough
    def test_an_observation_that_is_not_finite(self):
        layer = Kalman(
            lambda t, y, u: {"x": -1.0},
            {"x": 0.1},
            {"x": 1.5},
            {},
            observe=lambda t, y, u: {"z": jnp.log(y["x"])},
        )
        for times, ok in (([0.5, 1.0], True), ([0.5, 2.0], False)):
            prediction = filtered(layer, given(times, z=[0.1, 0.1]), {"z": 0.1})
            assert bool(prediction.ok) is ok
            assert np.isfinite(prediction.values["z"]).all()
            assert np.isfinite(prediction.variances["z"]).all()

    @pytest.mark.thorough
    def test_a_traced_past_before_the_start(self):
        assert not bool(filtered(process(), given([1.0], [-1.0], x=[0.0]), {"x": 0.1}).ok)


GOOD = {
    "drift": Reversion(1.0, 0.0),
    "diffusion": {"x": 0.1},
    "initial": {"x": 1.0},
    "initial_sd": {"x": 0.1},
}


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"drift": 3.0}, "drift must be callable"),
            ({"diffusion": {"z": 0.1}}, "the diffusion names z but the states are x"),
            ({"initial": {}}, "names every state"),
            ({"initial_sd": 0.1}, "initial_sd must be a dict"),
            ({"initial_sd": {"z": 0.1}}, "initial_sd names z but the states are x"),
            ({"initial_sd": {"x": -0.1}}, r"initial_sd\['x'\] must not be negative, and is -0.1"),
            ({"initial_sd": {"x": np.ones(2)}}, r"initial_sd\['x'\] must be a number"),
            ({"solver": "euler"}, "unknown solver 'euler'"),
            ({"rtol": 0.0}, "rtol and atol must be positive"),
            ({"max_steps": 0}, "max_steps at least 1"),
        ],
    )
    def test_when_built(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            Kalman(**GOOD | options)

    @pytest.mark.parametrize("rates", [{"z": 1.0}, {"x": 1.0, "z": 1.0}, {}])
    def test_rates_of_other_states(self, rates):
        layer = Kalman(**GOOD | {"drift": lambda t, y, u: rates})
        with pytest.raises(
            ModelError, match=r"the drift returns rates for .* but the states are x"
        ):
            layer(given([1.0]), {})

    def test_noise_of_what_is_no_output(self):
        with pytest.raises(
            ModelError, match="'z' has noise but is not an output; the outputs are x"
        ):
            process()(given([1.0]), {"z": 0.1})

    def test_a_past_without_noise(self):
        with pytest.raises(ModelError, match="the past holds 'x', whose noise has no variance"):
            process()(given([1.0], x=[0.0]), {})

    def test_a_past_before_the_start(self):
        with pytest.raises(
            DataError, match="the past begins at -1, before the start of the model at 0"
        ):
            process()(given([1.0], [-1.0], x=[0.0]), {"x": 0.1})

    def test_noise_that_is_not_normal(self):
        model = bd.Model(
            Kalman(**GOOD | {"initial": {"x": dist.Normal(0.0, 1.0)}}), bd.LogNormalNoise(0.1)
        )
        data = xr.Dataset({"x": ("time", [1.0, 2.0])}, {"time": [0.5, 3.0]})
        with pytest.raises(ModelError, match=r"needs bd\.NormalNoise, not LogNormalNoise"):
            pose(model, data)


@pytest.fixture(scope="module")
def seen():
    times = 0.8 * np.arange(1.0, 31.0)
    data = xr.Dataset({"x": ("time", draw_process(times, 8)[0])}, {"time": times})
    layer = process(
        dist.LogNormal(0.0, 0.7), dist.Normal(0.0, 2.0), start=0.0, rtol=1e-6, atol=1e-6
    )
    return bd.Model(layer, bd.NormalNoise(NOISE)), data


class TestInsideAModel:
    @pytest.mark.thorough
    def test_log_density_is_that_of_the_gaussian_process(self, seen, monkeypatch):
        model, data = seen
        problem = pose(model, data)
        for rate, level in ((0.4, 1.0), (1.2, 1.5)):
            monkeypatch.setitem(globals(), "RATE", rate)
            monkeypatch.setitem(globals(), "LEVEL", level)
            _, joint = draw_process(data["time"].values, 0)
            exact = multivariate_normal(mean_of(data["time"].values), joint).logpdf(
                data["x"].values
            )
            # The Jacobian of the logarithm cancels the 1 / rate of its prior.
            exact += norm(0, 0.7).logpdf(math.log(rate)) + norm(0, 2).logpdf(level)
            where = {"layer.drift.rate": jnp.asarray(rate), "layer.drift.mean": jnp.asarray(level)}
            assert float(problem.log_density(problem.unconstrain(where))) == pytest.approx(
                exact, abs=1e-4
            )

    @pytest.mark.slow
    def test_nuts_recovers_the_truth(self, seen):
        draws = bd.fit(*seen, bd.NUTS(chains=2, warmup=150, draws=200), key=0)["posterior"]
        for name, truth, prior in (("rate", RATE, 0.7), ("drift.mean", LEVEL, 2.0)):
            values = draws[name if name in draws else "mean"].values
            # A 99.9 % interval: one data set in a thousand may miss it.
            assert np.quantile(values, 0.0005) < truth < np.quantile(values, 0.9995)
            assert (np.log(values) if name == "rate" else values).std() < 0.7 * prior

    @pytest.mark.slow
    def test_a_forecast_goes_on_from_the_data(self, seen):
        """The mean of each draw relaxes from the last filtered state, not from the start."""
        model, data = seen
        post = bd.fit(model, data, Sifting(draws=50, proposals=1000), key=0)
        times = np.array([24.0 + 1e-6, 30.0])
        means = bd.forecast(model, post, times)["conditional_mean"]["x"].values
        rates, levels = (post["posterior"][name].values for name in ("rate", "mean"))
        relaxed = levels + (means[..., 0] - levels) * np.exp(-rates * np.diff(times))
        np.testing.assert_allclose(means[..., 1], relaxed, atol=1e-4)
        assert np.abs(means[..., 0] - data["x"].values[-1]).max() < 3 * NOISE

    @pytest.mark.slow
    def test_the_path_as_a_latent_variable_gives_the_same_posterior(self):
        """Means and standard deviations within 4 Monte-Carlo errors; the path's steps are of weak
        order 2.
        """
        times = 0.8 * np.arange(1.0, 13.0)
        data = xr.Dataset({"x": ("time", draw_process(times, 9)[0])}, {"time": times})
        prior = (dist.LogNormal(0.0, 0.7), dist.Normal(0.0, 2.0))
        path = SDE(
            Reversion(*prior), {"x": AMPLITUDE}, {"x": dist.Normal(START, START_SD)}, (0.0, 9.6, 96)
        )
        noise = bd.NormalNoise(NOISE)
        engine = bd.NUTS(chains=4, warmup=400, draws=1000)
        posts = [
            bd.fit(bd.Model(layer, noise), data, engine, key=1)
            for layer in (process(*prior, start=0.0), path)
        ]
        for name, change in (("rate", np.log), ("mean", np.asarray)):
            first, second = (change(post["posterior"][name].values) for post in posts)
            errors = [
                draws.std() / math.sqrt(array_stats.ess(draws, chain_axis=0, draw_axis=1))
                for draws in (first, second)
            ]
            assert abs(first.mean() - second.mean()) < 4 * math.hypot(*errors)
            # The error of a standard deviation is that of a mean over the square root of two.
            assert abs(first.std() - second.std()) < 4 * math.hypot(*errors) / math.sqrt(2)


def test_units_of_random_leaves():
    leaf = dist.LogNormal(0.0, 1.0)
    layer = Kalman(Reversion(1.0, 0.0), {"x": leaf}, {"x": leaf}, {"x": leaf}, units={"x": "mg/L"})
    units = {path: leaf.units for path, leaf in paths(layer).items()}
    assert units == {"diffusion.x": "", "initial.x": "mg/L", "initial_sd.x": "mg/L"}

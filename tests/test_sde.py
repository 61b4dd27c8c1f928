"""The SDE layer against closed forms with the same path, Diffrax's own solvers,
and known moments.
"""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from jax.test_util import check_grads

import bayes_dasl as bd
from bayes_dasl.equations import SDE
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import paths, realise

ALGEBRA = 10 * math.sqrt(np.finfo(float).eps)


class Reversion(bd.Module):
    """The drift of an Ornstein–Uhlenbeck process."""

    rate: Any
    mean: Any

    def __call__(self, t, y, u):
        return {"x": self.rate * (self.mean - y["x"])}


class Growth(bd.Module):
    """Drift, or diffusion, of geometric Brownian motion."""

    rate: Any

    def __call__(self, t, y, u):
        return {"x": self.rate * y["x"]}


def at(times, start=0.0, **forcings):
    """Inputs at some times, driven by the named series."""
    data = xr.Dataset(
        {name: ("time", v) for name, v in forcings.items()}, {"time": np.asarray(times, float)}
    )
    return bd.inputs(data, start=start, forcings=list(forcings))


def normals(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def reversion(path, steps, end=2.0, rate=1.5, mean=0.7, amplitude=0.6, start=-0.4):
    return SDE(Reversion(rate, mean), {"x": amplitude}, {"x": start}, (0.0, end, steps), path)


def geometric(path, steps, end=1.0, rate=0.6, amplitude=0.8, start=1.3):
    return SDE(Growth(rate), Growth(amplitude), {"x": start}, (0.0, end, steps), path)


def ends(build, paths_, end):
    """The last state of each path."""
    solve = jax.jit(jax.vmap(lambda path: build(path, paths_.shape[1])(at([end])).values["x"][-1]))
    return np.asarray(solve(jnp.asarray(paths_)))


def predicted(layer, times, **options):
    """What a layer says of times that are known when it is compiled, by one program."""
    inputs = at(times, **options)
    return jax.jit(lambda: layer(inputs))()


def coarser(fine, factor):
    """The same Brownian paths on a grid with fewer steps."""
    return fine.reshape(len(fine), -1, factor).sum(2) / math.sqrt(factor)


def order(errors, factor=2):
    """Least-squares slope of log error against log step; each error has a step `factor` times the
    one before.
    """
    return float(np.polyfit(np.arange(len(errors)) * math.log(factor), np.log(errors), 1)[0])


class TestStrongOrder:
    """Mean error at the end over paths,
    against the closed form driven by the same Brownian path.
    """

    finest, factors = 512, (1, 2, 4, 8)

    @pytest.mark.thorough
    def test_geometric_brownian_motion(self):
        fine = normals(2000, self.finest)
        motion = fine.sum(1) / math.sqrt(self.finest)
        exact = 1.3 * np.exp(0.6 - 0.5 * 0.8**2 + 0.8 * motion)
        errors = [
            np.abs(ends(geometric, coarser(fine, f), 1.0) - exact).mean() for f in self.factors
        ]
        assert order(errors) == pytest.approx(1, abs=0.1)
        # The closed form of Stratonovich's equation is far away.
        assert (
            np.abs(ends(geometric, fine, 1.0) - exact * np.exp(0.5 * 0.8**2)).mean()
            > 10 * errors[-1]
        )

    def test_ornstein_uhlenbeck(self):
        """Increments and the integrals of e^(-rate (end - s)) dW are drawn together, so both are
        exact.
        """
        rate, mean, amplitude, start, end = 1.5, 0.7, 0.6, -0.4, 2.0
        h = end / self.finest
        within = (1 - math.exp(-rate * h)) / rate
        joint = np.array([[h, within], [within, (1 - math.exp(-2 * rate * h)) / (2 * rate)]])
        dw, damped = np.moveaxis(
            normals(2000, self.finest, 2, seed=1) @ np.linalg.cholesky(joint).T, 2, 0
        )
        after = end - h * np.arange(1, self.finest + 1)
        exact = (
            mean
            + (start - mean) * math.exp(-rate * end)
            + amplitude * (damped * np.exp(-rate * after)).sum(1)
        )
        fine = dw / math.sqrt(h)
        errors = [
            np.abs(ends(reversion, coarser(fine, f), end) - exact).mean() for f in self.factors
        ]
        assert order(errors) == pytest.approx(1, abs=0.1)

    @pytest.mark.thorough
    def test_without_noise_it_is_heun(self):
        """x' = -0.9 t x, from t = 1."""
        errors = []
        for steps in (256, 128, 64, 32):
            drift = lambda t, y, u: {"x": -0.9 * t * y["x"]}  # noqa: E731
            layer = SDE(drift, {"x": 0.5}, {"x": 2.0}, (1.0, 3.0, steps), np.zeros(steps))
            last = predicted(layer, [3.0], start=1.0).values["x"][0]
            errors.append(abs(float(last) - 2 * math.exp(-0.45 * 8)))
        assert order(errors) == pytest.approx(2, abs=0.1)

    @pytest.mark.thorough
    def test_weak_order_for_additive_noise(self):
        """The last state is linear in the increments, so their squared coefficients add up to its
        variance.
        """
        exact = 0.36 * (1 - math.exp(-2 * 1.5 * 2)) / 3
        errors = []
        for steps in (64, 32, 16, 8):
            last = jax.jit(
                jax.grad(lambda path, steps=steps: reversion(path, steps)(at([2.0])).values["x"][0])
            )
            errors.append(abs(float(jnp.sum(last(jnp.zeros(steps)) ** 2)) - exact))
        assert order(errors) == pytest.approx(2, abs=0.1)


class TestAgainstDiffrax:
    """The same scheme step for step, where Diffrax has it."""

    steps, end = 32, 2.0
    ts = np.linspace(0, 2.0, 33)

    def motion(self, path):
        return jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.asarray(path))]) * math.sqrt(
            self.end / self.steps
        )

    @pytest.mark.thorough
    def test_heun_for_additive_noise(self):
        path = normals(self.steps)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: 1.5 * (0.7 - y)),
            diffrax.ControlTerm(
                lambda t, y, args: jnp.asarray(0.6),
                diffrax.LinearInterpolation(self.ts, self.motion(path)),
            ),
        )
        saveat = diffrax.SaveAt(ts=self.ts)
        theirs = diffrax.diffeqsolve(
            terms,
            diffrax.Heun(),
            0.0,
            2.0,
            None,
            -0.4,
            saveat=saveat,
            stepsize_controller=diffrax.StepTo(self.ts),
        )
        ours = reversion(path, self.steps)(at(self.ts))
        np.testing.assert_allclose(ours.values["x"], theirs.ys, atol=ALGEBRA)

    @pytest.mark.thorough
    def test_milstein_for_diagonal_noise(self):
        path, h = normals(2, self.steps), self.end / self.steps
        gains = np.array([0.8, -0.3])

        @jax.jit
        def milstein(y, increment):
            terms = diffrax.MultiTerm(
                diffrax.ODETerm(lambda t, y, args: jnp.zeros(2)),
                diffrax.ControlTerm(
                    lambda t, y, args: lx.DiagonalLinearOperator(gains * y),
                    lambda t0, t1: math.sqrt(h) * increment,
                ),
            )
            return diffrax.ItoMilstein().step(terms, 0.0, h, y, None, None, False)[0]

        y = jnp.asarray([1.3, 0.5])
        for k in range(self.steps):
            y = milstein(y, path[:, k])
        layer = SDE(
            lambda t, y, u: {"a": 0.0, "b": 0.0},
            lambda t, y, u: {"b": gains[1] * y["b"], "a": gains[0] * y["a"]},
            {"a": 1.3, "b": 0.5},
            (0.0, self.end, self.steps),
            {"a": path[0], "b": path[1]},
        )
        values = layer(at([self.end])).values
        np.testing.assert_allclose([values["a"][0], values["b"][0]], y, atol=ALGEBRA)


class TestWeak:
    """Mean and variance over many paths, within 4 standard errors."""

    draws = 20_000

    def agrees(self, values, mean, variance):
        error = values.std() / math.sqrt(self.draws)
        kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2
        assert abs(values.mean() - mean) < 4 * error
        assert abs(values.var() / variance - 1) < 4 * math.sqrt((kurtosis - 1) / self.draws)

    @pytest.mark.thorough
    def test_ornstein_uhlenbeck(self):
        values = ends(reversion, normals(self.draws, 32, seed=2), 2.0)
        decay = math.exp(-1.5 * 2)
        self.agrees(values, 0.7 - 1.1 * decay, 0.36 * (1 - decay**2) / 3)

    @pytest.mark.thorough
    def test_geometric_brownian_motion(self):
        build = lambda path, steps: geometric(path, steps, amplitude=0.4)  # noqa: E731
        values = ends(build, normals(self.draws, 64, seed=3), 1.0)
        mean = 1.3 * math.exp(0.6)
        self.agrees(values, mean, mean**2 * (math.exp(0.16) - 1))

    @pytest.mark.thorough
    def test_the_default_path_is_standard_normal(self):
        layer = reversion(None, 16)
        leaf = paths(layer)["path.x"]
        assert leaf.shape == (16,)
        draws = leaf.distribution.sample(jax.random.key(0), (5000,))
        values = jax.jit(
            jax.vmap(lambda path: realise(layer, {"path.x": path})(at([2.0])).values["x"][0])
        )(draws)
        decay = math.exp(-1.5 * 2)
        assert np.var(values) == pytest.approx(
            0.36 * (1 - decay**2) / 3, rel=4 * math.sqrt(2 / 5000)
        )


class Driven(bd.Module):
    """Two states, of which the first alone has noise, under a forcing."""

    rate: Any

    def __call__(self, t, y, u):
        return {
            "fast": u["load"] - self.rate * y["fast"],
            "slow": y["fast"] - 0.1 * y["slow"] * jnp.cos(t),
        }


class Scaled(bd.Module):
    """Noise that grows with the state it acts on."""

    gain: Any

    def __call__(self, t, y, u):
        return {"fast": self.gain * jnp.sqrt(1 + y["fast"] ** 2)}


class TestGradients:
    times = np.linspace(0, 3, 7)
    inputs = at(times, load=np.sin(times))
    values = {"rate": 0.8, "gain": 0.4, "fast": 0.2, "slow": -0.1, "path": normals(24)}  # noqa: RUF012

    def loss(self, p, inputs=None):
        layer = SDE(
            Driven(p["rate"]),
            Scaled(p["gain"]),
            {"fast": p["fast"], "slow": p["slow"]},
            (0.0, 3.0, 24),
            {"fast": p["path"]},
            observe=lambda t, y, u: {"sum": y["fast"] + y["slow"] ** 2 + u["load"]},
            forcings=("load",),
        )
        return jnp.sum(jnp.sin(layer(self.inputs if inputs is None else inputs).values["sum"]))

    @pytest.mark.thorough
    def test_against_finite_differences(self):
        check_grads(
            jax.jit(self.loss),
            (self.values,),
            order=1,
            modes=("fwd", "rev"),
            atol=1e-6,
            rtol=1e-6,
            eps=1e-5,
        )

    @pytest.mark.slow
    def test_forward_is_reverse_under_jit_and_vmap(self):
        batch = jax.tree.map(
            lambda v: jnp.stack([v, 1.1 * v]), jax.tree.map(jnp.asarray, self.values)
        )
        forward = jax.jit(jax.vmap(jax.jacfwd(self.loss)))(batch)
        reverse = jax.jit(jax.vmap(jax.grad(self.loss)))(batch)
        alone = jax.jit(jax.grad(self.loss))(self.values)
        for name in self.values:
            np.testing.assert_allclose(forward[name], reverse[name], atol=1e-12)
            np.testing.assert_allclose(reverse[name][0], alone[name], atol=1e-12)
        assert np.abs(alone["path"]).min() > 0

    @pytest.mark.thorough
    def test_traced_times(self):
        traced = jax.jit(lambda given: self.loss(self.values, given))(self.inputs)
        known = jax.jit(lambda: self.loss(self.values))()
        assert float(traced) == pytest.approx(float(known), abs=1e-12)


class TestTimes:
    def test_between_the_times_of_the_grid(self):
        layer = reversion(normals(8), 8)
        left, right = predicted(layer, [0.25, 0.5]).values["x"]
        middle = predicted(layer, [0.25 + 0.25 / 4, 2.0]).values["x"][0]
        assert float(middle) == pytest.approx(float(0.75 * left + 0.25 * right), abs=ALGEBRA)

    @pytest.mark.thorough
    def test_only_the_steps_that_are_needed(self):
        path = normals(8)
        layer = reversion(path, 8)
        prediction = predicted(layer, [0.0, 0.5])
        assert int(prediction.stats["steps"]) == 2
        assert float(prediction.values["x"][0]) == -0.4
        changed = reversion(np.concatenate([path[:2], 9 * path[2:]]), 8)
        assert (
            predicted(changed, [0.0, 0.5]).values["x"].tolist() == prediction.values["x"].tolist()
        )
        assert int(predicted(layer, [0.0, 2.0]).stats["steps"]) == 8

    @pytest.mark.parametrize("times", [[0.5, 2.1], [0.0, 4.0]])
    def test_beyond_the_grid(self, times):
        layer = reversion(normals(8), 8)
        with pytest.raises(DataError, match=r"lies outside the grid of the path, from 0 to 2"):
            layer(at(times))
        traced = eqx.filter_jit(layer)(at(times))
        assert not bool(traced.ok)
        assert np.isfinite(traced.values["x"]).all()

    def test_before_the_grid(self):
        layer = reversion(normals(8), 8)
        with pytest.raises(DataError, match=r"time -1 lies outside the grid"):
            layer(at([-1.0, 1.0], start=-1.0))

    def test_the_model_starts_with_the_grid(self):
        model = bd.Model(reversion(None, 8), bd.NormalNoise(0.1))
        data = xr.Dataset({"x": ("time", [0.1, 0.2])}, {"time": [1.0, 2.0]})
        assert float(model.inputs(data).start) == 0.0


class TestShapes:
    def test_states_that_are_arrays(self):
        """Two Ornstein–Uhlenbeck processes in one array are two layers."""
        path = normals(16, 2)
        layer = SDE(
            Reversion(1.5, 0.7),
            {"x": np.array([0.6, 0.2])},
            {"x": np.array([-0.4, 1.0])},
            (0.0, 2.0, 16),
            path,
            observe=lambda t, y, u: {"first": y["x"][0], "second": y["x"][1]},
        )
        assert layer.outputs == ("first", "second")
        assert layer.states == 2
        both = predicted(layer, [1.0, 2.0]).values
        first = predicted(reversion(path[:, 0], 16), [1.0, 2.0]).values["x"]
        second = predicted(reversion(path[:, 1], 16, amplitude=0.2, start=1.0), [1.0, 2.0]).values[
            "x"
        ]
        np.testing.assert_allclose(both["first"], first, atol=1e-14)
        np.testing.assert_allclose(both["second"], second, atol=1e-14)

    def test_random_leaves(self):
        unknown = dist.LogNormal(0.0, 1.0)
        layer = SDE(
            Driven(unknown),
            Scaled(unknown),
            {"fast": unknown, "slow": 0.0},
            (0, 1, 5),
            forcings=["load"],
        )
        assert set(paths(layer)) == {"drift.rate", "diffusion.gain", "initial.fast", "path.fast"}
        assert layer.noisy == ("fast",)
        additive = SDE(
            Driven(1.0), {"slow": unknown}, {"fast": 0.0, "slow": 0.0}, (0, 1, 5), forcings=["load"]
        )
        assert set(paths(additive)) == {"diffusion.slow", "path.slow"}

    def test_units(self):
        leaf = dist.Normal(0.0, 1.0)
        layer = SDE(Growth(1.0), {"x": leaf}, {"x": leaf}, (0, 1, 5), units={"x": "mg/L"})
        assert {path: leaf.units for path, leaf in paths(layer).items()} == {
            "diffusion.x": "",
            "initial.x": "mg/L",
            "path.x": "",
        }

    def test_forcings_by_their_interpolation(self):
        layer = SDE(
            lambda t, y, u: {"x": u["dose"]},
            {"x": 1.0},
            {"x": 0.0},
            (0.0, 2.0, 200),
            np.zeros(200),
            forcings=("dose",),
            interpolation={"dose": "step"},
        )
        data = xr.Dataset({"dose": ("time", [1.0, 3.0, 0.0])}, {"time": [0.0, 1.0, 2.0]})
        given = bd.inputs(data, forcings=layer.forcings, interpolation=layer.interpolation)
        # At each jump half a step is taken with the rate after it.
        np.testing.assert_allclose(
            jax.jit(lambda: layer(given))().values["x"], [0, 1, 4], atol=2 * 0.01
        )


class TestFailure:
    """Of three paths one blows up; all are batched."""

    ks = jnp.asarray([0.1, 40.0, 0.3])

    def solve(self, k):
        layer = SDE(
            lambda t, y, u: {"x": k * y["x"] ** 2},
            {"x": 0.1},
            {"x": 1.0},
            (0.0, 2.0, 40),
            normals(40),
        )
        prediction = layer(at([1.0, 2.0]))
        return jnp.where(
            prediction.ok, jnp.sum(jnp.log(prediction.values["x"])), -jnp.inf
        ), prediction

    @pytest.mark.thorough
    def test_is_flagged_and_finite(self):
        (value, prediction), gradient = jax.jit(
            jax.vmap(jax.value_and_grad(self.solve, has_aux=True))
        )(self.ks)
        assert prediction.ok.tolist() == [True, False, True]
        assert np.isfinite(prediction.values["x"]).all()
        assert np.isfinite(gradient).all()
        assert np.isfinite(value).tolist() == [True, False, True]

    def test_an_observation_that_is_not_finite(self):
        layer = SDE(
            lambda t, y, u: {"x": -1.0},
            {"x": 0.1},
            {"x": 1.5},
            (0.0, 2.0, 8),
            np.zeros(8),
            observe=lambda t, y, u: {"z": jnp.log(y["x"])},
        )
        for times, ok in (([0.0, 1.0], True), ([0.0, 2.0], False)):
            prediction = predicted(layer, times)
            assert bool(prediction.ok) is ok
            assert np.isfinite(prediction.values["z"]).all()


GOOD = {"drift": Growth(1.0), "diffusion": {"x": 0.1}, "initial": {"x": 1.0}, "grid": (0.0, 1.0, 4)}


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"drift": 3.0}, "drift must be callable"),
            ({"diffusion": 0.1}, "diffusion must be a dict of numbers by state, or callable"),
            ({"diffusion": {"z": 0.1}}, "the diffusion names z but the states are x"),
            (
                {"diffusion": lambda t, y, u: {"x": 0.1, "z": 1.0}},
                "the diffusion names z but the states are x",
            ),
            ({"diffusion": {}}, "the diffusion names no state"),
            ({"initial": {}}, "names every state"),
            ({"initial": {"x": np.ones(2)}}, r"initial\['x'\] must be a number"),
            ({"grid": (0.0, 1.0)}, r"grid must be numbers \(start, end, steps\)"),
            ({"grid": (1.0, 1.0, 4)}, "with start < end"),
            ({"grid": (0.0, np.inf, 4)}, "with start < end"),
            ({"grid": (0.0, 1.0, 0)}, "at least one step"),
            ({"grid": (0.0, 1.0, 2.5)}, "at least one step"),
            (
                {"path": np.zeros(5)},
                r"path\['x'\] has shape \(5,\), but the grid and the state need \(4,\)",
            ),
            ({"path": dist.Normal(0.0, 1.0)}, r"path\['x'\] has shape \(\), but"),
            ({"path": {"z": np.zeros(4)}}, "path names z, but the states with noise are x"),
        ],
    )
    def test_when_built(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            SDE(**GOOD | options)

    def test_one_path_for_two_states(self, unchecked):
        two = {"diffusion": {"x": 0.1, "z": 0.1}, "initial": {"x": 1.0, "z": 1.0}}
        with pytest.raises(ModelError, match="path must be a dict of increments for each of x, z"):
            SDE(**GOOD | two | {"path": np.zeros(4)})

    @pytest.mark.parametrize("rates", [{"z": 1.0}, {"x": 1.0, "z": 1.0}, {}])
    def test_rates_of_other_states(self, rates):
        layer = SDE(**GOOD | {"drift": lambda t, y, u: rates, "path": np.zeros(4)})
        with pytest.raises(
            ModelError, match=r"the drift returns rates for .* but the states are x"
        ):
            layer(at([1.0]))

    def test_data_beyond_the_grid_are_refused_before_a_fit(self):
        model = bd.Model(SDE(**GOOD), bd.NormalNoise(0.1))
        data = xr.Dataset({"x": ("time", [1.0, 2.0])}, {"time": [0.5, 3.0]})
        with pytest.raises(DataError, match="time 3 lies outside the grid"):
            pose(model, data)


RATE, LEVEL, AMPLITUDE, NOISE = 0.8, 1.0, 0.5, 0.1


def observed(seed=4, steps=20, end=10.0):
    """An Ornstein–Uhlenbeck process from its exact transitions, observed with noise."""
    rng, h = np.random.default_rng(seed), end / steps
    decay = math.exp(-RATE * h)
    x = [0.0]
    for z in rng.normal(size=steps):
        x.append(
            LEVEL + (x[-1] - LEVEL) * decay + AMPLITUDE * math.sqrt((1 - decay**2) / (2 * RATE)) * z
        )
    times = h * np.arange(1, steps + 1)
    return xr.Dataset({"x": ("time", x[1:] + NOISE * rng.normal(size=steps))}, {"time": times})


class TestInsideAModel:
    model = bd.Model(
        SDE(
            Reversion(dist.LogNormal(0.0, 0.7), dist.Normal(0.0, 2.0)),
            {"x": AMPLITUDE},
            {"x": 0.0},
            (0.0, 15.0, 60),
        ),
        bd.NormalNoise(NOISE),
    )

    @pytest.mark.thorough
    def test_gradient_of_the_log_density(self):
        problem = pose(self.model, observed())
        position = problem.prior(1, key=jax.random.key(0))[0]
        both = jax.jit(jax.value_and_grad(problem.log_density))
        value, gradient = both(position)
        assert np.isfinite(value)
        step = 1e-5 * np.random.default_rng(0).normal(size=position.size)
        ahead, behind = (float(both(position + s * step)[0]) for s in (1, -1))
        assert (ahead - behind) / 2 == pytest.approx(float(gradient @ step), rel=1e-6)

    @pytest.mark.slow
    def test_nuts_recovers_the_rate_and_a_forecast_spreads(self):
        data = observed()
        post = bd.fit(self.model, data, bd.NUTS(chains=2, warmup=150, draws=150), key=0)
        draws = post["posterior"]["rate"].values
        assert np.quantile(draws, 0.025) < RATE < np.quantile(draws, 0.975)
        # The data say more of the rate than the prior does.
        assert np.log(draws).std() < 0.7 * 0.7
        beyond = post["posterior"]["path.x"].values[..., 40:]
        assert beyond.var() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("steps", [3, 30])
def test_a_step_forcing_changes_between_steps(steps):
    """The integral of a forcing that is constant between its data, in whole steps of the grid, is
    exact.
    """
    data = xr.Dataset({"w": ("time", [1.0, 5.0, 2.0, 7.0])}, {"time": np.arange(4.0)})
    layer = SDE(
        lambda t, y, u: {"x": u["w"]}, {"x": 0.1}, {"x": 0.0}, grid=(0.0, 3.0, steps), path=jnp.zeros(steps),
        forcings="w", interpolation={"w": "step"},
    )  # fmt: skip
    inputs = bd.inputs(data, interpolation={"w": "step"})
    found = jax.jit(lambda: layer(inputs))().values["x"]
    np.testing.assert_allclose(found, [0.0, 1.0, 6.0, 8.0], atol=1e-12)

"""Multiple shooting: segments against SciPy, constraint residuals, gradients that stay bounded, forecasts,
refusals, a fit.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

import bayes_dasl as bd
from bayes_dasl import Jump
from bayes_dasl.equations import MultipleShooting, segment_states
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import paths
from tests.studies.recovery import lorenz
from tests.studies.recovery.lorenz import START, STATES, TRUTH, Lorenz

END = 30.0
KNOTS = np.arange(0.5, END, 0.5)
SPARSE, DENSE = lorenz.TIMES, np.round(np.arange(0.1, END + 0.05, 0.1), 6)


def rates(t, state):
    """Lorenz's equations as SciPy calls them."""
    x, y, z = state
    return [TRUTH["sigma"] * (y - x), x * (TRUTH["rho"] - z) - y, x * y - TRUTH["beta"] * z]


@pytest.fixture(scope="module")
def truth():
    """States at any times, by name; solved once."""
    begin = list(START.values())
    solved = solve_ivp(
        rates, (0, END), begin, "DOP853", rtol=1e-13, atol=1e-13, dense_output=True
    ).sol
    return lambda times: dict(zip(STATES, solved(np.asarray(times)), strict=True))


def ode(parameters=TRUTH, **options):
    options = {"start": 0.0, "rtol": 1e-8, "atol": 1e-8} | options
    return bd.ODE(Lorenz(**parameters), START, **options)


def given(times):
    return bd.inputs(xr.Dataset({}, {"time": times}), start=0.0)


def predicted(layer, times):
    """What a layer says of times that are known when it is compiled, by one program."""
    inputs = given(times)
    return jax.jit(lambda: layer(inputs))()


@pytest.fixture(scope="module")
def sparse(truth):
    layer = MultipleShooting(ode(), KNOTS, truth(KNOTS), 0.1)
    return layer, predicted(layer, SPARSE)


class TestSegments:
    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "times", [SPARSE, pytest.param(DENSE, marks=pytest.mark.slow)], ids=["sparse", "dense"]
    )
    def test_true_states_give_the_true_solution(self, truth, sparse, times):
        layer, prediction = sparse
        prediction = prediction if times is SPARSE else predicted(layer, times)
        assert bool(prediction.ok)
        # Errors of a segment grow by exp(0.9 · 0.5) and more, where the flow stretches: a hundred
        # times the tolerance.
        for name in STATES:
            np.testing.assert_allclose(
                prediction.values[name], truth(times)[name], atol=40 * 100 * 1e-8
            )
            gap = prediction.constraint_residuals[f"{name} at knots"]
            assert gap.shape == KNOTS.shape
            assert float(jnp.max(jnp.abs(gap))) < 40 * 100 * 1e-8 / 0.1

    @pytest.mark.thorough
    def test_other_states_give_segments_of_their_own(self, truth):
        knots = np.array([0.7, 1.5, 2.0])
        times = np.array([0.0, 0.35, 0.7, 1.0, 1.5, 1.9, 2.0, 2.9])
        rng = np.random.default_rng(0)
        states = {name: rng.normal(size=3) * 5 + 10 for name in STATES}
        prediction = predicted(
            MultipleShooting(ode(), knots, states, {"x": 0.1, "y": 0.2, "z": 0.5}), times
        )
        bounds = [
            0.0,
            *knots,
            3.0,
        ]  # the last segment ends at 2.9, which no constraint residual looks at
        begins = [list(START.values()), *np.stack([states[name] for name in STATES], axis=1)]
        for k, (begin, low, high) in enumerate(zip(begins, bounds[:-1], bounds[1:], strict=True)):
            own = [t for t in times if low <= t < high]
            solved = solve_ivp(
                rates, (low, high), begin, "DOP853", [*own, high], rtol=1e-12, atol=1e-12
            ).y
            at = np.searchsorted(times, own)
            for name, exact in zip(STATES, solved, strict=True):
                np.testing.assert_allclose(
                    prediction.values[name][at], exact[:-1], atol=40 * 100 * 1e-8
                )
                if k < 3:
                    gap = (exact[-1] - states[name][k]) / {"x": 0.1, "y": 0.2, "z": 0.5}[name]
                    assert float(
                        prediction.constraint_residuals[f"{name} at knots"][k]
                    ) == pytest.approx(gap, abs=1e-3)

    @pytest.mark.slow
    def test_times_that_are_traced_give_the_same(self, sparse):
        layer, known = sparse
        traced = eqx.filter_jit(lambda inputs: layer(inputs))(given(SPARSE))
        for name in STATES:
            np.testing.assert_allclose(known.values[name], traced.values[name], atol=1e-12)

    @pytest.mark.slow
    def test_a_knot_at_a_time_starts_the_later_segment(self):
        still = bd.ODE(lambda t, y, u: {"y": jnp.zeros(())}, {"y": 1.0}, start=0.0)
        layer = MultipleShooting(still, (1.0, 2.0), {"y": np.array([5.0, 7.0])}, 0.5)
        prediction = predicted(layer, np.array([0.0, 0.9, 1.0, 1.9, 2.0, 9.0]))
        assert prediction.values["y"].tolist() == [1, 1, 5, 5, 7, 7]
        assert prediction.constraint_residuals["y at knots"].tolist() == [-8.0, -4.0]

    @pytest.mark.thorough
    def test_a_knot_after_the_end_has_no_say(self):
        still = bd.ODE(lambda t, y, u: {"y": jnp.zeros(())}, {"y": 1.0}, start=0.0)
        layer = MultipleShooting(still, (1.0, 2.0, 3.0), {"y": np.array([5.0, 7.0, 9.0])}, 0.5)
        prediction = predicted(layer, np.array([0.5, 1.5]))
        assert prediction.values["y"].tolist() == [1, 5]
        assert prediction.constraint_residuals["y at knots"].tolist() == [-8.0, 0.0, 0.0]

    @pytest.mark.slow
    def test_times_in_some_segments_only(self):
        steady = bd.ODE(lambda t, y, u: {"y": jnp.ones(())}, {"y": 0.0}, start=0.0)
        layer = MultipleShooting(steady, (1.0, 2.0, 3.0), {"y": np.array([10.0, 20.0, 30.0])}, 1.0)
        prediction = predicted(layer, np.array([2.25, 2.5]))
        np.testing.assert_allclose(prediction.values["y"], [20.25, 20.5], atol=1e-6)

    @pytest.mark.slow
    def test_a_failed_segment_fails_all(self):
        blows_up = bd.ODE(lambda t, y, u: {"y": y["y"] ** 2}, {"y": 0.1}, start=0.0, max_steps=64)

        def solve(state):
            layer = MultipleShooting(blows_up, (1.0,), {"y": jnp.asarray([state])}, 0.1)
            prediction = layer(given(np.array([0.5, 2.0])))
            return jnp.sum(prediction.values["y"]) + jnp.sum(
                prediction.constraint_residuals["y at knots"]
            ), prediction.ok

        of_state = jax.jit(jax.grad(solve, has_aux=True))
        for state, expected in ((0.2, True), (2.0, False)):
            gradient, ok = of_state(state)
            assert bool(ok) is expected
            assert np.isfinite(gradient)


class TestGradients:
    @pytest.mark.slow
    def test_bounded_where_one_solve_explodes(self, truth):
        inputs, states = given(SPARSE), truth(KNOTS)

        def loss(sigma, shooting):
            layer = ode(TRUTH | {"sigma": sigma}, rtol=1e-6, atol=1e-6)
            layer = MultipleShooting(layer, KNOTS, states, 0.1) if shooting else layer
            return jnp.sum(layer(inputs).values["x"] ** 2)

        bounded = float(jax.jit(jax.grad(lambda s: loss(s, True)))(10.0))
        exploded = float(jax.jit(jax.grad(lambda s: loss(s, False)))(10.0))
        # Perturbations grow by exp(0.9 · 30), so the single solve's gradient has nothing to do with
        # the data.
        assert abs(bounded) < 1e4
        assert abs(exploded) > 1e6

    @pytest.mark.thorough
    @pytest.mark.parametrize("mode", [pytest.param("forward", marks=pytest.mark.slow), "reverse"])
    def test_against_differences(self, truth, mode):
        inputs, states = given(SPARSE[:3]), truth(KNOTS[:5])
        weights = np.random.default_rng(0).normal(size=(2, 3, 5))

        def loss(sigma, moved, **options):
            layer = MultipleShooting(
                ode(TRUTH | {"sigma": sigma}, rtol=1e-10, atol=1e-10, **options),
                KNOTS[:5],
                {name: states[name] + moved * weights[0, i] for i, name in enumerate(STATES)},
                0.1,
            )
            prediction = layer(inputs)
            gaps = jnp.stack(list(prediction.constraint_residuals.values()))
            return jnp.sum(prediction.values["z"]) + jnp.sum(weights[1] * gaps)

        at = (10.3, 0.1)
        moved = np.array([[10.3, 0.1]]) + 1e-5 * np.array(
            [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]
        )
        value, reverse = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1))))(*moved.T)
        reverse = [slope[0] for slope in reverse]
        if mode == "forward":
            forward = jax.jit(
                jax.jacfwd(lambda *p: loss(*p, adjoint=diffrax.ForwardMode()), argnums=(0, 1))
            )(*at)
            np.testing.assert_allclose(reverse, forward, rtol=1e-6)
        finite = (value[1::2] - value[2::2]) / 2e-5
        np.testing.assert_allclose(reverse, finite, rtol=1e-6)


class TestWhatTheOdeHas:
    @pytest.mark.slow
    def test_forcings_jumps_and_observe(self):
        """y' = u with a step forcing: everything is a sum."""
        times = np.array([0.0, 1.0, 2.0, 3.0])
        data = xr.Dataset({"u": ("time", [1.0, 2.0, 3.0, 4.0])}, {"time": times})
        inner = bd.ODE(
            lambda t, y, u: {"y": u["u"]},
            {"y": 0.0},
            lambda t, y, u: {"seen": y["y"] + 100 * u["u"]},
            forcings=("u",),
            interpolation={"u": "step"},
            jumps=(Jump(0.0, {"y": 0.5}), Jump(1.5, {"y": 10.0}), Jump(2.5, {"y": 20.0})),
            units={"y": "mg"},
            start=0.0,
        )
        layer = MultipleShooting(inner, (1.5,), {"y": dist.Normal(jnp.zeros(1), 1.0)}, 1.0)
        assert (
            layer.outputs == ("seen",)
            and layer.forcings == ("u",)
            and layer.interpolation == {"u": "step"}
        )
        assert layer.start == 0.0 and layer.states == 2
        assert paths(layer)["segments.y"].units == "mg"
        known = MultipleShooting(inner, (1.5,), {"y": np.array([50.0])}, 1.0)
        inputs = bd.inputs(data, interpolation=layer.interpolation)
        prediction = jax.jit(lambda: known(inputs))()
        expected = np.array([0.5, 1.5, 51.0, 51.0 + 3 + 20]) + 100 * data["u"].values
        np.testing.assert_allclose(prediction.values["seen"], expected, atol=1e-4)
        # The jump at the knot belongs to the earlier segment: 0.5 + 1 + 1 + 10.
        np.testing.assert_allclose(
            prediction.constraint_residuals["y at knots"], [12.5 - 50], atol=1e-4
        )

    @pytest.mark.slow
    def test_array_states(self):
        inner = bd.ODE(
            lambda t, y, u: {"v": jnp.ones(2)},
            {"v": np.zeros(2)},
            lambda t, y, u: {"a": y["v"][1]},
            start=0.0,
        )
        layer = MultipleShooting(inner, (1.0, 2.0), {"v": np.array([[1.0, 5.0], [2.0, 9.0]])}, 2.0)
        prediction = predicted(layer, np.array([0.5, 1.5, 2.5]))
        np.testing.assert_allclose(prediction.values["a"], [0.5, 5.5, 9.5], atol=1e-6)
        np.testing.assert_allclose(
            prediction.constraint_residuals["v at knots"], [[0.0, -2.0], [0.0, -1.5]], atol=1e-5
        )

    @pytest.mark.thorough
    def test_a_forecast_goes_on(self):
        grow = bd.ODE(lambda t, y, u: {"y": y["y"]}, {"y": 1.0}, start=0.0, rtol=1e-8, atol=1e-8)
        layer = MultipleShooting(grow, (1.0,), {"y": np.array([2.0])}, 0.1)
        ahead = predicted(layer, np.array([3.0, 5.0])).values["y"]
        np.testing.assert_allclose(ahead, 2 * np.exp([2.0, 4.0]), rtol=1e-5)


class TestSegmentStates:
    data = xr.Dataset(
        {"x": ("time", [0.0, np.nan, 4.0]), "y": ("time", [1.0, 2.0, 3.0])},
        {"time": [0.0, 1.0, 2.0]},
    )

    def test_around_the_observations(self):
        priors = segment_states(self.data, ("x", "y"), (0.5, 1.5), {"x": 2.0, "y": 3.0})
        np.testing.assert_allclose(priors["x"].mean, [1.0, 3.0])
        np.testing.assert_allclose(priors["y"].mean, [1.5, 2.5])
        assert priors["x"].batch_shape == (2,)
        np.testing.assert_allclose(priors["x"].variance, 4.0)
        np.testing.assert_allclose(priors["y"].variance, 9.0)

    def test_refusals(self):
        with pytest.raises(DataError, match="'z' is not in the data"):
            segment_states(self.data, ("z",), (0.5,), 1.0)
        with pytest.raises(ModelError, match="the scale of 'x' must be positive"):
            segment_states(self.data, ("x",), (0.5,), 0.0)
        with pytest.raises(ModelError, match="the scale of 'y' must be positive, not None"):
            segment_states(self.data, ("x", "y"), (0.5,), {"x": 1.0})
        with pytest.raises(
            ModelError, match=r"the knot at 2\.5 lies after the data, which end at 2"
        ):
            segment_states(self.data, ("x",), (0.5, 2.5), 1.0)


class TestAKnotAtTheEnd:
    """Its state is what is predicted there, and the segment before must end near it."""

    def decay(self, **options):
        return bd.ODE(lambda t, y, u: {"y": -0.5 * y["y"]}, {"y": 1.0}, start=0.0, **options)

    @pytest.mark.thorough
    def test_counts_its_gap(self):
        layer = MultipleShooting(self.decay(), (1.0, 2.0), {"y": jnp.asarray([10.0, 77.0])}, 0.1)
        prediction = predicted(layer, np.array([0.0, 1.0, 1.5, 2.0]))
        np.testing.assert_allclose(
            prediction.values["y"], [1.0, 10.0, 10 * np.exp(-0.25), 77.0], rtol=1e-5
        )
        gaps = (np.exp(-0.5) - 10) / 0.1, (10 * np.exp(-0.5) - 77) / 0.1
        np.testing.assert_allclose(prediction.constraint_residuals["y at knots"], gaps, rtol=1e-5)

    @pytest.mark.thorough
    def test_a_jump_there_acts_before_it(self):
        ode = self.decay(jumps=Jump(2.0, {"y": 1.0}))
        prediction = predicted(
            MultipleShooting(ode, (2.0,), {"y": jnp.asarray([5.0])}, 1.0), np.array([1.0, 2.0])
        )
        assert float(prediction.values["y"][-1]) == 5.0
        assert float(prediction.constraint_residuals["y at knots"][0]) == pytest.approx(
            np.exp(-1.0) + 1 - 5, abs=1e-5
        )


class TestInAModel:
    def test_the_density_counts_the_gaps(self):
        """A still state with a step at the knot: the posterior is normal, and known."""
        still = bd.ODE(
            lambda t, y, u: {"y": jnp.zeros(())}, {"y": dist.Normal(0.0, 1.0)}, start=0.0
        )
        layer = MultipleShooting(still, (1.0,), {"y": dist.Normal(jnp.zeros(1), 5.0)}, 0.3)
        data = xr.Dataset({"y": ("time", [0.4, 1.1])}, {"time": [0.5, 1.5]})
        problem = pose(bd.Model(layer, noise=bd.NormalNoise(0.5)), data)
        order = list(problem.sites)

        def exact(first, second):
            terms = [
                (first, 0, 1),
                (second, 0, 5),
                (first - second, 0, 0.3),
                (0.4, first, 0.5),
                (1.1, second, 0.5),
            ]
            return sum(-0.5 * ((x - m) / s) ** 2 for x, m, s in terms)

        def ours(first, second):
            values = {"layer.ode.initial.y": first, "layer.segments.y": second}
            return float(problem.log_density(jnp.asarray([values[name] for name in order])))

        assert ours(0.2, 1.0) - ours(0.9, -0.5) == pytest.approx(
            exact(0.2, 1.0) - exact(0.9, -0.5), abs=1e-9
        )

    @pytest.mark.slow
    def test_a_short_fit(self):
        """Logistic growth with few data: the fit runs through the engine and finds the rate."""
        times = np.linspace(0, 6, 13)
        exact = 1 / (1 + 9 * np.exp(-1.0 * times))
        noisy = exact + np.random.default_rng(0).normal(0, 0.02, times.size)
        data = xr.Dataset({"y": ("time", noisy)}, {"time": times})

        class Growth(bd.Module):
            rate: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": self.rate * y["y"] * (1 - y["y"])}

        inner = bd.ODE(Growth(bd.between(0.3, 3.0)), {"y": 0.1}, start=0.0)
        layer = MultipleShooting(
            inner, (2.0, 4.0), segment_states(data, ("y",), (2.0, 4.0), 0.2), 0.02
        )
        model = bd.Model(layer, noise=bd.NormalNoise(0.02))
        post = bd.fit(model, data, bd.NUTS(chains=2, warmup=150, draws=150), key=0)
        low, high = np.quantile(post["posterior"]["rate"], [0.005, 0.995])
        assert low < 1.0 < high


@pytest.mark.slow
def test_lorenz_over_thirty_units_of_time():
    """Stan's single shooting takes hours and does not converge."""
    found = lorenz.fit(0)
    assert found["rhat"] < 1.01
    assert found["seconds"] < 1800
    for name in TRUTH:
        assert found[name]["covered"], name


THREE = {name: np.zeros(2) for name in STATES}


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ode": 1.0}, "multiple shooting needs a bd.ODE"),
            ({"knots": ()}, "knots must be finite times that increase"),
            ({"knots": 1.0}, "knots must be finite times that increase, not 1.0"),
            ({"gap": True}, "gap of 'x' must be a known positive number, not True"),
            ({"knots": (2.0, 1.0)}, "knots must be finite times that increase"),
            ({"knots": (0.0, 1.0)}, "first knot at 0 must lie after the start at 0"),
            (
                {"segments": {"x": np.zeros(2)}},
                "segments are given for x, but the states are x, y, z",
            ),
            (
                {"segments": THREE | {"y": np.zeros(3)}},
                r"segments\['y'\] must have the shape \(2,\).*not \(3,\)",
            ),
            (
                {"segments": THREE | {"y": dist.Normal(0.0, 1.0)}},
                r"segments\['y'\] must have the shape \(2,\)",
            ),
            ({"gap": 0.0}, "gap of 'x' must be a known positive number"),
            ({"gap": dist.HalfNormal(1.0)}, "gap of 'x' must be a known positive number"),
            ({"gap": {"x": 1.0}}, "gaps are given for x, but the states are x, y, z"),
        ],
    )
    def test_when_built(self, unchecked, options, message):
        options = {"ode": ode(), "knots": (1.0, 2.0), "segments": THREE, "gap": 0.1} | options
        with pytest.raises(ModelError, match=message):
            MultipleShooting(**options)

    def test_a_start_after_the_first_knot(self):
        late = bd.ODE(lambda t, y, u: {"y": 0.0}, {"y": 1.0})
        layer = MultipleShooting(late, (1.0,), {"y": np.zeros(1)}, 0.1)
        with pytest.raises(ModelError, match="first knot at 1 must lie after the start at 1"):
            layer(bd.inputs(xr.Dataset({}, {"time": [1.0, 2.0]})))

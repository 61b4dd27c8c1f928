"""Forcings between their data, and ODEs driven by them: closed forms, order of convergence,
gradients, refusals.
"""

import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

import bayes_dasl as bd
from bayes_dasl.data.forcings import Cubic, Linear, Step, interpolated
from bayes_dasl.errors import DataError, ModelError

KNOTS = np.array([0.0, 0.7, 1.0, 2.5, 4.0])
LEVELS = np.array([1.0, -0.5, 3.0, 0.2, 5.0])
BETWEEN = np.array([-1.0, 0.0, 0.3, 0.7, 0.99, 2.0, 4.0, 7.0])
ALGEBRA = 10 * np.sqrt(np.finfo(float).eps)
FORWARD = diffrax.ForwardMode()


class TestBetweenTheData:
    def test_linear(self):
        force = interpolated(KNOTS, LEVELS)
        assert isinstance(force, Linear)
        np.testing.assert_allclose(
            jax.vmap(force)(BETWEEN), np.interp(BETWEEN, KNOTS, LEVELS), atol=ALGEBRA
        )

    def test_step_holds_each_datum_until_the_next(self):
        force = interpolated(KNOTS, LEVELS, "step")
        assert isinstance(force, Step)
        assert jax.vmap(force)(BETWEEN).tolist() == [1.0, 1.0, 1.0, -0.5, -0.5, 3.0, 5.0, 5.0]

    def test_cubic(self):
        force = interpolated(KNOTS, LEVELS, "cubic")
        assert isinstance(force, Cubic)
        exact = CubicSpline(KNOTS, LEVELS)(np.clip(BETWEEN, 0, 4))
        np.testing.assert_allclose(jax.vmap(force)(BETWEEN), exact, atol=ALGEBRA)

    @pytest.mark.thorough
    def test_every_kind_meets_its_data(self):
        for kind in ("linear", "step", "cubic"):
            force = interpolated(KNOTS, LEVELS, kind)
            np.testing.assert_allclose(jax.vmap(force)(KNOTS), LEVELS, atol=ALGEBRA)

    def test_one_datum(self):
        for kind in ("linear", "step"):
            assert (
                float(interpolated(np.array([2.0]), np.array([3.0]), kind)(jnp.asarray(5.0))) == 3.0
            )

    def test_refusals(self):
        with pytest.raises(
            DataError, match="'u' is interpolated by one of linear, step, cubic, not 'spline'"
        ):
            given({"u": "spline"}, u=LEVELS)
        one = xr.Dataset({"u": ("time", [1.0])}, {"time": [0.0]})
        with pytest.raises(DataError, match="'u' needs at least two values for a cubic spline"):
            bd.inputs(one, forcings=["u"], interpolation={"u": "cubic"})


def given(interpolation, **forcings):
    data = xr.Dataset({name: ("time", v) for name, v in forcings.items()}, {"time": KNOTS})
    return bd.inputs(data, forcings=list(forcings), interpolation=interpolation)


class Follower(bd.Module):
    """y' = r (u - y): between two data of a step forcing it is exponential."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rate * (sum(u.values()) - y["y"])}


def followed(rate, levels=LEVELS):
    """The exact answer to a step forcing."""
    exact = [jnp.asarray(0.3)]
    for level, length in zip(levels[:-1], np.diff(KNOTS), strict=True):
        exact.append(level + (exact[-1] - level) * jnp.exp(-rate * length))
    return jnp.stack(exact)


def follower(rate, kind="step", **options):
    options = {
        "forcings": ("u",),
        "interpolation": {"u": kind},
        "rtol": 1e-9,
        "atol": 1e-9,
    } | options
    return bd.ODE(Follower(rate), {"y": 0.3}, **options)


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


def slow(*solvers):
    return [pytest.param(*given, marks=pytest.mark.slow) for given in solvers]


class TestStepForcing:
    inputs = given({"u": "step"}, u=LEVELS)

    @pytest.mark.thorough
    @pytest.mark.parametrize("solver", ["tsit5", "rodas5p", *slow(("dopri8",), ("kvaerno5",))])
    def test_closed_form(self, solver):
        prediction = solve(follower(jnp.asarray(1.7), solver=solver), self.inputs)
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["y"], followed(1.7), atol=1000 * 1e-9)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("solver", "order"), [("tsit5", 5), *slow(("rodas5p", 5), ("dopri8", 8))]
    )
    def test_order_of_convergence(self, solver, order):
        """The error falls with the number of steps at least as for a smooth equation."""
        steps, errors = [], []
        for tolerance in (1e-6, 1e-9):
            solved = solve(
                follower(jnp.asarray(20.0), solver=solver, rtol=tolerance, atol=tolerance),
                self.inputs,
            )
            steps.append(int(solved.stats["steps"]))
            errors.append(float(jnp.abs(solved.values["y"] - followed(20.0))[1]))
        assert np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0]) > order - 0.5

    @pytest.mark.slow
    @pytest.mark.parametrize("solver", ["tsit5", "rodas5p"])
    def test_few_steps(self, solver):
        """The controller need not search for the jumps: it takes about the steps that each piece
        alone would.
        """
        pieces, y = 0, jnp.asarray(0.3)
        for level, end, length in zip(LEVELS[:-1], followed(1.7)[1:], np.diff(KNOTS), strict=True):
            inputs = bd.inputs(
                xr.Dataset({"u": ("time", [level, level])}, {"time": [0.0, length]}), forcings=["u"]
            )
            piece = bd.ODE(
                Follower(jnp.asarray(1.7)),
                {"y": y},
                forcings=("u",),
                solver=solver,
                rtol=1e-9,
                atol=1e-9,
            )
            pieces, y = pieces + int(solve(piece, inputs).stats["steps"]), end
        whole = solve(follower(jnp.asarray(1.7), solver=solver), self.inputs)
        assert int(whole.stats["steps"]) < 1.2 * pieces + 10

    @pytest.mark.slow
    def test_gradients(self):
        def loss(rate, **options):
            return jnp.sum(follower(rate, **options)(self.inputs).values["y"] ** 2)

        rates = jnp.asarray([0.5, 1.7])
        exact = jax.jit(jax.vmap(jax.grad(lambda rate: jnp.sum(followed(rate) ** 2))))(rates)
        reverse = jax.jit(jax.grad(loss))
        forward = jax.jit(jax.jacfwd(lambda rate: loss(rate, adjoint=FORWARD)))
        for rate, slope in zip(rates, exact, strict=True):
            assert float(reverse(rate)) == pytest.approx(float(slope), rel=1e-6)
            assert float(reverse(rate)) == pytest.approx(float(forward(rate)), rel=1e-6)


class TestSeveral:
    @pytest.mark.slow
    def test_of_every_kind_with_knots_of_their_own(self):
        """The union of all knots counts, whichever forcing has them."""
        other = np.array([0.0, 0.7, 1.3, 3.1, 4.0])
        inputs = given({"a": "step", "c": "cubic"}, a=LEVELS, b=LEVELS[::-1], c=LEVELS**2 / 5)
        inputs.forcings["b"] = interpolated(other, LEVELS[::-1], "linear")
        inputs.forcings["d"] = interpolated(other, LEVELS[::-1], "step")
        options = {
            "forcings": ("a", "b", "c", "d"),
            "interpolation": {"a": "step", "c": "cubic", "d": "step"},
        }
        ode = bd.ODE(Follower(1.7), {"y": 0.3}, rtol=1e-9, atol=1e-9, **options)
        prediction = solve(ode, inputs)
        assert bool(prediction.ok)
        exact, y = [0.3], 0.3
        cuts = np.unique(np.concatenate([KNOTS, other]))
        for start, end in itertools.pairwise(cuts):
            held = LEVELS[np.searchsorted(KNOTS, start, side="right") - 1]
            late = LEVELS[::-1][np.searchsorted(other, start, side="right") - 1]

            def rate(t, y, held=held, late=late):
                smooth = np.interp(t, other, LEVELS[::-1]) + CubicSpline(KNOTS, LEVELS**2 / 5)(t)
                return 1.7 * (held + late + smooth - y)

            y = solve_ivp(rate, (start, end), [y], rtol=1e-11, atol=1e-11).y[0, -1]
            exact += [y] if end in KNOTS else []
        np.testing.assert_allclose(prediction.values["y"], exact, atol=1000 * 1e-9)

    @pytest.mark.slow
    def test_knots_do_not_count_in_max_steps(self):
        inputs = given({"u": "step"}, u=LEVELS)
        slow = jnp.asarray(0.1)
        needed = int(solve(follower(slow), inputs).stats["steps"])
        assert solve(follower(slow, max_steps=needed - len(KNOTS)), inputs).ok
        assert not solve(follower(slow, max_steps=needed - len(KNOTS) - 1), inputs).ok


class TestThroughAModel:
    def test_the_model_interpolates_as_its_layer_says(self):
        data = xr.Dataset(
            {"u": ("time", LEVELS), "y": ("time", np.asarray(followed(1.7)))}, {"time": KNOTS}
        )
        for kind, expected in (("step", Step), ("cubic", Cubic)):
            model = bd.Model(follower(bd.between(0.5, 3.0), kind), noise=bd.NormalNoise(0.01))
            assert isinstance(model.inputs(data).forcings["u"], expected)
        assert follower(1.0).forcings == ("u",)
        assert follower(1.0).interpolation == {"u": "step"}


class TestRefusals:
    def test_interpolation_of_no_forcing(self):
        with pytest.raises(ModelError, match="'rain', which is no forcing; the forcings are u"):
            follower(1.0, interpolation={"rain": "step"})

    def test_unknown_kind(self):
        with pytest.raises(
            ModelError, match="'u' is interpolated by one of linear, step, cubic, not 'nearest'"
        ):
            follower(1.0, "nearest")

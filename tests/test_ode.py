"""The ODE layer against closed forms and SciPy: values, gradients, stiffness,
forcings and failure.
"""

import inspect
import itertools
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.layers._steps import RetryingController
from bayes_dasl.layers.ode import find_solver
from bayes_dasl.random import paths

RTOL = 1e-8
# Local errors of RTOL add up over some tens of steps.
GLOBAL = 100 * RTOL
TIMES = np.array([0.0, 0.3, 1.0, 2.5, 4.0])
RAMP = 0.7


def given(times, start=None, **forcings):
    """Inputs at `times` driven by the named series."""
    data = xr.Dataset({name: ("time", v) for name, v in forcings.items()}, {"time": times})
    return bd.inputs(data, start=start, forcings=list(forcings))


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


class Three(bd.Module):
    """Exponential decay, logistic growth, and a linear equation with a forcing: all have closed
    forms.
    """

    rate: bd.Scalar
    growth: bd.Scalar
    capacity: bd.Scalar

    def __call__(self, t, y, u):
        grown = y["grown"]
        return {
            "forced": u["ramp"] - self.rate * y["forced"],
            "decayed": -self.rate * y["decayed"],
            "grown": self.growth * grown * (1 - grown / self.capacity),
        }


PARAMETERS = {
    "rate": 0.8,
    "growth": 1.3,
    "capacity": 2.0,
    "decayed": 1.5,
    "grown": 0.2,
    "forced": 0.4,
}
STATES = ("decayed", "grown", "forced")


def three(parameters, **options):
    field = Three(*(parameters[name] for name in ("rate", "growth", "capacity")))
    options = {"forcings": ("ramp",), "rtol": RTOL, "atol": RTOL} | options
    return bd.ODE(field, {name: parameters[name] for name in STATES}, **options)


def closed_form(p, t):
    k, c = p["rate"], RAMP
    return {
        "decayed": p["decayed"] * jnp.exp(-k * t),
        "grown": p["capacity"] / (1 + (p["capacity"] / p["grown"] - 1) * jnp.exp(-p["growth"] * t)),
        "forced": (p["forced"] + c / k**2) * jnp.exp(-k * t) + c * t / k - c / k**2,
    }


def worst(values, expected):
    return max(float(np.max(np.abs(values[name] - expected[name]))) for name in expected)


WEIGHTS = dict(zip(STATES, np.random.default_rng(0).normal(size=(3, TIMES.size)), strict=True))


def weighted(values):
    return sum(jnp.sum(WEIGHTS[name] * values[name]) for name in STATES)


@jax.jit
def three_and_slopes(parameters, inputs):
    """A prediction, and the gradient of a sum of it, in one program."""

    def loss(parameters):
        prediction = three(parameters)(inputs)
        return weighted(prediction.values), prediction

    slopes, prediction = jax.grad(loss, has_aux=True)(parameters)
    return prediction, slopes


class TestClosedForms:
    inputs = given(TIMES, ramp=RAMP * TIMES)

    @pytest.mark.thorough
    def test_values(self):
        prediction, _ = three_and_slopes(PARAMETERS, self.inputs)
        assert bool(prediction.ok)
        assert set(prediction.values) == set(STATES)
        assert worst(prediction.values, closed_form(PARAMETERS, TIMES)) < GLOBAL
        wrong = closed_form(PARAMETERS | {"rate": 0.8 * (1 + 1e-4)}, TIMES)
        assert worst(prediction.values, wrong) > GLOBAL

    @pytest.mark.thorough
    def test_start_before_the_first_datum(self):
        inputs = given(TIMES + 1, ramp=RAMP * (TIMES + 1))
        early = eqx.tree_at(lambda i: i.start, inputs, jnp.asarray(-0.5))
        # The ramp is held at its first value, RAMP, before the first datum.
        decayed = three_and_slopes(PARAMETERS, early)[0].values["decayed"]
        np.testing.assert_allclose(
            decayed, PARAMETERS["decayed"] * np.exp(-0.8 * (TIMES + 1.5)), atol=GLOBAL
        )

    def test_gradients_in_parameters_and_initial_values(self):
        _, ours = three_and_slopes(PARAMETERS, self.inputs)
        exact = jax.jit(jax.grad(lambda p: weighted(closed_form(p, TIMES))))(PARAMETERS)
        for name in PARAMETERS:
            assert float(ours[name]) == pytest.approx(float(exact[name]), abs=10 * GLOBAL), name

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "solver",
        [
            "Dopri8",
            *(
                pytest.param(solver, marks=pytest.mark.slow)
                for solver in ("tsit5", "bosh3", "rodas5p", "kvaerno3", diffrax.Kvaerno5())
            ),
        ],
    )
    def test_every_kind_of_solver(self, solver):
        prediction = solve(three(PARAMETERS, solver=solver, rtol=1e-6, atol=1e-6), self.inputs)
        assert bool(prediction.ok)
        assert worst(prediction.values, closed_form(PARAMETERS, TIMES)) < 100 * 1e-6

    @pytest.mark.thorough
    @pytest.mark.parametrize("solver", ["tsit5", pytest.param("rodas5p", marks=pytest.mark.slow)])
    def test_one_time_only(self, solver):
        prediction = solve(three(PARAMETERS, solver=solver), given([0.0], ramp=[0.0]))
        assert bool(prediction.ok)
        assert {n: v.tolist() for n, v in prediction.values.items()} == {
            n: [PARAMETERS[n]] for n in STATES
        }


class Robertson(bd.Module):
    """Chemical kinetics with rates nine orders of magnitude apart (Robertson 1966)."""

    def __call__(self, t, y, u):
        slow, fast, pair = 0.04 * y["a"], 3e7 * y["b"] ** 2, 1e4 * y["b"] * y["c"]
        return {"a": pair - slow, "b": slow - pair - fast, "c": fast}


class TestStiff:
    times = np.array([0.4, 40.0, 4000.0])

    def layer(self, **options):
        return bd.ODE(Robertson(), {"a": 1.0, "b": 0.0, "c": 0.0}, rtol=1e-7, atol=1e-11, **options)

    @pytest.mark.slow
    def test_robertson_against_scipy(self):
        def rates(t, y):
            return list(Robertson()(t, dict(zip("abc", y, strict=True)), {}).values())

        prediction = solve(self.layer(solver="kvaerno5"), given(self.times, start=0.0))
        assert bool(prediction.ok)
        for method in ("BDF", "Radau"):
            exact = solve_ivp(
                rates, (0, 4000), [1.0, 0, 0], method, self.times, rtol=1e-9, atol=1e-13
            ).y
            for name, reference in zip("abc", exact, strict=True):
                np.testing.assert_allclose(prediction.values[name], reference, rtol=100 * 1e-7)

    @pytest.mark.slow
    def test_a_solver_for_easy_equations_reports_failure(self):
        prediction = solve(self.layer(max_steps=500), given(self.times, start=0.0))
        assert not bool(prediction.ok)
        assert int(prediction.stats["steps"]) == 500


class BlowUp(bd.Module):
    """y' = k y² leaves every bound at t = 1 / (k y(0))."""

    k: Any

    def __call__(self, t, y, u):
        return {"y": self.k * y["y"] ** 2}


@pytest.fixture(scope="module")
def batch():
    """Predictions, log densities and gradients of three solves, of which the second fails."""
    inputs = given(TestFailure.times)

    def density(k):
        layer = bd.ODE(BlowUp(k), {"y": 1.0}, rtol=RTOL, atol=RTOL, max_steps=256)
        prediction = layer(inputs)
        return jnp.where(
            prediction.ok, -jnp.sum(jnp.log(prediction.values["y"])), -jnp.inf
        ), prediction

    (value, prediction), gradient = jax.jit(jax.vmap(jax.value_and_grad(density, has_aux=True)))(
        TestFailure.ks
    )
    return prediction, value, gradient


class TestFailure:
    """One solve of three fails; all are batched."""

    ks = jnp.asarray([0.1, 1.0, 0.3])
    times = np.array([0.0, 1.0, 2.0])

    def test_is_flagged(self, batch):
        assert batch[0].ok.tolist() == [True, False, True]

    def test_everything_is_finite_but_the_density(self, batch):
        prediction, value, gradient = batch
        assert np.isfinite(prediction.values["y"]).all()
        assert np.isfinite(gradient).all()
        assert np.isfinite(value).tolist() == [True, False, True]
        assert value[1] == -np.inf

    def test_steps_are_counted(self, batch):
        steps = batch[0].stats["steps"]
        assert steps[1] == 256
        assert 0 < steps[0] < steps[2] < 256

    def test_the_others_are_right(self, batch):
        prediction, _, gradient = batch
        kt = np.asarray(self.ks)[::2, None] * self.times
        np.testing.assert_allclose(prediction.values["y"][::2], 1 / (1 - kt), atol=GLOBAL)
        np.testing.assert_allclose(
            gradient[::2], -np.sum(self.times / (1 - kt), axis=1), atol=10 * GLOBAL
        )

    def test_a_singular_vector_field_raises_nothing(self):
        layer = bd.ODE(lambda t, y, u: {"y": -1 - jnp.sqrt(y["y"])}, {"y": 1.0}, max_steps=64)
        prediction = solve(layer, given(self.times))
        assert not bool(prediction.ok)
        assert np.isfinite(prediction.values["y"]).all()

    def test_an_observation_that_is_not_finite_is_flagged(self):
        def observe(t, y, u):
            return {"z": jnp.log(y["y"])}

        layer = bd.ODE(lambda t, y, u: {"y": -jnp.ones(())}, {"y": 1.5}, observe=observe)
        for times, ok in ((self.times / 2, True), (self.times, False)):
            prediction = solve(layer, given(times))
            assert bool(prediction.ok) is ok
            assert np.isfinite(prediction.values["z"]).all()


class Compartments(bd.Module):
    exchange: Any

    def __call__(self, t, y, u):
        return {"x": self.exchange @ y["x"]}


class Gauge(bd.Module):
    gain: bd.Scalar

    def __call__(self, t, y, u):
        return {"total": self.gain * y["x"].sum(), "first": y["x"][0] + u["shift"] + t}


class TestObserve:
    matrix = np.array([[-0.5, 0.2], [0.4, -0.3]])
    start = np.array([2.0, 1.0])

    def layer(self, gain):
        initial = {"x": self.start}
        options = {"observe": Gauge(gain), "forcings": ["shift"], "rtol": RTOL, "atol": RTOL}
        return bd.ODE(Compartments(self.matrix), initial, **options)

    @pytest.mark.thorough
    def test_array_states(self):
        shift = np.array([3.0, 1.0, 0.0, 2.0, 5.0])
        prediction = solve(self.layer(1.5), given(TIMES, shift=shift))
        x = np.array([expm(self.matrix * t) @ self.start for t in TIMES])
        np.testing.assert_allclose(prediction.values["total"], 1.5 * x.sum(1), atol=GLOBAL)
        np.testing.assert_allclose(prediction.values["first"], x[:, 0] + shift + TIMES, atol=GLOBAL)

    @pytest.mark.parametrize("gain", [1.5, jnp.asarray(1.5), dist.LogNormal(0.0, 1.0)])
    def test_outputs_are_what_is_observed(self, gain):
        assert self.layer(gain).outputs == ("first", "total")

    def test_array_states_need_it(self):
        with pytest.raises(ModelError, match=r"initial\['x'\] must be a number"):
            bd.ODE(Compartments(self.matrix), {"x": self.start})


class TestUnits:
    def test_of_random_leaves(self):
        class Growth(bd.Module):
            rate: bd.Scalar = bd.field(units="1/day")
            shape: bd.Scalar = 1.0

            def __call__(self, t, y, u):
                return {"y": self.rate * y["y"]}

        unknown = dist.LogNormal(0.0, 1.0)
        layer = bd.ODE(Growth(unknown, unknown), {"y": unknown}, units={"y": "mg/L"})
        units = {path: leaf.units for path, leaf in paths(layer).items()}
        assert units == {
            "vector_field.rate": "1/day",
            "vector_field.shape": "",
            "initial.y": "mg/L",
        }


class TestSolverNames:
    def names(self):
        with pytest.raises(ModelError) as error:
            find_solver("rk4")
        return str(error.value).split("one of the names ")[1].split(" (")[0].split(", ")

    def test_in_any_case(self):
        for name in ("kvaerno5", "Kvaerno5", "KVAERNO5"):
            assert isinstance(find_solver(name), diffrax.Kvaerno5)

    def test_a_solver_is_itself(self):
        solver = diffrax.Dopri5()
        assert find_solver(solver) is solver

    def test_a_bad_name_lists_the_good_ones(self):
        assert {"tsit5", "dopri8", "kvaerno3", "kvaerno5", "rodas5p"} <= set(self.names())

    def test_every_name_in_the_list_is_for_an_ode(self):
        for name in self.names():
            solver = find_solver(name)
            assert not inspect.isabstract(type(solver))
            assert solver.term_structure is diffrax.AbstractTerm, name


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"solver": "euler"}, "unknown solver 'euler'"),
            ({"solver": 5}, "unknown solver 5"),
            ({"rtol": 0.0}, "rtol and atol must be positive"),
            ({"atol": -1.0}, "rtol and atol must be positive"),
            ({"max_steps": 0}, "max_steps at least 1"),
            ({"initial": {}}, "names every state"),
            ({"initial": {"y": np.ones(2)}}, r"initial\['y'\] must be a number"),
        ],
    )
    def test_when_built(self, unchecked, options, message):
        options = {"vector_field": BlowUp(1.0), "initial": {"y": 1.0}} | options
        with pytest.raises(ModelError, match=message):
            bd.ODE(**options)

    @pytest.mark.parametrize("rates", [{"z": 1.0}, {"y": 1.0, "z": 1.0}, {}])
    def test_rates_of_other_states(self, rates):
        layer = bd.ODE(lambda t, y, u: rates, {"y": 1.0})
        with pytest.raises(
            ModelError, match=r"the vector field returns rates for .* but the states are y"
        ):
            layer(given(TIMES))


class Follower(bd.Module):
    """A state that follows a forcing."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rate * (u["u"] - y["y"])}


@pytest.mark.slow
def test_kinks_of_a_forcing_cost_no_accuracy():
    """A zigzag, whose exact answer is known piece by piece; steps that end at kinks do not count in
    max_steps.
    """
    knots = np.arange(0.0, 41.0)
    levels = np.where(np.arange(41) % 2, 1.0, -1.0)
    inputs = given(knots, u=levels)
    follower = lambda rate, most: bd.ODE(  # noqa: E731
        Follower(jnp.asarray(rate)), {"y": 0.0}, forcings=("u",), max_steps=most
    )
    for rate in (0.2, 1.0):
        exact = [0.0]
        for left, right in itertools.pairwise(levels):
            # y' = r (u - y) with u = left + slope t has the particular solution u - slope / r.
            slope, decay = right - left, np.exp(-rate)
            exact.append(right - slope / rate + (exact[-1] - left + slope / rate) * decay)
        prediction = solve(follower(rate, 200), inputs)
        assert prediction.ok
        assert prediction.stats["steps"] >= 40
        np.testing.assert_allclose(prediction.values["y"], exact, atol=2e-5)
    few = int(prediction.stats["steps"]) - 20
    assert solve(follower(rate, few), inputs).ok


class Bounded(bd.Module):
    """y' = -k (y - 1) sqrt(y - b), which is NaN below b: a step that is too long ends there."""

    rate: bd.Scalar
    bound: float = 0.99

    def __call__(self, t, y, u):
        return {"y": -self.rate * (y["y"] - 1) * jnp.sqrt(y["y"] - self.bound)}

    def exact(self, t):
        # With w = sqrt(y - b) and a = sqrt(1 - b) the equation is w' = -k (w² - a²) / 2.
        a = np.sqrt(1 - self.bound)
        return (
            self.bound
            + (a / jnp.tanh(a * self.rate * t / 2 + np.arctanh(a / np.sqrt(3 - self.bound)))) ** 2
        )


class Switched(bd.Module):
    """y' = -k(t) sinh(y), where k grows by nine orders at t = 1: a step across that overflows."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * jnp.where(t < 1, 1e-3, 1e6) * jnp.sinh(y["y"])}

    def exact(self, t):
        passed = self.rate * (1e-3 * jnp.minimum(t, 1) + 1e6 * jnp.maximum(t - 1, 0))
        return 2 * jnp.arctanh(np.tanh(1.5) * jnp.exp(-passed))


class TestRetries:
    """Steps that leave the finite numbers are tried again, and have no say in the gradient
    (diffrax#752).
    """

    bounded = Bounded, 1000.0, [0.0, 0.002, 0.01, 0.1, 5.0]
    switched = Switched, 1.0, [0.0, 0.5, 1.0, 1.0 + 1e-6, 2.0]

    def layer(self, field, rate, solver, **options):
        options = {"solver": solver, "rtol": 1e-7, "atol": 1e-7, "max_steps": 8192} | options
        return bd.ODE(field(rate), {"y": 3.0}, **options)

    def loss(self, case, solver):
        field, _, times = case
        weights = np.random.default_rng(0).normal(size=len(times))

        def weighted_sum(rate, **options):
            prediction = self.layer(field, rate, solver, **options)(given(times))
            return jnp.sum(weights * prediction.values["y"]), prediction.ok

        return weighted_sum, lambda rate: jnp.sum(weights * field(rate).exact(jnp.asarray(times)))

    def check(self, case, solver, mode):
        loss, closed_form = self.loss(case, solver)
        exact, slope = jax.jit(jax.value_and_grad(closed_form))(case[1])
        if mode == "reverse":
            (value, ok), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(case[1])
        else:

            def ahead(rate):
                value, ok = loss(rate, adjoint=diffrax.ForwardMode())
                return value, (value, ok)

            found, (value, ok) = jax.jit(jax.jacfwd(ahead, has_aux=True))(case[1])
        assert bool(ok)
        # Local errors of 1e-7 add up over hundreds of steps.
        assert float(value) == pytest.approx(float(exact), abs=1000 * 1e-7)
        assert float(found) == pytest.approx(float(slope), abs=1e-3 * abs(float(slope)) + 1e-7)
        return float(found)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("case", "solver", "mode"),
        [(bounded, "kvaerno5", "forward"), (switched, "rodas5p", "reverse")],
    )
    def test_values_and_gradients(self, case, solver, mode):
        self.check(case, solver, mode)

    @pytest.mark.slow
    @pytest.mark.parametrize("solver", ["tsit5", "rodas5p", "kvaerno5"])
    @pytest.mark.parametrize("case", [bounded, switched])
    def test_both_modes(self, case, solver):
        if solver == "tsit5" and case is self.switched:
            case = *case[:2], case[2][:-1]  # far too stiff for the last unit of time
        reverse, forward = (self.check(case, solver, mode) for mode in ("reverse", "forward"))
        assert reverse == pytest.approx(forward, rel=1e-6)

    @pytest.mark.slow
    def test_a_batch_in_which_one_solve_has_bad_steps(self):
        loss, closed_form = self.loss(self.bounded, "tsit5")
        rates = jnp.asarray([1.0, self.bounded[1]])
        (values, ok), slopes = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))(rates)
        exact = jax.jit(jax.vmap(jax.value_and_grad(closed_form)))(rates)
        assert ok.all()
        np.testing.assert_allclose(values, exact[0], atol=GLOBAL * 100)
        np.testing.assert_allclose(slopes, exact[1], rtol=1e-3)
        forward = jax.jit(jax.jacfwd(lambda rate: loss(rate, adjoint=diffrax.ForwardMode())[0]))(
            rates[1]
        )
        assert float(slopes[1]) == pytest.approx(float(forward), rel=1e-6)

    controller = RetryingController(diffrax.PIDController(rtol=1e-6, atol=1e-6))

    @pytest.mark.thorough("inf-1e-09")
    @pytest.mark.parametrize(
        ("end", "error"), [(np.inf, 1e-9), (np.nan, 1e-9), (1.0, np.nan), (1.0, np.inf), (1e90, 0)]
    )
    def test_a_bad_step_is_rejected(self, end, error):
        state = (jnp.asarray(1.0), jnp.asarray(1.0), False)
        keep, start, stop, _, after, result = self.controller.adapt_step_size(
            jnp.asarray(2.0), jnp.asarray(3.0), {"y": 1.0}, {"y": jnp.asarray(end)}, None, {"y": jnp.asarray(error)}, 5,
            state,
        )  # fmt: skip
        assert not bool(keep)
        assert (float(start), float(stop)) == (2.0, pytest.approx(2.2))
        assert [float(value) for value in after] == [1.0, 1.0, 0.0]
        assert result == diffrax.RESULTS.successful

    def test_a_first_step_that_cannot_be_chosen(self):
        term = diffrax.ODETerm(lambda t, y, args: jnp.where(t > 0, jnp.nan, 1.0) + y)
        func = lambda terms, t, y, args: terms.vf(t, y, args)  # noqa: E731
        zero = jnp.asarray(0.0)
        first, _ = self.controller.init(
            term, zero, jnp.asarray(10.0), jnp.asarray(1.0), None, None, func, 5
        )
        assert float(first) == pytest.approx(1e-5)


class TestRates:
    def test_of_another_shape_are_refused(self):
        layer = bd.ODE(lambda t, y, u: {"y": jnp.zeros(2)}, {"y": 1.0})
        with pytest.raises(
            ModelError, match=r"rate of shape \(2,\) for 'y', which has the shape \(\)"
        ):
            layer(given(TIMES))

    @pytest.mark.thorough
    def test_a_field_that_holds_what_is_differentiated(self):
        """A plain function closed over a traced number, as a user may write it."""

        def last(rate):
            return bd.ODE(lambda t, y, u: {"y": -rate * y["y"]}, {"y": 1.0}, rtol=RTOL, atol=RTOL)(
                given(TIMES)
            ).values["y"][-1]

        assert float(jax.jit(jax.grad(last))(0.5)) == pytest.approx(-4 * np.exp(-2), abs=GLOBAL)

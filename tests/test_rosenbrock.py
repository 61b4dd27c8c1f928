"""Rodas5P: its order against closed forms, stiff equations against SciPy, gradients, batches,
rejected steps.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import bayes_dasl as bd
from bayes_dasl.layers._rosenbrock import Rodas5P, _unrolled_inverse

END = 2.0


def rates(t, y, args):
    """Nonlinear, non-autonomous, and a pure integral over time; states are a tree."""
    turning = jnp.stack([-y["pair"][1], y["pair"][0]])
    return {
        "fading": -2 * t * y["fading"] ** 2,
        "pair": jnp.cos(t) * turning,
        "integral": [jnp.cos(t)],
    }


START = {"fading": 1.0, "pair": jnp.array([1.0, 0.0]), "integral": [0.0]}


def closed_form(t):
    pair = np.stack([np.cos(np.sin(t)), np.sin(np.sin(t))], axis=-1)
    return {"fading": 1 / (1 + t**2), "pair": pair, "integral": [np.sin(t)]}


def largest_errors(solution, times):
    """Of each state at times inside the steps, and at the end."""
    off = jax.tree.map(lambda y, exact: np.abs(y - exact), solution.ys, closed_form(times))
    return [[error[:-1].max(), error[-1].max()] for error in jax.tree.leaves(off)]


@pytest.mark.thorough
def test_the_error_falls_with_the_fifth_power_of_the_step():
    """At the end; and in between, where a polynomial of fourth order has errors of that power."""
    times = np.append(np.linspace(0.013, 1.97, 37), END)

    @jax.jit
    def solve(steps):
        terms, saveat = diffrax.ODETerm(rates), diffrax.SaveAt(ts=times)
        return diffrax.diffeqsolve(
            terms, Rodas5P(), 0.0, END, END / steps, START, saveat=saveat, max_steps=100
        )

    errors = [largest_errors(solve(steps), times) for steps in (10, 20, 40)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert orders.shape == (2, 3, 2)
    assert (orders > 4.5).all(), orders


@pytest.mark.thorough
def test_a_constant_step_far_longer_than_the_fast_time_scale_is_stable_and_accurate():
    """Prothero & Robinson (1974): the solution is cos t, whatever the stiffness."""
    stiff = diffrax.ODETerm(lambda t, y, args: -1e8 * (y - jnp.cos(t)) - jnp.sin(t))
    decay = diffrax.ODETerm(lambda t, y, args: -1e10 * y)

    @jax.jit
    def both():
        exact = diffrax.diffeqsolve(stiff, Rodas5P(), 0.0, END, 0.1, 1.0).ys[-1]
        return exact, Rodas5P().step(decay, 0.0, 1.0, 1.0, None, None, False)[0]

    exact, y1 = both()
    assert float(exact) == pytest.approx(np.cos(END), abs=1e-8)
    assert abs(float(y1)) < 1e-8  # L-stable


def given(times):
    return bd.inputs(xr.Dataset(coords={"time": times}), start=0.0)


class Robertson(bd.Module):
    """Chemical kinetics, with b in units of 1e-4 (Robertson 1966)."""

    slow: bd.Scalar = 0.04
    fast: bd.Scalar = 0.3
    pair: bd.Scalar = 1.0

    def __call__(self, t, y, u):
        slow, fast, pair = self.slow * y["a"], self.fast * y["b"] ** 2, self.pair * y["b"] * y["c"]
        return {"a": pair - slow, "b": 1e4 * (slow - pair - fast), "c": fast}


def by_scipy(times, *parameters):
    field = Robertson(*parameters)

    def rates(t, y):
        return list(field(t, dict(zip("abc", y, strict=True)), {}).values())

    return solve_ivp(rates, (0, times[-1]), [1.0, 0, 0], "Radau", times, rtol=1e-11, atol=1e-13).y


def robertson(*parameters, **options):
    options = {"solver": "rodas5p", "rtol": 1e-7, "atol": 1e-9} | options
    return bd.ODE(Robertson(*parameters), {"a": 1.0, "b": 0.0, "c": 0.0}, **options)


@pytest.mark.slow
def test_robertson_against_scipy():
    times = np.array([0.4, 40.0, 4000.0])
    solve = eqx.filter_jit(lambda layer: layer(given(times)))
    prediction, implicit = solve(robertson()), solve(robertson(solver="kvaerno5"))
    assert bool(prediction.ok)
    for name, exact in zip("abc", by_scipy(times), strict=True):
        np.testing.assert_allclose(prediction.values[name], exact, rtol=100 * 1e-7)
    assert int(prediction.stats["steps"]) < int(implicit.stats["steps"])


@pytest.mark.thorough
def test_the_error_is_what_the_tolerance_asks_for():
    times = np.array([1.0, END])
    solve = jax.jit(
        lambda rtol: diffrax.diffeqsolve(
            diffrax.ODETerm(rates), Rodas5P(), 0.0, END, None, START, saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),
        )
    )  # fmt: skip
    errors, steps = [], []
    for rtol in (1e-4, 1e-6, 1e-8, 1e-10):
        solution = solve(rtol)
        errors.append(np.max(largest_errors(solution, times)))
        steps.append(int(solution.stats["num_steps"]))
        assert errors[-1] < 10 * rtol
    # An error proportional to the tolerance; steps as its fifth root, and no more than twice as
    # many.
    assert (np.divide(errors[:-1], errors[1:]) > 10).all()
    assert (np.divide(steps[1:], steps[:-1]) < 2 * 100 ** (1 / 5)).all()


@pytest.mark.slow
def test_gradients_against_differences_of_scipy():
    times, at = np.array([0.4, 40.0]), np.array([0.04, 0.3, 1.0])
    weights = dict(zip("abc", np.random.default_rng(0).normal(size=(3, 2)), strict=True))

    def values(log_parameters, **options):
        return robertson(*jnp.exp(log_parameters), rtol=1e-8, atol=1e-10, **options)(
            given(times)
        ).values

    def loss(log_parameters):
        found = values(log_parameters)
        return sum(jnp.vdot(weights[name], found[name]) for name in "abc")

    ahead = jax.jit(jax.jacfwd(lambda p: values(p, adjoint=diffrax.ForwardMode())))(jnp.log(at))
    back = jax.jit(jax.grad(loss))(jnp.log(at))
    for i, nudge in enumerate(np.exp(1e-3 * np.eye(3))):
        # Central differences: an error of the square of the nudge.
        exact = dict(
            zip(
                "abc",
                (by_scipy(times, *at * nudge) - by_scipy(times, *at / nudge)) / 2e-3,
                strict=True,
            )
        )
        for name, slope in exact.items():
            np.testing.assert_allclose(ahead[name][:, i], slope, rtol=1e-5, atol=1e-6)
        assert float(back[i]) == pytest.approx(
            sum(weights[name] @ exact[name] for name in "abc"), rel=1e-5, abs=1e-6
        )


@pytest.mark.thorough
@pytest.mark.parametrize("size", [pytest.param(8, marks=pytest.mark.slow), 9])
def test_few_states_and_many(size):
    """By elimination written out, and by LAPACK: a linear equation has a matrix exponential; so has
    its slope.
    """
    rng = np.random.default_rng(size)
    matrix, start = (
        rng.normal(size=(size, size)) / np.sqrt(size) - np.eye(size),
        rng.normal(size=size),
    )

    class Linear(bd.Module):
        speed: bd.Scalar

        def __call__(self, t, y, u):
            return {"x": self.speed * matrix @ y["x"]}

    def end(speed):
        layer = bd.ODE(Linear(speed), {"x": start}, lambda t, y, u: {"sum": y["x"].sum()}, solver="rodas5p",
                       rtol=1e-9, atol=1e-9, adjoint=diffrax.ForwardMode())  # fmt: skip
        return (layer(given([0.0, 1.0])).values["sum"][-1],) * 2

    slope, value = jax.jit(jax.jacfwd(end, has_aux=True))(1.5)
    exact = expm(1.5 * matrix) @ start
    assert float(value) == pytest.approx(exact.sum(), abs=1e-7)
    assert float(slope) == pytest.approx((matrix @ exact).sum(), abs=1e-6)


@pytest.mark.thorough
def test_the_inverse_pivots_and_is_differentiable():
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(20, 5, 5)) * 10.0 ** rng.uniform(-6, 6, size=(20, 5, 1))
    matrices[:10, np.arange(5), np.arange(5)] = 0.0  # nothing to divide by without pivots
    ours = jax.jit(jax.vmap(_unrolled_inverse))(jnp.asarray(matrices))
    np.testing.assert_allclose(ours @ matrices, np.broadcast_to(np.eye(5), (20, 5, 5)), atol=1e-8)
    moderate = jnp.asarray(rng.normal(size=(4, 4)))
    ours, numpys = jax.jit(
        lambda matrix: (jax.jacrev(_unrolled_inverse)(matrix), jax.jacrev(jnp.linalg.inv)(matrix))
    )(moderate)
    np.testing.assert_allclose(ours, numpys, rtol=1e-9)
    assert not np.isfinite(_unrolled_inverse(jnp.zeros((2, 2)))).any()


class Growth(bd.Module):
    """y' = k y², which leaves every bound at t = 1 / k."""

    k: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.k * y["y"] ** 2}


@pytest.mark.thorough
@pytest.mark.parametrize("forward", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_batch_of_solves_that_end_after_different_steps(forward):
    """One of them never does; the others' gradients are finite, and right."""
    times, ks = np.array([0.0, 1.0, 2.0]), jnp.array([0.0, 0.1, 1.0, 0.4])
    adjoint = {"adjoint": diffrax.ForwardMode()} if forward else {}

    def value(k):
        layer = bd.ODE(Growth(k), {"y": 1.0}, solver="rodas5p", rtol=1e-8, max_steps=200, **adjoint)
        prediction = layer(given(times))
        return prediction.values["y"].sum(), prediction.ok

    slope_of = (jax.jacfwd if forward else jax.jacrev)(value, has_aux=True)
    slopes, ok = jax.jit(jax.vmap(slope_of))(ks)
    assert ok.tolist() == [True, True, False, True]
    assert np.isfinite(slopes).all()
    kt = np.asarray(ks)[[0, 1, 3], None] * times
    np.testing.assert_allclose(
        slopes[np.array([0, 1, 3])], (times / (1 - kt) ** 2).sum(1), rtol=1e-5
    )


@pytest.mark.thorough
def test_a_step_into_what_is_not_a_number_is_rejected():
    """y = √(1 − t): a long step ends below zero, where the equation has no value."""
    terms = diffrax.ODETerm(lambda t, y, args: jnp.where(y > 0, -0.5 / y, jnp.nan))
    controller = diffrax.PIDController(rtol=1e-8, atol=1e-8)

    @jax.jit
    def solve(first):
        return diffrax.diffeqsolve(
            terms, Rodas5P(), 0.0, 0.99, first, 1.0, stepsize_controller=controller, throw=False
        )  # fmt: skip

    for first in (0.99, 1.5):
        solution = solve(first)
        assert solution.result == diffrax.RESULTS.successful
        assert int(solution.stats["num_rejected_steps"]) > 0
        assert float(solution.ys[-1]) == pytest.approx(0.1, abs=1e-5)


@pytest.mark.thorough
def test_what_is_nowhere_a_number_is_a_flag_and_no_exception():
    layer = bd.ODE(
        lambda t, y, u: {"y": jnp.log(-y["y"])}, {"y": 1.0}, solver="rodas5p", max_steps=50
    )
    prediction = eqx.filter_jit(layer)(given([0.0, 1.0]))
    assert not bool(prediction.ok)
    assert np.isfinite(prediction.values["y"]).all()

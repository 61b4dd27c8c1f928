"""Where a layer fails it says so by `ok=False`, and no gradient of it is NaN, even if what fails is
singular there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from seldom import seldom

import bayes_dasl as bd

TIMES = np.arange(5.0)
GIVEN = bd.inputs(xr.Dataset({}, {"time": TIMES}))


def root(t, y, u):
    return {"root": jnp.sqrt(y["c"])}


def falling(k):
    return lambda t, y, u: {"c": -k}


LAYERS = {
    "ODE, observe": lambda k: bd.ODE(falling(k), {"c": 1.0}, observe=root),
    "ODE with a jump, observe": lambda k: bd.ODE(
        falling(k), {"c": 1.0}, observe=root, jumps=bd.Jump(1.0, {"c": -k})
    ),
    "SDE, observe": lambda k: bd.equations.SDE(
        falling(k), {"c": 0.1}, {"c": 1.0}, observe=root, grid=(0.0, 4.0, 8), path=jnp.zeros(8)
    ),
    "SDE, diffusion": lambda k: bd.equations.SDE(
        falling(k),
        lambda t, y, u: {"c": k * root(t, y, u)["root"]},
        {"c": 1.0},
        grid=(0.0, 4.0, 8),
        path=-jnp.ones(8),
    ),
    "Kalman, observe": lambda k: bd.filtering.Kalman(
        falling(k), {"c": 0.1}, {"c": 1.0}, {}, observe=root
    ),
    "Kalman, drift": lambda k: bd.filtering.Kalman(
        lambda t, y, u: {"c": -k * root(t, y, u)["root"] - k}, {"c": 0.1}, {"c": 1.0}, {}
    ),
    "Algebraic": lambda k: bd.Algebraic(lambda t, y, u: {"root": jnp.sqrt(1 - k * t)}),
    "Implicit": lambda k: bd.Implicit(
        lambda t, y, u: {"c": jnp.sqrt(y["c"]) + k * t - 1}, {"c": 0.5}, observe=root
    ),
}

# tests/test_kalman.py asks the filter too, and a jump is one more solve of the same equation.
SELDOM = ("Kalman, observe", "Kalman, drift", "ODE with a jump, observe")


def predicted(name, k):
    layer = LAYERS[name](k)
    if isinstance(layer, bd.filtering.Kalman):
        return layer(GIVEN, dict.fromkeys(layer.outputs, 0.1))
    return layer(GIVEN)


@pytest.mark.thorough("ODE, observe", "Implicit")
@pytest.mark.parametrize("name", seldom(LAYERS, *SELDOM))
def test_a_layer_that_leaves_its_domain(name):
    """The state falls below zero, where the root has no value; with a small rate it does not."""

    def total(k):
        prediction = predicted(name, k)
        return sum(
            jnp.sum(v) for v in (*prediction.values.values(), *prediction.variances.values())
        ), prediction.ok

    of_k = jax.jit(jax.value_and_grad(total, has_aux=True))
    (value, ok), gradient = of_k(1.0)
    assert not bool(ok)
    assert np.isfinite([value, gradient]).all()
    (_, ok), gradient = of_k(0.05)
    assert bool(ok)
    step = 1e-5
    (ahead, _), (behind, _) = of_k(0.05 + step)[0], of_k(0.05 - step)[0]
    central = (ahead - behind) / (2 * step)
    assert float(gradient) == pytest.approx(float(central), rel=1e-3)


class TestNotDetermined:
    """Equations of which one follows from the others: any of many roots is as good."""

    @pytest.mark.thorough
    def test_implicit(self):
        def ok(a):
            both = lambda t, y, u: {"x": a * y["x"] + 0.3 * a * y["y"] - 1, "y": 0.7 * (a * y["x"] + 0.3 * a * y["y"] - 1)}  # noqa: E731  # fmt: skip
            return bd.Implicit(both, {"x": 0.1, "y": 0.2})(GIVEN).ok

        assert not jax.jit(jax.vmap(ok))(jnp.linspace(0.1, 3.0, 50)).any()

    @pytest.mark.slow
    def test_steady_state_of_a_closed_system(self):
        def ok(k):
            def rates(t, y, u):
                forth, back = k[0] * y["a"] * y["b"] - k[1] * y["c"], k[2] * y["c"] - k[3] * y["d"]
                return {"a": -forth, "b": -forth, "c": forth - back, "d": back}

            return bd.SteadyState(rates, {"a": 1.0, "b": 0.7, "c": 0.2, "d": 0.0})(GIVEN).ok

        drawn = np.random.default_rng(0).uniform(0.1, 3.0, (20, 4))
        assert not jax.jit(jax.vmap(ok))(jnp.asarray(drawn)).any()

    @pytest.mark.thorough
    def test_of_very_different_scales_is_no_reason(self):
        both = lambda t, y, u: {"x": 1e-9 * (y["x"] - 2e6), "y": 1e9 * (y["y"] - 3e-6 * y["x"])}  # noqa: E731
        prediction = jax.jit(lambda: bd.Implicit(both, {"x": 1.0, "y": 1.0})(GIVEN))()
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["y"], 6.0)

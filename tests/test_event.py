"""Changes that the states trigger."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import realise

GRAVITY, BOUNCE = 9.81, 0.8


class Ball(bd.Module):
    gravity: bd.Scalar = GRAVITY

    def __call__(self, t, y, u):
        return {"height": y["speed"], "speed": -self.gravity}

    def above(self, t, y, u):
        return y["height"]


class Bounce(bd.Module):
    share: bd.Scalar = BOUNCE

    def __call__(self, t, y, u):
        return {"height": jnp.zeros(()), "speed": -self.share * y["speed"]}


def height(t, y, u):
    return y["height"]


def ball(bounce=None, field=None, **more):
    event = bd.Event(height, bounce or Bounce(), **{"most": 8} | more)
    return bd.ODE(
        field or Ball(),
        {"height": 1.0, "speed": 0.0},
        start=0.0,
        events=event,
        rtol=1e-9,
        atol=1e-9,
    )


def closed_form(times, gravity=GRAVITY, bounce=BOUNCE):
    """Height of a ball that falls from 1 and bounces, by its parabolas."""
    fall = np.sqrt(2 / gravity)
    heights, t0, speed = np.zeros(len(times)), -fall, np.sqrt(2 * gravity)
    for _ in range(40):
        long = 2 * speed / gravity
        inside = (times >= t0) & (times < t0 + long)
        s = times[inside] - t0
        heights[inside] = speed * s - gravity * s**2 / 2
        t0, speed = t0 + long, bounce * speed
    return heights


def solved(layer, times):
    model = bd.Model(layer, bd.NormalNoise(1.0))
    return realise(model, {}).predict(
        model.inputs(xr.Dataset(coords={"time": np.asarray(times, float)}))
    )


TIMES = np.linspace(0.0, 2.9, 40)


class TestBouncingBall:
    def test_against_the_closed_form(self):
        found = solved(ball(), TIMES)
        assert found.ok
        np.testing.assert_allclose(found.values["height"], closed_form(TIMES), atol=1e-6)

    @pytest.mark.thorough
    def test_gradient_of_what_happens_after_bounces(self):
        at = np.array([0.7, 1.9])  # after one and after three bounces
        last = lambda g, b: jnp.sum(solved(ball(Bounce(b), Ball(g)), at).values["height"])  # noqa: E731
        found, h = jax.jit(jax.grad(last, argnums=(0, 1)))(GRAVITY, BOUNCE), 1e-6
        for i, gradient in enumerate(found):
            ends = [[GRAVITY, BOUNCE], [GRAVITY, BOUNCE]]
            ends[0][i] -= h
            ends[1][i] += h
            exact = (closed_form(at, *ends[1]).sum() - closed_form(at, *ends[0]).sum()) / (2 * h)
            assert gradient == pytest.approx(exact, rel=1e-5)

    @pytest.mark.thorough
    def test_more_than_there_may_be_is_a_failure(self):
        assert not solved(ball(most=2), TIMES).ok
        assert solved(ball(most=8), TIMES).ok

    @pytest.mark.slow
    def test_in_a_posterior(self):
        layer = ball(Bounce(dist.Beta(8.0, 2.0)))
        model = bd.Model(layer, {"height": bd.NormalNoise(0.05)})
        data = xr.Dataset({"height": ("time", closed_form(TIMES))}, {"time": TIMES})
        problem = pose(model, data)
        truth = problem.unconstrain({next(iter(problem.sites)): jnp.asarray(BOUNCE)})
        run = jax.jit(jax.value_and_grad(problem.log_density))
        value, gradient = run(truth)
        lower = [run(truth + step)[0] for step in (-0.1, 0.1)]
        assert np.isfinite(gradient).all() and max(lower) < value


@pytest.mark.thorough
def test_a_dose_whenever_a_level_is_low():
    """Decay from 4 to 1 takes log 4; every dose of 3 is one of these periods later."""
    event = bd.Event(lambda t, y, u: y["level"] - 1.0, {"level": 3.0})
    layer = bd.ODE(lambda t, y, u: {"level": -y["level"]}, {"level": 4.0}, start=0.0, events=event)
    times = np.linspace(0.0, 9.0, 50)
    found = solved(layer, times)
    np.testing.assert_allclose(found.values["level"], 4 * np.exp(-(times % np.log(4.0))), rtol=1e-4)


@pytest.mark.thorough
def test_rising_and_both():
    def wave(t, y, u):
        return {"x": jnp.cos(t), "count": jnp.zeros(())}

    for direction, expected in (("rising", 2.0), ("falling", 1.0), ("both", 3.0)):
        event = bd.Event(lambda t, y, u: y["x"] - 0.5, {"count": 1.0}, direction)
        layer = bd.ODE(wave, {"x": 0.0, "count": 0.0}, start=0.0, events=event)
        assert solved(layer, [0.0, 2 * np.pi + 1.0]).values["count"][-1] == expected


@pytest.mark.thorough
def test_beside_a_jump():
    event = bd.Event(lambda t, y, u: y["x"] - 1.0, {"x": 1.0})
    layer = bd.ODE(
        lambda t, y, u: {"x": jnp.full((), -1.0)},
        {"x": 2.0},
        start=0.0,
        events=event,
        jumps=bd.Jump(1.5, {"x": 1.0}),
    )
    found = solved(layer, [0.0, 0.5, 1.2, 1.7, 2.2, 2.8, 3.2])
    # 2 falls to 1 at 1.0, is 2 again, 1.5 at the jump that makes it 2.5, and 1 at 3.0.
    np.testing.assert_allclose(found.values["x"], [2.0, 1.5, 1.8, 2.3, 1.8, 1.2, 1.8], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bd.Event(1.0, {"x": 1.0}), "when must be a function"),
        (lambda: bd.Event(height, {}), "change of a jump"),
        (lambda: bd.Event(height, {"x": 1.0}, "down"), "direction must be one of"),
        (lambda: bd.Event(height, {"x": 1.0}, most=0), "most must be a whole number"),
        (
            lambda: bd.ODE(
                Ball(), {"height": 1.0, "speed": 0.0}, events=bd.Event(height, {"x": 1.0})
            ),
            "changes 'x'",
        ),
        (
            lambda: bd.ODE(
                Ball(), {"height": 1.0, "speed": 0.0}, events=bd.Jump(1.0, {"speed": 1.0})
            ),
            "events must be",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ModelError, match=message):
        make()


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (lambda t, y, u: y["height"] < 0.5, "not a truth value"),
        (lambda t, y, u: {"height": y["height"]}, "not dict"),
        (lambda t, y, u: y["height"] * jnp.ones(2), r"not an array of shape \(2,\)"),
    ],
)
def test_what_cannot_pass_through_zero_is_refused(when, said):
    model = bd.Model(
        bd.ODE(
            Ball(), {"height": 1.0, "speed": 0.0}, start=0.0, events=bd.Event(when, {"speed": 1.0})
        ),
        bd.NormalNoise(0.1),
    )
    inputs = model.inputs(xr.Dataset(coords={"time": np.linspace(0.0, 1.0, 3)}))
    with pytest.raises(
        ModelError, match="must return one number that passes through zero.* " + said
    ):
        realise(model, {}).predict(inputs)

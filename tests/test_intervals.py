"""Sums and means of an ODE over intervals up to each datum, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.random import realise

TOLERANCE = 1e-5  # ten times that of the solver


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"level": -self.rate * y["level"] + u.get("inflow", 0.0)}

    def seen(self, t, y, u):
        return {"loss": self.rate * y["level"], "level": y["level"]}


class SIR(bd.Module):
    contact: bd.Scalar
    recovery: bd.Scalar

    def infections(self, y):
        return self.contact * y["S"] * y["I"] / 1000.0

    def __call__(self, t, y, u):
        new, recovered = self.infections(y), self.recovery * y["I"]
        return {"S": -new, "I": new - recovered}

    def cases(self, t, y, u):
        return {"cases": self.infections(y), "S": y["S"]}


def predicted(layer, times, **more):
    model = bd.Model(layer, bd.NormalNoise(1.0))
    found = realise(model, {}).predict(
        model.inputs(xr.Dataset(more, {"time": np.asarray(times, float)}))
    )
    assert found.ok
    return found.values


def decay(rate=0.4, **more):
    return bd.ODE(Decay(rate), {"level": 10.0}, Decay.seen, start=0.0, **more)


def level(t):
    return 10.0 * np.exp(-0.4 * np.asarray(t))


TIMES = np.array([0.0, 0.5, 1.5, 2.0, 2.0, 5.0])


class TestClosedForms:
    def test_sums_and_means(self):
        """A loss that is summed is what the level has fallen by; an interval that would begin
        before the start begins there, and its mean at the start is the value."""
        found = predicted(decay(sums={"loss": 1.0}, means={"level": 2.0}), TIMES)
        begin = np.maximum(TIMES - 1.0, 0.0)
        np.testing.assert_allclose(
            found["loss"], level(begin) - level(TIMES), rtol=TOLERANCE, atol=TOLERANCE
        )
        begin, end = np.maximum(TIMES - 2.0, 0.0)[1:], TIMES[1:]
        mean = (level(begin) - level(end)) / 0.4 / (end - begin)
        np.testing.assert_allclose(found["level"], [10.0, *mean], rtol=TOLERANCE)

    @pytest.mark.thorough
    def test_since_the_start(self):
        found = predicted(decay(sums={"loss": None}, means={"level": None}), TIMES[1:])
        np.testing.assert_allclose(found["loss"], 10.0 - level(TIMES[1:]), rtol=TOLERANCE)
        np.testing.assert_allclose(
            found["level"], (10.0 - level(TIMES[1:])) / 0.4 / TIMES[1:], rtol=TOLERANCE
        )

    @pytest.mark.thorough
    def test_states_are_what_is_observed_unless_said(self):
        layer = bd.ODE(Decay(0.4), {"level": 10.0}, start=0.0, sums={"level": 1.0})
        found = predicted(layer, [1.0, 3.0])["level"]
        np.testing.assert_allclose(
            found, (level([0.0, 2.0]) - level([1.0, 3.0])) / 0.4, rtol=TOLERANCE
        )

    @pytest.mark.thorough("steps", "a jump of all states")
    @pytest.mark.parametrize(
        ("sudden", "gained"),
        [
            ({}, [0, 0, 0, 0, 0]),
            ({"jumps": bd.Jump(2.5, lambda t, y, u: {name: value - 2.0 for name, value in y.items()})},
             [0, 0, 0, -2, -2]),
            ({"events": bd.Event(lambda t, y, u: y["level"] - 6.0, lambda t, y, u: {"level": y["level"] + 1.0})},
             [0, 0, 0, 3, 3]),
        ],
        ids=["steps", "a jump of all states", "events"],
    )  # fmt: skip
    def test_balance(self, sudden, gained):
        """What came in and was given, less what is there, is what was lost; a jump does not see the
        integral.
        """
        inflow = np.array([3.0, 0.0, 0.0, 2.0, 2.0])
        layer = decay(
            forcings="inflow", interpolation={"inflow": "step"}, sums={"loss": None}, **sudden
        )
        found = predicted(layer, np.arange(5.0), inflow=("time", inflow))
        came = np.concatenate([[0.0], np.cumsum(inflow)[:-1]])
        np.testing.assert_allclose(
            found["loss"], 10.0 + came + gained - found["level"], rtol=TOLERANCE, atol=1e-4
        )

    @pytest.mark.thorough
    @pytest.mark.parametrize("solver", ["tsit5", "rodas5p"])
    def test_weekly_cases_are_the_susceptibles_that_are_gone(self, solver):
        weeks = np.arange(0.0, 71.0, 7.0)
        epidemic = bd.ODE(
            SIR(0.4, 0.2), {"S": 990.0, "I": 10.0}, SIR.cases, solver=solver, sums={"cases": 7.0}
        )
        found = predicted(epidemic, weeks)
        np.testing.assert_allclose(
            found["cases"], [0.0, *-np.diff(found["S"])], rtol=TOLERANCE, atol=1e-3
        )

    @pytest.mark.thorough
    def test_gradient(self):
        def total(rate):
            return jnp.sum(predicted(decay(rate, sums={"loss": 1.0}), TIMES)["loss"])

        exact = sum(10.0 * (t * np.exp(-0.4 * t) - b * np.exp(-0.4 * b)) for t, b in
                    zip(TIMES, np.maximum(TIMES - 1.0, 0.0), strict=True))  # fmt: skip
        assert jax.grad(total)(0.4) == pytest.approx(exact, rel=1e-4)


@pytest.mark.thorough
def test_the_interval_is_that_of_the_layer_whatever_times_are_asked_for():
    every = predicted(epidemic_at(0.4), [38.0, 45.0, 49.5, 56.5])
    np.testing.assert_allclose(
        every["cases"][1::2], every["S"][0::2] - every["S"][1::2], rtol=TOLERANCE
    )


@pytest.mark.slow
def test_a_fit_and_a_forecast_at_other_times():
    """The interval is that of the layer, whatever times are asked for."""
    epidemic = bd.ODE(
        SIR(dist.Uniform(0.38, 0.42), 0.2),
        {"S": 990.0, "I": 10.0},
        SIR.cases,
        start=0.0,
        sums={"cases": 7.0},
        rtol=1e-4,
    )
    model = bd.Model(epidemic, {"cases": bd.NormalNoise(10.0)})
    weeks = np.arange(7.0, 43.0, 7.0)
    data = xr.Dataset(
        {"cases": ("time", np.asarray(predicted(epidemic_at(0.4), weeks)["cases"]))},
        {"time": weeks},
    )
    post = bd.fit(model, data, Sifting(draws=30, proposals=300), progress=False)
    assert float(post["posterior"]["contact"].mean()) == pytest.approx(0.4, abs=0.005)
    ahead = bd.forecast(model, post, np.array([45.0, 52.0, 56.5]))
    expected = predicted(epidemic_at(0.4), [45.0, 52.0, 56.5])["cases"]
    np.testing.assert_allclose(
        ahead["conditional_mean"]["cases"].mean(["chain", "draw"]), expected, rtol=0.1
    )


def epidemic_at(contact):
    return bd.ODE(
        SIR(contact, 0.2), {"S": 990.0, "I": 10.0}, SIR.cases, start=0.0, sums={"cases": 7.0}
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sums": {"gone": 1.0}}, "sums and means are of level, loss, not of 'gone'"),
        ({"sums": {"loss": 0.0}}, "over a positive length of time, or None for all, not 0.0"),
        ({"sums": {"loss": 1.0}, "means": {"loss": 1.0}}, "'loss' is either a sum or a mean"),
    ],
)
def test_refuses(more, said):
    with pytest.raises(ModelError, match=said):
        decay(**more)


def test_shooting_refuses_them():
    layer = bd.ODE(Decay(0.4), {"level": 10.0}, sums={"level": 1.0})
    with pytest.raises(ModelError, match="leave MultipleShooting out"):
        bd.equations.MultipleShooting(layer, (1.0,), {"level": np.ones(1)}, gap=0.1)

"""Delay differential equations against closed forms, SciPy's method of steps, and a published
threshold.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.random import realise


class Fading(bd.Module):
    """A rate against what was: dy/dt = -rate y(t - tau)."""

    rate: bd.Scalar = 1.0

    def __call__(self, t, y, u):
        return {"y": -self.rate * u["past"]}


class MackeyGlass(bd.Module):
    """Production that falls where much was there before (Mackey & Glass 1977)."""

    production: bd.Scalar = 0.2
    loss: bd.Scalar = 0.1

    def __call__(self, t, y, u):
        return {"y": self.production * u["past"] / (1 + u["past"] ** 10) - self.loss * y["y"]}


class Hutchinson(bd.Module):
    """Logistic growth that crowding slows down after a time."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rate * y["y"] * (1 - u["past"])}


def at(*times):
    return bd.inputs(xr.Dataset(coords={"time": np.asarray(times, float)}), start=0.0)


def values(layer, times, name="y"):
    inputs = at(*times)
    found = jax.jit(lambda: layer(inputs))()
    assert bool(found.ok)
    return np.asarray(found.values[name])


def by_steps(rate, delay, history, end, times):
    """SciPy from delay to delay, each looking up the dense solution of the last."""
    pieces, begin, y = [], 0.0, history(0.0)

    def past(t):
        return history(t) if t <= 0 else pieces[min(int(t / delay), len(pieces) - 1)](t)[0]

    while begin < end:
        solution = solve_ivp(
            lambda t, y: [rate(y[0], past(t - delay))], (begin, begin + delay), [y], "DOP853", dense_output=True,
            rtol=1e-12, atol=1e-13,
        )  # fmt: skip
        pieces.append(solution.sol)
        begin, y = begin + delay, solution.y[0, -1]
    return np.array([past(t) for t in times])


def fading(t):
    """The closed form of y' = -y(t - 1), y = 1 up to zero, by the method of steps."""
    return sum((-1) ** k * (t - k + 1) ** k / math.factorial(k) for k in range(math.floor(t) + 2))


class TestClosedForm:
    TIMES = np.linspace(0.1, 6.0, 60)

    @pytest.mark.thorough
    def test_is_met_and_of_order_four(self):
        exact = np.array([fading(t) for t in self.TIMES])
        errors = [
            np.abs(
                values(
                    bd.equations.DDE(
                        Fading(), {"y": 1.0}, {"past": ("y", 1.0)}, longest_step=h, rtol=1e-3
                    ),
                    self.TIMES,
                )
                - exact
            ).max()
            for h in (0.125, 0.0625)
        ]
        assert errors[0] < 1e-5
        assert errors[0] / errors[1] > 14

    @pytest.mark.thorough
    def test_steps_end_where_the_start_comes_back_whatever_the_delay(self):
        """A delay that fits no grid costs no order: without steps that end there the error would be
        about 1e-4.
        """
        delay, times = 1.1371, np.linspace(0.1, 6.0, 40)
        exact = np.array([fading(t / delay) for t in times])
        found = values(
            bd.equations.DDE(
                Fading(1 / delay), {"y": 1.0}, {"past": ("y", delay)}, longest_step=0.1
            ),
            times,
        )
        np.testing.assert_allclose(found, exact, atol=3e-6)

    @pytest.mark.thorough
    def test_history_is_a_function_of_time(self):
        """y' = y(t - 1) with y = exp(a t) before, such that it goes on: a = exp(-a)."""
        a = 0.5671432904097838
        layer = bd.equations.DDE(
            Fading(-1.0),
            {"y": 1.0},
            {"past": ("y", 1.0)},
            history=lambda t, y, u: {"y": y["y"] * jnp.exp(a * t)},
        )
        times = np.linspace(0.0, 4.0, 9)
        np.testing.assert_allclose(values(layer, times), np.exp(a * times), rtol=1e-7)

    @pytest.mark.thorough
    def test_two_delays(self):
        """y' = a y(t - 1) + b y(t - 1.7) has exponentials, of a rate that solves a exp(-r) + b
        exp(-1.7 r) = r.
        """
        r, a = 0.3, 0.2
        b = (r - a * np.exp(-r)) * np.exp(1.7 * r)
        layer = bd.equations.DDE(
            lambda t, y, u: {"y": a * u["near"] + b * u["far"]}, {"y": 1.0},
            {"near": ("y", 1.0), "far": ("y", 1.7)}, history=lambda t, y, u: {"y": jnp.exp(r * t)},
        )  # fmt: skip
        times = np.linspace(0.0, 6.0, 13)
        np.testing.assert_allclose(values(layer, times), np.exp(r * times), rtol=1e-6)


class TestMackeyGlass:
    @pytest.mark.thorough("6.0-300.0-0.0001")
    @pytest.mark.parametrize(
        ("delay", "end", "tolerance"), [(6.0, 300.0, 1e-4), (17.0, 150.0, 1e-4)]
    )
    def test_is_that_of_a_fine_solution(self, delay, end, tolerance):
        times = np.linspace(1.0, end, 60)
        layer = bd.equations.DDE(
            MackeyGlass(), {"y": 1.2}, {"past": ("y", delay)}, longest_step=0.25
        )
        exact = by_steps(
            lambda y, past: 0.2 * past / (1 + past**10) - 0.1 * y, delay, lambda t: 1.2, end, times
        )
        np.testing.assert_allclose(values(layer, times), exact, atol=tolerance)

    @pytest.mark.thorough
    def test_too_long_steps_are_reported(self):
        layer = bd.equations.DDE(MackeyGlass(), {"y": 1.2}, {"past": ("y", 17.0)}, longest_step=6.0)
        assert not bool(layer(at(150.0)).ok)


@pytest.mark.thorough
@pytest.mark.parametrize(("product", "keeps_on"), [(1.5, False), (1.64, True)])
def test_hutchinson_oscillates_beyond_half_of_pi(product, keeps_on):
    """Its Hopf bifurcation lies at a rate times delay of pi / 2 = 1.571 (Hutchinson 1948, May
    1974).
    """
    late = np.linspace(250.0, 300.0, 200)
    found = values(
        bd.equations.DDE(Hutchinson(product), {"y": 1.1}, {"past": ("y", 1.0)}, rtol=1e-3), late
    )
    first, second = np.ptp(found[:100]), np.ptp(found[100:])
    assert second > 0.99 * first > 0.3 if keeps_on else second < 0.6 * first < 1e-3


class TestGradients:
    @pytest.mark.thorough
    def test_are_those_of_finite_differences(self):
        times = at(*np.linspace(0.3, 5.0, 12))

        def loss(numbers):
            tau, rate, first, slope = numbers
            layer = bd.equations.DDE(
                Hutchinson(rate), {"y": first}, {"past": ("y", tau)}, longest_step=0.1,
                history=lambda t, y, u: {"y": y["y"] + 0.1 + slope * t},
            )  # fmt: skip
            return jnp.sum(jnp.sin(layer(times).values["y"]))

        where = jnp.array([1.2, 0.9, 0.5, 0.1])
        slopes = jax.jit(jax.grad(loss))(where)
        value = jax.jit(loss)
        by_hand = [
            (value(where.at[i].add(1e-5)) - value(where.at[i].add(-1e-5))) / 2e-5 for i in range(4)
        ]
        np.testing.assert_allclose(slopes, by_hand, rtol=1e-5)

    @pytest.mark.thorough
    def test_a_delay_shorter_than_a_step_fails_with_finite_gradients(self):
        times = at(1.0, 3.0)

        def failing(tau):
            found = bd.equations.DDE(Fading(), {"y": 1.0}, {"past": ("y", tau)}, longest_step=0.5)(
                times
            )
            return jnp.sum(found.values["y"]), found.ok

        slope, ok = jax.jit(jax.grad(failing, has_aux=True))(0.1)
        assert not bool(ok) and np.isfinite(slope)


class TestModel:
    TIMES = np.linspace(0.0, 12.0, 25)

    def _model(self, tau, longest_step=0.1, **more):
        layer = bd.equations.DDE(
            Hutchinson(bd.between(0.3, 2.0)),
            {"y": 0.2},
            {"past": ("y", tau)},
            longest_step=longest_step,
            **more,
        )
        return bd.Model(layer, bd.NormalNoise(0.05))

    @pytest.mark.slow
    def test_unknown_delays_are_inferred_and_forecast(self):
        truth = bd.equations.DDE(Hutchinson(1.0), {"y": 0.2}, {"past": ("y", 1.3)})
        rng = np.random.default_rng(1)
        data = xr.Dataset(
            {"y": ("time", values(truth, self.TIMES) + 0.05 * rng.normal(size=25))},
            {"time": self.TIMES},
        )
        model = self._model(dist.Uniform(0.3, 3.0))
        post = bd.fit(model, data, bd.NUTS(chains=2, draws=200), progress=False)
        draws = post["posterior"].to_dataset()
        for name, number in {"past": 1.3, "rate": 1.0}.items():
            low, high = np.quantile(draws[name], [0.005, 0.995])
            assert low < number < high
        later = np.array([13.0, 14.0])
        found = bd.forecast(model, post, later)["conditional_mean"]["y"].values.reshape(-1, 2)
        exact = values(truth, later)
        assert np.all(np.abs(found.mean(0) - exact) < 4 * found.std(0) + 1e-3)

    @pytest.mark.thorough
    def test_a_tighter_tolerance_takes_finer_steps(self):
        model = self._model(dist.Uniform(0.3, 3.0))
        tight = bd.updating.tightened(model, 100.0)
        assert tight.layer.longest_step == pytest.approx(0.1 / 100**0.25)
        data = xr.Dataset({"y": ("time", self.TIMES)}, {"time": self.TIMES})
        values = {
            "layer.vector_field.rate": jnp.asarray(1.0),
            "layer.delays.past": jnp.asarray(1.3),
        }
        for each in (model, tight):
            inputs = each.inputs(data)
            assert bool(jax.jit(lambda v, m=each, i=inputs: realise(m, v).predict(i).ok)(values))

    @pytest.mark.thorough
    def test_forcings_and_past_states_are_seen_by_observe(self):
        class Store(bd.Module):
            def __call__(self, t, y, u):
                return {"water": u["rain"] - 0.5 * u["old"]}

            def flow(self, t, y, u):
                return {"flow": 0.5 * u["old"], "rain_now": u["rain"]}

        layer = bd.equations.DDE(
            Store(), {"water": 2.0}, {"old": ("water", 1.0)}, Store.flow, forcings="rain",
            interpolation={"rain": "step"},
        )  # fmt: skip
        rain = np.array([1.0, 3.0, 0.0, 0.0, 2.0])
        inputs = bd.inputs(
            xr.Dataset({"rain": ("time", rain)}, {"time": np.arange(5.0)}),
            interpolation={"rain": "step"},
        )
        found = layer(inputs)
        assert bool(found.ok)
        np.testing.assert_allclose(found.values["rain_now"], rain)
        # In the first day the outflow is that of the history; then it is half of 2 + (1 - 1) t.
        np.testing.assert_allclose(found.values["flow"][:3], [1.0, 1.0, 1.0], atol=1e-9)
        # Of the second day the rain is 3, the outflow 1: the water is 2 + 2 (t - 1), and out of it
        # a day later.
        np.testing.assert_allclose(found.values["flow"][3], 2.0, atol=1e-9)


class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "told"),
        [
            ({"delays": {}}, "delays must be a dict"),
            ({"delays": {"past": ("z", 1.0)}}, "the states are y"),
            ({"delays": {"past": ("y", 0.0)}}, r"delays\['past'\] must be positive"),
            ({"delays": {"past": ("y", -1.0)}}, r"delays\['past'\] must be positive"),
            (
                {"delays": {"past": ("y", dist.Normal(1.0, 1.0))}, "longest_step": 0.1},
                "distribution of positive numbers",
            ),
            ({"delays": {"past": ("y", dist.Uniform(0.5, 2.0))}}, "give longest_step"),
            ({"longest_step": 2.0}, "longer than the delay of 'past'"),
            ({"longest_step": 0.0}, "longest_step must be positive"),
            ({"delays": {"rain": ("y", 1.0)}, "forcings": "rain"}, "'rain' is a forcing"),
            ({"rtol": 0.0}, "rtol and atol must be positive"),
        ],
    )
    def test_what_cannot_be(self, more, told):
        with pytest.raises(ModelError, match=told):
            bd.equations.DDE(Fading(), {"y": 1.0}, **({"delays": {"past": ("y", 1.0)}} | more))

    def test_too_many_steps(self):
        layer = bd.equations.DDE(Fading(), {"y": 1.0}, {"past": ("y", 0.01)})
        with pytest.raises(ModelError, match="would take 320000 steps"):
            layer(at(100.0))

    def test_history_of_what_is_no_state(self):
        layer = bd.equations.DDE(
            Fading(), {"y": 1.0}, {"past": ("y", 1.0)}, history=lambda t, y, u: {"z": t}
        )
        with pytest.raises(ModelError, match="history gives 'z'"):
            layer(at(1.0))

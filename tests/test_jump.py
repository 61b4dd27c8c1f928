"""Jumps of an ODE against closed forms and SciPy: values, times and amounts that are learned,
edges, refusals.
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
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.random import paths, realise

TOLERANCE = 1e-9
GLOBAL = 1000 * TOLERANCE
FORWARD = diffrax.ForwardMode()
TIMES = np.array([0.0, 1.0, 2.0, 3.0, 3.5, 4.0, 6.0, 7.0])


def given(times=TIMES, start=None):
    return bd.inputs(xr.Dataset({}, {"time": times}), start=start)


class Elimination(bd.Module):
    """One compartment, first order: c' = -k c."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"c": -self.rate * y["c"]}


PARAMETERS = {
    "rate": 0.7,
    "first": 0.4,
    "doses": jnp.asarray([5.0, 1.0, 2.0, 3.0, 4.0, 0.5, 9.0]),
    "times": jnp.asarray([-1.0, 0.1, 1.3, 2.9, 3.2, 6.9, 9.0]),
}


def doses(p, **options):
    """Repeated doses; the first lies before the start and the last one after the end."""
    options = {"rtol": TOLERANCE, "atol": TOLERANCE} | options
    return bd.ODE(
        Elimination(p["rate"]),
        {"c": p["first"]},
        jumps=Jump(p["times"], {"c": p["doses"]}),
        **options,
    )


def superposed(p, t=TIMES):
    """Each dose decays on its own."""
    since = jnp.asarray(t)[:, None] - p["times"]
    given = (since >= 0) & (p["times"] >= 0)
    left = jnp.where(given, p["doses"] * jnp.exp(-p["rate"] * jnp.where(given, since, 0.0)), 0.0)
    return p["first"] * jnp.exp(-p["rate"] * t) + left.sum(1)


WEIGHTS = np.random.default_rng(0).normal(size=TIMES.size)


def weighted(p, **options):
    prediction = doses(p, **options)(given())
    return jnp.sum(WEIGHTS * prediction.values["c"]), prediction


@jax.jit
def exact_slopes(p):
    return jax.grad(lambda p: jnp.sum(WEIGHTS * superposed(p)))(p)


def check_doses(p, prediction, slopes):
    assert bool(prediction.ok)
    np.testing.assert_allclose(prediction.values["c"], superposed(p), atol=GLOBAL)
    for name, exact in exact_slopes(p).items():
        np.testing.assert_allclose(slopes[name], exact, atol=GLOBAL, err_msg=name)


class TestDoses:
    @pytest.mark.slow
    def test_a_batch_whose_doses_come_at_different_times(self):
        """Values, and gradients in amounts and times."""
        moved = [
            PARAMETERS | {"times": PARAMETERS["times"] + s * (PARAMETERS["times"] > 1)}
            for s in (0, 0.15, -0.3)
        ]
        batch = jax.tree.map(lambda *x: jnp.stack([*map(jnp.asarray, x)]), *moved)
        slopes, predictions = jax.jit(jax.vmap(jax.grad(weighted, has_aux=True)))(batch)
        for i, p in enumerate(moved):
            check_doses(
                p, *(jax.tree.map(lambda x, i=i: x[i], found) for found in (predictions, slopes))
            )
        assert abs(exact_slopes(PARAMETERS)["times"][3]) > 0.1

    @pytest.mark.slow
    @pytest.mark.parametrize("solver", ["kvaerno5", "tsit5", "dopri8", "rodas5p"])
    def test_forward_mode(self, solver):
        ahead = jax.jacfwd(lambda p: weighted(p, solver=solver, adjoint=FORWARD), has_aux=True)
        slopes, prediction = jax.jit(ahead)(PARAMETERS)
        check_doses(PARAMETERS, prediction, slopes)

    @pytest.mark.slow
    @pytest.mark.parametrize("solver", ["rodas5p", "kvaerno5"])
    def test_reverse_mode(self, solver):
        slopes, prediction = jax.jit(jax.grad(lambda p: weighted(p, solver=solver), has_aux=True))(
            PARAMETERS
        )
        check_doses(PARAMETERS, prediction, slopes)

    @pytest.mark.thorough
    def test_finite_differences_of_a_time(self):
        """Of a nonlinear equation, where the way back is not the way there."""

        def last(time):
            grow = lambda t, y, u: {"c": y["c"] * (1 - y["c"]) + 0.1 * jnp.sin(t)}  # noqa: E731
            layer = bd.ODE(grow, {"c": 0.1}, jumps=Jump(time, {"c": 0.7}), rtol=1e-10, atol=1e-10)
            return layer(given()).values["c"][5]

        step, reverse = 1e-4, jax.jit(jax.value_and_grad(last))
        finite = float(reverse(2.3 + step)[0] - reverse(2.3 - step)[0]) / (2 * step)
        assert float(reverse(2.3)[1]) == pytest.approx(finite, abs=1e-6)


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


class TestEdges:
    def solved(self, jumps, times=TIMES, start=None):
        # Arrays, so that one program serves all numbers.
        jumps = jax.tree.map(lambda x: jnp.asarray(x, float) if eqx.is_array_like(x) else x, jumps)
        ode = bd.ODE(Elimination(0.7), {"c": 1.0}, jumps=jumps, rtol=TOLERANCE, atol=TOLERANCE)
        prediction = solve(ode, given(times, start))
        assert bool(prediction.ok)
        return np.asarray(prediction.values["c"])

    free = np.exp(-0.7 * TIMES)

    @pytest.mark.thorough
    def test_the_value_at_a_jump_is_the_one_after_it(self):
        values = self.solved(Jump(3.0, {"c": 2.0}))
        np.testing.assert_allclose(values[:3], self.free[:3], atol=GLOBAL)
        np.testing.assert_allclose(
            values[3:], (self.free + 2 * np.exp(-0.7 * (TIMES - 3)))[3:], atol=GLOBAL
        )

    @pytest.mark.thorough
    def test_at_the_start_and_at_the_end(self):
        values = self.solved((Jump(0.0, {"c": 2.0}), Jump(7.0, {"c": 0.3})))
        expected = 3 * self.free
        expected[-1] += 0.3
        np.testing.assert_allclose(values, expected, atol=GLOBAL)

    @pytest.mark.thorough
    def test_so_near_the_end_that_no_step_fits_between(self):
        for time in (np.nextafter(7.0, 0), 7.0 - 1e-14, 7.0 - 1e-13, 7 - 1e-12, 7 - 1e-11):
            assert self.solved(Jump(time, {"c": 2.0}))[-1] == pytest.approx(
                2 + self.free[-1], abs=GLOBAL
            )

    @pytest.mark.thorough
    def test_outside_the_solve(self):
        values = self.solved((Jump(-0.1, {"c": 2.0}), Jump(7.1, {"c": 2.0})))
        np.testing.assert_allclose(values, self.free, atol=GLOBAL)

    @pytest.mark.thorough
    def test_one_that_is_known_to_lie_before_the_start_is_refused(self):
        for jumps in (
            Jump(-0.1, {"c": 2.0}),
            (Jump(1.0, {"c": 1.0}), Jump([-0.1, 2.0], {"c": 2.0})),
        ):
            with pytest.raises(
                ModelError, match=r"a jump at -0\.1 would never act, since the solve starts at 0"
            ):
                bd.ODE(Elimination(0.7), {"c": 1.0}, jumps=jumps)(given())
            bd.ODE(Elimination(0.7), {"c": 1.0}, jumps=jumps, max_steps=64).begin(given(start=-0.1))

    @pytest.mark.thorough
    def test_the_docs_example_with_data_from_later_on(self):
        """A dose at 0, and data from 0.5 on: refused, and with `start=0` it acts."""
        data = xr.Dataset({"c": ("time", np.ones(4))}, {"time": [0.5, 1.0, 2.0, 3.0]})

        def model(**options):
            layer = bd.ODE(
                Elimination(bd.between(0.3, 1.5)),
                {"c": 0.0},
                jumps=Jump(0.0, {"c": 10.0}),
                **options,
            )
            return bd.Model(layer, bd.LogNormalNoise(0.1))

        with pytest.raises(
            ModelError, match=r"the solve starts at 0\.5: the first time of the data"
        ):
            pose(model(), data)
        found = bd.check(model(), data)
        assert found.level == "bad" and "give the layer start=0" in str(found)
        problem = pose(model(start=0.0), data)
        layer = realise(problem.model, {"layer.vector_field.rate": jnp.asarray(0.7)}).layer
        assert float(layer.begin(problem.inputs)["c"]) == 10.0

    def test_at_zero_within_a_solve(self):
        values = self.solved(Jump(0.0, {"c": 2.0}), start=-1.0)
        np.testing.assert_allclose(values, (np.exp(-0.7) + 2) * self.free, atol=GLOBAL)

    def test_one_time_only(self):
        assert self.solved(Jump(0.0, {"c": 2.0}), np.array([0.0])).tolist() == [3.0]

    @pytest.mark.thorough("1e-09")
    @pytest.mark.parametrize("later", [0.0, 1e-9])
    def test_a_solve_of_hardly_any_length(self, later):
        times = np.unique([2000.0, 2000.0 + later])
        assert self.solved(Jump(2000.0, {"c": 2.0}), times).tolist() == pytest.approx(
            [3.0] * times.size
        )

    @pytest.mark.slow
    def test_the_gradient_knows_that_forcings_move_on(self):
        data = xr.Dataset({"w": ("time", [0.0, 3.0, 1.0, 5.0])}, {"time": [0.0, 1.0, 2.0, 4.0]})

        def last(time):
            jump = Jump(time, lambda t, y, u: {"c": y["c"] + u["w"]})
            layer = bd.ODE(
                Elimination(0.5),
                {"c": 1.0},
                forcings="w",
                jumps=jump,
                rtol=TOLERANCE,
                atol=TOLERANCE,
            )
            return layer(bd.inputs(data)).values["c"][-1]

        # The jump adds 3 - 2 (t - 1), which then decays.
        exact = (-2 + 0.5 * (3 - 2 * 0.4)) * np.exp(-0.5 * 2.6)
        assert float(jax.jit(jax.grad(last))(1.4)) == pytest.approx(exact, abs=GLOBAL)

    @pytest.mark.slow
    def test_two_that_rounding_tells_apart(self):
        first, second = 0.3, 0.1 * 3
        assert first != second
        jumps = (Jump(first, {"c": 2.0}), Jump(second, {"c": 1.0}))
        expected = self.free[1] + 3 * np.exp(-0.7 * 0.7)
        assert self.solved(jumps)[1] == pytest.approx(expected, abs=GLOBAL)
        both = Jump(np.array([first, second]), {"c": np.array([2.0, 1.0])})
        assert self.solved(both)[1] == pytest.approx(expected, abs=GLOBAL)

    @pytest.mark.thorough
    def test_at_one_time_in_their_order(self):
        double = lambda t, y, u: {"c": 2 * y["c"]}  # noqa: E731
        added, doubled = Jump(3.0, {"c": 2.0}), Jump(3.0, double)
        assert self.solved((added, doubled))[3] == pytest.approx(2 * (self.free[3] + 2), abs=GLOBAL)
        assert self.solved((doubled, added))[3] == pytest.approx(2 * self.free[3] + 2, abs=GLOBAL)

    @pytest.mark.thorough
    def test_they_do_not_count_in_max_steps(self):
        jump = Jump(np.linspace(0.5, 6.5, 13), {"c": 0.0})
        ode = bd.ODE(Elimination(0.01), {"c": 1.0}, jumps=jump, max_steps=13)
        prediction = solve(ode, given())
        assert prediction.ok and prediction.stats["steps"] > 13


class Predation(bd.Module):
    birth: bd.Scalar

    def __call__(self, t, y, u):
        prey, predator = y["prey"], y["predator"]
        return {
            "prey": prey * (self.birth - predator) + u["fed"],
            "predator": predator * (0.5 * prey - 0.8),
        }


class Harvest(bd.Module):
    share: bd.Scalar

    def __call__(self, t, y, u):
        return {"prey": y["prey"] * (1 - self.share) + 0.1 * u["fed"] * t}


class TestAgainstRestarts:
    """Multiplicative and additive jumps of a nonlinear system with a step forcing: SciPy is
    restarted at each.
    """

    fed = np.array([0.0, 0.4, 0.1, 0.3, 0.0, 0.2, 0.5, 0.0])
    harvests = np.array([0.5, 2.0, 3.3])
    released = (2.0, 0.25)

    def restarted(self, share):
        states, values = {"prey": 1.0, "predator": 0.5}, []
        cuts = np.unique(np.concatenate([TIMES, self.harvests]))
        held = lambda t: self.fed[np.searchsorted(TIMES, t, side="right") - 1]  # noqa: E731
        for start, end in zip(cuts, [*cuts[1:], None], strict=True):
            if start in self.harvests:
                states["prey"] = states["prey"] * (1 - share) + 0.1 * held(start) * start
            if start == self.released[0]:
                states["predator"] += self.released[1]
            if start in TIMES:
                values.append(dict(states))
            if end is None:
                return values

            fed = held(start)

            def rates(t, y, fed=fed):
                return list(
                    Predation(1.1)(
                        t, dict(zip(("prey", "predator"), y, strict=True)), {"fed": fed}
                    ).values()
                )

            end_state = solve_ivp(
                rates, (start, end), list(states.values()), rtol=1e-11, atol=1e-11
            ).y[:, -1]
            states = dict(zip(states, end_state, strict=True))

    def layer(self, share, **options):
        time, amount = self.released
        jumps = (Jump(self.harvests, Harvest(share)), Jump(time, {"predator": amount}))
        options = {"rtol": TOLERANCE, "atol": TOLERANCE} | options
        options |= {"jumps": jumps, "forcings": ("fed",), "interpolation": {"fed": "step"}}
        return bd.ODE(Predation(1.1), {"prey": 1.0, "predator": 0.5}, **options)

    def inputs(self):
        data = xr.Dataset({"fed": ("time", self.fed)}, {"time": TIMES})
        return bd.inputs(data, interpolation={"fed": "step"})

    def check(self, prediction):
        assert bool(prediction.ok)
        for name in ("prey", "predator"):
            expected = [states[name] for states in self.restarted(0.3)]
            np.testing.assert_allclose(prediction.values[name], expected, atol=GLOBAL, err_msg=name)

    @pytest.mark.thorough
    def test_values_of_a_stiff_solver(self):
        self.check(jax.jit(lambda: self.layer(0.3, solver="rodas5p")(self.inputs()))())

    @pytest.mark.slow
    def test_values_and_the_gradient_of_a_share(self):
        def last(share, **options):
            prediction = self.layer(share, **options)(self.inputs())
            return prediction.values["predator"][-1], prediction

        finite = (
            self.restarted(0.301)[-1]["predator"] - self.restarted(0.299)[-1]["predator"]
        ) / 0.002
        # Central differences of length 1e-3 are exact to about its square.
        reverse, prediction = jax.jit(jax.grad(last, has_aux=True))(0.3)
        self.check(prediction)
        forward, _ = jax.jit(jax.jacfwd(lambda share: last(share, adjoint=FORWARD), has_aux=True))(
            0.3
        )
        assert float(reverse) == pytest.approx(finite, abs=1e-5)
        assert float(reverse) == pytest.approx(float(forward), abs=1e-6)


@pytest.mark.slow
def test_a_function_that_is_singular_where_nothing_jumps():
    """The root of a state that starts negative: the jump comes after it has turned positive."""

    def last(rate, **options):
        jump = Jump(2.0, lambda t, y, u: {"y": jnp.sqrt(y["y"])})
        return bd.ODE(lambda t, y, u: {"y": rate}, {"y": -rate}, jumps=jump, **options)(
            given()
        ).values["y"][-1]

    # y = sqrt(2 r - r) + 5 r at the end.
    reverse = jax.jit(jax.value_and_grad(last))
    forward = jax.jit(jax.jacfwd(lambda r: last(r, adjoint=FORWARD)))
    for rate in (1.5, 4.0):
        value, slope = reverse(rate)
        assert float(value) == pytest.approx(np.sqrt(rate) + 5 * rate, abs=1e-6)
        for found in (slope, forward(rate)):
            assert float(found) == pytest.approx(0.5 / np.sqrt(rate) + 5, abs=1e-6)


@pytest.mark.thorough
def test_array_states():
    jump = Jump(np.array([1.5, 3.0]), {"x": np.array([[1.0, 2.0], [3.0, 4.0]])})
    ode = bd.ODE(
        lambda t, y, u: {"x": jnp.zeros(2)},
        {"x": np.zeros(2)},
        jumps=jump,
        observe=lambda t, y, u: {"a": y["x"][0], "b": y["x"][1]},
    )
    values = solve(ode, given()).values
    assert values["a"].tolist() == [0, 0, 1, 4, 4, 4, 4, 4]
    assert values["b"].tolist() == [0, 0, 2, 6, 6, 6, 6, 6]


class TestLearned:
    model = bd.Model(
        bd.ODE(
            Elimination(bd.between(0.3, 1.5)),
            {"c": 0.4},
            jumps=(
                Jump(dist.Uniform(1.1, 1.9), {"c": dist.LogNormal(0.0, 0.5)}),
                Jump([3.0, 5.0], {"c": [1.0, 2.0]}),
            ),
            units={"c": "mg/L"},
        ),
        noise=bd.NormalNoise(0.05),
    )
    data = xr.Dataset({"c": ("time", np.asarray(superposed(PARAMETERS)))}, {"time": TIMES})

    def test_names_and_units(self):
        leaves = paths(self.model)
        assert set(leaves) == {
            "layer.vector_field.rate",
            "layer.jumps.0.time",
            "layer.jumps.0.change.c",
        }
        assert leaves["layer.jumps.0.change.c"].units == "mg/L"

    @pytest.mark.slow
    def test_gradient_of_the_posterior(self):
        problem = pose(self.model, self.data)
        positions, step = problem.prior(3, key=jax.random.key(1)), 1e-5 * jnp.eye(3)
        density = jax.jit(jax.value_and_grad(problem.log_density))
        for position in positions:
            finite = [(density(position + d)[0] - density(position - d)[0]) / 2e-5 for d in step]
            # The solver's tolerance is 1e-6, relative to log densities of some hundreds.
            np.testing.assert_allclose(density(position)[1], finite, rtol=1e-3, atol=1e-2)
        times = jax.vmap(problem.constrain)(positions)["layer.jumps.0.time"]
        assert float(times.min()) > 1.1 and float(times.max()) < 1.9

    @pytest.mark.slow
    def test_nuts(self):
        post = bd.fit(self.model, self.data, bd.NUTS(chains=2, warmup=100, draws=100), key=0)
        times = post["posterior"]["jumps.0.time"]
        assert float(times.std()) > 0
        assert float(times.min()) > 1.1 and float(times.max()) < 1.9


class TestRefusals:
    @pytest.mark.parametrize(
        ("time", "change", "message"),
        [
            (np.zeros((2, 2)), {"c": 1.0}, "time of a jump must be"),
            ("noon", {"c": 1.0}, "time of a jump must be"),
            ([], {"c": 1.0}, "time of a jump must be"),
            (1.0, {}, "change of a jump must be a dict"),
            (1.0, 3.0, "change of a jump must be a dict"),
            (1.0, {"c": "much"}, "amount of 'c' in a jump"),
            (np.nan, {"c": 1.0}, "time of a jump must be finite, not nan"),
            (1.0, dist.Normal(0.0, 1.0), "must be a dict of amounts by state, or a function"),
            (np.zeros(3), {"c": np.zeros(2)}, "3 times but 2 amounts of 'c'"),
            (np.zeros(3), {"c": dist.Normal(jnp.zeros(2), 1.0)}, "3 times but 2 amounts of 'c'"),
        ],
    )
    def test_when_built(self, time, change, message):
        with pytest.raises(ModelError, match=message):
            Jump(time, change)

    def test_an_unknown_state(self):
        with pytest.raises(ModelError, match="a jump changes 'd', but the states are c"):
            bd.ODE(Elimination(1.0), {"c": 1.0}, jumps=Jump(1.0, {"d": 1.0}))
        ode = bd.ODE(Elimination(1.0), {"c": 1.0}, jumps=Jump(1.0, lambda t, y, u: {"d": 1.0}))
        with pytest.raises(ModelError, match="a jump returns 'd', but the states are c"):
            ode(given())

    def test_what_is_no_jump(self):
        with pytest.raises(ModelError, match=r"jumps must be bd.Jump\(time, change\), not 3.0"):
            bd.ODE(Elimination(1.0), {"c": 1.0}, jumps=(3.0,))

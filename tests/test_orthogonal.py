"""A closure that is kept off what the scientific parameters could do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._statistics.least_squares import least_squares
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.random import realise

RNG = np.random.default_rng(0)
STATES = RNG.uniform(0.5, 2.0, size=(2, 30))
POINTS = xr.Dataset({"a": ("time", STATES[0]), "b": ("time", STATES[1])}, {"time": np.arange(30.0)})


class Science(bd.Module):
    growth: bd.Scalar
    loss: bd.Scalar

    def __call__(self, t, y, u):
        return {"a": self.growth * y["a"] - self.loss * y["a"] * y["b"], "b": -0.3 * y["b"]}


def closure(t, y, u):
    return {"a": 0.4 * y["a"] + 0.1 * y["a"] ** 2 + jnp.sin(3 * y["b"])}


def hybrid(relative=False):
    made = bd.Residual(
        Science(dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0)), closure, relative, orthogonal=POINTS
    )
    return realise(made, {"science.growth": jnp.asarray(0.7), "science.loss": jnp.asarray(0.2)})


@eqx.filter_jit
def corrections(field):
    """What the residual adds at each of the points, of the rate of `a`."""
    whole, plain = (
        jax.vmap(lambda a, b, f=f: f(0.0, {"a": a, "b": b}, {})["a"])
        for f in (field, Science(0.7, 0.2))
    )
    return whole(*STATES) - plain(*STATES)


def test_what_is_left_has_no_share_of_the_sensitivities():
    left = np.asarray(corrections(hybrid()))
    sensitivities = np.stack([STATES[0], -STATES[0] * STATES[1]], axis=1)
    assert np.abs(sensitivities.T @ left).max() < 1e-7
    # It is the residual of ordinary least squares.
    full = np.asarray(closure(0.0, {"a": STATES[0], "b": STATES[1]}, {})["a"])
    expected = full - sensitivities @ np.linalg.lstsq(sensitivities, full, rcond=None)[0]
    np.testing.assert_allclose(left, expected, atol=1e-7)
    assert np.abs(left).max() > 0.1


def test_a_relative_correction_is_weighed_by_the_state():
    left = np.asarray(corrections(hybrid(relative=True))) / STATES[0]
    assert np.abs(np.stack([np.ones(30), -STATES[1]]) @ left).max() < 1e-7


def test_preparing_changes_nothing_but_the_cost():
    field = hybrid()
    point = {"a": jnp.asarray(1.1), "b": jnp.asarray(0.3)}
    prepared = field.prepared()
    assert prepared.orthogonal.shift is not None
    assert float(prepared(0.0, point, {})["a"]) == pytest.approx(
        float(field(0.0, point, {})["a"]), abs=1e-12
    )


@pytest.mark.slow
def test_in_a_solve_and_its_gradient():
    data = xr.Dataset(coords={"time": np.linspace(0.0, 2.0, 5)})
    layer = bd.ODE(hybrid(), {"a": 1.0, "b": 0.5}, rtol=1e-9, atol=1e-9)

    def total(growth):
        moved = eqx.tree_at(lambda m: m.vector_field.science.growth, layer, growth)
        return jnp.sum(moved(bd.inputs(data)).values["a"])

    of, step = jax.jit(jax.value_and_grad(total)), 1e-4
    slope = (of(0.7 + step)[0] - of(0.7 - step)[0]) / (2 * step)
    assert float(of(0.7)[1]) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.thorough
def test_sensitivities_that_depend_on_each_other_do_no_harm():
    matrix = jnp.stack([jnp.arange(5.0), 2 * jnp.arange(5.0), jnp.zeros(5)], axis=1)
    coefficients = least_squares(matrix, 3 * jnp.arange(5.0))
    np.testing.assert_allclose(matrix @ coefficients, 3 * np.arange(5.0), rtol=1e-8)


class Fading(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def cosine(t, y, u):
    return {"y": jnp.cos(t)}


@eqx.filter_jit
def predicted(layer, given):
    return layer(given).values["y"]


class TestLayer:
    data = xr.Dataset({"y": ("time", np.zeros(9))}, {"time": np.linspace(0.0, 2.0, 9)})

    def layer(self):
        science = bd.ODE(
            Fading(dist.Normal(0.0, 1.0)),
            {"y": dist.Normal(0.0, 1.0)},
            rtol=1e-10,
            atol=1e-10,
            max_steps=64,
        )
        made = bd.Residual(science, cosine, orthogonal=self.data)
        draw = {
            "science.vector_field.rate": jnp.asarray(0.7),
            "science.initial.y": jnp.asarray(2.0),
        }
        return realise(made, draw)

    @pytest.mark.slow
    def test_what_is_left_on_the_output(self):
        times = self.data["time"].values
        left = np.asarray(predicted(self.layer(), bd.inputs(self.data))) - 2 * np.exp(-0.7 * times)
        sensitivities = np.stack([-2 * times * np.exp(-0.7 * times), np.exp(-0.7 * times)])
        assert np.abs(sensitivities @ left).max() < 1e-6
        assert np.abs(left).max() > 0.1

    @pytest.mark.slow
    def test_at_other_times_it_is_the_same_function(self):
        later = xr.Dataset(coords={"time": np.linspace(0.0, 2.0, 17)})
        fine = predicted(self.layer(), bd.inputs(later, start=0.0))
        np.testing.assert_allclose(
            fine[::2], predicted(self.layer(), bd.inputs(self.data)), atol=1e-7
        )

    @pytest.mark.slow
    def test_reverse_and_forward_gradients_agree(self):
        layer = self.layer()

        def total(rate):
            moved = eqx.tree_at(lambda m: m.science.vector_field.rate, layer, rate)
            return jnp.sum(moved(bd.inputs(self.data)).values["y"][1:] * jnp.arange(8.0))

        of = jax.jit(jax.value_and_grad(total))
        slope = (of(0.7 + 1e-4)[0] - of(0.7 - 1e-4)[0]) / 2e-4
        assert float(of(0.7)[1]) == pytest.approx(float(slope), rel=1e-5)

    @pytest.mark.slow
    def test_sudden_changes_are_in_the_sensitivities(self):
        """A level that is filled up whenever it falls to 1: the later, the larger the share of the
        refills.
        """
        filled = bd.Event(lambda t, y, u: y["y"] - 1.0, {"y": 3.0})

        def science(rate):
            return bd.ODE(
                Fading(rate), {"y": 4.0}, events=filled, rtol=1e-10, atol=1e-10, start=0.0
            )

        made = bd.Residual(science(dist.Normal(0.0, 1.0)), cosine, orthogonal=self.data)
        given, rate, step = bd.inputs(self.data), 1.3, 1e-5
        left = predicted(
            realise(made, {"science.vector_field.rate": jnp.asarray(rate)}), given
        ) - predicted(science(jnp.asarray(rate)), given)
        up, down = (predicted(science(jnp.asarray(r)), given) for r in (rate + step, rate - step))
        sensitivity = (up - down) / (2 * step)
        assert float(jnp.abs(jnp.vdot(sensitivity, left))) < 1e-5 * float(
            jnp.linalg.norm(sensitivity) * jnp.linalg.norm(left)
        )
        assert float(jnp.abs(left).max()) > 0.1

    @pytest.mark.parametrize(
        "more",
        [
            {"events": bd.Event(lambda t, y, u: y["y"] - 1.0, {"y": 3.0})},
            {"jumps": bd.Jump(1.0, {"y": 1.0})},
            {"algebraic": ("y",), "solver": "rodas5p"},
            {"sums": {"y": 1.0}},
            {"means": {"y": 1.0}},
        ],
        ids=lambda more: next(iter(more)),
    )
    def test_only_a_smooth_solve_has_its_sensitivities_solved_for(self, more):
        assert bd.layers.layer.is_smooth(bd.ODE(Fading(1.0), {"y": 4.0}))
        assert not bd.layers.layer.is_smooth(bd.ODE(Fading(1.0), {"y": 4.0}, **more))


class TestNonsense:
    def test_nothing_random(self):
        with pytest.raises(ModelError, match="nothing in the science is random"):
            bd.Residual(Science(1.0, 2.0), closure, orthogonal=POINTS)

    def test_a_state_that_the_data_lack(self):
        made = bd.Residual(Science(dist.Normal(0.0, 1.0), 2.0), closure, orthogonal=POINTS[["a"]])
        field = realise(made, {"science.growth": jnp.asarray(1.0)})
        with pytest.raises(
            ModelError, match=r"orthogonal needs 'b' at every point, but its data hold time, a"
        ):
            field(0.0, {"a": jnp.ones(()), "b": jnp.ones(())}, {})

    def test_a_zero_that_is_corrected_relative_to_itself(self):
        science = Science(dist.Normal(0.0, 1.0), 2.0)
        zeros = {name: POINTS[name].where(POINTS["time"] != 3.0, 0.0) for name in ("a", "b")}
        with pytest.raises(
            DataError, match=r"'a' is 0 at time 3: a relative correction needs data other than 0"
        ):
            bd.Residual(science, closure, relative=True, orthogonal=POINTS.assign(a=zeros["a"]))
        # What is not corrected may be zero, and so may what is corrected by an amount.
        bd.Residual(science, closure, relative=True, orthogonal=POINTS.assign(b=zeros["b"]))
        bd.Residual(science, closure, orthogonal=POINTS.assign(zeros))

    def test_a_correction_of_what_is_not_there(self):
        made = bd.Residual(
            Science(dist.Normal(0.0, 1.0), 2.0), lambda t, y, u: {"c": y["a"]}, orthogonal=POINTS
        )
        field = realise(made, {"science.growth": jnp.asarray(1.0)})
        for call in (
            field.prepared,
            lambda: field(0.0, {"a": jnp.ones(()), "b": jnp.ones(())}, {}),
        ):
            with pytest.raises(ModelError, match="the closure corrects 'c'; the science has a, b"):
                call()

    def test_data_without_a_whole_row(self):
        with pytest.raises(DataError, match="at least one row without a gap"):
            bd.Residual(Science(dist.Normal(0.0, 1.0), 2.0), closure, orthogonal=POINTS * np.nan)


class TestShares:
    """Weights that sum to 1 cannot do what a change of their sum would do."""

    def field(self, rates):
        class Decay(bd.Module):
            rate: float

            def __call__(self, t, y, u):
                return {"a": -self.rate * y["a"]}

        models = bd.Parallel({"one": Decay(rates[0]), "other": Decay(rates[1])})
        made = bd.Residual(models, lambda t, y, u: {"a": -0.2 * y["a"]}, orthogonal=POINTS[["a"]])
        return realise(made, {"science.weights": jnp.array([0.3, 0.7])})

    @pytest.mark.thorough
    def test_equal_models_leave_the_closure_alone(self):
        found = self.field((0.5, 0.5))(0.0, {"a": jnp.asarray(2.0)}, {})
        assert float(found["a"]) == pytest.approx(-0.7 * 2.0, abs=1e-9)

    @pytest.mark.thorough
    def test_what_shares_can_do_is_removed(self):
        found = self.field((0.5, 0.9))(0.0, {"a": jnp.asarray(2.0)}, {})
        assert float(found["a"]) == pytest.approx(-(0.3 * 0.5 + 0.7 * 0.9) * 2.0, abs=1e-7)


class TestFields:
    """The output of an equation in place: every time and place is a row."""

    times, places = np.linspace(0.0, 0.5, 5), np.array([0.2, 0.5, 0.9])
    data = xr.Dataset({"heat": (("time", "x"), np.zeros((5, 3)))}, {"time": times, "x": places})

    @pytest.mark.slow
    def test_what_is_left_on_the_output(self):
        grid = bd.pde.Grid(x=(0.0, 1.0, 8))
        law = bd.pde.FiniteVolume(
            grid, diffusion=dist.HalfNormal(1.0), boundary=bd.pde.Dirichlet(0.0)
        )
        initial = {"heat": jnp.sin(jnp.pi * grid.centres("x"))}
        science = bd.pde.PDE(law, initial, rtol=1e-8, atol=1e-8, max_steps=256)
        made = bd.Residual(
            science, lambda t, y, u: {"heat": y["heat"] ** 2 + t}, orthogonal=self.data
        )
        given = bd.inputs(self.data, places=("x",))
        heat = jax.jit(
            lambda d: eqx.tree_at(lambda s: s.vector_field.diffusion, science, d)(given).values[
                "heat"
            ]
        )
        whole = eqx.filter_jit(realise(made, {"science.vector_field.diffusion": jnp.asarray(0.3)}))(
            given
        )
        left = np.asarray(whole.values["heat"] - heat(0.3))
        slope = np.asarray(heat(0.3 + 1e-4) - heat(0.3 - 1e-4)) / 2e-4
        assert left.shape == (5, 3)
        assert whole.ok
        assert abs(np.vdot(left, slope)) < 1e-4 * np.linalg.norm(left) * np.linalg.norm(slope)
        assert np.abs(left).max() > 0.1

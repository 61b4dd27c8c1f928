"""Differential–algebraic equations, and roots inside of functions."""

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


class Robertson(bd.Module):
    """Robertson's kinetics, the third species by conservation of mass."""

    slow: bd.Scalar = 0.04
    fast: bd.Scalar = 3e7
    back: bd.Scalar = 1e4

    def __call__(self, t, y, u):
        forward = self.slow * y["a"] - self.back * y["b"] * y["c"]
        return {
            "a": -forward,
            "b": forward - self.fast * y["b"] ** 2,
            "c": y["a"] + y["b"] + y["c"] - 1.0,
        }


def robertson(field=None, guess=0.3, **more):
    settings = {
        "solver": "rodas5p",
        "algebraic": "c",
        "start": 0.0,
        "rtol": 1e-9,
        "atol": 1e-12,
    } | more
    return bd.ODE(field or Robertson(), {"a": 1.0, "b": 0.0, "c": guess}, **settings)


def solved(layer, times):
    model = bd.Model(layer, bd.NormalNoise(1.0))
    return realise(model, {}).predict(
        model.inputs(xr.Dataset(coords={"time": np.asarray(times, float)}))
    )


# Reference solution of the IVP test set (Mazzia & Magherini 2008) at 1e11, and of SUNDIALS'
# idaRoberts_dns before.
PUBLISHED = {
    0.4: (9.8517e-01, 3.3864e-05, 1.4796e-02),
    40.0: (7.1583e-01, 9.1850e-06, 2.8416e-01),
    1e11: (0.2083340149701255e-07, 0.8333360770334713e-13, 0.9999999791665050),
}


class TestRobertson:
    def test_against_published_solutions(self):
        found = solved(robertson(), list(PUBLISHED))
        assert found.ok
        for i, (time, expected) in enumerate(PUBLISHED.items()):
            values = [float(found.values[name][i]) for name in "abc"]
            np.testing.assert_allclose(values, expected, rtol=1e-5 if time == 1e11 else 2e-4)

    @pytest.mark.thorough
    def test_is_the_ordinary_equation(self):
        class Ordinary(Robertson):
            def __call__(self, t, y, u):
                rates = Robertson.__call__(self, t, y, u)
                return rates | {"c": -rates["a"] - rates["b"]}

        times = np.geomspace(0.1, 1e5, 9)
        ordinary = bd.ODE(
            Ordinary(),
            {"a": 1.0, "b": 0.0, "c": 0.0},
            solver="rodas5p",
            start=0.0,
            rtol=1e-9,
            atol=1e-12,
        )
        one, other = solved(robertson(), times), solved(ordinary, times)
        for name in "abc":
            np.testing.assert_allclose(one.values[name], other.values[name], rtol=1e-6)

    @pytest.mark.thorough
    def test_gradient(self):
        times = jnp.asarray([0.5, 5.0, 50.0])

        def last(log_fast):
            found = solved(robertson(Robertson(fast=jnp.exp(log_fast))), times)
            return jnp.sum(found.values["c"])

        at, h = np.log(3e7), 1e-4
        both = jax.jit(jax.value_and_grad(last))
        (above, _), (below, _), (_, exact) = both(at + h), both(at - h), both(at)
        assert exact == pytest.approx(float((above - below) / (2 * h)), rel=1e-5)


class TestStart:
    @pytest.mark.thorough
    def test_is_made_consistent_and_depends_on_the_other_states(self):
        def field(t, y, u):
            return {"x": -y["z"], "z": y["z"] ** 3 + y["z"] - 2.0 * y["x"]}

        layer = bd.ODE(
            field,
            {"x": dist.LogNormal(0.0, 0.1), "z": 0.5},
            solver="rodas5p",
            algebraic="z",
            start=0.0,
        )
        model = bd.Model(layer, bd.NormalNoise(0.1))
        found = realise(model, {"layer.initial.x": jnp.asarray(1.0)}).predict(
            model.inputs(xr.Dataset(coords={"time": np.linspace(0.0, 1.0, 5)}))
        )
        z = found.values["z"]
        assert z[0] == pytest.approx(1.0, abs=1e-8)
        np.testing.assert_allclose(z**3 + z, 2 * found.values["x"], rtol=1e-4)
        data = xr.Dataset({n: ("time", np.ones(4)) for n in "xz"}, {"time": np.arange(4.0)})
        problem = pose(model, data)
        value, gradient = jax.jit(jax.value_and_grad(problem.log_density))(jnp.zeros(1))
        assert np.isfinite(value) and np.abs(gradient) > 0

    @pytest.mark.thorough
    def test_without_a_solution_is_a_value(self):
        class Nothing(bd.Module):
            floor: bd.Scalar

            def __call__(self, t, y, u):
                return {"x": -y["z"], "z": y["z"] ** 2 + self.floor}

        layer = bd.ODE(
            Nothing(dist.Normal(1.0, 0.1)), {"x": 1.0, "z": 1.0}, solver="rodas5p", algebraic="z"
        )
        model = bd.Model(layer, bd.NormalNoise(0.1))
        data = xr.Dataset({n: ("time", np.ones(4)) for n in "xz"}, {"time": np.arange(4.0)})
        value, gradient = jax.jit(jax.value_and_grad(pose(model, data).log_density))(jnp.zeros(1))
        assert value == -np.inf and np.isfinite(gradient).all()

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"algebraic": "d"}, "algebraic names 'd'"),
            ({"solver": "tsit5"}, "need solver='rodas5p'"),
            ({"guess": dist.Normal(0.0, 1.0)}, "state 'c' is a guess"),
            ({"jumps": bd.Jump(1.0, {"a": 1.0})}, "algebraic states and jumps"),
        ],
    )
    def test_refusals(self, more, message):
        with pytest.raises(ModelError, match=message):
            robertson(**more)


class TestFindRoot:
    @pytest.mark.thorough
    def test_of_an_equilibrium_in_a_vector_field(self):
        """Weak acid: the hydrogen of its equilibrium drives a decay."""

        def field(t, y, u):
            free = bd.layers.find_root(lambda h: h**2 + 0.1 * h - 0.1 * y["acid"], 0.1)
            return {"acid": -free}

        def exact(t, y, u):
            return {"acid": -(-0.1 + jnp.sqrt(0.01 + 0.4 * y["acid"])) / 2}

        times = np.linspace(0.0, 3.0, 7)
        one, other = (solved(bd.ODE(f, {"acid": 1.0}, start=0.0), times) for f in (field, exact))
        np.testing.assert_allclose(one.values["acid"], other.values["acid"], rtol=1e-6)

    @pytest.mark.thorough
    def test_gradient_is_that_of_the_implicit_function(self):
        def root(k):
            return bd.layers.find_root(
                lambda y: {"a": y["a"] ** 2 - k, "b": y["b"] - 3 * y["a"]}, {"a": 1.0, "b": 1.0}
            )

        assert root(4.0)["b"] == pytest.approx(6.0)
        assert jax.grad(lambda k: root(k)["b"])(4.0) == pytest.approx(0.75)

    def test_where_there_is_none_it_is_nan_and_its_gradient_finite(self):
        root = lambda k: jnp.nan_to_num(bd.layers.find_root(lambda y: y**2 + k, 1.0))  # noqa: E731
        assert np.isnan(bd.layers.find_root(lambda y: y**2 + 1.0, 1.0))
        assert np.isfinite(jax.grad(root)(1.0))

    def test_refusals(self):
        with pytest.raises(ModelError, match="2 values of 1 unknowns"):
            bd.layers.find_root(lambda y: jnp.stack([y, y]), 1.0)
        inner = bd.Implicit(lambda t, y, u: {"x": y["x"] - 1.0}, {"x": 0.5})
        with pytest.raises(ModelError, match=r"bd\.layers\.find_root"):
            bd.multiscale.Coupling({"a": inner}, bd.multiscale.Link("a.x", "a.z"), {"a": ("x",)})

"""Shared and dependent numbers in whatever a model goes through: programs, sensitivities, engines,
verbs and files.
"""

import dataclasses
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.distributions import constraints

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.prediction.confounding import confounding
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise

TIMES = np.arange(6.0)


class Line(bd.Module):
    slope: Any

    def __call__(self, t, y, u):
        return {"y": jnp.sum(self.slope) * t}


def line(slope):
    return bd.Model(bd.Algebraic(Line(slope)), bd.NormalNoise(1.0))


def rows():
    return xr.Dataset({"y": ("time", TIMES)}, {"time": TIMES})


class TestArguments:
    """JAX sorts the keys of a dict whenever it maps a tree."""

    @pytest.mark.thorough
    def test_keep_their_places(self):
        leaf = bd.dependent(
            dist.Beta, dist.LogNormal(0.0, 0.1), 50.0
        )  # concentration1, then concentration0
        drawn = draw_prior(line(leaf), 2000, key=jax.random.key(0))["layer.function.slope"]
        assert float(jnp.mean(drawn)) == pytest.approx(1 / 51, abs=0.003)
        assert repr(leaf) == "Beta(LogNormal(0, 0.1), 50)"
        made = paths(jax.tree.map(lambda x: x, line(leaf)))["layer.function.slope"]
        assert made.given(
            {"layer.function.slope.concentration1": jnp.asarray(5.0)}
        ).mean == pytest.approx(5 / 55)

    def test_may_be_whole_numbers_and_words(self):
        def prior(scale, number, kind):
            of_one = {"normal": dist.Normal, "laplace": dist.Laplace}[kind](0.0, scale)
            return of_one.expand((number,)).to_event(1)

        problem = pose(line(bd.dependent(prior, dist.HalfNormal(1.0), 3, kind="laplace")), rows())
        assert problem.dimension == 4
        assert np.isfinite(problem.log_density(jnp.zeros(4)))

    @pytest.mark.thorough
    def test_need_not_allow_ones(self):
        factor = dist.LKJCholesky(3, 1.0)
        leaf = bd.dependent(lambda f: dist.MultivariateNormal(jnp.zeros(3), scale_tril=f), factor)
        problem = pose(line(leaf), rows())
        assert np.isfinite(problem.log_density(0.1 * jnp.ones(problem.dimension)))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: bd.dependent(dist.Normal, dist.Normal(0.0, 1.0), loc=1.0),
                "Normal is given loc twice",
            ),
            (
                lambda: bd.dependent(lambda a: {"x": a}, dist.Normal(0.0, 1.0)),
                "must return a NumPyro distribution",
            ),
            (
                lambda: bd.dependent(
                    lambda a: a + bd.shared(dist.Normal(0.0, 1.0), "b"), dist.Normal(0.0, 1.0)
                ),
                "must return a NumPyro distribution",
            ),
        ],
    )
    def test_are_refused_where_they_are_ambiguous(self, make, message):
        with pytest.raises(ModelError, match=message):
            make()


class TestInPrograms:
    @pytest.mark.thorough
    def test_what_is_worked_out_is_known_to_be_positive_inside_of_one(self):
        k = bd.shared(dist.LogNormal(0.0, 1.0), "k")
        assert jax.jit(lambda x: x * ((2 * k).support is constraints.positive))(1.0) == 1.0

    def test_a_model_may_be_made_inside_of_one(self):
        def made(location):
            k = bd.shared(dist.LogNormal(location, 1.0), "k")
            model = bd.Model(bd.Algebraic(Line(2 * k)), bd.NormalNoise(0.1 * k))
            model = dataclasses.replace(eqx.tree_at(lambda m: m.layer.function.slope, model, k))
            return realise(model, {"k": location}).layer.function.slope

        assert jax.jit(made)(3.0) == 3.0


class Decay(bd.Module):
    rate: Any

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def corrected(rate, **more):
    field = bd.Residual(Decay(rate), bd.Network.mlp(("y",), ("y",), width=3, scale=0.1), **more)
    return bd.Model(bd.ODE(field, {"y": 2.0}, start=0.0), bd.NormalNoise(0.02))


def decaying():
    return xr.Dataset({"y": ("time", 2 * np.exp(-0.5 * TIMES))}, {"time": TIMES})


class TestSensitivities:
    def test_places_of_what_is_worked_out(self):
        k = bd.shared(dist.LogNormal(0.0, 0.3), "k")
        found = paths(corrected(bd.dependent(dist.LogNormal, jnp.log(0.5) * k, 0.1)))
        assert (found["k"].places, found["k"].within) == ((), ())
        found = paths(corrected(1 / (2 * k)))
        assert (found["k"].places, found["k"].within) == ((), ("layer.vector_field.science.rate",))
        assert "in layer.vector_field.science.rate" in str(bd.describe(corrected(2 * k)))

    @pytest.mark.thorough("<lambda>0")
    @pytest.mark.parametrize(
        "make",
        [lambda k: k, lambda k: k / 2, lambda k: bd.dependent(jnp.exp, dist.Normal(-0.7, 0.3))],
    )
    def test_a_closure_is_kept_off_what_is_worked_out(self, make):
        """The correction −c·y is what a rate higher by c would do: nothing of it is left."""
        rate = make(bd.shared(dist.LogNormal(0.0, 0.3), "k"))
        closure = lambda t, y, u: {"y": -0.3 * y["y"]}  # noqa: E731
        field = bd.Residual(Decay(rate), closure, orthogonal=decaying())
        realised = realise(field, {path: jnp.asarray(0.8) for path in paths(field)})
        y = {"y": jnp.asarray(1.7)}
        assert realised(0.0, y, {})["y"] == pytest.approx(
            float(realised.science(0.0, y, {})["y"]), rel=1e-6
        )

    @pytest.mark.thorough
    def test_confounding_moves_what_numbers_are_worked_out_of(self):
        k = bd.shared(dist.LogNormal(0.0, 0.3), "k")
        network = bd.Network.mlp(("t",), ("y",), width=2)
        both = []
        for rate, scale in ((k, 1.0), (k / 2, 2.0)):
            model = bd.Model(bd.Algebraic(bd.Residual(Line(rate), network)), bd.NormalNoise(0.1))
            problem = pose(model, rows())
            draws = {
                path: np.array(values)
                for path, values in draw_prior(model, 8, key=jax.random.key(0)).items()
            }
            draws["k"] = draws["k"] * scale
            both.append(confounding(model, problem.inputs, draws))
        assert list(both[1]["parameter"].values) == ["k"]
        np.testing.assert_allclose(both[0]["correlation"], both[1]["correlation"], rtol=1e-4)
        np.testing.assert_allclose(both[0]["shift_sd"], both[1]["shift_sd"], rtol=1e-4)


class TestNamesAndGroups:
    @pytest.mark.thorough("True")
    @pytest.mark.parametrize("first", [True, False])
    def test_what_stands_in_science_and_in_a_network_is_science(self, first):
        scale = bd.shared(dist.HalfNormal(1.0), "scale")
        network = bd.Network.mlp(("t",), ("y",), scale, width=2)
        model = bd.Model(bd.Algebraic(network), bd.NormalNoise(scale if first else 1.0))
        assert paths(model)["scale"].group == ("science" if first else "network")

    @pytest.mark.parametrize("name", ["layer", "noise"])
    def test_a_name_that_paths_begin_with_is_refused(self, name):
        with pytest.raises(ModelError, match=f"cannot be called '{name}'"):
            line(bd.shared(dist.Normal(0.0, 1.0), name))

    @pytest.mark.slow
    def test_the_time_of_a_jump_is_looked_at_under_its_shared_name(self):
        when = bd.shared(dist.Normal(0.0, 1.0), "when")
        layer = bd.ODE(
            lambda t, y, u: {"y": -y["y"]}, {"y": 1.0}, start=0.0, jumps=bd.Jump(when, {"y": 1.0})
        )
        model = bd.Model(layer, bd.NormalNoise(1.0))
        assert "of the prior draws of when lie before the solve" in str(bd.check(model, rows()))


class Store(bd.Module):
    lag: bd.Scalar

    def __call__(self, t, y, u):
        return {"store": -y["store"] / self.lag}

    def flow(self, t, y, u):
        return {"Q": y["store"] / self.lag}

    @staticmethod
    def level(t, y, u):
        return {"Q": y["store"]}


class Leaking(Store):
    def flow(self, t, y, u):
        return {"Q": 0.5 * y["store"] / self.lag}


class Both(bd.Module):
    fast: Store
    slow: Store

    def __call__(self, t, y, u):
        return {"store": self.fast(t, y, u)["store"] + self.slow(t, y, u)["store"]}


class TestObserve:
    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("equations", "observe", "first"),
        [
            (Leaking, Leaking.flow, 1.0),
            (Leaking, Store.flow, 2.0),
            (Store, Store.level, 4.0),
            (Leaking, Store.level, 4.0),
        ],
    )
    def test_as_a_method_of_a_class_above_or_of_no_object(self, equations, observe, first):
        layer = bd.ODE(equations(2.0), {"store": dist.Normal(4.0, 1.0)}, observe, start=0.0)
        model = bd.Model(layer, bd.NormalNoise(1.0))
        data = xr.Dataset({"Q": ("time", TIMES)}, {"time": TIMES})
        found = realise(model, {"layer.initial.store": jnp.asarray(4.0)}).predict(
            model.inputs(data)
        )
        assert float(found.values["Q"][0]) == pytest.approx(first)

    def test_a_method_that_two_parts_have_is_refused(self):
        equations, observe = Both(Store(1.0), Store(10.0)), cast("Any", Store.flow)
        with pytest.raises(ModelError, match="the method 'flow' of 2 parts of the equations"):
            bd.Model(
                bd.ODE(equations, {"store": 1.0}, observe, start=0.0),
                bd.NormalNoise(dist.HalfNormal(1.0)),
            )

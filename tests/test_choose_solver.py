"""The solver that is chosen for a stiff and for a non-stiff model, and what is said about it."""

import re

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.before_fit.solver_choice import SolverChoice, choose_solver, with_solver
from bayes_dasl.errors import ModelError
from bayes_dasl.layers import ODE
from bayes_dasl.layers.algebraic import Algebraic
from bayes_dasl.layers.ode import find_solver

Rodas5P = type(find_solver("rodas5p"))


class Robertson(bd.Module):
    slow: bd.Scalar

    def __call__(self, t, y, u):
        slow, fast, pair = self.slow * y["a"], 3e7 * y["b"] ** 2, 1e4 * y["b"] * y["c"]
        return {"a": pair - slow, "b": slow - pair - fast, "c": fast}


class VanDerPol(bd.Module):
    damping: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": y["v"], "v": self.damping * (1 - y["x"] ** 2) * y["v"] - y["x"]}


class LotkaVolterra(bd.Module):
    birth: bd.Scalar

    def __call__(self, t, y, u):
        return {"prey": y["prey"] * (self.birth - y["predator"]), "predator": y["predator"] * (y["prey"] - 1.0)}


def series(times, **values):
    return xr.Dataset({name: ("time", np.full(len(times), v)) for name, v in values.items()}, {"time": times})


PROBLEMS = {
    "rodas5p": (
        bd.Model(
            bd.ODE(Robertson(bd.between(0.02, 0.08)), {"a": 1.0, "b": 0.0, "c": 0.0}, start=0.0, max_steps=512),
            noise={"a": bd.NormalNoise(0.1)},
        ),
        series([0.4, 40.0, 4000.0], a=0.5),
    ),
    "tsit5": (
        bd.Model(
            bd.ODE(LotkaVolterra(bd.between(0.5, 2.0)), {"prey": 0.5, "predator": 1.0}),
            noise=bd.NormalNoise(dist.LogNormal(0.0, 1.0)),
        ),
        series(np.arange(20.0), prey=1.0, predator=1.0),
    ),
}


@pytest.fixture(scope="module", params=PROBLEMS)
def choice(request):
    model, data = PROBLEMS[request.param]
    return request.param, choose_solver(model, data, key=1)


class TestChoice:
    def test_the_one_that_fits(self, choice):
        expected, found = choice
        assert isinstance(found, SolverChoice)
        assert found.solver == expected
        assert isinstance(found.model.layer.solver, Rodas5P) is (expected == "rodas5p")

    def test_the_rest_of_the_model_stays(self, choice):
        expected, found = choice
        model, _ = PROBLEMS[expected]
        assert found.model.layer.initial == model.layer.initial
        assert found.model.layer.max_steps == model.layer.max_steps
        assert not isinstance(model.layer.solver, Rodas5P)

    def test_the_reason_has_the_numbers(self, choice):
        expected, found = choice
        assert str(found) == found.reason
        trials = re.findall(r"(\w+) solved (\d+) of 32 prior draws, in (\d+) steps .* ([\d.e+-]+) ms", found.reason)
        solved = {name: int(number) for name, number, *_ in re.findall(r"(\w+) solved (\d+) of 32", found.reason)}
        assert trials and solved[expected] == 32
        if expected == "rodas5p":
            assert solved["tsit5"] == 0
            assert found.reason.endswith("rodas5p fails less often")
        else:
            assert solved["rodas5p"] == 32
            assert found.reason.endswith("tsit5 is cheaper")


def test_where_both_succeed_the_cheaper_one_is_taken():
    """Van der Pol's oscillator is so stiff that tsit5 gets through, but only with thousands of steps."""
    ode = bd.ODE(VanDerPol(bd.between(300.0, 500.0)), {"x": 2.0, "v": 0.0}, max_steps=20_000)
    found = choose_solver(bd.Model(ode, noise={"x": bd.NormalNoise(0.5)}), series([0.0, 5.0, 10.0], x=2.0))
    steps = {name: int(n) for name, n in re.findall(r"(\w+) solved 32 of 32 prior draws, in (\d+) steps", str(found))}
    assert found.solver == "rodas5p"
    assert str(found).endswith("rodas5p is cheaper")
    assert steps["tsit5"] > 20 * steps["rodas5p"]


def test_every_ode_gets_it():
    class Special(ODE):
        """A kind of ODE whose constructor takes other arguments than there are fields."""

        def __init__(self, rate):
            super().__init__(lambda t, y, u: {"y": -rate * y["y"]}, {"y": 1.0})

    tree = {"one": Special(1.0), "two": [bd.ODE(lambda t, y, u: {"z": jnp.zeros(())}, {"z": 1.0})]}
    changed = with_solver(tree, "rodas5p")
    assert isinstance(changed["one"].solver, Rodas5P) and isinstance(changed["two"][0].solver, Rodas5P)
    assert not isinstance(tree["one"].solver, Rodas5P)


class TestRefusals:
    def test_a_model_without_an_ode(self):
        class Line(bd.Module):
            slope: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": self.slope * t}

        model = bd.Model(Algebraic(Line(bd.between(1.0, 2.0))), noise=bd.NormalNoise(1.0))
        with pytest.raises(ModelError, match="the model has no ODE, so there is no solver to choose"):
            choose_solver(model, series([0.0, 1.0], y=0.0))

    def test_what_is_no_model(self, unchecked):
        with pytest.raises(ModelError, match=r"must be a bd.Model, not Robertson"):
            choose_solver(Robertson(1.0), series([0.0, 1.0], a=0.0))

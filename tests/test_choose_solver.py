"""The solver that is chosen for a stiff and for a non-stiff model, and what is said about it."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from seldom import seldom

import bayes_dasl as bd
from bayes_dasl import Algebraic
from bayes_dasl.checking import SolverChoice, choose_solver, solver_choice
from bayes_dasl.checking.solver_choice import with_solver
from bayes_dasl.errors import ModelError
from bayes_dasl.layers import ODE
from bayes_dasl.layers.ode import find_solver
from bayes_dasl.prediction import Pushed

Rodas5P = type(find_solver("rodas5p"))


class Relaxing(bd.Module):
    r"""$\dot y = -k\,(y - \cos t)$: the larger $k$, the stiffer (Prothero & Robinson 1974)."""

    k: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.k * (y["y"] - jnp.cos(t))}


def relaxing(low, high, **options):
    return bd.Model(
        bd.ODE(Relaxing(bd.between(low, high)), {"y": 1.0}, **options), bd.NormalNoise(0.1)
    )


def series(times, **values):
    return xr.Dataset(
        {name: ("time", np.full(len(times), v)) for name, v in values.items()}, {"time": times}
    )


PROBLEMS = {
    "rodas5p": (relaxing(1e5, 1e6, start=0.0, max_steps=512), series([0.4, 4.0, 10.0], y=0.5)),
    "tsit5": (relaxing(0.5, 2.0), series(np.arange(20.0), y=1.0)),
}


@pytest.fixture(scope="module", params=seldom(PROBLEMS, "tsit5"))
def choice(request):
    model, data = PROBLEMS[request.param]
    return request.param, choose_solver(model, data, key=1)


class TestChoice:
    @pytest.mark.thorough
    def test_the_one_that_fits(self, choice):
        expected, found = choice
        assert isinstance(found, SolverChoice)
        assert found.solver == expected
        assert isinstance(found.model.layer.solver, Rodas5P) is (expected == "rodas5p")

    @pytest.mark.thorough
    def test_the_rest_of_the_model_stays(self, choice):
        expected, found = choice
        model, _ = PROBLEMS[expected]
        assert found.model.layer.initial == model.layer.initial
        assert found.model.layer.max_steps == model.layer.max_steps
        assert not isinstance(model.layer.solver, Rodas5P)

    @pytest.mark.thorough
    def test_the_reason_has_the_numbers(self, choice):
        expected, found = choice
        assert str(found) == found.reason
        trials = re.findall(
            r"(\w+) solved (\d+) of 32 prior draws, in (\d+) steps .* ([\d.e+-]+) ms", found.reason
        )
        solved = {
            name: int(number)
            for name, number, *_ in re.findall(r"(\w+) solved (\d+) of 32", found.reason)
        }
        assert trials and solved[expected] == 32
        if expected == "rodas5p":
            assert solved["tsit5"] == 0
            assert found.reason.endswith("rodas5p fails less often")
        else:
            assert solved["rodas5p"] == 32
            assert found.reason.endswith("tsit5 is cheaper")


@pytest.mark.thorough(
    "solved0-seconds0-rodas5p-rodas5p is cheaper",
    "solved2-seconds2-tsit5-tsit5 fails less often",
    "solved3-seconds3-rodas5p-neither will do, rodas5p fails in less time",
)
@pytest.mark.parametrize(
    ("solved", "seconds", "best", "why"),
    [
        ((32, 32), (2.0, 1.0), "rodas5p", "rodas5p is cheaper"),
        ((32, 32), (1.0, 2.0), "tsit5", "tsit5 is cheaper"),
        ((32, 31), (2.0, 1.0), "tsit5", "tsit5 fails less often"),
        ((0, 0), (2.0, 1.0), "rodas5p", "neither will do, rodas5p fails in less time"),
    ],
)
def test_failures_count_first_and_then_the_time(monkeypatch, solved, seconds, best, why):
    """What tsit5 and rodas5p, in this order, are said to have done."""
    laps = iter(seconds)

    def push(model, inputs, draws):
        succeeded = solved[isinstance(model.layer.solver, Rodas5P)]
        return Pushed({}, {}, np.arange(32) < succeeded, np.full(32, 7), {}, {})

    monkeypatch.setattr(solver_choice, "push", push)
    monkeypatch.setattr(solver_choice, "choose", lambda *_: "forward")
    monkeypatch.setattr(solver_choice, "seconds_a_gradient", lambda *_, **__: next(laps))
    found = choose_solver(*PROBLEMS["tsit5"])
    assert found.solver == best
    assert isinstance(found.model.layer.solver, Rodas5P) is (best == "rodas5p")
    assert str(found).endswith(why)
    number, time = (numbers[best == "rodas5p"] for numbers in (solved, seconds))
    assert str(found).startswith(
        f"{best} solved {number} of 32 prior draws, in 7 steps at the median and {1e3 * time:.2g}"
    )


@pytest.mark.slow
def test_where_both_succeed_the_cheaper_one_is_taken():
    """It is so stiff that tsit5 gets through, but only with thousands of steps."""
    found = choose_solver(
        relaxing(2000.0, 4000.0, max_steps=20_000), series([0.0, 5.0, 10.0], y=1.0)
    )
    steps = {
        name: int(n)
        for name, n in re.findall(r"(\w+) solved 32 of 32 prior draws, in (\d+) steps", str(found))
    }
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
    assert isinstance(changed["one"].solver, Rodas5P) and isinstance(
        changed["two"][0].solver, Rodas5P
    )
    assert not isinstance(tree["one"].solver, Rodas5P)


class TestRefusals:
    def test_a_model_without_an_ode(self):
        class Line(bd.Module):
            slope: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": self.slope * t}

        model = bd.Model(Algebraic(Line(bd.between(1.0, 2.0))), noise=bd.NormalNoise(1.0))
        with pytest.raises(
            ModelError, match="the model has no ODE, so there is no solver to choose"
        ):
            choose_solver(model, series([0.0, 1.0], y=0.0))

    def test_what_is_no_model(self, unchecked):
        with pytest.raises(ModelError, match=r"must be a bd.Model, not Relaxing"):
            choose_solver(Relaxing(1.0), series([0.0, 1.0], y=0.0))

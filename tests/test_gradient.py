"""How gradients are taken: forward mode for few unknowns, reverse for many, in between what was
measured once.
"""

import functools
import json

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from arviz_stats.base.array import array_stats
from known_problems import Known

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import (
    Journal,
    ProgressBar,
    gradient as _gradient,
    pose,
    sharding as _sharding,
)
from bayes_dasl.inference.gradient import choose, traced_once
from bayes_dasl.inference.sharding import Sharded


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {name: -self.rate * value for name, value in y.items()}


def sum_of_all(t, y, u):
    return {"sum": sum(jnp.sum(value) for value in y.values())}


def posed(unknowns, datum=1.0, **options):
    """A decay of so many states of unknown size, of which the sum is seen."""
    state = {"many": dist.Normal(jnp.ones(unknowns), 0.1).to_event(1)}
    layer = bd.ODE(Decay(0.5), state, sum_of_all, **options)
    return pose(
        bd.Model(layer, bd.NormalNoise(0.5)),
        xr.Dataset({"sum": ("time", [datum, 1.0])}, {"time": [0.0, 1.0]}),
    )


@functools.cache
def nine():
    """A problem of a number in between."""
    return posed(9)


class Measurement:
    """Stands in for the clock."""

    def __init__(self):
        self.seconds, self.calls = {"forward": 1.0, "reverse": 2.0}, []

    def __call__(self, problem, strategy, count, *, key):
        self.calls.append(strategy)
        return self.seconds[strategy]


@pytest.fixture
def measure(monkeypatch, tmp_path):
    measure = Measurement()
    monkeypatch.setenv("BAYES_DASL_CACHE", str(tmp_path))
    monkeypatch.setattr(_gradient, "seconds_a_gradient", measure)
    return measure


@pytest.mark.thorough("1-forward", "8-forward", "65-reverse")
@pytest.mark.parametrize(
    ("unknowns", "strategy"), [(1, "forward"), (8, "forward"), (65, "reverse"), (200, "reverse")]
)
def test_few_and_many_unknowns_need_no_measurement(measure, unknowns, strategy):
    assert choose(posed(unknowns), "auto") == strategy
    assert measure.calls == []


@pytest.mark.slow
def test_few_unknowns_but_many_states_are_measured(measure):
    """Of 60 states and one unknown number, reverse mode takes half the time of forward mode."""
    measure.seconds["forward"] = 4.0
    data = xr.Dataset({"sum": ("time", [1.0, 1.0])}, {"time": [0.0, 1.0]})
    for states, strategy in ((29, "forward"), (30, "reverse")):
        named = {f"y{i}": 1.0 for i in range(states)}
        for initial in ({"y": np.ones(states)}, named):
            layer = bd.ODE(Decay(dist.LogNormal(0.0, 0.1)), initial, sum_of_all)
            assert choose(pose(bd.Model(layer, bd.NormalNoise(0.5)), data), "auto") == strategy
    assert measure.calls == 2 * ["forward", "reverse"]


@pytest.mark.thorough("1.0-forward", "1.5-forward")
@pytest.mark.parametrize(
    ("forward", "strategy"), [(1.0, "forward"), (1.5, "forward"), (1.7, "reverse")]
)
def test_forward_mode_is_taken_if_it_needs_less_than_0_8_of_the_time(
    measure, monkeypatch, forward, strategy
):
    monkeypatch.setenv("BAYES_DASL_CACHE", "off")
    measure.seconds["forward"] = forward
    assert choose(nine(), "auto") == strategy


@pytest.mark.thorough
@pytest.mark.parametrize("unknowns", [9, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("forward", "strategy"),
    [
        pytest.param(1.0, "forward", marks=pytest.mark.slow),
        (1.5, "forward"),
        pytest.param(1.7, "reverse", marks=pytest.mark.slow),
    ],
)
def test_a_number_in_between_is_measured_once(measure, unknowns, forward, strategy):
    """The choice holds whatever a later clock says."""
    measure.seconds["forward"] = forward
    assert choose(posed(unknowns), "auto") == strategy
    assert measure.calls == ["forward", "reverse"]
    measure.seconds = {"forward": 2.0 - forward, "reverse": forward}
    assert choose(posed(unknowns), "auto") == strategy
    assert len(measure.calls) == 2
    assert choose(posed(unknowns, datum=1.1), "auto") == strategy
    assert len(measure.calls) == 2  # other data take as long
    assert choose(posed(unknowns + 1 if unknowns < 64 else 63), "auto") in ("forward", "reverse")
    assert len(measure.calls) == 4  # another posterior


@pytest.mark.thorough
def test_nothing_is_remembered_without_a_cache(measure, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for folder in ("off", str(tmp_path / "file")):
        monkeypatch.setenv("BAYES_DASL_CACHE", folder)
        for _ in range(2):
            measure.calls.clear()
            assert choose(nine(), "auto") == "forward"
            assert measure.calls == ["forward", "reverse"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b'{"strategy": "rev',
        b'["reverse"]',
        b'{"strategy": "auto"}',
        b'{"strategy": []}',
        b"\xff",
    ],
)
def test_a_torn_note_is_measured_again(measure, monkeypatch, tmp_path, torn):
    problem = nine()
    # What a note is called is asked above, and takes a second to find out.
    monkeypatch.setattr(type(problem), "fingerprint", lambda problem: "this")
    choose(problem, "auto")
    (note,) = (tmp_path / "gradients").iterdir()
    note.write_bytes(torn)
    measure.calls.clear()
    assert choose(problem, "auto") == "forward"
    assert measure.calls == ["forward", "reverse"]
    assert json.loads(note.read_text()) == {
        "strategy": "forward",
        "seconds_per_gradient": measure.seconds,
    }


@pytest.mark.thorough
def test_what_is_asked_for_is_done(measure):
    for problem in (posed(1), nine(), posed(65)):
        for strategy in ("forward", "reverse"):
            assert choose(problem, strategy) == strategy
    assert measure.calls == []


def test_the_adjoint_of_the_user_is_respected(measure):
    backsolve, forward = (
        posed(1, adjoint=diffrax.BacksolveAdjoint()),
        posed(65, adjoint=diffrax.ForwardMode()),
    )
    assert choose(backsolve, "auto") == choose(backsolve, "reverse") == "reverse"
    assert choose(forward, "auto") == choose(forward, "forward") == "forward"
    with pytest.raises(
        ModelError, match=r"gradient='forward' cannot be had: .* adjoint=BacksolveAdjoint\(\)"
    ):
        choose(backsolve, "forward")
    with pytest.raises(
        ModelError, match=r"gradient='reverse' cannot be had: .* adjoint=ForwardMode\(\)"
    ):
        choose(forward, "reverse")
    assert measure.calls == []


def test_without_a_solver_the_gradient_is_that_of_reverse_mode(measure):
    no_solver = Known(lambda x: -(x**2).sum(), np.zeros(3), np.eye(3))
    assert choose(no_solver, "auto") == choose(no_solver, "reverse") == "reverse"
    assert choose(no_solver, "forward") == "forward"
    assert measure.calls == []


def test_a_measurement_takes_the_time_of_one_gradient():
    assert 0 < _gradient.seconds_a_gradient(nine(), "forward", 4, key=jax.random.key(0)) < 0.1


@pytest.mark.slow
def test_both_give_the_same_density_and_gradient():
    """Through a solver for stiff equations, with a forcing; tests/test_inference.py asks the
    default solver.
    """

    class Competition(bd.Module):
        growth: bd.Scalar
        strength: bd.Scalar

        def __call__(self, t, y, u):
            a, b = y["a"], y["b"]
            return {"a": a * (self.growth - a - self.strength * b), "b": b * (u["light"] - b - a)}

    def prior():
        return dist.LogNormal(0.0, 0.3)

    layer = bd.ODE(
        Competition(prior(), prior()),
        {"a": prior(), "b": 0.3},
        forcings=("light",),
        solver="rodas5p",
    )
    data = xr.Dataset(
        {name: ("time", [0.3, 0.6, 0.5]) for name in ("a", "b", "light")}, {"time": [0.0, 1.0, 2.0]}
    )
    problem = pose(bd.Model(layer, bd.NormalNoise(scale=prior())), data)
    forward, reverse = (
        jax.jit(jax.vmap(traced_once(problem, how)[0])) for how in ("forward", "reverse")
    )
    x = problem.prior(5, key=jax.random.key(0))
    for one, other in zip(forward(x), reverse(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_nuts_samples_the_conjugate_posterior_in_reverse_mode():
    """As all tests of few unknowns do in forward mode."""
    model = bd.Model(bd.ODE(Decay(0.0), {"y": dist.Normal(0.0, 3.0)}), bd.NormalNoise(scale=0.5))
    data = xr.Dataset({"y": ("time", [2.0, 2.3, 1.9, 2.4])}, {"time": np.arange(4.0)})
    engine, key = (
        bd.NUTS(chains=2, warmup=100, draws=300, gradient="reverse"),
        jax.random.split(jax.random.key(1))[0],
    )
    found = engine.run(pose(model, data), key=key, journal=Journal(), bar=ProgressBar(False))
    assert found.facts["gradient"] == "reverse"
    draws = found.positions[..., 0]
    precision = 1 / 3.0**2 + 4 / 0.5**2
    error = float(array_stats.mcse(draws, chain_axis=0, draw_axis=1))
    assert abs(float(draws.mean()) - 8.6 / 0.5**2 / precision) < 4 * error < 0.2


def test_other_data_of_the_same_shape_make_the_same_program(monkeypatch):
    texts = []

    def noted(function, *arguments):
        texts.append(jax.jit(function).trace(*arguments).lower().as_text())
        return function

    monkeypatch.setattr(_sharding, "compiled", noted)
    for datum in (1.0, np.nan):
        value_and_gradient, _ = traced_once(posed(1, datum), "forward")
        Sharded(value_and_gradient, 2).compile(np.zeros((2, 1)))
    assert len(texts) == 2 and texts[0] == texts[1]

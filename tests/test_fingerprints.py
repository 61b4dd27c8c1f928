"""Fingerprints: the same in every process, others for other models, whatever these call; and what
cannot be read.
"""

import functools
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from library_equations import DATA, EQUATIONS, Of, model
from seldom import seldom
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl._jax import calls_back, fingerprint_of, traced
from bayes_dasl.errors import ModelError, UnreadableError
from bayes_dasl.inference import pose
from bayes_dasl.inference.gradient import differentiated, traced_once

TESTS = Path(__file__).parent
# These take seconds to trace.
DEAR = (
    *(
        "root_find_chord",
        "root_find_by_its_steps",
        "root_find_bisection",
        "fixed_point",
        "least_squares",
        "minimise",
    ),
    *("linear_algebra", "linear_solve_by_conjugate_gradients", "while_loop_of_equinox"),
)
# The others are fitted in slow runs.
FITTED = ("while_loop",)


@pytest.fixture(scope="module")
def elsewhere(request):
    """The fingerprints of the equations that are asked for in another process, in which sets have
    another order.
    """
    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if "elsewhere" in item.fixturenames
    }
    ran = subprocess.run(
        [sys.executable, TESTS / "library_equations.py", *sorted(asked)],
        capture_output=True, text=True, check=True, cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": str(TESTS.parent), "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    return json.loads(ran.stdout)


@pytest.mark.thorough
@pytest.mark.parametrize("name", seldom(EQUATIONS, *DEAR))
def test_a_model_is_the_same_in_another_process_and_another_with_another_constant(name, elsewhere):
    same = pose(model(name), DATA).fingerprint(needed=True)
    assert same == elsewhere[name]
    assert pose(model(name, 2.0 + 1e-9), DATA).fingerprint(needed=True) != same


@pytest.mark.thorough
@pytest.mark.parametrize("name", seldom(EQUATIONS, *(EQUATIONS.keys() - set(FITTED))))
def test_what_check_calls_ready_is_fitted_and_resumed(name, tmp_path):
    assert bd.check(model(name), DATA, key=1).level != "bad"
    engine = bd.NUTS(chains=2, warmup=50, draws=10, map_starts=2)
    post = bd.fit(model(name), DATA, engine, checkpoint=tmp_path / "steps", key=1)
    again = bd.resume(model(name), DATA, tmp_path / "steps")
    np.testing.assert_array_equal(again["posterior"]["level"], post["posterior"]["level"])
    if name != "root_find":
        assert abs(float(post["posterior"]["level"].mean()) - 1.0) < 0.3
    assert bd.forecast(model(name), post, np.arange(5.0)).attrs["model"] == "that of the fit"


# ---- what a program holds and its text does not show


def test_functions_that_a_solver_calls_count():
    """Conjugate gradients call them inside a primitive; of a function without closure the trace
    shows its name only.
    """

    def solved(function):
        shape = jax.ShapeDtypeStruct((), jnp.result_type(float))
        operator = lx.FunctionLinearOperator(function, shape, lx.positive_semidefinite_tag)
        return fingerprint_of(lambda b: lx.linear_solve(operator, b, lx.CG(1e-6, 1e-6)).value, 1.0)

    assert solved(lambda v: 2.0 * v) == solved(lambda v: 2.0 * v)
    assert solved(lambda v: 2.0 * v) != solved(lambda v: 3.0 * v)


def test_a_table_of_a_function_that_is_called_counts():
    def of(table):
        seasonal = jax.jit(lambda t: jnp.interp(t, jnp.arange(3.0), jnp.asarray(table)))
        return fingerprint_of(lambda t: 2.0 * seasonal(t), 1.0)

    assert of([1.0, 2.0, 3.0]) == of([1.0, 2.0, 3.0])
    assert of([1.0, 2.0, 3.0]) != of([1.0, 20.0, 3.0])


def test_constants_count_where_a_branch_returns_nothing_else():
    def of(table):
        held = jnp.asarray(table)
        return fingerprint_of(
            lambda x: jax.lax.cond(x > 0, lambda: held, lambda: jnp.zeros(2)), 1.0
        )

    assert of([1.0, 2.0]) != of([1.0, 3.0])


@pytest.mark.thorough
def test_where_a_parameter_may_lie_counts():
    """The densities of both are one wherever they are not zero."""

    def of(prior):
        return pose(
            bd.Model(bd.Algebraic(Of(prior, "cond", 2.0)), bd.NormalNoise(0.2)), DATA
        ).fingerprint()

    assert of(dist.Uniform(0.0, 1.0)) == of(dist.Uniform(0.0, 1.0))
    assert of(dist.Uniform(0.0, 1.0)) != of(dist.Uniform(1.0, 2.0))


def test_rules_of_derivatives_and_prints_change_no_posterior():
    def of(slope):
        scaled = jax.custom_vjp(lambda x: 2.0 * x)
        scaled.defvjp(lambda x: (2.0 * x, None), lambda _, s: (slope * s,))
        return fingerprint_of(scaled, 1.0)

    def printing(text):
        def function(x):
            jax.debug.print(text, x=x)
            return 2.0 * x

        return fingerprint_of(function, 1.0)

    assert of(2.0) == of(3.0)
    assert printing("a {x}") == printing("b {x}")


# ---- Python that a program calls

SCALE = 2.0


def by_global(x):
    return SCALE * x


def by_another(x):
    return by_global(x)


class Scaled:
    scale = 2.0

    def __call__(self, x):
        return self.scale * x

    def method(self, x):
        return self.times(x)

    def times(self, x):
        return self.scale * x


def called(function):
    """The fingerprint of a program that calls a function of NumPy arrays."""
    return fingerprint_of(
        lambda x: jax.pure_callback(function, jax.ShapeDtypeStruct((), x.dtype), x), jnp.ones(())
    )


def closing_over(value):
    return lambda x: np.asarray(value * x)


def with_default(value):
    return lambda x, by=value: by * x


def partially(value):
    return functools.partial(lambda by, x: by * x, value)


def of_an_object(value):
    made = Scaled()
    made.scale = value
    return made


def bound(value):
    return of_an_object(value).method


@pytest.mark.parametrize("make", [closing_over, with_default, partially, of_an_object, bound])
@pytest.mark.parametrize("kind", [float, np.asarray])
def test_what_a_callback_holds_counts(make, kind):
    assert called(make(kind(2.0))) == called(make(kind(2.0)))
    assert called(make(kind(2.0))) != called(make(kind(3.0)))


@pytest.mark.parametrize("function", [by_global, by_another])
def test_what_a_callback_names_counts(function, monkeypatch):
    before = called(function)
    assert called(function) == before
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert called(function) != before


def test_the_body_of_a_callback_counts(monkeypatch):
    assert called(lambda x: 2.0 * x) != called(lambda x: 2.0 + x)
    before = called(Scaled().method)
    monkeypatch.setattr(Scaled, "times", lambda self, x: self.scale + x)
    assert called(Scaled().method) != before


def test_functions_of_modules_inside_modules_count(tmp_path):
    """As in `equations.seasons.table(x)`, with a package of the user's own."""

    def module(name, code, **held):
        made = types.ModuleType(name)
        made.__file__ = str(tmp_path / f"{name}.py")
        vars(made).update(held)
        exec(code, vars(made))
        return made

    def by(factor):
        inner = module("seasons", f"FACTOR = {factor}\ndef table(x): return FACTOR * x")
        outer = module("equations", "", seasons=inner)
        inner.equations = outer
        return called(
            module("mine", "def call(x): return equations.seasons.table(x)", equations=outer).call
        )

    assert by(2.0) == by(2.0) != by(3.0)


def test_functions_of_numpy_count_by_their_names():
    assert called(np.cosh) == called(np.cosh) != called(np.sinh)


def test_what_contains_itself_is_read():
    ring: list = [1.0]
    ring.append(ring)
    assert called(lambda x: x * ring[0]) == called(lambda x: x * ring[0])


def unreadable(scale=2.0):
    """A model that calls Python with a lock, which nothing can look into."""
    lock = threading.Lock()

    def locked(x):
        with lock:
            return np.asarray(scale * x)

    def through(t, y, u):
        return {
            "y": jax.pure_callback(
                locked, jax.ShapeDtypeStruct((), t.dtype), t, vmap_method="sequential"
            )
        }

    class Through(bd.Module):
        level: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.level + 0.0 * through(t, y, u)["y"]}

    return bd.Model(bd.Algebraic(Through(dist.Normal(2.0, 0.3))), bd.NormalNoise(0.2))


@pytest.mark.thorough
def test_a_model_that_cannot_be_told_from_others_is_taken_for_none(tmp_path):
    problem = pose(unreadable(), DATA)
    assert problem.fingerprint() == ""
    with pytest.raises(
        UnreadableError,
        match="calls Python while it runs, and there holds a lock that cannot be read",
    ):
        problem.fingerprint(needed=True)
    with pytest.raises(ModelError, match="cannot be told from another model"):
        bd.fit(unreadable(), DATA, Sifting(), checkpoint=tmp_path / "steps")
    (found,) = [f for f in bd.check(unreadable(), DATA).findings if f.subject == "checkpoint"]
    assert found.level == "warning"
    post = bd.fit(unreadable(), DATA, Sifting())
    fc = bd.forecast(unreadable(), post, np.arange(3.0))
    assert fc.attrs["model"] == "that of the fit as far as its random leaves tell"


# ---- what is differentiated, and how


@pytest.mark.thorough
def test_an_equation_that_has_one_mode_is_differentiated_in_it():
    for name, strategy in (("while_loop", "forward"), ("custom_vjp", "reverse")):
        for first in ("forward", "reverse"):
            way, value_and_gradient, _ = differentiated(pose(model(name), DATA), first)
            assert way == strategy
            assert np.isfinite(value_and_gradient(jnp.zeros(1))[1]).all()
    with pytest.raises(
        ModelError, match="cannot be differentiated in reverse mode: ValueError: Reverse-mode"
    ):
        differentiated(pose(model("while_loop"), DATA), "reverse", other=False)


def test_an_equation_without_derivatives_is_refused_in_words():
    class Opaque(bd.Module):
        level: bd.Scalar

        def __call__(self, t, y, u):
            shape = jax.ShapeDtypeStruct((), jnp.result_type(float))
            return {
                "y": jax.pure_callback(np.cosh, shape, self.level, vmap_method="sequential")
                + 0.0 * t
            }

    opaque = bd.Model(bd.Algebraic(Opaque(dist.Normal())), bd.NormalNoise(0.2))
    with pytest.raises(
        ModelError,
        match=r"in reverse or forward mode: ValueError: Pure callbacks do not support JVP",
    ):
        traced_once(pose(opaque, DATA))
    (found,) = [f for f in bd.check(opaque, DATA).findings if f.subject == "gradient"]
    assert found.level == "bad"


@pytest.mark.thorough
@pytest.mark.parametrize("batched", [0, 1, 2])
def test_a_linear_solve_that_fails_is_a_value(batched):
    """Its check is inside a primitive, where the trace shows nothing."""
    function, at = (
        lambda a: lx.linear_solve(lx.MatrixLinearOperator(a), jnp.ones(2), lx.LU()).value,
        jnp.zeros((2, 2)),
    )
    for _ in range(batched):
        function, at = jax.vmap(function), jnp.stack([at, at])
    with pytest.raises(Exception, match="singular"):
        jax.block_until_ready(jax.jit(function)(at))
    plain = traced(function, at)
    assert not np.isfinite(plain(at)).any()
    assert not calls_back(jax.make_jaxpr(plain)(at))


@pytest.mark.thorough
def test_data_and_forecast_know_nothing_of_each_other():
    """A fingerprint is of model and data: a model alone is compared on the data of its fit."""
    moved = xr.Dataset({"y": ("time", [2.1, 1.9, 2.1])}, {"time": [0.0, 1.0, 2.0]})
    assert pose(model("cond"), DATA).fingerprint() != pose(model("cond"), moved).fingerprint()

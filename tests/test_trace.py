"""Functions traced once: their checks are gone, and nothing else is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._jax import calls_back, traced
from bayes_dasl.inference import pose
from bayes_dasl.inference.gradient import traced_once

X = jnp.array([0.3, -0.7, 1.1])


def checked(x):
    """A check that never fails here."""
    return jnp.sin(eqx.error_if(x, jnp.any(x > 10.0), "x is large"))


def in_a_branch(x):
    """Only one of the branches has a check: the other must not take its place."""
    return jax.lax.cond(x[0] > 0, lambda x: 2 * checked(x), lambda x: x, x)


def in_both_branches(x):
    return jax.lax.cond(x[0] > 0, lambda x: 2 * checked(x), lambda x: 3 * checked(x), x)


def in_a_while_loop(x):
    count_and_x = jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, checked(c[1])), (0, x)
    )
    return count_and_x[1]


def in_a_fixed_loop(x):
    return jax.lax.fori_loop(0, 3, lambda _, x: checked(x), x)


def in_a_scan(x):
    return jax.lax.scan(lambda total, xi: (total + checked(xi), checked(total)), 0.5, x)[1]


def in_jit(x):
    return jax.jit(lambda x: jax.jit(checked)(x) + 1)(x)


def in_a_batch(x):
    return jax.vmap(checked)(x)


def in_everything(x):
    return jax.jit(jax.vmap(lambda xi: in_a_scan(in_a_branch(xi[None] * x))))(x)


NESTED = [
    checked, in_a_branch, in_both_branches, in_a_fixed_loop, in_a_scan, in_jit, in_a_batch, in_everything,
]  # fmt: skip


def has_callbacks(function):
    return calls_back(jax.make_jaxpr(function)(X))


@pytest.mark.thorough("x0-in_everything", "x1-in_everything")
@pytest.mark.parametrize("function", [*NESTED, in_a_while_loop])
@pytest.mark.parametrize("x", [X, -X])
def test_a_function_with_checks_has_the_same_values_without(function, x):
    assert has_callbacks(function)
    plain = traced(function, X)
    assert not has_callbacks(plain)
    np.testing.assert_array_equal(plain(x), function(x))


@pytest.mark.thorough(
    "checked",
    "in_a_branch",
    "in_both_branches",
    "in_a_fixed_loop",
    "in_a_scan",
    "in_jit",
    "in_everything",
)
@pytest.mark.parametrize("function", NESTED)
def test_and_the_same_gradients(function):
    def loss(function, x):
        return jnp.sum(jnp.cos(function(x)))

    plain = traced(function, X)
    for x in (X, -X):
        expected = jax.grad(loss, argnums=1)(function, x)
        np.testing.assert_allclose(jax.grad(loss, argnums=1)(plain, x), expected, rtol=1e-12)
        np.testing.assert_allclose(
            traced(jax.grad(lambda x: loss(function, x)), X)(x), expected, rtol=1e-12
        )
        np.testing.assert_allclose(
            jax.vmap(plain)(jnp.stack([x, 2 * x]))[0], function(x), rtol=1e-12
        )


def test_a_check_that_fails_is_passed_over():
    np.testing.assert_array_equal(traced(checked, X)(20 + X), jnp.sin(20 + X))
    with pytest.raises(RuntimeError, match="x is large"):
        eqx.filter_jit(checked)(20 + X)


def test_a_function_without_checks_is_unchanged():
    def plain(x, y):
        return {"a": jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), "b": (y, 2.0)}

    same = traced(plain, X, 1.0)
    assert str(jax.make_jaxpr(same)(X, 1.0)) == str(jax.make_jaxpr(plain)(X, 1.0))
    assert jax.tree.structure(same(X, 3.0)) == jax.tree.structure(plain(X, 3.0))
    np.testing.assert_array_equal(same(-X, 3.0)["a"], jnp.cos(-X))
    assert same(X, 3.0)["b"] == (3.0, 2.0)


@pytest.mark.parametrize("in_cond", [False, True])
def test_a_callback_that_is_no_check_is_kept(in_cond):
    """A model may call NumPy, in a branch or everywhere."""
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)

    def through_numpy(x):
        return jax.pure_callback(np.cosh, shape, x, vmap_method="sequential")

    def function(x):
        return (
            jax.lax.cond(x[0] > 0, through_numpy, lambda x: x, x) if in_cond else through_numpy(x)
        )

    kept = traced(function, X)
    assert has_callbacks(kept)
    for x in (X, -X):
        np.testing.assert_allclose(kept(x), function(x), rtol=1e-15)


def test_python_runs_once():
    calls = []

    def counted(x):
        calls.append(x)
        return 2 * x

    function = traced(counted, X)
    for _ in range(2):
        np.testing.assert_array_equal(jax.jit(function)(X), 2 * X)
        np.testing.assert_array_equal(jax.jit(jax.vmap(function))(X[None]), 2 * X[None])
    assert len(calls) == 1


class Watched(bd.Module):
    """A vector field with a check, driven by a forcing."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": u["u"] - self.rate * eqx.error_if(y["y"], y["y"] > 1e6, "the state is absurd")}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("solver", "strategy"),
    [("tsit5", "reverse")]
    + [
        pytest.param(solver, strategy, marks=pytest.mark.slow)
        for solver, strategy in (("rodas5p", "forward"), ("kvaerno5", "reverse"))
    ],
)
def test_what_engines_compile_can_be_kept_on_disk(solver, strategy):
    """The solvers have checks of their own."""
    layer = bd.ODE(
        Watched(bd.between(0.2, 2.0)), {"y": dist.Normal()}, forcings=("u",), solver=solver
    )
    data = xr.Dataset({name: ("time", [1.0, 2.0, 0.5]) for name in "yu"}, {"time": [0.0, 1.0, 2.0]})
    problem = pose(bd.Model(layer, bd.NormalNoise(0.1)), data)
    value_and_gradient, log_density = traced_once(problem, strategy)
    assert not calls_back(jax.make_jaxpr(value_and_gradient)(jnp.zeros(2)))
    assert not calls_back(jax.make_jaxpr(jax.vmap(log_density))(jnp.zeros((3, 2))))

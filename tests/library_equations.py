"""Equations that call other libraries, or Python: each is about `constant * level`, for a level
around one.
"""

import sys
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import numpyro.distributions as dist
import optimistix as optx
import xarray as xr
from jax.scipy.linalg import expm

import bayes_dasl as bd

EQUATIONS: dict[str, Callable] = {}


def equation(function: Callable) -> Callable:
    EQUATIONS[function.__name__] = function
    return function


# ---- solvers of Optimistix and Lineax


@equation
def root_find(level, constant):
    found = optx.root_find(
        lambda y, x: y + 0.1 * y**3 - constant * x, optx.Newton(1e-8, 1e-8), level, level
    )
    return found.value


@equation
def root_find_chord(level, constant):
    solver, options = optx.Chord(1e-8, 1e-8), {"lower": 0.0, "upper": 9.0}
    return optx.root_find(
        lambda y, x: y - constant * x, solver, level, level, options=options
    ).value


@equation
def root_find_bisection(level, constant):
    solver, options = optx.Bisection(1e-8, 1e-8), {"lower": -9.0, "upper": 99.0}
    return optx.root_find(
        lambda y, x: y - constant * x, solver, level, level, options=options, throw=False
    ).value


@equation
def root_find_by_its_steps(level, constant):
    adjoint = optx.RecursiveCheckpointAdjoint()
    solver = optx.Newton(1e-8, 1e-8)
    return optx.root_find(
        lambda y, x: y - constant * x, solver, level, level, adjoint=adjoint, max_steps=8
    ).value


@equation
def fixed_point(level, constant):
    solver = optx.FixedPointIteration(1e-8, 1e-8)
    return optx.fixed_point(lambda y, x: 0.5 * y + 0.5 * constant * x, solver, level, level).value


@equation
def least_squares(level, constant):
    solver = optx.LevenbergMarquardt(1e-8, 1e-8)
    return optx.least_squares(
        lambda y, x: jnp.stack([y - constant * x, 0.1 * y]), solver, level, level
    ).value


@equation
def minimise(level, constant):
    return optx.minimise(
        lambda y, x: (y - constant * x) ** 2, optx.BFGS(1e-6, 1e-6), level, level
    ).value


def matrix(level, constant):
    return jnp.array([[2.0, 0.5], [0.5, 1.0 / constant]]) / level


@equation
def linear_solve(level, constant):
    return lx.linear_solve(
        lx.MatrixLinearOperator(matrix(level, constant)), jnp.array([0.0, 1.0])
    ).value[1]


@equation
def linear_solve_by_conjugate_gradients(level, constant):
    tags = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})
    operator = lx.FunctionLinearOperator(
        lambda v: matrix(level, constant) @ v,
        jax.ShapeDtypeStruct((2,), jnp.result_type(float)),
        tags,
    )
    return lx.linear_solve(operator, jnp.array([0.0, 1.0]), lx.CG(1e-9, 1e-9)).value[1]


# ---- interpolation


@equation
def interpolated_by_hand(level, constant):
    x, y = jnp.linspace(0.0, 9.0, 10), constant * jnp.linspace(0.0, 9.0, 10)
    i = jnp.clip(jnp.searchsorted(x, level, side="right"), 1, x.size - 1)
    share = (level - jnp.take(x, i - 1)) / (jnp.take(x, i) - jnp.take(x, i - 1))
    return jnp.where(level < x[0], y[0], (1 - share) * jnp.take(y, i - 1) + share * jnp.take(y, i))


@equation
def interp(level, constant):
    return jnp.interp(level, jnp.arange(10.0), constant * np.arange(10.0))


@equation
def linear_interpolation(level, constant):
    return diffrax.LinearInterpolation(jnp.arange(10.0), constant * jnp.arange(10.0)).evaluate(
        level
    )


@equation
def cubic_interpolation(level, constant):
    coefficients = diffrax.backward_hermite_coefficients(
        jnp.arange(10.0), constant * jnp.arange(10.0)
    )
    return diffrax.CubicInterpolation(jnp.arange(10.0), coefficients).evaluate(level)


# ---- rules of derivatives


@equation
def custom_jvp(level, constant):
    scaled = jax.custom_jvp(lambda x: constant * x)
    scaled.defjvp(lambda at, along: (constant * at[0], constant * along[0]))
    return scaled(level)


@equation
def custom_vjp(level, constant):
    scaled = jax.custom_vjp(lambda x: constant * x)
    scaled.defvjp(lambda x: (constant * x, None), lambda _, slope: (constant * slope,))
    return scaled(level)


@equation
def filter_custom_jvp(level, constant):
    @eqx.filter_custom_jvp
    def scaled(x, *, by):
        return by * x

    @scaled.def_jvp
    def _(at, along, *, by):
        return by * at[0], by * along[0]

    return scaled(level, by=constant)


@equation
def filter_custom_vjp(level, constant):
    @eqx.filter_custom_vjp
    def scaled(x, by):
        return by * x

    @scaled.def_fwd
    def _(perturbed, x, by):
        return by * x, None

    @scaled.def_bwd
    def _(residuals, slope, perturbed, x, by):
        return by * slope

    return scaled(level, constant)


@equation
def checkpoint(level, constant):
    return jax.checkpoint(lambda x: constant * jnp.sin(x) / jnp.sin(x) * x)(level)


# ---- control flow


@equation
def while_loop(level, constant):
    return jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * constant ** (1 / 3)), (0, level)
    )[1]


@equation
def while_loop_of_equinox(level, constant):
    def scaled(kind):
        step = lambda c: (c[0] + 1, c[1] * constant ** (1 / 6))  # noqa: E731
        return eqx.internal.while_loop(
            lambda c: c[0] < 3, step, (0, level), max_steps=4, kind=kind
        )[1]

    return scaled("bounded") * scaled("checkpointed") / level


@equation
def scan(level, constant):
    return jax.lax.scan(lambda x, factor: (x * factor, x), level, jnp.array([constant, 1.0]))[0]


@equation
def cond(level, constant):
    return jax.lax.cond(level > 0, lambda x: constant * x, lambda x: -x, level)


@equation
def switch(level, constant):
    return jax.lax.switch(jnp.asarray(1), [lambda x: x, lambda x: constant * x, jnp.sin], level)


# ---- callbacks, checks, random numbers


@equation
def pure_callback(level, constant):
    def by_numpy(x):
        shape = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(
            lambda x: np.asarray(constant * x), shape, x, vmap_method="sequential"
        )

    scaled = jax.custom_jvp(by_numpy)
    scaled.defjvp(lambda at, along: (scaled(at[0]), constant * along[0]))
    return scaled(level)


@equation
def debug_print(level, constant):
    jax.lax.cond(level > 1e6, lambda: jax.debug.print("level {x}", x=level), lambda: None)
    return constant * level


@equation
def error_if(level, constant):
    return constant * eqx.error_if(level, level > 1e6, "the level is absurd")


@equation
def held_key(level, constant):
    return constant * level * (1.0 + 1e-9 * jax.random.normal(KEY))


KEY = jax.random.key(3)


# ---- linear algebra


@equation
def linear_algebra(level, constant):
    a = matrix(level, constant)
    half = jnp.linalg.cholesky(a)
    values, vectors = jnp.linalg.eigh(a)
    left, singular, right = jnp.linalg.svd(a)
    same = [a, half @ half.T, (vectors * values) @ vectors.T, (left * singular) @ right]
    mean = (
        sum(same)
        / 4
        * jnp.linalg.det(a)
        * jnp.linalg.norm(jnp.linalg.qr(a)[0])
        / jnp.exp(jnp.linalg.slogdet(a)[1])
    )
    return (
        jnp.sqrt(2.0) * jnp.linalg.inv(mean)[1, 1] * expm(0.0 * a)[0, 0]
        + 0.0 * jnp.linalg.solve(a, a[0])[0]
    )


# ---- models of them


class Of(bd.Module):
    """An equation at a level that is not known."""

    level: bd.Scalar
    name: str = eqx.field(static=True)
    constant: float = eqx.field(static=True)

    def __call__(self, t, y, u):
        return {"y": EQUATIONS[self.name](self.level, self.constant) + 0.01 * t}


DATA = xr.Dataset({"y": ("time", [2.1, 1.9, 2.0])}, {"time": [0.0, 1.0, 2.0]})


def model(name: str, constant: float = 2.0) -> bd.Model:
    return bd.Model(bd.Algebraic(Of(dist.LogNormal(0.0, 0.3), name, constant)), bd.NormalNoise(0.2))


if __name__ == "__main__":  # in a process of its own
    import json

    from bayes_dasl.inference import pose

    json.dump(
        {name: pose(model(name), DATA).fingerprint(needed=True) for name in sys.argv[1:]},
        sys.stdout,
    )

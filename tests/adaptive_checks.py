"""What the tests of the adaptive package share: realised draws of the prior, bands, and gradients
in three ways.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_dasl.inference import pose
from bayes_dasl.layers import with_adjoint
from bayes_dasl.prediction import draws_of
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise

EXACT = 10 * np.sqrt(np.finfo(float).eps)


def realised(tree, key=1):
    """The tree with one prior draw of its random leaves."""
    draw = draw_prior(tree, 1, key=jax.random.key(key))
    return realise(tree, {path: value[0] for path, value in draw.items()})


def over_prior(tree, run, draws, key=2):
    """`run(realised tree)` for many prior draws, stacked."""
    return np.asarray(
        jax.jit(jax.vmap(lambda d: run(realise(tree, d))))(
            draw_prior(tree, draws, key=jax.random.key(key))
        )
    )


def share_in_band(model, post, run, truth):
    """How much of `truth` lies in the 90 % band of `run(realised model)` over the posterior."""
    draws = {path: jnp.asarray(values) for path, values in draws_of(model, post).items()}
    values = np.asarray(jax.jit(jax.vmap(lambda d: run(realise(model, d))))(draws))
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    return np.mean((low <= truth) & (truth <= high)), high - low


def check_gradients(tree, run, width=1e-2, batch=3, solved=True):
    """Gradients and differences of `run` agree to 1e-6 along a direction that no leaf lies across.

    Of reverse mode, and of forward mode too if there is a solver (`solved`), which could lack it.
    """
    draws = draw_prior(tree, batch, key=jax.random.key(5))
    shape = jax.eval_shape(
        lambda d: run(realise(tree, d)), {path: x[0] for path, x in draws.items()}
    ).shape
    weights = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    loss = lambda t, draw: jnp.vdot(weights, run(realise(t, draw)))  # noqa: E731
    direction = {
        path: jax.random.normal(jax.random.key(i), v.shape)
        for i, (path, v) in enumerate(draws.items())
    }
    # Five points: the error falls with the fourth power of the width, and few tolerances are
    # divided by it.
    by = width * np.array([0, -2, -1, 1, 2])
    moved = {
        path: np.concatenate([x + k * direction[path] for k in by]) for path, x in draws.items()
    }
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(lambda d: loss(tree, d))))(moved)
    reverse = {path: np.asarray(slope[:batch]) for path, slope in slopes.items()}
    at = np.asarray(values).reshape(5, batch)
    numerical = (at[1] - 8 * at[2] + 8 * at[3] - at[4]) / (12 * width)
    along = sum(np.sum((reverse[p] * direction[p]).reshape(batch, -1), axis=1) for p in draws)
    np.testing.assert_allclose(along, numerical, rtol=1e-6, atol=1e-6)
    if solved:
        forward = lambda d: loss(with_adjoint(tree, diffrax.ForwardMode()), d)  # noqa: E731
        ahead = jax.jit(jax.vmap(lambda d, v: jax.jvp(forward, (d,), (v,))[1]))(draws, direction)
        np.testing.assert_allclose(along, ahead, rtol=1e-6, atol=1e-6)
    for path in paths(tree):
        assert np.abs(reverse[path]).max() > 0, path


def check_log_density(model, data, width=1e-3):
    """The log density near the middle of the prior is finite, and its gradient agrees with
    differences.

    Returns the posed problem, and its density with gradient, compiled.
    """
    problem = pose(model, data)
    position = 0.1 * problem.prior(1, key=jax.random.key(1))[0]
    density = jax.jit(jax.value_and_grad(problem.log_density))
    value, gradient = density(position)
    assert np.isfinite(value)
    direction = jax.random.normal(jax.random.key(2), position.shape)
    at = [density(position + width * k * direction)[0] for k in (-2, -1, 1, 2)]
    numerical = float((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * width))
    assert float(gradient @ direction) == pytest.approx(numerical, rel=1e-6)
    return problem, density

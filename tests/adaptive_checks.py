"""What the tests of the adaptive package share: realised draws of the prior, bands, and gradients in three ways."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_dasl.inference.problem import pose
from bayes_dasl.layers import with_adjoint
from bayes_dasl.prediction.posterior import draws_of
from bayes_dasl.random import draw_prior, paths, realise

EXACT = 10 * np.sqrt(np.finfo(float).eps)


def realised(tree, key=1):
    """The tree with one prior draw of its random leaves."""
    draw = draw_prior(tree, 1, key=jax.random.key(key))
    return realise(tree, {path: value[0] for path, value in draw.items()})


def over_prior(tree, run, draws, key=2):
    """`run(realised tree)` for many prior draws, stacked."""
    return np.asarray(
        jax.jit(jax.vmap(lambda d: run(realise(tree, d))))(draw_prior(tree, draws, key=jax.random.key(key)))
    )


def share_in_band(model, post, run, truth):
    """How much of `truth` lies in the 90 % band of `run(realised model)` over the posterior."""
    draws = {path: jnp.asarray(values) for path, values in draws_of(model, post).items()}
    values = np.asarray(jax.jit(jax.vmap(lambda d: run(realise(model, d))))(draws))
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    return np.mean((low <= truth) & (truth <= high)), high - low


def check_gradients(tree, run, width=1e-2, batch=3):
    """Reverse mode, forward mode and differences of `run` in all random leaves agree to 1e-6, jitted and batched."""
    draws = draw_prior(tree, batch, key=jax.random.key(5))
    weights = jnp.asarray(np.random.default_rng(0).normal(size=jax.eval_shape(lambda: run(realised(tree))).shape))
    loss = lambda t, draw: jnp.vdot(weights, run(realise(t, draw)))  # noqa: E731
    reverse = jax.jit(jax.vmap(jax.grad(lambda d: loss(tree, d))))(draws)
    ahead = jax.jit(jax.vmap(jax.jacfwd(lambda d: loss(with_adjoint(tree, diffrax.ForwardMode()), d))))(draws)
    direction = {path: jax.random.normal(jax.random.key(i), v.shape) for i, (path, v) in enumerate(draws.items())}

    def moved(by):
        return jax.tree.map(lambda x, d: x + by * d, draws, direction)

    # Five points: the error falls with the fourth power of the width, and few tolerances are divided by it.
    at = {k: np.asarray(jax.jit(jax.vmap(lambda d: loss(tree, d)))(moved(k * width))) for k in (-2, -1, 1, 2)}
    numerical = (at[-2] - 8 * at[-1] + 8 * at[1] - at[2]) / (12 * width)
    along = sum(np.sum((reverse[p] * direction[p]).reshape(batch, -1), axis=1) for p in draws)
    np.testing.assert_allclose(along, numerical, rtol=1e-6, atol=1e-6)
    for path in paths(tree):
        assert np.abs(reverse[path]).max() > 0, path
        np.testing.assert_allclose(reverse[path], ahead[path], rtol=1e-6, atol=1e-6, err_msg=path)


def check_log_density(model, data, width=1e-3):
    """The log density near the middle of the prior is finite, and its gradient agrees with differences."""
    problem = pose(model, data)
    position = 0.1 * problem.prior(1, key=jax.random.key(1))[0]
    value, gradient = jax.jit(jax.value_and_grad(problem.log_density))(position)
    assert np.isfinite(value)
    direction = jax.random.normal(jax.random.key(2), position.shape)
    at = jax.jit(jax.vmap(problem.log_density))(position + width * jnp.asarray([-2.0, -1, 1, 2])[:, None] * direction)
    numerical = float((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * width))
    assert float(gradient @ direction) == pytest.approx(numerical, rel=1e-6)

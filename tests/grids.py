"""Posteriors of one unknown number on a grid, where a sampler would only take longer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def positions_at(problem, values):
    """Where the values of the one unknown number lie for an engine, `(value, 1)`."""
    (path,) = problem.sites
    return np.asarray(
        jax.vmap(lambda value: problem.unconstrain({path: value}))(jnp.asarray(values))
    )


def moments(values, positions, log_density):
    """Mean and standard deviation of the number, whose grid is even in `values`."""
    weights = np.exp(log_density - log_density.max()) * np.gradient(positions[:, 0])
    mean = np.average(values, weights=weights)
    return mean, np.sqrt(np.average((values - mean) ** 2, weights=weights))


def checked_moments(problem, values, at, *, rel, width=1e-5):
    """The same, by one program that also checks the gradient at position `at` against
    differences.
    """
    positions = positions_at(problem, values)
    every = np.concatenate([[[at], [at + width], [at - width]], positions])
    density, slopes = jax.jit(jax.vmap(jax.value_and_grad(problem.log_density)))(every)
    assert np.isfinite(density).all()
    assert float(slopes[0, 0]) == pytest.approx(
        float(density[1] - density[2]) / (2 * width), rel=rel
    )
    return moments(values, positions, density[3:])

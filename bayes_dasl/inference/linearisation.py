"""The Gauss–Newton approximation of the Hessian of the log density."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..model import noise_at
from ..noise.sequential import on_link
from ..random import realise
from .problem import Problem


def gauss_newton(
    problem: Problem, mode: Float[np.ndarray, " dimension"]
) -> Float[np.ndarray, "dimension dimension"]:
    r"""Return the Gauss–Newton approximation of minus the Hessian of the log density.

    $\sum_i \sigma_i^{-2} \nabla f_i \nabla f_i^\top
    + 2 \nabla \log\sigma_i \nabla \log\sigma_i^\top + \sum_k \nabla r_k \nabla r_k^\top
    - \nabla^2 \log p(\theta)$

    Here $f_i$ is the prediction of datum i on the scale of the link, and $\sigma_i$ the standard
    deviation of its noise. The constraint residuals $r_k$ have unit standard deviation. $p(\theta)$
    is the prior of the unconstrained parameters. The terms of the data are the Fisher information
    under normal noise. No term has second derivatives of predictions or residuals.

    Args:
        problem: the posterior.
        mode: the unconstrained parameters at which to evaluate it, `(dimension,)`.

    Returns:
        The matrix. Missing data do not contribute.
    """
    problem = problem.reversible()
    inputs = problem.inputs
    at = jnp.asarray(mode)

    def predicted(x):
        return realise(problem.model, problem.constrain(x)).predict(inputs)

    held = jax.jit(predicted)(at)

    # 1. Features: predictions f, log σ and constraint residuals r.
    def features(x):
        model = realise(problem.model, problem.constrain(x))
        found = predicted(x)
        locations, log_scales = [], []
        for name in model.observables:
            noise = noise_at(model, name, held.values, inputs)
            value = held.values[name]
            if noise.looks_back:
                # Location and scale given the data before.
                location, scale = on_link(model.conditional(found, inputs)[name])
            else:
                location = noise.link(found.values[name])
                scale = noise.spread(value, found.variances.get(name))
            locations.append(jnp.ravel(location))
            log_scales.append(jnp.ravel(jnp.broadcast_to(jnp.log(scale), value.shape)))
        broken = [jnp.ravel(v) for v in found.constraint_residuals.values()]
        return (
            jnp.concatenate(locations),
            jnp.concatenate(log_scales),
            jnp.concatenate([*broken, jnp.zeros(0)]),
        )

    # 2. Their Jacobians J and the weights W: 1/σ², 2 and 1; zero for missing data.
    (_, log_scales, _), slopes = jax.jit(lambda x: (features(x), jax.jacrev(features)(x)))(at)
    log_scales = np.asarray(log_scales)
    slopes = [np.asarray(slope) for slope in slopes]
    seen = np.concatenate(
        [~np.isnan(problem.observed[name]).ravel() for name in problem.model.observables]
    )
    weights = np.where(seen, np.exp(-2 * log_scales), 0.0), 2.0 * seen, np.ones(len(slopes[2]))
    # 3. Σ Jᵀ W J minus the Hessian of the log prior.
    by_data = 0.0
    for weight, slope in zip(weights, slopes, strict=True):
        by_data = by_data + slope.T @ (weight[:, None] * slope)
    return by_data - np.asarray(jax.jit(jax.hessian(problem.log_prior))(at))

"""The curvature of the log density by first derivatives of what is predicted."""

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
    """Minus the curvature of the log density, without that of predictions and scales of noise.

    These enter by their slopes: a datum tells of its prediction by one over its variance, of the
    logarithm of its standard deviation by two, as for normal noise, and a mismatch is a datum of a
    standard deviation of one.
    """
    problem = problem.reversible()
    inputs, at = problem.inputs, jnp.asarray(mode)

    def predicted(x):
        return realise(problem.model, problem.constrain(x)).predict(inputs)

    held = jax.jit(predicted)(at)

    def features(x):
        """Predictions, the logarithms of their spreads, and mismatches."""
        model, found = realise(problem.model, problem.constrain(x)), predicted(x)
        places, spreads = [], []
        for name in model.observables:
            noise, value = noise_at(model, name, held.values, inputs), held.values[name]
            if noise.looks_back:
                place, spread = on_link(
                    model.conditional(found, inputs)[name]
                )  # given the data before
            else:
                place, spread = (
                    noise.link(found.values[name]),
                    noise.spread(value, found.variances.get(name)),
                )
            places.append(jnp.ravel(place))
            spreads.append(jnp.ravel(jnp.broadcast_to(jnp.log(spread), value.shape)))
        broken = [jnp.ravel(v) for v in found.mismatches.values()]
        return (
            jnp.concatenate(places),
            jnp.concatenate(spreads),
            jnp.concatenate([*broken, jnp.zeros(0)]),
        )

    (_, spreads, _), slopes = jax.jit(lambda x: (features(x), jax.jacrev(features)(x)))(at)
    spreads, slopes = np.asarray(spreads), [np.asarray(slope) for slope in slopes]
    seen = np.concatenate(
        [~np.isnan(problem.observed[name]).ravel() for name in problem.model.observables]
    )
    weights = np.where(seen, np.exp(-2 * spreads), 0.0), 2.0 * seen, np.ones(len(slopes[2]))
    told = sum(
        (
            slope.T @ (weight[:, None] * slope)
            for weight, slope in zip(weights, slopes, strict=True)
        ),
        0.0,
    )
    return told - np.asarray(jax.jit(jax.hessian(problem.log_prior))(at))

"""Posteriors in closed form with the interface of a problem, for tests of engines: no solver, quick
to compile.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import multivariate_normal
from scipy.stats import multivariate_normal as normal

from bayes_dasl.inference import Problem


class Known(Problem):
    """A normal prior in the unconstrained space and any log likelihood."""

    log_likelihood: Callable = eqx.field(static=True)
    prior_mean: np.ndarray
    prior_covariance: np.ndarray

    def __init__(self, log_likelihood, mean, covariance):
        self.model = self.inputs = self.observed = None
        self.sites, self.dimension = {}, len(mean)
        self.log_likelihood = log_likelihood
        self.prior_mean, self.prior_covariance = (
            np.asarray(mean, float),
            np.asarray(covariance, float),
        )

    def log_density(self, position):
        return self.log_prior(position) + self.log_likelihood(position)

    def log_prior(self, position):
        return multivariate_normal.logpdf(position, self.prior_mean, self.prior_covariance)

    def prior(self, draws, *, key):
        return jax.random.multivariate_normal(key, self.prior_mean, self.prior_covariance, (draws,))


class Conjugate:
    """`y` seen of a normal vector with independent noise: posterior mean, covariance and log
    evidence.
    """

    def __init__(self, y, prior_mean, prior_covariance, noise):
        y, prior_covariance = np.asarray(y, float), np.asarray(prior_covariance, float)
        self.problem = Known(
            lambda x: jax.scipy.stats.norm.logpdf(jnp.asarray(y), x, noise).sum(),
            prior_mean,
            prior_covariance,
        )
        self.covariance = np.linalg.inv(np.linalg.inv(prior_covariance) + np.eye(len(y)) / noise**2)
        self.mean = self.covariance @ (
            np.linalg.solve(prior_covariance, np.asarray(prior_mean)) + y / noise**2
        )
        self.sd = np.sqrt(np.diag(self.covariance))
        marginal = prior_covariance + noise**2 * np.eye(len(y))
        self.log_evidence = float(normal(prior_mean, marginal).logpdf(y))


def correlated(dimension: int, correlation: float) -> np.ndarray:
    return np.where(np.eye(dimension) == 1, 1.0, correlation)


def banana(x):
    """Log likelihood that bends a normal prior: x₁ lies close to x₀²."""
    return -0.5 * ((x[1] - x[0] ** 2) / 0.1) ** 2

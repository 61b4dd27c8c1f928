"""The log evidence of a model, from draws of its posterior and their densities."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from .._statistics.convergence import effective_sizes, moving_quantities
from ..inference.sharding import Sharded
from .bridge import LogMean, bridged

_UNKNOWN = LogMean(np.nan, np.nan)
# The fewest draws in half of a chain.
_FEWEST = 4


def log_evidence(
    density: Callable[..., Any], positions: Float[np.ndarray, "chain draw dimension"]
) -> LogMean:
    """Compute the log evidence of a model, by bridge sampling from a normal distribution.

    Each chain is split into halves. The moments of the normal come from one half, and densities are
    compared at the other half. Then the halves swap.

    Args:
        density: the unnormalised log posterior density at a position, as a JAX function.
        positions: unconstrained posterior draws.

    Returns:
        The log evidence and its standard error. They are NaN if draws are too few or do not move,
        or if the normal does not overlap with the draws.

    Source: Gronau et al. (2017), A tutorial on bridge sampling.
    """
    # 1. Halves of chains, and a normal for each by the moments of the other.
    chains, total, dimension = positions.shape
    each = total // 2
    halves = positions[:, : 2 * each].reshape(chains, 2, each, dimension).swapaxes(0, 1)
    if not all(map(_determine_a_normal, halves)):
        return _UNKNOWN
    normals = [_Normal(half.reshape(-1, dimension)) for half in halves[::-1]]
    drawn = np.stack(
        [normal.draw(chains * each, np.random.default_rng(i)) for i, normal in enumerate(normals)]
    )
    # 2. Densities at all draws of the posterior and of the normals, in one program.
    at = np.concatenate([halves.reshape(-1, dimension), drawn.reshape(-1, dimension)])
    of_draws, of_drawn = np.split(np.asarray(Sharded(density, len(at))(at)), 2)
    # 3. One bridge for each half.
    found = []
    for normal, half, there, its, of_other in zip(
        normals,
        halves,
        drawn,
        of_draws.reshape(2, chains, each),
        of_drawn.reshape(2, -1),
        strict=True,
    ):
        own = its - normal.log_density(half)
        other = of_other - normal.log_density(there)
        effective = float(effective_sizes(own[..., None])[0][0])
        # Without overlap the bridge would rest on the tails alone.
        if not effective or other.max() < own.min():
            return _UNKNOWN
        found.append(bridged(other, own.ravel(), effective))
    values, errors = np.array(found).T
    # Both halves use all draws, so their errors are not independent and do not average out.
    return LogMean(float(values.mean()), float(max(*errors, np.ptp(values) / 2)))


def _determine_a_normal(draws: Float[np.ndarray, "chain draw dimension"]) -> bool:
    """Whether all parameters vary, and there are more effective draws than parameters."""
    if draws.shape[1] < _FEWEST or not (
        np.isfinite(draws).all() and moving_quantities(draws).all()
    ):
        return False
    return bool(np.median(effective_sizes(draws)[0]) > draws.shape[2])


class _Normal:
    """A normal distribution with mean and covariance of draws.

    Correlations are shrunk towards zero if there are few draws per dimension.
    """

    def __init__(self, draws: Float[np.ndarray, "draw dimension"]):
        number, dimension = draws.shape
        self.mean = draws.mean(axis=0)
        covariance = np.atleast_2d(np.cov(draws, rowvar=False))
        # Σ = k cov + (1 - k) diag(cov), with k = 1 - (dimension / draws)², is positive definite.
        kept = 1 - min(1.0, dimension / number) ** 2
        diagonal = np.diag(np.diag(covariance))
        self.factor = np.linalg.cholesky(kept * covariance + (1 - kept) * diagonal)

    def draw(self, number: int, rng: np.random.Generator) -> Float[np.ndarray, "draw dimension"]:
        # x = μ + L z with Σ = L Lᵀ.
        return self.mean + rng.normal(size=(number, self.mean.size)) @ self.factor.T

    def log_density(self, at: Float[np.ndarray, "... dimension"]) -> Float[np.ndarray, "..."]:
        # log N(x) = -|L⁻¹ (x - μ)|² / 2 - log det L - d log(2 π) / 2
        size = self.mean.size
        scaled = np.linalg.solve(self.factor, (at - self.mean).reshape(-1, size).T)
        log_det = np.log(np.diag(self.factor)).sum() + 0.5 * size * np.log(2 * np.pi)
        densities = -0.5 * (scaled**2).sum(axis=0) - log_det
        return densities.reshape(at.shape[:-1])

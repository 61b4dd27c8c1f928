"""The log evidence of a model, from draws of its posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from .._statistics.bridge_sampling import log_integral
from .._statistics.convergence import effective_sizes
from ..inference import pose
from ..inference.sharding import Sharded
from ..model import Model
from ..prediction.posterior import draws_of, fitted_data


def log_evidence(model: Model, post: xr.DataTree) -> tuple[float, float]:
    """The log of the density of the data under a model, and its standard error, by bridge sampling.

    The bridge leads to a normal in unconstrained coordinates: half of each chain says which, the other half is where
    densities are compared, and then the other way about. NaN where both hardly overlap, or draws are few.

    Args:
        model: the model.
        post: what `fit` returned for it.

    Source: Gronau et al. (2017), A tutorial on bridge sampling.
    """
    problem = pose(model, fitted_data(post))
    sizes = post["posterior"].sizes
    chains, each = sizes["chain"], sizes["draw"] // 2
    draws = {path: jnp.asarray(values) for path, values in draws_of(model, post).items()}
    positions = np.asarray(jax.jit(jax.vmap(problem.unconstrain))(draws))
    halves = positions.reshape(chains, -1, problem.dimension)[:, : 2 * each].reshape(chains, 2, each, -1).swapaxes(0, 1)
    try:
        normals = [_Normal(half.reshape(-1, problem.dimension)) for half in halves[::-1]]
    except np.linalg.LinAlgError:  # a coordinate that never moves
        return np.nan, np.nan
    drawn = np.stack([normal.draw(chains * each, np.random.default_rng(i)) for i, normal in enumerate(normals)])
    at = np.concatenate([halves.reshape(-1, problem.dimension), drawn.reshape(-1, problem.dimension)])
    of_draws, of_drawn = np.split(np.asarray(Sharded(problem.log_density, len(at))(at)), 2)
    found = []
    for normal, half, there, its, density in zip(
        normals, halves, drawn, of_draws.reshape(2, chains, each), of_drawn.reshape(2, -1), strict=True
    ):
        own = its - normal.log_density(half)
        effective = float(effective_sizes(own[..., None])[0][0])
        found.append(log_integral(own.ravel(), density - normal.log_density(there), effective))
    values, errors = np.array(found).T
    # Both look at all draws, so that their errors are not independent.
    return float(values.mean()), float(max(*errors, np.ptp(values) / 2))


class _Normal:
    """A normal with mean and covariance of draws; correlations are the smaller, the fewer draws tell them."""

    def __init__(self, draws: Float[np.ndarray, "draw dimension"]):
        number, dimension = draws.shape
        self.mean, covariance = draws.mean(axis=0), np.atleast_2d(np.cov(draws, rowvar=False))
        told = 1 - min(1.0, dimension / number) ** 2
        self.factor = np.linalg.cholesky(told * covariance + (1 - told) * np.diag(np.diag(covariance)))

    def draw(self, number: int, rng: np.random.Generator) -> Float[np.ndarray, "draw dimension"]:
        return self.mean + rng.normal(size=(number, self.mean.size)) @ self.factor.T

    def log_density(self, at: Float[np.ndarray, "... dimension"]) -> Float[np.ndarray, "..."]:
        scaled = np.linalg.solve(self.factor, (at - self.mean).reshape(-1, self.mean.size).T)
        volume = np.log(np.diag(self.factor)).sum() + 0.5 * self.mean.size * np.log(2 * np.pi)
        return (-0.5 * (scaled**2).sum(axis=0) - volume).reshape(at.shape[:-1])

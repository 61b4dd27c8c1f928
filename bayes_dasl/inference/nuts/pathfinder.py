"""Starts by Pathfinder: the point on an L-BFGS path where a normal fits the posterior best."""

import jax
import numpy as np
from jaxtyping import Array, Float

from ..._jax.lazily import lazily
from ..problem import LogDensity
from ..sharding import Sharded

pathfinder = lazily("blackjax.vi.pathfinder")

# Draws of each normal along a path, to estimate its ELBO.
_SAMPLES = 20


class Pathfinder:
    """Pathfinder from many positions, which returns points only.

    Source: Zhang, Carpenter, Gelman & Vehtari (2022); by BlackJAX.
    """

    def __init__(self, log_density: LogDensity, *, key: Array):
        self._log_density = log_density
        self._key = key

    def optimise(
        self, x: Float[np.ndarray, "batch dimension"]
    ) -> Float[np.ndarray, "batch dimension"]:
        """Return the point of the highest ELBO on each path, or the position itself if none has."""

        def of_one(item):
            state, _ = pathfinder.approximate(
                item[0], self._log_density, item[1], num_samples=_SAMPLES
            )
            return state.position

        points = Sharded(of_one, len(x))((jax.random.split(self._key, len(x)), x))
        return np.where(np.isfinite(points).all(axis=1, keepdims=True), points, x)

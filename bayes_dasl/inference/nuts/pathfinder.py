"""Start positions by Pathfinder: the point of an L-BFGS path where a normal fits best."""

import jax
import numpy as np
from jaxtyping import Array, Float

from ..._jax.lazily import lazily
from ..problem import LogDensity
from ..sharding import Sharded

pathfinder = lazily("blackjax.vi.pathfinder")

# Number of draws from the normal at each point of a path, to estimate its ELBO.
_SAMPLES = 20


class Pathfinder:
    """Run Pathfinder from many positions, and return one point for each.

    Args:
        log_density: the log density of unconstrained parameters.
        key: random seed.

    Source: Zhang, Carpenter, Gelman & Vehtari (2022); implemented by BlackJAX.
    """

    def __init__(self, log_density: LogDensity, *, key: Array):
        self._log_density = log_density
        self._key = key

    def optimise(
        self, x: Float[np.ndarray, "batch dimension"]
    ) -> Float[np.ndarray, "batch dimension"]:
        """Return the point with the highest ELBO on the path from each position.

        A position is returned unchanged if its point is not finite.

        Args:
            x: first positions, `(batch, dimension)`.
        """

        def of_one(item):
            state, _ = pathfinder.approximate(
                item[0], self._log_density, item[1], num_samples=_SAMPLES
            )
            return state.position

        points = Sharded(of_one, len(x))((jax.random.split(self._key, len(x)), x))
        return np.where(np.isfinite(points).all(axis=1, keepdims=True), points, x)

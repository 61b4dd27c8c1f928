"""Inputs moved a little in the direction that makes the data least likely."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._jax.tree import frozen
from ...errors import ModelError
from ..problem import Problem


class Adversary:
    """Moves forcings, or the index where there are none, by a share of the range of each (fast gradient sign).

    Raises: ModelError for a model that reads neither: of a solver the times cannot change their places.
    Source: Goodfellow, Shlens & Szegedy (2015).
    """

    def __init__(self, problem: Problem, share: float):
        if not problem.movable:
            raise ModelError(
                "adversarial needs inputs that can be moved: forcings (linear or step), or the index of a layer that "
                "solves nothing; this model has neither"
            )
        self._by = {name: share * float(np.ptp(np.asarray(v))) for name, v in problem.movable.items()}

    def moved(self, problem: Problem, log_likelihood: Callable[[Problem], Array]) -> Problem:
        """The problem with inputs at which the data are less likely; no gradient flows through the move."""
        now = frozen({name: problem.movable[name] for name in self._by})
        slopes = jax.grad(lambda values: log_likelihood(problem.moved_to(values)))(now)
        away = {n: v - self._by[n] * jnp.sign(jnp.nan_to_num(slopes[n])) for n, v in now.items()}
        return problem.moved_to(frozen(away))

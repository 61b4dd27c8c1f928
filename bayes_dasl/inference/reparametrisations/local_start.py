"""Multi-start MAP in a reparametrisation that is fitted to the best position found so far."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Float

from ..._runs.journal import Arrays
from ..starts import (
    Optimiser,
    Start,
    best_first,
    modes_among,
    optimised_in,
    or_lowest,
    refined_starts,
)
from .reparametrisation import Reparametriser


class LocalReparametriser(Reparametriser, Protocol):
    """A `Reparametriser` that can also be fitted to the log density around a single position.

    Here `like` is the identity. The attribute `dependent` has the indices of random effects.
    """

    dependent: tuple[int, ...]

    def around(
        self,
        position: Float[np.ndarray, " dimension"],
        gradients: Callable[[Float[np.ndarray, "n dimension"]], Float[np.ndarray, "n dimension"]],
    ) -> Arrays:
        """Return the arrays of the reparametrisation fitted around a position.

        Args:
            position: unconstrained parameters.
            gradients: returns gradients of the log density at many positions.
        """
        ...

    def precision(self, optimiser: Optimiser, z: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """Return minus the Hessian of the log density by z, or its approximation.

        Args:
            optimiser: evaluates gradients in the reparametrisation.
            z: the position.
        """
        ...


def local_start(
    maker: LocalReparametriser,
    optimiser: Optimiser,
    reached: Float[np.ndarray, "n dimension"],
    tried: int,
    failed: int,
) -> tuple[Start, Start, Arrays]:
    """Find modes near the best optimised positions, in a reparametrisation fitted there.

    Afterwards the optimiser uses this reparametrisation.

    Args:
        maker: fits the reparametrisation.
        optimiser: evaluates and optimises positions.
        reached: optimised positions, as unconstrained parameters, the best first.
        tried: number of draws among which starts were chosen.
        failed: number of these draws without a finite log density.

    Returns:
        The modes in unconstrained parameters, the modes in the reparametrisation, and the arrays of
        the reparametrisation.
    """

    def around(x):
        optimiser.reparametrisation = maker.like
        arrays = maker.around(x, optimiser.gradients)
        optimiser.reparametrisation = maker.restored(arrays)
        return optimiser.reparametrisation, arrays

    # 1. Fit at the best position, and optimise further in z, where the posterior is closer to a
    #    standard normal.
    best = reached[: refined_starts(optimiser.count)]
    reparametrisation, _ = around(best[0])
    best = optimised_in(reparametrisation, optimiser, best)
    # 2. Fit again at the new best position, and search for modes of p(z).
    reparametrisation, arrays = around(best[0])
    x, objectives = best_first(optimiser, reparametrisation.inverse_many(best)[0])
    inside = modes_among(optimiser, x, objectives, tried, failed, maker.precision)
    # Objectives are averages over jitters: take the log density instead.
    log_densities = or_lowest(optimiser.evaluate(inside.modes)[0])
    inside = dataclasses.replace(inside, log_densities=log_densities)
    # 3. Back to x: log p(x) = log p(z) − log|det J|, and minus the Hessian is (∂z/∂x)ᵀ P (∂z/∂x).
    modes, log_dets = reparametrisation.forward_many(inside.modes)
    precisions = inside.precisions
    # With one mode the precision in x is not used.
    if len(modes) > 1:
        jacobian = jax.jit(jax.jacobian(reparametrisation.inverse))
        ways = [np.asarray(jacobian(mode)) for mode in modes]
        precisions = np.stack([w.T @ p @ w for w, p in zip(ways, precisions, strict=True)])
    return Start(modes, inside.log_densities - log_dets, precisions, tried, failed), inside, arrays

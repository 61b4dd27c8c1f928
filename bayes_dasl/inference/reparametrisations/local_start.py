"""Multi-start MAP in a reparametrisation that is fitted to the best positions found so far."""

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
    """Fits reparametrisations to single positions, too; `like` stands for the identity."""

    dependent: tuple[int, ...]

    def around(
        self,
        position: Float[np.ndarray, " dimension"],
        gradients: Callable[[Float[np.ndarray, "n dimension"]], Float[np.ndarray, "n dimension"]],
    ) -> Arrays: ...

    def precision(self, optimiser: Optimiser, z: Float[np.ndarray, " dimension"]) -> np.ndarray: ...


def local_start(
    maker: LocalReparametriser,
    optimiser: Optimiser,
    reached: Float[np.ndarray, "n dimension"],
    tried: int,
    failed: int,
) -> tuple[Start, Start, Arrays]:
    """Find modes near the best positions reached, in a reparametrisation that is fitted there.

    Returns:
        The modes by unconstrained parameters, the modes in the reparametrisation, and its arrays.
        The optimiser is left in it.
    """

    def around(x):
        optimiser.reparametrisation = maker.like
        arrays = maker.around(x, optimiser.gradients)
        optimiser.reparametrisation = maker.restored(arrays)
        return optimiser.reparametrisation, arrays

    # 1. Fit at the best position, and optimise on in z, where the posterior is rounder.
    best = reached[: refined_starts(optimiser.count)]
    reparametrisation, _ = around(best[0])
    best = optimised_in(reparametrisation, optimiser, best)
    # 2. Fit anew where that led, and look for modes of p(z).
    reparametrisation, arrays = around(best[0])
    inside = modes_among(
        optimiser,
        *best_first(optimiser, reparametrisation.inverse_many(best)),
        tried,
        failed,
        maker.precision,
    )
    inside = dataclasses.replace(
        inside, log_densities=or_lowest(optimiser.evaluate(inside.modes)[0])
    )
    # 3. Back to x: log p(x) = log p(z) − log|det J|, and minus the Hessian is (∂z/∂x)ᵀ P (∂z/∂x).
    modes, log_dets = reparametrisation.forward_many(inside.modes)
    precisions = inside.precisions
    if len(modes) > 1:  # else nobody asks which mode a draw is nearest to
        ways = [
            np.asarray(way) for way in map(jax.jit(jax.jacobian(reparametrisation.inverse)), modes)
        ]
        precisions = np.stack(
            [way.T @ p @ way for way, p in zip(ways, inside.precisions, strict=True)]
        )
    return Start(modes, inside.log_densities - log_dets, precisions, tried, failed), inside, arrays

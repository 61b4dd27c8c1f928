"""Where chains that move in a frame begin: the frame is of where climbs lead,
and they go on in it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Float

from ..._runs.journal import Arrays
from ..starts import Optimiser, Start, best_first, climbed_in, climbs_again, modes_among, or_lowest
from .frame import FrameMaker, coordinates, positions


class LocalFrames(FrameMaker, Protocol):
    """Makes frames of single positions, too. `like` is the first one: its coordinates are the plain
    ones.
    """

    like: Any
    dependent: tuple[int, ...]

    def around(
        self,
        position: Float[np.ndarray, " dimension"],
        gradients: Callable[[Float[np.ndarray, "n dimension"]], Float[np.ndarray, "n dimension"]],
    ) -> Arrays: ...

    def precision(
        self, optimiser: Optimiser, xi: Float[np.ndarray, " dimension"]
    ) -> np.ndarray: ...


def framed_start(
    maker: LocalFrames,
    optimiser: Optimiser,
    reached: Float[np.ndarray, "n dimension"],
    tried: int,
    failed: int,
) -> tuple[Start, Start, Arrays]:
    """The modes near the best of what climbs have reached, in the frame that suits there.

    Climbs go on in a frame of where they are, which is then made anew.

    Returns:
        The modes in plain coordinates, in the frame, and the arrays of the frame, in which the
        optimiser is left.
    """

    def frame_around(x):
        optimiser.frame = maker.like
        arrays = maker.around(x, optimiser.gradients)
        optimiser.frame = maker.restored(arrays)
        return optimiser.frame, arrays

    best = reached[: climbs_again(optimiser.climbs)]
    frame, _ = frame_around(best[0])
    best = climbed_in(frame, optimiser, best)
    frame, arrays = frame_around(best[0])
    inside = modes_among(
        optimiser, *best_first(optimiser, coordinates(frame, best)), tried, failed, maker.precision
    )
    inside = dataclasses.replace(
        inside, log_densities=or_lowest(optimiser.evaluate(inside.modes)[0])
    )
    modes, volumes = positions(frame, inside.modes)
    precisions = inside.precisions
    if len(modes) > 1:  # else nobody asks which mode a draw is nearest to
        ways = [np.asarray(way) for way in map(jax.jit(jax.jacobian(frame.coordinates)), modes)]
        precisions = np.stack(
            [way.T @ p @ way for way, p in zip(ways, inside.precisions, strict=True)]
        )
    return Start(modes, inside.log_densities - volumes, precisions, tried, failed), inside, arrays

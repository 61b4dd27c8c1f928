"""What every engine returns."""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Modes:
    """Modes of the posterior worth having, best first, in the unconstrained space."""

    positions: Float[np.ndarray, "mode dimension"]
    log_densities: Float[np.ndarray, " mode"]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Draws in the unconstrained space, statistics `(chain, draw)` of each, and facts of the run.

    `curves` are what a descent went through, `(member, step)` by name.
    """

    positions: Float[np.ndarray, "chain draw dimension"]
    stats: dict[str, np.ndarray]
    interrupted: bool
    facts: dict[str, int | float | str]
    modes: Modes | None = None
    curves: dict[str, np.ndarray] | None = None

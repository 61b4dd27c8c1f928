"""What every engine returns."""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Samples:
    """Draws in the unconstrained space, statistics `(chain, draw)` of each, and facts of the run."""

    positions: Float[np.ndarray, "chain draw dimension"]
    stats: dict[str, np.ndarray]
    interrupted: bool
    facts: dict[str, int | str]

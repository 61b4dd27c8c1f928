"""R-hat, for whatever must know whether chains agree."""

import numpy as np
from arviz_stats.base.array import array_stats


def rhat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of `(chain, draw, quantity)`; of the halves of a single chain.

    Infinite where chains stand still.
    """
    if values.shape[0] == 1:
        half = values.shape[1] // 2
        values = np.concatenate([values[:, :half], values[:, -half:]])
    # A chain that stands still has no variance: its R-hat is infinite, as it should be.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = array_stats.rhat(values, chain_axis=0, draw_axis=1)
    return np.where(np.isnan(found), np.inf, found)

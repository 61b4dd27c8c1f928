"""Which quantities move and their R-hat, for the diagnosis and the solver check."""

import numpy as np
from arviz_stats.base.array import array_stats


def moving_quantities(values: np.ndarray) -> np.ndarray:
    """Which quantities of `(chain, draw, quantity)` are not the same in every draw."""
    return np.any(values != values[:1, :1], axis=(0, 1))


def rhat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of `(chain, draw, quantity)`; of the halves of a single chain.

    Infinite where it is not defined: all draws equal, one not a number, or fewer than four in a chain (or half).
    """
    if values.shape[0] == 1:
        half = values.shape[1] // 2
        values = np.concatenate([values[:, :half], values[:, values.shape[1] - half :]])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = array_stats.rhat(values, chain_axis=0, draw_axis=1)
    return np.where(np.isnan(found), np.inf, found)

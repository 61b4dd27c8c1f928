"""Some of many draws, times or points."""

import numpy as np


def thinned(total: int, most: int) -> np.ndarray:
    """The indices of at most so many of them, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(int))

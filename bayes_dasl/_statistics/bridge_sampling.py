"""Bridge sampling: the integral of a density from draws of it and of another whose integral is one."""

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

_TURNS, _SETTLED = 1000, 1e-8


def log_integral(
    own: Float[np.ndarray, " draw"], others: Float[np.ndarray, " other"], effective: float
) -> tuple[float, float]:
    """The log of the integral of a density by the optimal bridge, and its standard error; NaN where nothing overlaps.

    Args:
        own: the log of the density in that of the other one, at draws of it.
        others: the same at draws of the other one, which are independent; −inf where the density is nothing.
        effective: how many independent draws the first are worth.

    Source: Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity; Frühwirth-Schnatter
    (2004), Estimating marginal likelihoods for mixture and Markov switching models using bridge sampling techniques,
    for the error.
    """
    if not np.isfinite(others).any():
        return np.nan, np.nan
    share = effective / (effective + others.size)
    log_share, log_rest = np.log(share), np.log1p(-share)
    value = float(np.median(own))
    for _ in range(_TURNS):
        of_others = others - np.logaddexp(log_share + others, log_rest + value)
        of_own = -np.logaddexp(log_share + own, log_rest + value)
        step = logsumexp(of_others) - np.log(others.size) - logsumexp(of_own) + np.log(own.size) - value
        value += step
        if not abs(step) > _SETTLED:
            break
    else:
        step = np.nan
    if not np.isfinite(value + step):
        return np.nan, np.nan
    each_other = np.exp(others - np.logaddexp(log_share + others, log_rest + value))
    each_own = np.exp(value - np.logaddexp(log_share + own, log_rest + value))
    spread = each_other.var() / each_other.mean() ** 2 / others.size + each_own.var() / each_own.mean() ** 2 / effective
    return value, float(np.sqrt(spread))

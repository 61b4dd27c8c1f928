"""The mean of a likelihood over posterior draws, by bridge sampling if it depends on few."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp


class LogMean(NamedTuple):
    """The logarithm of a mean and its Monte-Carlo error, of independent draws."""

    value: float
    error: float


def log_mean(log_likelihood: Float[np.ndarray, " draw"]) -> LogMean:
    """The log mean likelihood over draws before the data; NaN without draws."""
    if not log_likelihood.size:
        return LogMean(np.nan, np.inf)
    total = float(logsumexp(log_likelihood) - np.log(log_likelihood.size))
    return LogMean(total, _relative_error(log_likelihood))


def bridged(
    before: Float[np.ndarray, " draw"],
    after: Float[np.ndarray, " other"],
    effective: float | None = None,
) -> LogMean:
    r"""The log mean likelihood from draws before and after the data, by bridge sampling.

    $r = \frac{\mathrm{mean}_{before}\, l / (s_2 l + s_1 r)}
    {\mathrm{mean}_{after}\, 1 / (s_2 l + s_1 r)}$ with shares $s_1, s_2$ of the draws, solved for
    r. No term is larger than one over a share, so that no mean depends on a few draws. If the two
    sets of draws hardly overlap, the error is large. Draws of chains after the data count as
    `effective` independent ones.

    Source: Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity;
    Frühwirth-Schnatter (2004), Estimating marginal likelihoods for mixture and Markov switching
    models using bridge sampling techniques.
    """
    # 1. Shares of the draws, and the range of likelihoods.
    worth = after.size if effective is None else effective
    shares = np.log([before.size, worth]) - np.log(before.size + worth)
    finite = np.concatenate([before, after])
    finite = finite[np.isfinite(finite)]
    if not np.isfinite(before).any() or not np.isfinite(after).any():
        return log_mean(before)

    def terms(value: float) -> tuple[np.ndarray, np.ndarray]:
        own, other = (np.logaddexp(shares[1] + x, shares[0] + value) for x in (before, after))
        return before - own, -other

    def beyond(value: float) -> float:
        above, below = terms(value)
        return (
            float(logsumexp(above) - np.log(before.size) - logsumexp(below) + np.log(after.size))
            - value
        )

    # 2. Bisection: the ratio lies between the least and the largest likelihood, and the right side
    # of the equation falls relative to r.
    low, high = float(finite.min()) - 1.0, float(finite.max()) + 1.0
    while high - low > 1e-9 * max(1.0, abs(low)):
        value = (low + high) / 2
        low, high = (value, high) if beyond(value) > 0 else (low, value)
    # 3. Errors of both means.
    value = (low + high) / 2
    above, below = map(_relative_error, terms(value))
    return LogMean(value, float(np.hypot(above, below * np.sqrt(after.size / worth))))


def _relative_error(logarithms: np.ndarray) -> float:
    """The standard error of a mean, in units of it."""
    if logarithms.size < 2 or not np.isfinite(logarithms.max()):
        return np.inf
    terms = np.exp(logarithms - logarithms.max())
    return float(terms.std(ddof=1) / np.sqrt(terms.size) / terms.mean())

"""The log of the mean likelihood over draws, directly or by bridge sampling."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp


class LogMean(NamedTuple):
    """The logarithm of a mean over independent draws.

    Args:
        value: the logarithm.
        error: its Monte-Carlo standard error.
    """

    value: float
    error: float


def log_mean(log_likelihood: Float[np.ndarray, " draw"]) -> LogMean:
    r"""Compute the log of the mean likelihood over draws.

    $\log \frac{1}{n} \sum_s l_s$ for $n$ draws with likelihoods $l_s$.

    Args:
        log_likelihood: the log likelihood of each draw.

    Returns:
        The log mean and its error; NaN and infinity without draws.
    """
    if not log_likelihood.size:
        return LogMean(np.nan, np.inf)
    total = float(logsumexp(log_likelihood) - np.log(log_likelihood.size))
    return LogMean(total, _relative_error(log_likelihood))


def bridged(
    before: Float[np.ndarray, " draw"],
    after: Float[np.ndarray, " other"],
    effective: float | None = None,
) -> LogMean:
    r"""Compute the log mean likelihood of data by bridge sampling.

    Draws before and after the data are draws of the posteriors without and with these data. The
    mean r of the likelihood l over draws before the data solves

    $r = \frac{\mathrm{mean}_{before}\, l / (s_2 l + s_1 r)}
    {\mathrm{mean}_{after}\, 1 / (s_2 l + s_1 r)}$

    with the shares $s_1, s_2$ of the two sets of draws. All terms are bounded, so no mean depends
    on a few draws. If the two sets hardly overlap, the error is large.

    Args:
        before: log likelihoods of the data at draws before the data.
        after: log likelihoods of the data at draws after the data.
        effective: the effective number of draws after the data; by default their number.

    Returns:
        The log mean and its error.

    Source: Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity;
    Frühwirth-Schnatter (2004), Estimating marginal likelihoods for mixture and Markov switching
    models using bridge sampling techniques.
    """
    if not np.isfinite(before).any() or not np.isfinite(after).any():
        return log_mean(before)
    # 1. Log shares of the draws, and the range of log likelihoods.
    worth = after.size if effective is None else effective
    shares = np.log([before.size, worth]) - np.log(before.size + worth)
    finite = np.concatenate([before, after])
    finite = finite[np.isfinite(finite)]

    # Logarithms of the terms of both means, for log r = value.
    def terms(value: float) -> tuple[np.ndarray, np.ndarray]:
        own, other = (np.logaddexp(shares[1] + x, shares[0] + value) for x in (before, after))
        return before - own, -other

    # The logarithm of the right side over the left side of the equation.
    def beyond(value: float) -> float:
        above, below = terms(value)
        mean_above = logsumexp(above) - np.log(before.size)
        return float(mean_above - logsumexp(below) + np.log(after.size)) - value

    # 2. Bisection: the ratio lies between the least and the largest likelihood, and the right side
    # of the equation falls relative to r.
    low = float(finite.min()) - 1.0
    high = float(finite.max()) + 1.0
    while high - low > 1e-9 * max(1.0, abs(low)):
        value = (low + high) / 2
        low, high = (value, high) if beyond(value) > 0 else (low, value)
    # 3. Errors of both means.
    value = (low + high) / 2
    above, below = map(_relative_error, terms(value))
    return LogMean(value, float(np.hypot(above, below * np.sqrt(after.size / worth))))


def _relative_error(logarithms: np.ndarray) -> float:
    """Return the standard error of a mean divided by the mean.

    Args:
        logarithms: logarithms of the terms of the mean.
    """
    if logarithms.size < 2 or not np.isfinite(logarithms.max()):
        return np.inf
    terms = np.exp(logarithms - logarithms.max())
    return float(terms.std(ddof=1) / np.sqrt(terms.size) / terms.mean())

"""The mean of a likelihood over draws of a posterior, also where it hangs on few of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp


class LogMean(NamedTuple):
    """The logarithm of a mean and its Monte-Carlo error, of independent draws."""

    value: float
    error: float


def log_mean(log_likelihood: Float[np.ndarray, " draw"]) -> LogMean:
    """Of draws of the posterior before the data; NaN of none."""
    if not log_likelihood.size:
        return LogMean(np.nan, np.inf)
    total = float(logsumexp(log_likelihood) - np.log(log_likelihood.size))
    return LogMean(total, _relative_error(log_likelihood))


def bridged(
    before: Float[np.ndarray, " draw"],
    after: Float[np.ndarray, " other"],
    effective: float | None = None,
) -> LogMean:
    r"""The same from log likelihoods of draws before the data and of draws that know these data,
    too.

    $r
    = \frac{\mathrm{mean}_{before}\, l / (s_2 l + s_1 r)}{\mathrm{mean}_{after}\, 1 / (s_2 l + s_1
    r)}$ with shares $s_1,
    s_2$
    of the draws, solved for r. No term is larger than one over a share, so that no mean hangs on a
    few draws; where the two sets of draws hardly meet the error says so. Those after count as
    `effective` independent ones, if they are of chains.

    Source: Meng & Wong (1996), Simulating ratios of normalizing constants via a simple identity;
    Frühwirth-Schnatter (2004), Estimating marginal likelihoods for mixture and Markov switching
    models using bridge sampling techniques.
    """
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

    # The ratio lies between the least and the largest likelihood, and what it is iterated to falls
    # against it.
    low, high = float(finite.min()) - 1.0, float(finite.max()) + 1.0
    while high - low > 1e-9 * max(1.0, abs(low)):
        value = (low + high) / 2
        low, high = (value, high) if beyond(value) > 0 else (low, value)
    value = (low + high) / 2
    above, below = map(_relative_error, terms(value))
    return LogMean(value, float(np.hypot(above, below * np.sqrt(after.size / worth))))


def _relative_error(logarithms: np.ndarray) -> float:
    """The standard error of a mean, in units of it."""
    if logarithms.size < 2 or not np.isfinite(logarithms.max()):
        return np.inf
    terms = np.exp(logarithms - logarithms.max())
    return float(terms.std(ddof=1) / np.sqrt(terms.size) / terms.mean())

"""Check by log densities whether approximate draws are as wide as the posterior."""

import numpy as np
from jaxtyping import Float

from ..._findings import SAMPLER, SPREAD, Finding, Level, unshown_spread
from ..._statistics.importance import Weights, largest_pareto_k, weigh
from ..engine import Facts

# Limits for "good" and for "warning": the error of a mean in standard deviations, and the factor
# between standard deviations. With these errors 90 % intervals hold 84 % and 67 %.
_CLOSE, _FAR = (0.2, 1.18), (0.5, 1.7)
# Share of the posterior's standard deviation below which draws are too narrow.
_NARROW = 0.5
# Number of standard errors by which the estimated width may be wrong.
_ERRORS = 3.0


def spread_of_normal(
    proposed: Float[np.ndarray, "draw dimension"],
    log_posterior: Float[np.ndarray, " draw"],
    log_normal: Float[np.ndarray, " draw"],
) -> tuple[Facts, Finding]:
    """Compare draws of a normal approximation with importance-weighted draws.

    The weights are the ratios of the posterior density to the normal density. Both log densities
    are known up to constants. Draws with a failing solve are left out. If Pareto k-hat shows that
    the weights are reliable, weighted means and standard deviations estimate those of the
    posterior.

    Args:
        proposed: draws of the normal approximation.
        log_posterior: their log densities under the posterior.
        log_normal: their log densities under the normal approximation.

    Returns:
        The fact `pareto_k`, and a finding on the width of the draws.

    Source: Yao et al. (2018), Yes, but did it work?: evaluating variational inference.
    """
    solved = np.isfinite(log_posterior)
    drawn = proposed[solved]
    log_posterior = log_posterior[solved]
    weights = weigh(log_posterior - log_normal[solved], drawn)
    bound = largest_pareto_k(len(weights.values))
    k_hat = f"PSIS k-hat {weights.pareto_k:.2f}, good below {bound:.2f}"
    # Draws that are far too narrow miss the tails, so that their weights only seem reliable.
    found = spread_by_density(log_posterior, drawn.shape[1], k_hat)
    if weights.trusted and found.level != "bad":
        found = _against_weighted(drawn, drawn[weights.first], weights, k_hat)
    return {"pareto_k": weights.pareto_k}, found


def _against_weighted(
    drawn: np.ndarray, weighted: np.ndarray, weights: Weights, k_hat: str
) -> Finding:
    """Return a finding that compares means and standard deviations with those of weighted draws.

    Args:
        drawn: the draws.
        weighted: the distinct draws that have weights.
        weights: the weights.
        k_hat: Pareto k-hat in words.
    """
    mean = weights.values @ weighted
    sd = np.maximum(np.sqrt(weights.values @ (weighted - mean) ** 2), 1e-300)
    # The worst parameter counts: |difference of means| / sd, and the ratio of sds either way.
    shift = float((np.abs(drawn.mean(axis=0) - mean) / sd).max())
    ratio = drawn.std(axis=0) / sd
    factor = float(np.maximum(ratio, 1 / np.maximum(ratio, 1e-300)).max())
    levels: tuple[Level, ...] = ("good", "warning", "bad")
    level = levels[sum(shift > most or factor > largest for most, largest in (_CLOSE, _FAR))]
    remedy = f"take bd.engines.SVI(), which resamples its draws by such weights, or {SAMPLER}"
    return Finding(
        level,
        SPREAD,
        f"standard deviations are {ratio.min():.2f} to {ratio.max():.2f} times the posterior's and "
        f"means at most {shift:.2f} of these off, by importance weights ({k_hat})",
        "" if level == "good" else remedy,
    )


def spread_by_density(
    log_posterior: Float[np.ndarray, " draw"], dimension: int, why: str
) -> Finding:
    r"""Return a finding on the width of draws, by the variance of their log density.

    For a normal posterior in d dimensions, draws with s times its standard deviation have a log
    density with variance $s^4 d / 2$. A small variance shows that the draws are too narrow. A large
    variance does not show that they are right.

    Args:
        log_posterior: log densities of the draws.
        dimension: d.
        why: text that is added to the message.
    """
    log_posterior = log_posterior[np.isfinite(log_posterior)]
    number = len(log_posterior)
    if number > 1:
        fourth = 2 * float(log_posterior.var(ddof=1)) / dimension
        # Relative standard error of the variance of a chi-squared: sqrt((2 + 12 / d) / n).
        error = np.sqrt((2 + 12 / dimension) / number)
        if fourth * (1 + _ERRORS * error) < _NARROW**4:
            return Finding(
                "bad",
                SPREAD,
                f"they spread about {fourth**0.25:.2g} times as far as the posterior, by how "
                f"little its log density varies among them; {why}",
                f"take {SAMPLER}, or bd.engines.SVI(), whose draws are corrected by importance "
                "weights",
            )
    return unshown_spread(why)

"""Whether draws that are no sample of the posterior spread as it does, by its log density at the
draws.
"""

import numpy as np
from jaxtyping import Float

from ..._findings import SAMPLER, SPREAD, Finding, Level, unshown_spread
from ..._statistics.importance import Weights, largest_pareto_k, weigh
from ..engine import Facts

# How far means may be off, in standard deviations, and by which factor these: 90 % intervals then
# hold 84 and 67 %.
_CLOSE, _FAR = (0.2, 1.18), (0.5, 1.7)
_NARROW = 0.5  # times as far as the posterior
_ERRORS = 3.0


def spread_of_normal(
    proposed: Float[np.ndarray, "draw dimension"],
    log_posterior: Float[np.ndarray, " draw"],
    log_normal: Float[np.ndarray, " draw"],
) -> tuple[Facts, Finding]:
    """Draws of a normal, or of several, beside the same draws weighed by how likely they are under
    the posterior.

    Both log densities are known up to constants; draws that the solver refuses do not count. Where
    the weights can be relied on (Pareto k-hat), means and standard deviations under them are the
    posterior's.

    Source: Yao et al. (2018), Yes, but did it work?: evaluating variational inference.
    """
    solved = np.isfinite(log_posterior)
    drawn, log_posterior = proposed[solved], log_posterior[solved]
    weights = weigh(log_posterior - log_normal[solved], drawn)
    bound = largest_pareto_k(len(weights.values))
    k_hat = f"PSIS k-hat {weights.pareto_k:.2f}, good below {bound:.2f}"
    # Weights of draws that are far too narrow may seem reliable, since they see no tail.
    found = spread_by_density(log_posterior, drawn.shape[1], k_hat)
    if weights.trusted and found.level != "bad":
        found = _beside_weighted(drawn, drawn[weights.first], weights, k_hat)
    return {"pareto_k": weights.pareto_k}, found


def _beside_weighted(
    drawn: np.ndarray, weighed: np.ndarray, weights: Weights, k_hat: str
) -> Finding:
    mean = weights.values @ weighed
    sd = np.maximum(np.sqrt(weights.values @ (weighed - mean) ** 2), 1e-300)
    shift, ratio = float((np.abs(drawn.mean(axis=0) - mean) / sd).max()), drawn.std(axis=0) / sd
    factor = float(np.maximum(ratio, 1 / np.maximum(ratio, 1e-300)).max())
    levels: tuple[Level, ...] = ("good", "warning", "bad")
    level = levels[sum(shift > most or factor > furthest for most, furthest in (_CLOSE, _FAR))]
    return Finding(
        level, SPREAD,
        f"standard deviations are {ratio.min():.2f} to {ratio.max():.2f} times the posterior's and "
        "means at most "
        f"{shift:.2f} of these off, by importance weights ({k_hat})",
        "" if level == "good" else "take bd.engines.SVI(), which resamples its draws by such "
            f"weights, or {SAMPLER}",
    )  # fmt: skip


def spread_by_density(
    log_posterior: Float[np.ndarray, " draw"], dimension: int, why: str
) -> Finding:
    r"""What the log density at draws tells of how far they spread.

    Of a normal posterior of dimension d the log density of draws that spread s times as far has the
    variance $s^4 d / 2$. Draws that are far too narrow are known by that; that others are right is
    not.
    """
    log_posterior = log_posterior[np.isfinite(log_posterior)]
    number = len(log_posterior)
    if number > 1:
        fourth = 2 * float(log_posterior.var(ddof=1)) / dimension
        # The variance of a chi-squared is known to so much, from so many draws.
        error = np.sqrt((2 + 12 / dimension) / number)
        if fourth * (1 + _ERRORS * error) < _NARROW**4:
            return Finding(
                "bad", SPREAD,
                f"they spread about {fourth**0.25:.2g} times as far as the posterior, by how "
                "little its log density "
                f"varies among them; {why}",
                f"take {SAMPLER}, or bd.engines.SVI(), whose draws are corrected by importance "
                "weights",
            )  # fmt: skip
    return unshown_spread(why)

"""Which of many draws to look at, which quantities move, their R-hat and effective sample sizes."""

import numpy as np
from scipy.special import chdtri

TAIL = 0.05
"""The quantiles, this and one less it, of which effective sample sizes of tails are: the ends of
the intervals that are tabulated."""

_FEW = 10  # quantities for which the usual bounds hold
_BY_CHANCE = 0.05
_FEWEST_FOR_TAILS = 100  # draws
# Draws, above which a tail is three times the root of their number rather than a fifth of them.
_FEWEST_EFFECTIVE = 225


def allowance(number: int, groups: int) -> float:
    r"""How many times as far above one the largest of many R-hat may lie as that of ten, and so
    much lower the ESS.

    Of `groups` of draws that agree $\hat R^2 - 1$ is a $\chi^2$ of one degree of freedom less, over
    the effective sample size. The ratio is that of the values that one of `number` quantities, or
    one of ten, exceeds in a twentieth of runs.
    """
    if number <= _FEW or groups < 2:
        return 1.0
    most, usual = chdtri(groups - 1, _BY_CHANCE / np.array([number, _FEW]))
    return float(most / usual)


def moving_quantities(values: np.ndarray) -> np.ndarray:
    """Which quantities of `(chain, draw, quantity)` are not the same in every draw."""
    return np.any(values != values[:1, :1], axis=(0, 1))


def finite_draws(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Drop the draws that are not finite, and cut every chain to the length of the shortest; and
    how many were not.
    """
    ok = np.all(np.isfinite(values), axis=2)
    length = int(ok.sum(axis=1).min()) if ok.size else 0
    kept = [chain[flags][:length] for chain, flags in zip(values, ok, strict=True)]
    return np.stack(kept), int((~ok).sum())


def effective_sizes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effective sample sizes of `(chain, draw, quantity)`, of bulk and tails (`TAIL`); 0 where not
    defined.
    """
    from arviz_stats.base.array import array_stats

    with np.errstate(divide="ignore", invalid="ignore"):
        bulk = array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk")
        tail = array_stats.ess(values, chain_axis=0, draw_axis=1, method="tail", prob=TAIL)
    return np.nan_to_num(bulk), np.nan_to_num(tail)


def rhat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of `(chain, draw, quantity)`; of the halves of a single chain.

    Infinite where it is not defined: all draws equal, one not a number, or fewer than four in a
    chain (or half).
    """
    from arviz_stats.base.array import array_stats

    if values.shape[0] == 1:
        half = values.shape[1] // 2
        values = np.concatenate([values[:, :half], values[:, values.shape[1] - half :]])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = array_stats.rhat(values, chain_axis=0, draw_axis=1)
    return np.where(np.isnan(found), np.inf, found)


def nested_rhat(draws: np.ndarray, superchains: int) -> float:
    """The worst rank-normalised nested R-hat of `(chain, draw, quantity)`; infinite where it cannot
    be computed.

    Chains of one superchain lie one after the other. Source: Margossian et al. (2024).
    """
    from arviz_stats.base.array import array_stats

    numbers = np.arange(superchains).repeat(len(draws) // superchains)
    with np.errstate(invalid="ignore", divide="ignore"):  # draws that never move have no variance
        values = array_stats.rhat_nested(
            np.moveaxis(draws, -1, 0), superchain_ids=numbers, chain_axis=1, draw_axis=2
        )
    return float(np.max(np.where(np.isfinite(values), values, np.inf)))


def tail_index(values: np.ndarray) -> tuple[float, float]:
    r"""The Pareto $\hat k$ of the heavier tail of draws `(chain, draw)`, and its standard error
    $(1 + k) / \sqrt{m}$.

    From k = 1/2 on there is no variance. The error is that of k = 1/2, with m as the effective
    number of draws in the tail. Both are NaN where no tail can be fitted: fewer than 100 draws, a
    tail of equal ones, or no effective size.

    Source: Vehtari et al. (2024), section 3.2; Smith (1987), Estimating tails of probability
    distributions.
    """
    from arviz_stats.base.array import array_stats

    relative = float(effective_sizes(values[..., None])[1][0]) / values.size
    if values.size < _FEWEST_FOR_TAILS or not relative > 0:
        return np.nan, np.nan
    try:
        found = array_stats.pareto_khat(
            values, chain_axis=0, draw_axis=1, r_eff=relative, tail="both"
        )
    except ValueError:  # a tail of equal values
        return np.nan, np.nan
    few = values.size * relative <= _FEWEST_EFFECTIVE
    tail = values.size / 5 if few else 3 * np.sqrt(values.size / relative)
    return float(np.asarray(found)), float(1.5 / np.sqrt(tail * min(relative, 1.0)))


def thinned(total: int, most: int) -> np.ndarray:
    """The indices of at most so many of them, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(int))

"""R-hat, effective sample sizes and tail indices of draws, and evenly spaced indices."""

import numpy as np
from scipy.special import chdtri

TAIL = 0.05
"""Tail effective sample sizes are those of this quantile and of one minus this quantile."""

# The usual bounds on R-hat hold for about this number of quantities.
_FEW = 10
_BY_CHANCE = 0.05
_FEWEST_FOR_TAILS = 100
# ArviZ takes a fifth of the draws as tail up to this effective number of draws, else a multiple of
# the root of their number.
_FEWEST_EFFECTIVE = 225


def allowance(number: int, groups: int) -> float:
    r"""Return by which factor $\hat R - 1$ of the worst of many quantities may exceed that of ten.

    For groups of draws with the same distribution, $(\hat R^2 - 1) \cdot \mathrm{ESS}$ follows a
    $\chi^2$ distribution with `groups - 1` degrees of freedom. The factor is a ratio of two values
    of $\chi^2$: the largest of `number` quantities exceeds the first in 5 % of runs, and the
    largest of ten quantities exceeds the second.

    Args:
        number: the number of quantities.
        groups: the number of groups of draws that R-hat compares, such as halves of chains.

    Returns:
        The factor, at least 1. The effective sample size may be lower by the same factor.
    """
    if number <= _FEW or groups < 2:
        return 1.0
    most, usual = chdtri(groups - 1, _BY_CHANCE / np.array([number, _FEW]))
    return float(most / usual)


def moving_quantities(values: np.ndarray) -> np.ndarray:
    """Return which quantities of draws `(chain, draw, quantity)` are not constant.

    Returns:
        A flag for each quantity.
    """
    return np.any(values != values[:1, :1], axis=(0, 1))


def finite_draws(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Drop draws that are not finite, and cut every chain to the length of the shortest.

    Args:
        values: draws `(chain, draw, quantity)`.

    Returns:
        The remaining draws, `(chain, draw, quantity)`, and the number of draws that are not finite.
    """
    ok = np.all(np.isfinite(values), axis=2)
    length = int(ok.sum(axis=1).min()) if ok.size else 0
    kept = [chain[flags][:length] for chain, flags in zip(values, ok, strict=True)]
    return np.stack(kept), int((~ok).sum())


def effective_sizes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bulk and tail effective sample sizes of draws `(chain, draw, quantity)`.

    Returns:
        The bulk size and the tail size of each quantity; 0 where they are not defined.
    """
    from arviz_stats.base.array import array_stats

    with np.errstate(divide="ignore", invalid="ignore"):
        bulk = array_stats.ess(values, chain_axis=0, draw_axis=1, method="bulk")
        tail = array_stats.ess(values, chain_axis=0, draw_axis=1, method="tail", prob=TAIL)
    return np.nan_to_num(bulk), np.nan_to_num(tail)


def rhat(values: np.ndarray) -> np.ndarray:
    """Return the rank-normalised split R-hat of draws `(chain, draw, quantity)`.

    For a single chain, its two halves take the place of chains.

    Returns:
        R-hat of each quantity. It is infinite where it is not defined: if all draws are equal, a
        draw is NaN, or a chain (or half) has fewer than four draws.
    """
    from arviz_stats.base.array import array_stats

    if values.shape[0] == 1:
        half = values.shape[1] // 2
        halves = values[:, :half], values[:, values.shape[1] - half :]
        values = np.concatenate(halves)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = array_stats.rhat(values, chain_axis=0, draw_axis=1)
    return np.where(np.isnan(found), np.inf, found)


def nested_rhat(draws: np.ndarray, superchains: int) -> float:
    """Return the largest rank-normalised nested R-hat of all quantities.

    Args:
        draws: draws `(chain, draw, quantity)`; the chains of a superchain are consecutive.
        superchains: the number of superchains.

    Returns:
        The maximum; infinite if the value of a quantity cannot be computed.

    Source: Margossian et al. (2024).
    """
    from arviz_stats.base.array import array_stats

    numbers = np.arange(superchains).repeat(len(draws) // superchains)
    # Constant draws have no variance.
    with np.errstate(invalid="ignore", divide="ignore"):
        values = array_stats.rhat_nested(
            np.moveaxis(draws, -1, 0), superchain_ids=numbers, chain_axis=1, draw_axis=2
        )
    return float(np.max(np.where(np.isfinite(values), values, np.inf)))


def tail_index(values: np.ndarray) -> tuple[float, float]:
    r"""Return the Pareto $\hat k$ of the heavier tail of draws, and its standard error.

    A distribution with $k \ge 1/2$ has no finite variance. The standard error is
    $(1 + k) / \sqrt{m}$ at $k = 1/2$, where $m$ is the effective number of draws in the tail.

    Args:
        values: draws `(chain, draw)`.

    Returns:
        $\hat k$ and its standard error. Both are NaN if no tail can be fitted: for fewer than 100
        draws, a tail of equal draws, or without an effective sample size.

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
    # Repeat ArviZ's rule for the size of the tail, which determines the error.
    few = values.size * relative <= _FEWEST_EFFECTIVE
    tail = values.size / 5 if few else 3 * np.sqrt(values.size / relative)
    return float(np.asarray(found)), float(1.5 / np.sqrt(tail * min(relative, 1.0)))


def thinned(total: int, most: int) -> np.ndarray:
    """Return at most `most` evenly spaced indices below `total`, with the first index.

    If there are at least two, they include the last index.

    Returns:
        The indices, ascending.
    """
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(int))

"""Combinations of parameters that the data do not identify, from posterior and prior draws.

No solver runs. Random effects, weights of networks and latent states are left out: the
hyperparameters of a population are tested instead.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.linalg import eigh
from scipy.sparse.csgraph import connected_components

from .._findings import Finding
from ..scores.draws_at_data import merged
from .element_names import element_names, is_common, read_more

_CENTRAL = (0.15866, 0.84134)
# A parameter is tied to the others if at most a tenth of its variance is left given the others; two
# parameters are linked from this partial correlation.
_TIED, _LINKED = 0.1, 0.3
# A combination is unidentified if the posterior keeps half of its prior variance, and at least a
# fifth of the prior variance of two of its parameters.
_LEFT, _KEPT = 0.5, 0.2
# Kurtosis of two modes: 1 for two points, 1.8 for a uniform distribution.
_TWO_MODES = 1.6
# The least number of draws for each parameter, and the number of prior widths beyond which prior
# draws are clipped.
_DRAWS_A_NUMBER, _TAILS = 10, 4.0
# The least share of positive prior draws of a positive parameter, and the least number of prior
# draws in which all such parameters are positive.
_MOSTLY, _FEWEST_PRIOR = 0.8, 100


class Numbers(NamedTuple):
    """Scalar parameters with their draws.

    Args:
        labels: the name of each parameter.
        draws: posterior draws, `(draw, parameter)`.
        prior: prior draws, `(prior draw, parameter)`.
    """

    labels: list[str]
    draws: np.ndarray
    prior: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """Flags of parameters that are positive in the posterior, and mostly so in the prior."""
        positive = (self.draws > 0).all(axis=0)
        before = self.prior > 0
        mostly = positive & (before.mean(axis=0) >= _MOSTLY)
        enough = before[:, mostly].all(axis=1).sum() >= _FEWEST_PRIOR
        return mostly if enough else positive & before.all(axis=0)


def ties(post: xr.DataTree) -> Iterator[tuple[list[str], Finding]]:
    """Yield groups of parameters that are identified only in combination, with a finding each.

    For example, two parameters may keep most of their prior spread although their product is known
    to a per cent. A single parameter that keeps its prior spread is no fault: its prior is
    informative.

    Yields:
        Pairs of the names of the parameters and the finding.
    """
    if "prior" not in post.children:
        return
    numbers = _varying_parameters(post)
    if len(numbers.labels) < 2:
        return
    # Products first: positive parameters on a log scale. Then sums.
    positive = numbers.positive
    scales = [_Scale(numbers, positive)]
    scales += [_Scale(numbers, np.zeros_like(positive))] if positive.any() else []
    taken: set[int] = set()
    for scale in scales:
        for group in scale.tied():
            # A sum of positive parameters is tied on the raw scale, but may be wide on the log
            # scale alone.
            members = set(group.tolist())
            if not taken & members and any(each.has_wide_combination(group) for each in scales):
                taken |= members
                labels = [numbers.labels[i] for i in group]
                yield labels, _tie_finding(labels, scale, group)


def _varying_parameters(post: xr.DataTree) -> Numbers:
    """Return the common scientific parameters whose draws are finite and vary.

    The result is empty if there are too few draws for so many parameters.
    """
    labels, draws, before = [], [], []
    prior = post["prior"].to_dataset()
    for name, variable in post["posterior"].to_dataset().data_vars.items():
        if name in prior and is_common(variable):
            labels += element_names(str(name), variable)
            draws.append(merged(variable))
            before.append(merged(prior[name]))
    if not labels:
        return Numbers([], np.zeros((0, 0)), np.zeros((0, 0)))
    held = Numbers(
        labels,
        np.concatenate(draws, axis=1).astype(float),
        np.concatenate(before, axis=1).astype(float),
    )
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(held.draws).all(axis=0) & np.isfinite(held.prior).all(axis=0)
        width = _middle_and_width(held.prior)[1]
        moving = (np.ptp(held.draws, axis=0) > 0) & (width > 0)
    chosen = np.flatnonzero(finite & moving)
    if len(held.draws) < _DRAWS_A_NUMBER * max(chosen.size, 10):
        chosen = chosen[:0]
    return Numbers([labels[i] for i in chosen], held.draws[:, chosen], held.prior[:, chosen])


def _middle_and_width(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median of each column, and half of its central 68 % interval.

    Unlike mean and standard deviation, they do not depend on the tails.
    """
    low, middle, high = np.quantile(values, (_CENTRAL[0], 0.5, _CENTRAL[1]), axis=0)
    return middle, (high - low) / 2


class _Scale:
    r"""Posterior and prior covariances of parameters, in units of their prior widths.

    Given all other parameters, parameter $i$ has the variance $1 / (C^{-1})_{ii}$ for the
    covariance $C$.

    Args:
        numbers: the parameters with their draws.
        logs: flags of the parameters that are taken on the log scale.
    """

    def __init__(self, numbers: Numbers, logs: np.ndarray):
        self.logs = logs
        # On the log scale, compare with the positive part of the prior.
        before = numbers.prior[(numbers.prior[:, logs] > 0).all(axis=1)]
        draws, prior = (
            np.where(logs, np.log(np.where(logs, v, 1.0)), v) for v in (numbers.draws, before)
        )
        middle, self.width = _middle_and_width(prior)
        self.draws = (draws - middle) / self.width
        self.covariance = np.atleast_2d(np.cov(self.draws, rowvar=False))
        # Without the tails, which may have no variance.
        central = np.clip((prior - middle) / self.width, -_TAILS, _TAILS)
        self.prior = np.atleast_2d(np.corrcoef(central, rowvar=False)) + 1e-9 * np.eye(len(logs))

    def tied(self) -> list[np.ndarray]:
        """Return groups of parameters that the data tie to each other.

        Ties that the prior already has do not count, such as those of shares that sum to one.

        Returns:
            Groups of two or more parameters, by their indices.
        """
        # 1. Variance given all others, 1 / (C⁻¹)_ii, well below the total variance. A small
        # addition to the variances keeps the matrix regular for exact ties.
        covariance = self.covariance + 1e-9 * np.diag(np.diag(self.covariance))
        precision = np.linalg.inv(covariance)
        before = np.linalg.inv(self.prior)
        given = 1 / np.diag(precision)
        tied = (given <= _TIED * np.diag(self.covariance)) & (given <= _TIED / np.diag(before))
        # 2. Groups connected by partial correlations.
        partial = np.abs(precision) * np.sqrt(np.outer(given, given))
        number, group = connected_components((partial >= _LINKED) & np.outer(tied, tied))
        groups = [np.flatnonzero(group == i) for i in range(number)]
        return [members for members in groups if members.size > 1]

    def left(self, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return combinations of a group, and the share of prior variance left along each.

        A combination is a row of weights of parameters in units of the prior widths. Its prior
        variance is one.

        Args:
            group: the indices of the parameters.

        Returns:
            The shares in ascending order, and the combinations as rows in the same order.
        """
        within = np.ix_(group, group)
        # Generalised eigenvectors have a prior variance of one.
        shares, combinations = eigh(self.covariance[within], self.prior[within])
        return shares, combinations.T

    def has_wide_combination(self, group: np.ndarray) -> bool:
        """Return whether the data leave a combination of parameters of a group unidentified.

        The posterior then keeps at least half of the prior variance of the combination, and two or
        more parameters keep a fifth of theirs. A combination that is wide because the posterior has
        two separate modes does not count.

        Args:
            group: the indices of the parameters.

        Returns:
            Whether the data leave a combination unidentified.
        """
        shares, combinations = self.left(group)
        along = self.draws[:, group] @ combinations[-1]
        kurtosis = np.mean((along - along.mean()) ** 4) / np.var(along) ** 2
        wide = np.diag(self.covariance)[group] >= _KEPT
        return bool(shares[-1] >= _LEFT and wide.sum() >= 2 and kurtosis >= _TWO_MODES)

    def spread(self, group: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        """Return the posterior and the prior standard deviation of a combination of parameters.

        Args:
            group: the indices of the parameters.
            weights: the weight of each parameter, in its own units.

        Returns:
            √(wᵀ C w) with the weights w and the covariance C of posterior and prior.
        """
        each = weights * self.width[group]
        within = np.ix_(group, group)
        # Rounding may leave the variance of an exact tie a little below zero.
        variances = (
            max(float(each @ matrix[within] @ each), 0.0)
            for matrix in (self.covariance, self.prior)
        )
        after, before = map(math.sqrt, variances)
        return after, before

    def weights(self, group: np.ndarray, combination: np.ndarray) -> np.ndarray:
        """Return the weights of parameters in a combination, in the parameters' own units.

        They are divided by the first weight that is among the largest, which so becomes one.

        Args:
            group: the indices of the parameters.
            combination: weights in units of the prior widths.

        Returns:
            The weights, rounded to integers if they are near.
        """
        found = combination / self.width[group]
        first = np.flatnonzero(np.abs(found) > 0.9 * np.abs(found).max())[0]
        found = found / found[first]
        nearest = np.round(found)
        return np.where(np.abs(found - nearest) < 0.1, nearest, found)


def _tie_finding(labels: list[str], scale: _Scale, group: np.ndarray) -> Finding:
    """Return the finding on a group of parameters that are identified only in combination.

    Args:
        labels: the names of the parameters.
        scale: the scale on which they are tied.
        group: their indices.
    """
    shares, combinations = scale.left(group)
    logs = scale.logs[group]
    # The narrowest combination is known best.
    narrowest = scale.weights(group, combinations[0])
    known = _combination(labels, narrowest, logs)
    sd = scale.spread(group, narrowest)[0]
    within = _to_within(sd, bool(logs.all()))
    if len(group) == 2:
        contrast = narrowest * [1, -1]
        after, before = scale.spread(group, contrast)
        message = (
            f"{known} is known {within}, {_combination(labels, contrast, logs)} is not: "
            f"{_as_wide(after / before)}"
        )
    elif (shares < _TIED * shares[-1]).sum() == 1:
        message = (
            f"only {known} is known, {within}: along other combinations of them "
            f"{_as_wide(math.sqrt(shares[-1]))}"
        )
    else:
        unknown = _combination(labels, scale.weights(group, combinations[-1]), logs)
        message = (
            f"the data tie them to each other, but do not identify {unknown}: "
            f"{_as_wide(math.sqrt(shares[-1]))}"
        )
    few = labels if len(labels) <= 4 else [*labels[:3], f"{len(labels) - 3} more"]
    return Finding(
        "warning",
        f"identifiability of {', '.join(few[:-1])} and {few[-1]}",
        message,
        f"measure one of them, give it an informative prior, or make {known} the parameter; "
        f"{read_more(labels[0])}",
    )


def _to_within(sd: float, logs: bool) -> str:
    """Return a standard deviation in words; on the log scale as a percentage or a factor."""
    if not logs:
        return f"to within {sd:.2g}"
    return (
        f"to within {100 * math.expm1(sd):.2g} %"
        if sd < 0.5
        else f"to within a factor of {math.exp(sd):.2g}"
    )


def _as_wide(share: float) -> str:
    """Return in words how wide the posterior is, relative to the prior."""
    return f"the posterior is {'' if share > 0.95 else f'{share:.0%} '}as wide as the prior"


def _combination(labels: list[str], weights: np.ndarray, logs: np.ndarray) -> str:
    """Return a combination as text, such as `level + 0.5 · slope`.

    If all parameters are on the log scale, it is a product such as `k1 · k2 / k3^0.5`.
    """
    products = bool(logs.all())
    names = labels
    if not products:
        names = [f"log({label})" if log else label for label, log in zip(labels, logs, strict=True)]
    powers = []
    for name, weight in zip(names, weights, strict=True):
        size = f"{abs(weight):.2g}"
        power = f"{name}^{size}" if products else f"{size} · {name}"
        powers.append(name if abs(weight) == 1 else power)
    plus, minus = (" · ", " / ") if products else (" + ", " − ")
    signs = [plus if weight > 0 else minus for weight in weights]
    first = "1 / " if products else "−"
    lead = first if weights[0] < 0 else ""
    kept = [i for i, w in enumerate(weights) if w != 0]
    return lead + powers[kept[0]] + "".join(signs[i] + powers[i] for i in kept[1:])

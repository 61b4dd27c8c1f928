"""Combinations of parameters that the data do not identify, by posterior and prior draws.

No solver runs. Random effects, weights of networks and latent states are left out: a population is
judged by its hyperparameters.
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
# A parameter is tied to the others if less than a tenth of its variance is left, given these.
_TIED, _LINKED = 0.1, 0.3
# A combination is unidentified if half of its prior variance is left, and two of its parameters
# keep a fifth of theirs.
_LEFT, _KEPT = 0.5, 0.2
# Kurtosis of two modes: 1 for two points, 1.8 for a uniform distribution.
_TWO_MODES = 1.6
# Draws for each parameter, and prior widths beyond which tails are clipped.
_DRAWS_A_NUMBER, _TAILS = 10, 4.0
# The least positive share of the prior of a positive parameter, and the least number of draws.
_MOSTLY, _FEWEST_PRIOR = 0.8, 100


class Numbers(NamedTuple):
    """Scalar parameters: `draws` is `(draw, number)`, `prior` `(prior draw, number)`."""

    labels: list[str]
    draws: np.ndarray
    prior: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """Return which are positive in the posterior, and mostly positive under the prior."""
        positive = (self.draws > 0).all(axis=0)
        before = self.prior > 0
        mostly = positive & (before.mean(axis=0) >= _MOSTLY)
        enough = before[:, mostly].all(axis=1).sum() >= _FEWEST_PRIOR
        return mostly if enough else positive & before.all(axis=0)


def ties(post: xr.DataTree) -> Iterator[tuple[list[str], Finding]]:
    """Labels and finding of each group of parameters that are identified only in combination.

    Two parameters may both keep most of their prior spread while their product is known to a per
    cent. A single parameter about which the data say little is no fault: it has an informative
    prior.

    Returns:
        Labels and finding by group.
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
    """Common scientific parameters with finite draws that vary; none if there are too few draws."""
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
    """Median, and half of the central 68 % interval, of each column, which tails do not affect."""
    low, middle, high = np.quantile(values, (_CENTRAL[0], 0.5, _CENTRAL[1]), axis=0)
    return middle, (high - low) / 2


class _Scale:
    r"""Posterior and prior covariances in units of prior widths; on the log scale for `logs`.

    Given the others, parameter i has the variance $1 / (C^{-1})_{ii}$.
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
        """Groups of parameters that the data tie to each other, by their indices.

        Ties that the prior already has do not count, such as those of shares that sum to one.

        Returns:
            Groups of two or more parameters.
        """
        # 1. Variance given all others, 1 / (C⁻¹)_ii, well below the total variance. A little more
        # variance keeps the matrix regular for exact ties.
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
        """Combinations of a group and the shares of prior variance left along them, least first.

        A combination is a row of weights of parameters in units of the prior's widths. Its prior
        variance is one.
        """
        within = np.ix_(group, group)
        # Generalised eigenvectors have a prior variance of one.
        shares, combinations = eigh(self.covariance[within], self.prior[within])
        return shares, combinations.T

    def has_wide_combination(self, group: np.ndarray) -> bool:
        """Whether a combination of at least two parameters of a group keeps its prior spread.

        Two separate modes also make a combination wide, but the data identify each mode.

        Returns:
            Whether the data leave a combination unidentified.
        """
        shares, combinations = self.left(group)
        along = self.draws[:, group] @ combinations[-1]
        kurtosis = np.mean((along - along.mean()) ** 4) / np.var(along) ** 2
        wide = np.diag(self.covariance)[group] >= _KEPT
        return bool(shares[-1] >= _LEFT and wide.sum() >= 2 and kurtosis >= _TWO_MODES)

    def spread(self, group: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        """Posterior and prior standard deviation of a combination, by weights of parameters.

        Returns:
            √(wᵀ C w) for the posterior and the prior.
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
        """Weights of parameters in a combination, where the first of the largest is one.

        Returns:
            The weights, rounded to whole numbers if these are near.
        """
        found = combination / self.width[group]
        first = np.flatnonzero(np.abs(found) > 0.9 * np.abs(found).max())[0]
        found = found / found[first]
        nearest = np.round(found)
        return np.where(np.abs(found - nearest) < 0.1, nearest, found)


def _tie_finding(labels: list[str], scale: _Scale, group: np.ndarray) -> Finding:
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
    if not logs:
        return f"to within {sd:.2g}"
    return (
        f"to within {100 * math.expm1(sd):.2g} %"
        if sd < 0.5
        else f"to within a factor of {math.exp(sd):.2g}"
    )


def _as_wide(share: float) -> str:
    return f"the posterior is {'' if share > 0.95 else f'{share:.0%} '}as wide as the prior"


def _combination(labels: list[str], weights: np.ndarray, logs: np.ndarray) -> str:
    """`k1 · k2 / k3^0.5` of logarithms, else `level + 0.5 · slope`."""
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

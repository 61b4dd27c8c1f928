"""Residuals compared with those of data that the model simulates.

The compared properties are size, order (serial correlation), tails, symmetry and evenness (growth
with the prediction). All but evenness have an entry in `_STATISTICS`: the statistic, its message
and its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .._findings import Finding, Level, model_finding
from .._statistics.convergence import thinned
from .remedies import Noise, heavy_tailed, larger, ordered, own_scales, skewed, uneven

# If a sound model does worse in any check with a probability below the first number, the finding is
# a warning; below the second number it may be bad.
DOUBTFUL, ABSURD = 0.01, 0.001
# The least correlation for which a finding may be bad.
_STRONG = 0.3
# The most values for which sizes are ranked.
_VALUES = 1000
# The share of the largest replicates to which an exponential tail is fitted.
_TAIL = 0.1
# The least number of data of a group whose residuals are tested separately.
_FEWEST_OF_GROUP = 8
# The least ratio of the scales of two groups for which a finding may be bad.
_FAR_APART = 3.0


class Members(NamedTuple):
    """The groups of a population that data belong to.

    Args:
        dim: the name of their dimension, such as "subject".
        labels: the name of each group.
        of: the group of each datum as an index into `labels`, `(value,)`.
    """

    dim: str
    labels: tuple[str, ...]
    of: np.ndarray

    def rows(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name of each group with at least 8 data, and the indices of its data."""
        for i, label in enumerate(self.labels):
            if (own := np.flatnonzero(self.of == i)).size >= _FEWEST_OF_GROUP:
                yield label, own


def residual_findings(
    name: str,
    drawn: np.ndarray,
    observed: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
    looked_at: int,
    noise: Noise = Noise(),  # noqa: B008
    members: Members | None = None,
) -> Iterator[Finding]:
    """Yield findings on residuals of data that are unlike those of simulated data.

    If the scale differs between groups, later tests divide residuals by the scale of their group.
    Otherwise the mixture of scales would look like heavy tails and skewness.

    Args:
        name: the observable.
        drawn: simulated data, `(draw, value)`.
        observed: the data, `(value,)`.
        mean: the mean of the distribution of each simulated datum.
        sd: the standard deviation of this distribution.
        looked_at: the number of statistics that are tested in all.
        noise: properties of the noise, which decide on remedies.
        members: the groups of a population that the data belong to.
    """
    # Data are compared with the mean of all draws. Simulated data are compared with the mean of
    # their own draw, since no fit has moved that mean towards them.
    own = (observed - mean.mean(axis=0)) / np.sqrt((sd**2).mean(axis=0))
    made = (drawn - mean) / sd
    tested = _Tested(name, looked_at, noise, members)
    yield from tested.findings("size", own, made)
    scales = None if members is None else _scales(own, made, mean, sd, members)
    if scales is not None and (level := scales.level(looked_at)):
        subject = f"scale of {name} differs between members"
        yield model_finding(level, subject, *scales.said(noise))
        own, made = _in_own_scales(own, made, scales.members)
    for subject in ("order", "tails", "symmetry"):
        yield from tested.findings(subject, own, made)
    yield from _evenness(name, own, made, mean, looked_at, noise)


class _Tested(NamedTuple):
    """An observable whose residuals are tested; fields as the arguments of `residual_findings`."""

    name: str
    looked_at: int
    noise: Noise
    members: Members | None

    def findings(self, subject: str, own: np.ndarray, made: np.ndarray) -> Iterator[Finding]:
        """Yield a finding if a statistic of residuals is unlike that of replicates.

        Args:
            subject: the name of the statistic in `_STATISTICS`.
            own: residuals of the data, `(value,)`.
            made: residuals of replicates, `(draw, value)`.
        """
        statistic = _STATISTICS[subject]
        value = float(statistic.of(own[None])[0])
        theirs = statistic.of(made)
        often, above = share_beyond(theirs, value), True
        if statistic.two_sided:
            below = share_beyond(-theirs, -value)
            often, above = 2 * min(often, below), often <= below
        level = _level(often, self.looked_at, strong=value >= statistic.strong)
        if level:
            shown = (statistic.sign * number for number in (value, float(np.median(theirs))))
            message = statistic.message.format(*shown) + self._most(statistic, own, made, above)
            remedy = statistic.remedy(self.noise, above)
            yield model_finding(level, f"{subject} of residuals of {self.name}", message, remedy)

    def _most(self, statistic: _Statistic, own: np.ndarray, made: np.ndarray, above: bool) -> str:
        """Return the group whose residuals are the most unusual, as a clause for a message.

        Args:
            statistic: the statistic.
            own: residuals of the data, `(value,)`.
            made: residuals of replicates, `(draw, value)`.
            above: whether high or low values of the statistic are unusual.
        """
        if self.members is None:
            return ""
        found = {}
        for label, rows in self.members.rows():
            theirs = statistic.of(made[:, rows])
            off = float(statistic.of(own[None, rows])[0] - np.median(theirs))
            found[label] = (off if above else -off) / max(theirs.std(), 1e-300)
        return f"; most of {self.members.dim} {max(found, key=found.__getitem__)}" if found else ""


class _Scales(NamedTuple):
    """Scales of residuals by group.

    Args:
        members: the groups.
        scale: the scale of residuals of each group in units of the noise, by its name.
        chance: the probability that scales differ as much in a sound model.
    """

    members: Members
    scale: dict[str, float]
    chance: float

    def level(self, looked_at: int) -> Level | None:
        """Return the level of the finding on the difference; None if it may be chance."""
        ratio = max(self.scale.values()) / max(min(self.scale.values()), 1e-300)
        return _level(self.chance, looked_at, strong=ratio >= _FAR_APART)

    def said(self, noise: Noise) -> tuple[str, str]:
        """Return the message and the remedy of the finding."""
        dim = self.members.dim
        ends = [pick(self.scale, key=self.scale.__getitem__) for pick in (min, max)]
        least, most = (
            f"{self.scale[label]:.2g} times as large as the noise for {dim} {label}"
            for label in ends
        )
        return f"residuals are {most}, and {least}", own_scales(noise, dim)


def _scales(
    own: np.ndarray, made: np.ndarray, mean: np.ndarray, sd: np.ndarray, members: Members
) -> _Scales | None:
    r"""Compare differences of scale between groups with those of replicates.

    A fit reduces the variance of the residual of a datum to a share $1 - h$. The leverage $h =
    \mathrm{var}(\mu) / \sigma^2$ follows from the variance of the predicted mean $\mu$ among draws
    and the noise variance $\sigma^2$. The variance of a group is divided by the mean of $1 - h$
    over its data, and by the common variance of all groups. Its cube root is nearly normal. Its
    deviation from the mean of replicates, in units of its standard error, is compared with the same
    deviations of replicates. This allows for the number of groups.

    Args:
        own: residuals of the data, `(value,)`.
        made: residuals of replicates, `(draw, value)`.
        mean: the predicted mean in each draw, `(draw, value)`.
        sd: the standard deviation of the noise in each draw, `(draw, value)`.
        members: the groups.

    Returns:
        The scales; None for fewer than two groups with enough data.

    Source: Wilson & Hilferty (1931), The distribution of chi-square, for the cube root.
    """
    # 1. Sums of squares of each group, for data and replicates, and their degrees of freedom.
    leverage = mean.var(axis=0) / (sd**2).mean(axis=0)
    parts = []
    for label, rows in members.rows():
        most = rows.size - 1.0
        left = float(np.clip(rows.size - leverage[rows].sum(), 1.0, most))
        # The variance of serially correlated residuals is less certain than that of replicates.
        alike = float(np.clip(_order(own[None, rows] - own[rows].mean())[0], 0.0, 0.99))
        error = np.sqrt(most / left * (1 + alike**2) / (1 - alike**2))
        squares = own[rows].var() * rows.size, made[:, rows].var(axis=1) * rows.size
        parts.append((label, left, most, error, *squares))
    if len(parts) < 2:
        return None
    # 2. Cube roots of variances over the common variance, and their deviations from replicates.
    labels, *columns = zip(*parts, strict=True)
    left, most, error, ours, theirs = map(np.array, columns)
    found, replicates = ours / left, (theirs.T / most)
    of_all = ours.sum() / left.sum()
    of_each = theirs.sum(axis=0) / most.sum()
    made_roots = np.cbrt(replicates / np.maximum(of_each, 1e-300)[:, None])
    usual = made_roots.mean(axis=0)
    spread = np.maximum(made_roots.std(axis=0), 1e-300)
    deviations = (np.cbrt(found / max(of_all, 1e-300)) - usual) / (spread * error)
    of_made = (made_roots - usual) / spread
    # 3. The largest deviation detects a single group that is far off; the mean square detects
    # several groups that are a little off.
    largest = share_beyond(np.abs(of_made).max(axis=1), float(np.abs(deviations).max()))
    together = share_beyond((of_made**2).mean(axis=1), float((deviations**2).mean()))
    return _Scales(
        members, dict(zip(labels, np.sqrt(found).tolist(), strict=True)), 2 * min(largest, together)
    )


def _in_own_scales(
    own: np.ndarray, made: np.ndarray, members: Members
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the residuals of each group by their root mean square, for data and replicates."""
    own, made = own.copy(), made.copy()
    for _, rows in members.rows():
        own[rows] /= max(_root_mean_square(own[None, rows])[0], 1e-300)
        made[:, rows] /= np.maximum(_root_mean_square(made[:, rows]), 1e-300)[:, None]
    return own, made


def _evenness(
    name: str, own: np.ndarray, made: np.ndarray, mean: np.ndarray, looked_at: int, noise: Noise
) -> Iterator[Finding]:
    """Yield a finding if residuals grow or shrink with the prediction, by a rank correlation.

    Both signs are faults: either the noise should grow with the prediction but does not, or the
    reverse.

    Args:
        name: the observable.
        own: residuals of the data, `(value,)`.
        made: residuals of replicates, `(draw, value)`.
        mean: the predicted mean in each draw, `(draw, value)`.
        looked_at: the number of statistics that are tested in all.
        noise: properties of the noise, which decide on remedies.
    """
    some = thinned(mean.shape[1], _VALUES)
    each = _rank_correlation(np.abs(made[:, some]), np.abs(mean[:, some]))
    middle = np.abs(mean[:, some].mean(axis=0, keepdims=True))
    value = float(_rank_correlation(np.abs(own[None, some]), middle)[0])
    often = share_beyond(np.abs(each), abs(value))
    if level := _level(often, looked_at, strong=abs(value) >= _STRONG):
        does = "grow" if value > 0 else "shrink"
        usual = float(np.median(np.abs(each)))
        message = (
            f"they {does} with what is predicted: rank correlation {value:.2f}, where {usual:.2f} "
            "either way is usual"
        )
        subject = f"evenness of residuals of {name}"
        yield model_finding(level, subject, message, uneven(noise, grow=value > 0))


def _level(often: float, looked_at: int, *, strong: bool) -> Level | None:
    """Return the level of a finding; None if chance may explain it (Bonferroni).

    Args:
        often: the share of replicates that are more extreme than the data.
        looked_at: the number of statistics that are tested in all.
        strong: whether the effect is large enough for the level "bad".
    """
    worse = often * looked_at
    if worse >= DOUBTFUL:
        return None
    return "bad" if strong and worse < ABSURD else "warning"


def share_beyond(replicates: np.ndarray, value: float) -> float:
    """Return the share of replicates of a statistic that are at least as large as a value.

    For a value beyond all replicates, an exponential tail is fitted to their largest tenth. It is
    heavier than a normal tail. Tests of many statistics need probabilities smaller than one in a
    thousand replicates.

    Args:
        replicates: the statistic of each replicate.
        value: the value.

    Returns:
        The share, never zero.
    """
    often = float(np.mean(replicates >= value))
    tail = np.quantile(replicates, 1 - _TAIL)
    excess = float(np.mean(replicates[replicates >= tail]) - tail)
    if often or not excess > 0:
        return max(often, 0.1 / replicates.size)
    return float(min(_TAIL * np.exp(-(value - tail) / excess), 1 / replicates.size))


def _root_mean_square(z: np.ndarray) -> np.ndarray:
    """Return the root mean square of each row of residuals."""
    return np.sqrt((z**2).mean(axis=1))


def _order(z: np.ndarray) -> np.ndarray:
    """Return the lag-one autocorrelation of each row of residuals, without subtracting their mean.

    So residuals that all have the same sign count as correlated.
    """
    products = (z[:, 1:] * z[:, :-1]).sum(axis=1)
    return products / np.maximum((z**2).sum(axis=1), 1e-300)


def _geary_ratio(z: np.ndarray) -> np.ndarray:
    """Return minus Geary's ratio of each row: mean absolute value over root mean square.

    Geary's ratio is 0.80 for normal residuals, and smaller for heavy tails.
    """
    return -np.abs(z).mean(axis=1) / np.maximum(_root_mean_square(z), 1e-300)


def _skewness(z: np.ndarray) -> np.ndarray:
    """Return the skewness of each row of residuals."""
    centred = z - z.mean(axis=1, keepdims=True)
    spread = np.maximum(_root_mean_square(centred), 1e-300)
    return (centred**3).mean(axis=1) / spread**3


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each row of one array with the same row of the other.

    The correlation is 0 if a row does not vary.
    """
    from scipy.stats import rankdata

    one, other = (rankdata(v, axis=1) for v in (one, other))
    one, other = (v - v.mean(axis=1, keepdims=True) for v in (one, other))
    sizes = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return (one * other).sum(axis=1) / np.maximum(sizes, 1e-300)


class _Statistic(NamedTuple):
    """A statistic of residuals, with its message and remedy.

    Args:
        of: a function of residuals `(draw, datum)` that returns the statistic of each draw.
        message: a template for the value of the data and the median of replicates.
        remedy: a function of the noise, and of whether the value lies above replicates.
        sign: the factor of the statistic in the message.
        two_sided: whether low values are faults, too. For most statistics only high values are: a
            fit reduces the size of residuals and makes neighbours alternate.
        strong: the least value for which a finding may be bad.
    """

    of: Callable[[np.ndarray], np.ndarray]
    message: str
    remedy: Callable[[Noise, bool], str]
    sign: int = 1
    two_sided: bool = False
    strong: float = -np.inf


_STATISTICS = {
    "size": _Statistic(
        _root_mean_square,
        "they are {0:.2g} times as large as the noise is said to be, where {1:.2g} are usual",
        lambda noise, above: larger(noise),
    ),
    "order": _Statistic(
        _order,
        "neighbours have a correlation of {0:.2f}, where {1:.2f} is usual",
        lambda noise, above: ordered(noise),
        strong=_STRONG,
    ),
    "tails": _Statistic(
        _geary_ratio,
        "their mean size is {0:.2f} of their root mean square, where {1:.2f} is usual",
        lambda noise, above: heavy_tailed(noise),
        sign=-1,
    ),
    "symmetry": _Statistic(
        _skewness,
        "their skewness is {0:.2f}, where {1:.2f} is usual",
        lambda noise, above: skewed(noise, above=above),
        two_sided=True,
    ),
}
# Statistics that are tested for each observable, evenness included; a population has one more.
NUMBER = len(_STATISTICS) + 1

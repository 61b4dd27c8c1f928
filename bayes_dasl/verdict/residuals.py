"""Whether residuals are like those that the model draws itself: in size, order, tails, symmetry and
evenness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .._findings import Finding, Level, model_finding
from .._statistics.convergence import thinned
from .remedies import Noise, heavy_tailed, larger, ordered, own_scales, skewed, uneven

DOUBTFUL, ABSURD = 0.01, 0.001  # how often a sound model does worse, over all that is looked at
_STRONG = 0.3  # correlation from which a model is said to miss something
_VALUES = 1000  # whose sizes are ranked
_TAIL = 0.1  # of replicates say how fast the rest grow rare
_FEWEST_OF_MEMBER = 8  # data of a member from which on it is looked at by itself
_FAR_APART = 3.0  # times, from which on scales of members are too far apart for one scale


class Members(NamedTuple):
    """The members of a population that data belong to.

    Args:
        dim: the name of their dimension, such as "subject".
        labels: what they are called, each once.
        of: of each datum, which of these its own is, `(value,)`.
    """

    dim: str
    labels: tuple[str, ...]
    of: np.ndarray

    def rows(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each member that has enough data to be looked at, and which they are."""
        for i, label in enumerate(self.labels):
            if (own := np.flatnonzero(self.of == i)).size >= _FEWEST_OF_MEMBER:
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
    """What is unusual about the residuals of data `(value,)`, beside those of draws
    `(draw, value)`.

    `mean` and `sd` are those from which each draw was drawn; `looked_at` is how many statistics are
    looked at in all. `noise` says which remedies there are. Where the scale differs between
    `members`, each member is judged in units of its own scale, since a mixture of scales has heavy
    tails and an unsteady skewness.
    """
    own = (observed - mean.mean(axis=0)) / np.sqrt((sd**2).mean(axis=0))
    made = (drawn - mean) / sd
    yield from _of_statistic("size", name, own, made, looked_at, noise, members)
    scales = None if members is None else _scales(own, made, mean, sd, members)
    if scales is not None and (level := scales.level(looked_at)):
        yield model_finding(level, f"scale of {name} differs between members", *scales.said(noise))
        own, made = _in_own_scales(own, made, scales.members)
    for subject in ("order", "tails", "symmetry"):
        yield from _of_statistic(subject, name, own, made, looked_at, noise, members)
    yield from _evenness(name, own, made, mean, looked_at, noise)


def _of_statistic(
    subject: str,
    name: str,
    own: np.ndarray,
    made: np.ndarray,
    looked_at: int,
    noise: Noise,
    members: Members | None,
) -> Iterator[Finding]:
    """Whether one statistic of residuals is unlike that of replicates."""
    statistic, message, remedy = _STATISTICS[subject]
    value, theirs = float(statistic(own[None])[0]), statistic(made)
    usual = float(np.median(theirs))
    side = 1.0
    often = share_beyond(theirs, value)
    # A fit makes residuals smaller and neighbours alternate, so that only one side says something,
    # but of skewness.
    if subject == "symmetry":
        below = share_beyond(-theirs, -value)
        often, side = 2 * min(often, below), -1.0 if below < often else 1.0
    if level := _level(often, looked_at, strong=subject != "order" or value >= _STRONG):
        sign = -1 if subject == "tails" else 1
        message = message.format(sign * value, sign * usual) + _most(
            statistic, own, made, members, side
        )
        yield model_finding(
            level, f"{subject} of residuals of {name}", message, remedy(noise, side > 0)
        )


def _most(
    statistic: Callable[[np.ndarray], np.ndarray],
    own: np.ndarray,
    made: np.ndarray,
    members: Members | None,
    side: float,
) -> str:
    """The member whose residuals are the most unusual on the same side, 1 for above and -1 for
    below.
    """
    found = {}
    for label, rows in () if members is None else members.rows():
        theirs = statistic(made[:, rows])
        found[label] = (
            side
            * float(statistic(own[None, rows])[0] - np.median(theirs))
            / max(theirs.std(), 1e-300)
        )
    return (
        f"; most of {members.dim} {max(found, key=lambda label: found[label])}"
        if found and members
        else ""
    )


class _Scales(NamedTuple):
    """The scale of the residuals of each member beside that of the noise, and how often members
    differ as much.
    """

    members: Members
    scale: dict[str, float]
    chance: float

    def level(self, looked_at: int) -> Level | None:
        """How the difference is to be taken; none if it is one by chance."""
        ratio = max(self.scale.values()) / max(min(self.scale.values()), 1e-300)
        return _level(self.chance, looked_at, strong=ratio >= _FAR_APART)

    def said(self, noise: Noise) -> tuple[str, str]:
        """The message and the remedy."""
        dim, ends = (
            self.members.dim,
            [pick(self.scale, key=lambda m: self.scale[m]) for pick in (min, max)],
        )
        least, most = (
            f"{self.scale[label]:.2g} times as large as the noise for {dim} {label}"
            for label in ends
        )
        return f"residuals are {most}, and {least}", own_scales(noise, dim)


def _scales(
    own: np.ndarray, made: np.ndarray, mean: np.ndarray, sd: np.ndarray, members: Members
) -> _Scales | None:
    r"""Whether the spread of residuals differs between members more than that of replicates.

    A fit leaves the share $1 - h$ of the variance of a datum, where
    $h = \mathrm{var}(\mu) / \sigma^2$ among draws. A member's variance $v$ is divided by the mean
    of $1 - h$ over its data, and by the variance that all members have in common. Its cube root is
    nearly normal. Its deviations from replicates, in units of their error, are judged by those of
    replicates, which allows for the number of members.

    Source: Wilson & Hilferty (1931), The distribution of chi-square, for the cube root.
    """
    leverage = mean.var(axis=0) / (sd**2).mean(axis=0)
    parts = []
    for label, rows in members.rows():
        most = rows.size - 1.0
        left = float(np.clip(rows.size - leverage[rows].sum(), 1.0, most))
        # Residuals that are alike in a row tell less of their spread than as many of replicates.
        alike = float(np.clip(_order(own[None, rows] - own[rows].mean())[0], 0.0, 0.99))
        error = np.sqrt(most / left * (1 + alike**2) / (1 - alike**2))
        squares = own[rows].var() * rows.size, made[:, rows].var(axis=1) * rows.size
        parts.append((label, left, most, error, *squares))
    if len(parts) < 2:
        return None
    labels, *columns = zip(*parts, strict=True)
    left, most, error, ours, theirs = map(np.array, columns)
    found, replicates = ours / left, (theirs.T / most)
    of_all, of_each = ours.sum() / left.sum(), theirs.sum(axis=0) / most.sum()
    made_roots = np.cbrt(replicates / np.maximum(of_each, 1e-300)[:, None])
    usual, spread = made_roots.mean(axis=0), np.maximum(made_roots.std(axis=0), 1e-300)
    deviations = (np.cbrt(found / max(of_all, 1e-300)) - usual) / (spread * error)
    of_made = (made_roots - usual) / spread
    # One member that is far off shows in the largest deviation, several that are a little off in
    # their squares.
    largest = share_beyond(np.abs(of_made).max(axis=1), float(np.abs(deviations).max()))
    together = share_beyond((of_made**2).mean(axis=1), float((deviations**2).mean()))
    return _Scales(
        members, dict(zip(labels, np.sqrt(found).tolist(), strict=True)), 2 * min(largest, together)
    )


def _in_own_scales(
    own: np.ndarray, made: np.ndarray, members: Members
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals of each member in units of their own root mean square, of data and of replicates
    alike.
    """
    own, made = own.copy(), made.copy()
    for _, rows in members.rows():
        own[rows] /= max(_root_mean_square(own[None, rows])[0], 1e-300)
        made[:, rows] /= np.maximum(_root_mean_square(made[:, rows]), 1e-300)[:, None]
    return own, made


def _evenness(
    name: str, own: np.ndarray, made: np.ndarray, mean: np.ndarray, looked_at: int, noise: Noise
) -> Iterator[Finding]:
    """Whether residuals are as large where much is predicted as where little is.

    Here both sides say something: noise that grows with the prediction, and noise that is said to
    grow and does not.
    """
    some = thinned(mean.shape[1], _VALUES)
    each = _rank_correlation(np.abs(made[:, some]), np.abs(mean[:, some]))
    value = float(
        _rank_correlation(
            np.abs(own[None, some]), np.abs(mean[:, some].mean(axis=0, keepdims=True))
        )[0]
    )
    often = share_beyond(np.abs(each), abs(value))
    if level := _level(often, looked_at, strong=abs(value) >= _STRONG):
        does, remedy = "grow" if value > 0 else "shrink", uneven(noise, grow=value > 0)
        usual = float(np.median(np.abs(each)))
        told = (
            f"they {does} with what is predicted: rank correlation {value:.2f}, where {usual:.2f} "
            "either way is usual"
        )
        yield model_finding(level, f"evenness of residuals of {name}", told, remedy)


def _level(often: float, looked_at: int, *, strong: bool) -> Level | None:
    """By how often replicates do worse; none if one of all that are looked at does so by chance."""
    worse = often * looked_at
    return None if worse >= DOUBTFUL else "bad" if strong and worse < ABSURD else "warning"


def share_beyond(replicates: np.ndarray, value: float) -> float:
    """How often a statistic reaches a value, by its replicates.

    Beyond all of them their largest tenth says how fast they grow rare, as if exponentially: a
    normal tail is lighter. Of many statistics the most unusual is judged, and no thousand
    replicates would show how rare it is.
    """
    often = float(np.mean(replicates >= value))
    tail = np.quantile(replicates, 1 - _TAIL)
    excess = float(np.mean(replicates[replicates >= tail]) - tail)
    if often or not excess > 0:
        return max(often, 0.1 / replicates.size)
    return float(min(_TAIL * np.exp(-(value - tail) / excess), 1 / replicates.size))


def _root_mean_square(z: np.ndarray) -> np.ndarray:
    return np.sqrt((z**2).mean(axis=1))


def _order(z: np.ndarray) -> np.ndarray:
    """The correlation of neighbours, about zero: residuals that all lie on one side are correlated
    too.
    """
    return (z[:, 1:] * z[:, :-1]).sum(axis=1) / np.maximum((z**2).sum(axis=1), 1e-300)


def _geary_ratio(z: np.ndarray) -> np.ndarray:
    """Geary's ratio, with a minus: 0.80 of normal residuals, less where some are far larger than
    the others.
    """
    return -np.abs(z).mean(axis=1) / np.maximum(_root_mean_square(z), 1e-300)


def _skewness(z: np.ndarray) -> np.ndarray:
    centred = z - z.mean(axis=1, keepdims=True)
    spread = np.maximum(np.sqrt((centred**2).mean(axis=1)), 1e-300)
    return (centred**3).mean(axis=1) / spread**3


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's, of each row with the same row of the other;
    none where one of them does not vary.
    """
    from scipy.stats import rankdata

    one, other = (rankdata(v, axis=1) for v in (one, other))
    one, other = (v - v.mean(axis=1, keepdims=True) for v in (one, other))
    sizes = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return (one * other).sum(axis=1) / np.maximum(sizes, 1e-300)


type _Statistic = tuple[Callable[[np.ndarray], np.ndarray], str, Callable[[Noise, bool], str]]
"""The statistic, its message, and the remedy, which may depend on the side on which data lie."""

_STATISTICS: dict[str, _Statistic] = {
    "size": (
        _root_mean_square,
        "they are {0:.2g} times as large as the noise is said to be, where {1:.2g} are usual",
        lambda noise, above: larger(noise),
    ),
    "order": (
        _order,
        "neighbours have a correlation of {0:.2f}, where {1:.2f} is usual",
        lambda noise, above: ordered(noise),
    ),
    "tails": (
        _geary_ratio,
        "their mean size is {0:.2f} of their root mean square, where {1:.2f} is usual",
        lambda noise, above: heavy_tailed(noise),
    ),
    "symmetry": (
        _skewness,
        "their skewness is {0:.2f}, where {1:.2f} is usual",
        lambda noise, above: skewed(noise, above=above),
    ),
}
NUMBER = (
    len(_STATISTICS) + 1
)  # of statistics that are looked at, for each observable; of a population one more

"""Whether residuals are like those that the model draws itself: in size, order, tails, symmetry and evenness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .._findings import Finding, Level
from .._statistics.convergence import thinned

DOUBTFUL, ABSURD = 0.01, 0.001  # how often a sound model does worse, over all that is looked at
_STRONG = 0.3  # correlation from which a model is said to miss something
_VALUES = 1000  # whose sizes are ranked
_TAIL = 0.1  # of replicates say how fast the rest grow rare


def residual_findings(
    name: str, drawn: np.ndarray, observed: np.ndarray, mean: np.ndarray, sd: np.ndarray, looked_at: int
) -> Iterator[Finding]:
    """What is unusual about the residuals of data `(value,)`, beside those of draws `(draw, value)`.

    `mean` and `sd` are those from which each draw was drawn; `looked_at` is how many statistics are looked at in all.
    """
    own = (observed - mean.mean(axis=0)) / np.sqrt((sd**2).mean(axis=0))
    made = (drawn - mean) / sd
    for subject, (statistic, told, remedy) in _STATISTICS.items():
        value, theirs = float(statistic(own[None])[0]), statistic(made)
        # A fit makes residuals smaller and neighbours alternate, so only the other side says something.
        often = share_beyond(theirs, value)
        if level := _level(often, looked_at, strong=subject != "order" or value >= _STRONG):
            told = told.format(abs(value), abs(float(np.median(theirs))))
            yield Finding(level, f"{subject} of residuals of {name}", told, remedy, aspect="model")
    yield from _evenness(name, own, made, mean, looked_at)


def _evenness(name: str, own: np.ndarray, made: np.ndarray, mean: np.ndarray, looked_at: int) -> Iterator[Finding]:
    """Whether residuals are as large where much is predicted as where little is.

    Here both sides say something: noise that grows with the prediction, and noise that is said to grow and does not.
    """
    some = thinned(mean.shape[1], _VALUES)
    each = _correlation(np.abs(made[:, some]), np.abs(mean[:, some]))
    value = float(_correlation(np.abs(own[None, some]), np.abs(mean[:, some].mean(axis=0, keepdims=True)))[0])
    often = share_beyond(np.abs(each), abs(value))
    if level := _level(often, looked_at, strong=abs(value) >= _STRONG):
        does, remedy = ("grow", _GROWING) if value > 0 else ("shrink", _SHRINKING)
        usual = float(np.median(np.abs(each)))
        told = (
            f"they {does} with what is predicted: rank correlation {value:.2f}, where {usual:.2f} either way is usual"
        )
        yield Finding(level, f"evenness of residuals of {name}", told, remedy, aspect="model")


def _level(often: float, looked_at: int, *, strong: bool) -> Level | None:
    """By how often replicates do worse; none if one of all that are looked at does so by chance."""
    worse = often * looked_at
    return None if worse >= DOUBTFUL else "bad" if strong and worse < ABSURD else "warning"


def share_beyond(replicates: np.ndarray, value: float) -> float:
    """How often a statistic reaches a value, by its replicates.

    Beyond all of them their largest tenth says how fast they grow rare, as if exponentially: a normal tail is lighter.
    Of many statistics the most unusual is judged, and no thousand replicates would show how rare it is.
    """
    often = float(np.mean(replicates >= value))
    tail = np.quantile(replicates, 1 - _TAIL)
    excess = float(np.mean(replicates[replicates >= tail]) - tail)
    if often or not excess > 0:
        return max(often, 0.1 / replicates.size)
    return float(min(_TAIL * np.exp(-(value - tail) / excess), 1 / replicates.size))


def _size(z: np.ndarray) -> np.ndarray:
    return np.sqrt((z**2).mean(axis=1))


def _order(z: np.ndarray) -> np.ndarray:
    """The correlation of neighbours, about zero: residuals that all lie on one side are correlated too."""
    return (z[:, 1:] * z[:, :-1]).sum(axis=1) / np.maximum((z**2).sum(axis=1), 1e-300)


def _tails(z: np.ndarray) -> np.ndarray:
    """Geary's ratio, with a minus: 0.80 of normal residuals, less where some are far larger than the others."""
    return -np.abs(z).mean(axis=1) / np.maximum(_size(z), 1e-300)


def _skewness(z: np.ndarray) -> np.ndarray:
    centred = z - z.mean(axis=1, keepdims=True)
    spread = np.maximum(np.sqrt((centred**2).mean(axis=1)), 1e-300)
    return np.abs((centred**3).mean(axis=1) / spread**3)


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's, of each row with the same row of the other; none where one of them does not vary."""
    from scipy.stats import rankdata

    one, other = (rankdata(v, axis=1) for v in (one, other))
    one, other = (v - v.mean(axis=1, keepdims=True) for v in (one, other))
    sizes = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return (one * other).sum(axis=1) / np.maximum(sizes, 1e-300)


_MISSING = (
    "the model misses something that the data follow: a term, a forcing, or noise that is correlated "
    "(bd.CorrelatedNoise)"
)
_STATISTICS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, str]] = {
    "size": (
        _size,
        "they are {0:.2g} times as large as the noise is said to be, where {1:.2g} are usual",
        "let the scale of the noise be unknown, or look for what the model misses",
    ),
    "order": (_order, "neighbours have a correlation of {0:.2f}, where {1:.2f} is usual", _MISSING),
    "tails": (
        _tails,
        "their mean size is {0:.2f} of their root mean square, where {1:.2f} is usual",
        "some data lie far out: look at them, or take bd.StudentTNoise",
    ),
    "symmetry": (
        _skewness,
        "their skewness is {0:.2f}, where {1:.2f} is usual",
        "some data lie out on one side: look at them, or take a noise that is not symmetric, such as bd.LogNormalNoise",
    ),
}
_GROWING = "take noise that grows with the prediction: bd.LogNormalNoise, or a bd.VaryingScale"
_SHRINKING = "take noise that grows less with the prediction, such as bd.NormalNoise or a bd.VaryingScale"
NUMBER = len(_STATISTICS) + 1  # of statistics that are looked at, for each observable

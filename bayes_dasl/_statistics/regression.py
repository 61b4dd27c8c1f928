"""What some numbers of the draws say of another: least squares on features that a user need not
choose.
"""

import numpy as np
from scipy import linalg
from scipy.special import eval_legendre

DRAWS_PER_FEATURE = 20
_DEGREES = range(3, 13)
_RIDGE = 1e-6


def explained_variance(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    r"""Estimate, from below, $\mathrm{Var}[E(m \mid x)]$ `(time,)` from draws of `x` and `m` (a
    given-data estimator).

    $\bar R^2 \, \mathrm{Var}[m]$, with the adjusted $\bar R^2 = 1 - (1 - R^2)(n - 1)/(n - 1 - p)$,
    clipped to $[0, 1]$, of least squares on every scalar of `x`, standardised, then the squares,
    the pairwise products, and Legendre polynomials of the ranks of each scalar up to degree 12, in
    that order and as many as keep $p \le n / 20$. More scalars than that are replaced by their
    leading principal components.

    It is a lower bound: what these features miss of how `x` determines `m` (products of three
    scalars, weights of a network with sign symmetry, or a network too large for its principal
    components to say what it does) is not in it. The adjustment takes the draws as independent: for
    chains see `explained_elsewhere`.

    Shapes: `features` is `(draw, feature)`, `mean` is `(draw, time)`, both finite; NaN for fewer
    than 20 draws.

    Units: the square of those of `mean`; those of `features` do not matter.

    Source: Plischke, Borgonovo & Smith (2013), Global sensitivity measures from given data.
    """
    return explained_by(basis(features), mean)


def basis(features: np.ndarray) -> np.ndarray | None:
    """An orthonormal basis `(draw, p)` of the features of `explained_variance`; none for too few
    draws.
    """
    draws = len(features)
    return (
        None
        if draws < DRAWS_PER_FEATURE
        else _orthonormal(_design(features, draws // DRAWS_PER_FEATURE))
    )


def explained_by(columns: np.ndarray | None, mean: np.ndarray) -> np.ndarray:
    """`explained_variance` by a `basis`, for many `mean` one after the other."""
    draws = mean.shape[0]
    if columns is None:
        return np.full(mean.shape[1], np.nan)
    centred = mean - mean.mean(axis=0)
    square = (centred**2).sum(axis=0)
    left = square - ((columns.T @ centred) ** 2).sum(axis=0)
    adjusted = square - left * (draws - 1) / (draws - 1 - columns.shape[1])
    return np.clip(adjusted, 0.0, square) / draws


def predicted(columns: np.ndarray, mean: np.ndarray, half: np.ndarray) -> np.ndarray:
    """What a `basis` predicts of `mean`, about its mean, in each half of the draws by a regression
    on the other.

    Where the halves are of different chains it holds nothing of the draws that it predicts, however
    slowly chains mix.

    Shapes: `mean` is `(draw, time)` and so is what is returned, `half` is `(draw,)`.
    """
    centred = mean - mean.mean(axis=0)
    found = np.zeros_like(centred)
    for own in (half, ~half):
        others = columns[~own]
        gram = others.T @ others + _RIDGE * np.eye(columns.shape[1])
        found[own] = columns[own] @ np.linalg.solve(gram, others.T @ centred[~own])
    return found


def explained_elsewhere(
    columns: np.ndarray | None, mean: np.ndarray, half: np.ndarray
) -> np.ndarray:
    """Like `explained_by`, but of draws that a regression has not seen: at least so much, for any
    chains.
    """
    if columns is None:
        return np.full(mean.shape[1], np.nan)
    centred, found = mean - mean.mean(axis=0), predicted(columns, mean, half)
    return np.maximum((2 * found * centred - found**2).mean(axis=0), 0.0)


def linear_features(features: np.ndarray, most: int) -> np.ndarray:
    """Standardised columns, at most so many: principal components where there are more."""
    varying = features[:, np.ptp(features, axis=0) > 0]
    scores = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    return _principal_components(scores, most) if scores.shape[1] > most else scores


def _design(features: np.ndarray, most: int) -> np.ndarray:
    """Centred columns, at most `most`: linear ones, or principal components, then those of higher
    degree.
    """
    scores = linear_features(features, most)
    size = scores.shape[1]
    if size in (0, most):
        return scores
    row, column = np.triu_indices(size, k=1)
    first = np.concatenate([np.arange(size), row])[: most - size]
    second = np.concatenate([np.arange(size), column])[: most - size]
    ranks = _ranks(scores)
    higher = [
        eval_legendre(degree, ranks)
        for degree in _DEGREES[: -(-(most - size - len(first)) // size)]
    ]
    columns = np.concatenate([scores, scores[:, first] * scores[:, second], *higher], axis=1)[
        :, :most
    ]
    return columns - columns.mean(axis=0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """From -1 to 1 in each column; equal numbers share one."""
    columns = [(np.sort(v), v) for v in values.T]
    sides = ("left", "right")
    return np.stack(
        [sum(np.searchsorted(o, v, s) for s in sides) / len(v) - 1 for o, v in columns], axis=1
    )


def _principal_components(scores: np.ndarray, most: int) -> np.ndarray:
    draws, size = scores.shape
    wide = size > draws
    gram = scores @ scores.T if wide else scores.T @ scores
    values, vectors = linalg.eigh(gram, subset_by_index=(len(gram) - most, len(gram) - 1))
    return vectors * np.sqrt(values.clip(min=0)) if wide else scores @ vectors


def _orthonormal(design: np.ndarray) -> np.ndarray:
    """A basis of the columns, fewer where they depend on each other: the square of a two-valued
    leaf is no news.
    """
    if not design.shape[1]:
        return design
    values, vectors = linalg.eigh(design.T @ design)
    some = values > 1e-10 * values[-1]
    return design @ (vectors[:, some] / np.sqrt(values[some]))

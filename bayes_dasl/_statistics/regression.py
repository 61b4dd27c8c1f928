"""Variance that is explained by other quantities: least squares on features of draws."""

import math

import numpy as np
from scipy import linalg
from scipy.special import eval_legendre

DRAWS_PER_FEATURE = 20
# Degrees of the Legendre polynomials that follow the linear and quadratic features.
_DEGREES = range(3, 13)
# Keeps the regression on half of the draws solvable if its columns are linearly dependent.
_RIDGE = 1e-6


def basis(features: np.ndarray) -> np.ndarray | None:
    """Return an orthonormal basis of the features that `explained_by` describes.

    Args:
        features: the quantities $x$ of each draw, `(draw, scalar)`.

    Returns:
        The basis `(draw, p)`; None for too few draws.
    """
    most = len(features) // DRAWS_PER_FEATURE
    return _orthonormal(_design(features, most)) if most else None


def explained_by(columns: np.ndarray | None, mean: np.ndarray) -> np.ndarray:
    r"""Estimate a lower bound of $\mathrm{Var}[E(m \mid x)]$ from draws of $m$ and $x$.

    The estimate is $\bar R^2 \, \mathrm{Var}[m]$ of a least-squares regression on $p$ features in
    $n$ draws. The adjusted $\bar R^2 = 1 - (1 - R^2)(n - 1)/(n - 1 - p)$ is clipped to $[0, 1]$.
    Features are taken in this order, up to $p \le n / 20$:

    1. every scalar of $x$, standardised,
    2. squares and pairwise products of these,
    3. Legendre polynomials of the ranks of each scalar, up to degree 12.

    Principal components replace the scalars if there are more than $n / 20$ of them.

    It is a lower bound, since other dependence is missed: products of three scalars, networks with
    sign symmetry, or networks too large for their principal components. The adjustment assumes
    independent draws; for chains see `explained_elsewhere`.

    Args:
        columns: the `basis` of the draws of $x$, `(draw, p)`; None without a basis.
        mean: the finite draws of $m$, `(draw, time)`.

    Units: the squared units of `mean`. Features of $x$ may be correlated in any way.

    Returns:
        The explained variance `(time,)`; NaN without a basis.

    Source: Plischke, Borgonovo & Smith (2013), Global sensitivity measures from given data.
    """
    draws = mean.shape[0]
    if columns is None:
        return np.full(mean.shape[1], np.nan)
    centred = mean - mean.mean(axis=0)
    square = (centred**2).sum(axis=0)
    # The basis is orthonormal, so that its coefficients are plain products.
    left = square - ((columns.T @ centred) ** 2).sum(axis=0)
    adjusted = square - left * (draws - 1) / (draws - 1 - columns.shape[1])
    return np.clip(adjusted, 0.0, square) / draws


def predicted(columns: np.ndarray, mean: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return cross-validated predictions: each half of the draws by a regression on the other half.

    If the halves are different chains, a prediction is independent of the draws that it predicts,
    however slowly the chains mix.

    Args:
        columns: a basis of features, `(draw, p)`.
        mean: the draws to predict, `(draw, time)`.
        half: flags that divide the draws into halves, `(draw,)`.

    Returns:
        The predictions `(draw, time)`, minus the mean over draws.
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
    """Return a lower bound as `explained_by` does, by cross-validation for correlated chains.

    Args:
        columns: a basis of features, `(draw, p)`; None without a basis.
        mean: the draws to predict, `(draw, time)`.
        half: flags that divide the draws into halves, `(draw,)`; each chain is in one half.

    Returns:
        The explained variance `(time,)`; NaN without a basis.
    """
    if columns is None:
        return np.full(mean.shape[1], np.nan)
    centred = mean - mean.mean(axis=0)
    found = predicted(columns, mean, half)
    # Var[E(m | x)] ≥ 2 Cov(f, m) - E[f²] for any prediction f.
    return np.maximum((2 * found * centred - found**2).mean(axis=0), 0.0)


def linear_features(features: np.ndarray, most: int) -> np.ndarray:
    """Return standardised columns, or leading principal components if there are too many columns.

    Args:
        features: the columns, `(draw, column)`.
        most: the largest number of columns.

    Returns:
        The columns `(draw, column)`; constant ones are dropped.
    """
    varying = features[:, np.ptp(features, axis=0) > 0]
    scores = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    return _principal_components(scores, most) if scores.shape[1] > most else scores


def _design(features: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` centred columns of features, by increasing degree."""
    from scipy.stats import rankdata

    # 1. Linear features, or principal components.
    scores = linear_features(features, most)
    size = scores.shape[1]
    if size in (0, most):
        return scores
    # 2. Squares first, then products of pairs.
    row, column = np.triu_indices(size, k=1)
    first = np.concatenate([np.arange(size), row])[: most - size]
    second = np.concatenate([np.arange(size), column])[: most - size]
    products = scores[:, first] * scores[:, second]
    # 3. Legendre polynomials of ranks in (-1, 1); equal numbers share a rank.
    ranks = (2 * rankdata(scores, axis=0) - 1) / len(scores) - 1
    degrees = math.ceil((most - size - len(first)) / size)
    higher = [eval_legendre(degree, ranks) for degree in _DEGREES[:degrees]]
    columns = np.concatenate([scores, products, *higher], axis=1)[:, :most]
    return columns - columns.mean(axis=0)


def _principal_components(scores: np.ndarray, most: int) -> np.ndarray:
    """Scores of the leading principal components, `(draw, most)`."""
    draws, size = scores.shape
    # The smaller of the two Gram matrices has the same eigenvalues.
    wide = size > draws
    gram = scores @ scores.T if wide else scores.T @ scores
    values, vectors = linalg.eigh(gram, subset_by_index=(len(gram) - most, len(gram) - 1))
    return vectors * np.sqrt(values.clip(min=0)) if wide else scores @ vectors


def _orthonormal(design: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the columns; smaller if columns are linearly dependent."""
    if not design.shape[1]:
        return design
    # For example, the square of a two-valued parameter depends on the parameter linearly.
    values, vectors = linalg.eigh(design.T @ design)
    some = values > 1e-10 * values[-1]
    return design @ (vectors[:, some] / np.sqrt(values[some]))

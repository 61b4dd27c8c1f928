"""Whether residuals hold what a model lacks: the test of the variance of some coefficients, which is 0 in the model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import block_diag, cho_factor, cho_solve

_VARIANCES = np.geomspace(1e-2, 1e6, 33)  # of the coefficients, in units of what data tell of the best known of them
_ROUNDING = 1e-10  # of a sum of squares: what is smaller is what rounding has left of it


class Linear(NamedTuple):
    """Residuals around a reference, in units of their noise, as linear in all that is unknown.

    Args:
        left: the residuals at the reference, `(datum,)`.
        slopes: by how much predictions move with the unknown, `(datum, unknown)`.
        pull: the slope of the log prior there, `(unknown,)`.
        precision: that of the prior, `(unknown, unknown)`.
        noise: residuals of replicates of the data, without what is unknown, `(replicate, datum)`.
        scatter: standard normal numbers of replicates, `(replicate, unknown)`.
    """

    left: Float[np.ndarray, " datum"]
    slopes: Float[np.ndarray, "datum unknown"]
    pull: Float[np.ndarray, " unknown"]
    precision: Float[np.ndarray, "unknown unknown"]
    noise: Float[np.ndarray, "replicate datum"]
    scatter: Float[np.ndarray, "replicate unknown"]


class Gain(NamedTuple):
    """What coefficients of one variance would add to the log evidence, at the variance at which that is most.

    Args:
        gain: that, in nats.
        variance: of the coefficients.
        replicates: the gain of replicates, in which there is nothing to be gained, `(replicate,)`.
        coefficients: their mean given the data, `(coefficient,)`.
    """

    gain: float
    variance: float
    replicates: Float[np.ndarray, " replicate"]
    coefficients: Float[np.ndarray, " coefficient"]


class Tested:
    r"""The test of coefficients that a linear model lacks, by what they would add to its evidence.

    With residuals r at the best unknowns, of covariance $V^{-1} = I - J (J^T J + P)^{-1} J^T$, and slopes K by
    coefficients of variance $\tau^2$, that is

    $\frac12 \sum_i \left( \frac{c_i^2}{s^2} \frac{\tau^2}{1 + \tau^2 \lambda_i} - \log(1 + \tau^2 \lambda_i) \right)$

    with $K^T V^{-1} K = W \Lambda W^T$, $c = W^T K^T r$ and $s^2$ the mean square of the residuals over what it
    ought to be. Of a model that lacks nothing r is a draw with this covariance, so that replicates cost no fit.

    Source: Crainiceanu & Ruppert (2004), Likelihood ratio tests in linear mixed models with one variance component.
    """

    def __init__(self, linear: Linear):
        self.linear = linear
        self._factor = cho_factor(linear.slopes.T @ linear.slopes + linear.precision)
        best = linear.left - linear.slopes @ self._solved(linear.slopes.T @ linear.left + linear.pull)
        pulled = linear.noise @ linear.slopes + linear.scatter @ np.linalg.cholesky(linear.precision).T
        made = linear.noise - self._solved(pulled.T).T @ linear.slopes.T
        free = len(linear.left) - np.sum(self._solved(linear.slopes.T) * linear.slopes.T)
        self._left = np.concatenate([best[None], made])  # of the data, and below them of replicates
        self._sizes = np.sum(self._left**2, axis=1) / max(free, 1.0)

    def _solved(self, right: np.ndarray) -> np.ndarray:
        return cho_solve(self._factor, right)

    def gain(self, along: Float[np.ndarray, "datum coefficient"]) -> Gain:
        """What coefficients would add, by the slopes of predictions along them."""
        slopes = self.linear.slopes
        across = slopes.T @ along
        size = along.T @ along
        told, basis = np.linalg.eigh(size - across.T @ self._solved(across))
        some = told > _ROUNDING * max(np.trace(size), 1e-300)
        told, basis = told[some], basis[:, some]
        if not told.size:
            return Gain(0.0, 0.0, np.zeros(len(self._left) - 1), np.zeros(along.shape[1]))
        squares = (self._left @ along @ basis) ** 2 / self._sizes[:, None]
        variances = _VARIANCES / told.max()
        added = np.stack([
            0.5 * np.sum(squares * (v / (1 + v * told)) - np.log1p(v * told), axis=1) for v in variances
        ])  # fmt: skip
        best = variances[added[:, 0].argmax()]
        gains = np.maximum(added.max(axis=0), 0.0)
        means = basis @ ((basis.T @ (along.T @ self._left[0])) * best / (1 + best * told))
        return Gain(float(gains[0]), float(best), gains[1:], means)

    def with_them(self, along: Float[np.ndarray, "datum coefficient"], variance: float, key: int = 0) -> Tested:
        """The test of the model that has such coefficients too, of a variance."""
        number = along.shape[1]
        linear = self.linear
        more = np.random.default_rng(key).standard_normal((len(linear.scatter), number))
        return Tested(
            linear._replace(
                slopes=np.concatenate([linear.slopes, along], axis=1),
                pull=np.concatenate([linear.pull, np.zeros(number)]),
                precision=block_diag(linear.precision, np.eye(number) / variance),
                scatter=np.concatenate([linear.scatter, more], axis=1),
            )
        )

"""Whether residuals hold what a model lacks: the test of the variance of some coefficients, which
is 0 in the model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import block_diag, cho_factor, cho_solve

WIDER = 10.0
"""Times as wide as they are priors are taken to be: what they cost says nothing of what a model
lacks.
"""
_VARIANCES = np.geomspace(
    1e-2, 1e6, 33
)  # of the coefficients, in units of what data tell of the best known of them
_ROUNDING = 1e-10  # of a sum of squares: what is smaller is what rounding has left of it


class Linear(NamedTuple):
    """Residuals around a reference, in units of their noise, as linear in all that is unknown.

    Args:
        left: the residuals at the reference, `(datum,)`.
        slopes: by how much predictions move with the unknown, `(datum, unknown)`.
        pull: the slope of the log prior there, `(unknown,)`.
        precision: that of the prior, `(unknown, unknown)`.
        noise: residuals of replicates of the data at what they were drawn from,
            `(replicate, datum)`.
    """

    left: Float[np.ndarray, " datum"]
    slopes: Float[np.ndarray, "datum unknown"]
    pull: Float[np.ndarray, " unknown"]
    precision: Float[np.ndarray, "unknown unknown"]
    noise: Float[np.ndarray, "replicate datum"]


class Series(NamedTuple):
    """The order of data in which residuals may be correlated.

    Args:
        before: the datum before each in its series, which stands before it; −1 for the first,
            `(datum,)`.
        steps: how many usual steps lie between the two, at least 1, `(datum,)`.
    """

    before: Int[np.ndarray, " datum"]
    steps: Float[np.ndarray, " datum"]

    def correlation(self, residuals: Float[np.ndarray, "n datum"]) -> Float[np.ndarray, " n"]:
        """That of neighbours, about zero."""
        later = self.before >= 0
        products = (residuals[:, later] * residuals[:, self.before[later]]).sum(axis=1)
        return products / np.maximum((residuals**2).sum(axis=1), 1e-300)

    def whitened(
        self, values: Float[np.ndarray, "datum ..."], rho: float
    ) -> Float[np.ndarray, "datum ..."]:
        r"""Innovations of a first-order autoregression: $(x_i - a_i x_{i-1}) / \sqrt{1 - a_i^2}$.

        The correlation with the datum before is $a_i = \rho^{\text{steps}}$.
        """
        a, left = (v.reshape(-1, *[1] * (values.ndim - 1)) for v in self._shares(rho))
        return (values - a * values[self.before]) / left

    def correlated(
        self, noise: Float[np.ndarray, "n datum"], rho: float
    ) -> Float[np.ndarray, "n datum"]:
        """The autoregression whose white noise is given: the other way round."""
        a, left = self._shares(rho)
        values = noise * left
        for i in np.flatnonzero(a):
            values[:, i] += a[i] * values[:, self.before[i]]
        return values

    def log_volume(self, rho: float) -> float:
        """The logarithm of the determinant of `whitened`."""
        return float(-np.log(self._shares(rho)[1]).sum())

    def _shares(
        self, rho: float
    ) -> tuple[Float[np.ndarray, " datum"], Float[np.ndarray, " datum"]]:
        a = np.where(self.before >= 0, rho**self.steps, 0.0)
        return a, np.sqrt(1 - a**2)


class Gain(NamedTuple):
    """What coefficients of one variance would add to the log evidence, at the variance at which
    that is most.

    Args:
        gain: that, in nats.
        variance: of the coefficients.
        replicates: the gain of replicates, of which nothing is lacking, `(replicate,)`.
        coefficients: their mean given the data, `(coefficient,)`.
    """

    gain: float
    variance: float
    replicates: Float[np.ndarray, " replicate"]
    coefficients: Float[np.ndarray, " coefficient"]


class Lacking:
    r"""The test of coefficients that a linear model lacks, by what they would add to its evidence.

    Of residuals r with slopes J by what is unknown, under a prior of precision P, and slopes K by
    coefficients of variance $\tau^2$, the evidence hangs on $V = I + J P^{-1} J^T$ and
    $V + \tau^2 K K^T$. With the size of the noise at its best, the coefficients add

    $-\frac\nu2 \log \frac{Q_\tau}{Q_0} - \frac12 \sum_i \log(1 + \tau^2 \lambda_i), \quad
    Q_\tau = Q_0 - \sum_i \frac{\tau^2 c_i^2}{1 + \tau^2 \lambda_i}$

    with $Q_0 = r^T V^{-1} r$, $K^T V^{-1} K = W \Lambda W^T$, $c = W^T K^T V^{-1} r$ and
    $\nu = \mathrm{tr}\, V^{-1}$. P is that of a prior `WIDER` than the model's. Replicates cost no
    fit: V is the same, and what they were drawn from leaves next to nothing in residuals under so
        wide a prior.

    Source: Crainiceanu & Ruppert (2004), Likelihood ratio tests in linear mixed models with one
    variance component.
    """

    def __init__(self, linear: Linear):
        self._linear, slopes = linear, linear.slopes
        self._precision = linear.precision / WIDER**2
        self._factor = cho_factor(slopes.T @ slopes + self._precision)
        best = linear.left - slopes @ self._solved(slopes.T @ linear.left + linear.pull / WIDER**2)
        made = linear.noise - self._solved(slopes.T @ linear.noise.T).T @ slopes.T
        self._left = np.concatenate([best[None], made])  # of the data, and below them of replicates
        pulled = self._left @ slopes
        cost = np.sum(pulled * np.linalg.solve(self._precision, pulled.T).T, axis=1)
        self._squares = np.sum(self._left**2, axis=1) + cost
        self._free = max(len(linear.left) - np.sum(self._solved(slopes.T) * slopes.T), 1.0)

    @property
    def left(self) -> Float[np.ndarray, "data datum"]:
        """The residuals of the data and, below them, of replicates."""
        return self._left

    @property
    def log_evidence(self) -> Float[np.ndarray, " data"]:
        """That of the data and, after them, of replicates, up to a constant, with the size of the
        noise at its best.
        """
        volume = np.log(np.diag(self._factor[0])).sum()
        return -0.5 * self._free * np.log(self._squares / self._free) - volume

    def _solved(self, right: np.ndarray) -> np.ndarray:
        return cho_solve(self._factor, right)

    def gain(self, along: Float[np.ndarray, "datum coefficient"]) -> Gain:
        """What coefficients would add, by the slopes of predictions along them."""
        across, size = self._linear.slopes.T @ along, along.T @ along
        told, basis = np.linalg.eigh(size - across.T @ self._solved(across))
        some = told > _ROUNDING * max(np.trace(size), 1e-300)
        told, basis = told[some], basis[:, some]
        if not told.size:
            return Gain(0.0, 0.0, np.zeros(len(self._left) - 1), np.zeros(along.shape[1]))
        found, variances = self._left @ along @ basis, _VARIANCES / told.max()
        taken = np.stack([np.sum(found**2 * (v / (1 + v * told)), axis=1) for v in variances])
        left = np.maximum(self._squares - taken, _ROUNDING * self._squares)
        price = np.array([np.sum(np.log1p(v * told)) for v in variances])
        added = -0.5 * self._free * np.log(left / self._squares) - 0.5 * price[:, None]
        best = int(added[:, 0].argmax())
        gains, ratio = np.maximum(added.max(axis=0), 0.0), variances[best]
        means = basis @ (found[0] * ratio / (1 + ratio * told))
        return Gain(float(gains[0]), float(ratio * left[best, 0] / self._free), gains[1:], means)

    def with_them(self, along: Float[np.ndarray, "datum coefficient"], variance: float) -> Lacking:
        """The test of the model that has such coefficients too."""
        linear, number = self._linear, along.shape[1]
        return Lacking(
            linear._replace(
                slopes=np.concatenate([linear.slopes, along], axis=1),
                pull=np.concatenate([linear.pull, np.zeros(number)]),
                precision=block_diag(linear.precision, np.eye(number) / variance),
            )
        )

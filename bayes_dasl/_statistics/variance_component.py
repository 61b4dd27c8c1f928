"""Likelihood-ratio test of one variance component, which is zero in the fitted model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import block_diag, cho_factor, cho_solve

WIDER = 10.0
"""The test widens all priors by this factor, so that their cost does not look like misfit."""
# Trial variances of the coefficients, in units of the variance of the best determined one.
_VARIANCES = np.geomspace(1e-2, 1e6, 33)
# Parts of a sum of squares below this share are rounding errors.
_ROUNDING = 1e-10


class Linear(NamedTuple):
    """A linearised model: residuals in units of their noise, linear in the parameters.

    Args:
        left: the residuals at the reference point, `(datum,)`.
        slopes: derivatives of the predictions by the parameters, `(datum, unknown)`.
        pull: the gradient of the log prior there, `(unknown,)`.
        precision: the precision matrix of the prior, `(unknown, unknown)`.
        noise: residuals of replicated data at the parameters that generated them,
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
        before: the index of the previous datum of the series, −1 for the first, `(datum,)`.
        steps: the number of usual time steps between the two, at least 1, `(datum,)`.
    """

    before: Int[np.ndarray, " datum"]
    steps: Float[np.ndarray, " datum"]

    def correlation(self, residuals: Float[np.ndarray, "n datum"]) -> Float[np.ndarray, " n"]:
        """The lag-one autocorrelation, about a mean of zero.

        Returns:
            One correlation for each row of residuals.
        """
        later = self.before >= 0
        products = (residuals[:, later] * residuals[:, self.before[later]]).sum(axis=1)
        return products / np.maximum((residuals**2).sum(axis=1), 1e-300)

    def whitened(
        self, values: Float[np.ndarray, "datum ..."], rho: float
    ) -> Float[np.ndarray, "datum ..."]:
        r"""Innovations of a first-order autoregression: $(x_i - a_i x_{i-1}) / \sqrt{1 - a_i^2}$.

        The correlation with the previous datum is $a_i = \rho^{\text{steps}}$.

        Returns:
            The innovations, in the shape of `values`.
        """
        a, left = (v.reshape(-1, *[1] * (values.ndim - 1)) for v in self._shares(rho))
        return (values - a * values[self.before]) / left

    def correlated(
        self, noise: Float[np.ndarray, "n datum"], rho: float
    ) -> Float[np.ndarray, "n datum"]:
        """The first-order autoregression with the given innovations: the inverse of `whitened`.

        Returns:
            Correlated values `(n, datum)`.
        """
        a, left = self._shares(rho)
        values = noise * left
        for i in np.flatnonzero(a):
            values[:, i] += a[i] * values[:, self.before[i]]
        return values

    def log_volume(self, rho: float) -> float:
        """The log determinant of `whitened`, a linear map of the data.

        Returns:
            log |det|.
        """
        return float(-np.log(self._shares(rho)[1]).sum())

    def _shares(
        self, rho: float
    ) -> tuple[Float[np.ndarray, " datum"], Float[np.ndarray, " datum"]]:
        """The coefficients a, and the standard deviations of innovations, √(1 - a²)."""
        a = np.where(self.before >= 0, rho**self.steps, 0.0)
        return a, np.sqrt(1 - a**2)


class Gain(NamedTuple):
    """The gain in log evidence by added coefficients, at their best common variance.

    Args:
        gain: the gain, in nats.
        variance: the best variance of the coefficients.
        replicates: the gains of replicates, drawn without these coefficients, `(replicate,)`.
        coefficients: their posterior mean, `(coefficient,)`.
    """

    gain: float
    variance: float
    replicates: Float[np.ndarray, " replicate"]
    coefficients: Float[np.ndarray, " coefficient"]


class Lacking:
    r"""The test of coefficients that a linear model lacks, by their gain in log evidence.

    Residuals r have slopes J by the parameters, whose prior has precision P. Their slopes by the
    added coefficients, of variance $\tau^2$, are K. The covariance of r is
    $V = I + J P^{-1} J^T$ without the coefficients, and $V + \tau^2 K K^T$ with them. At the best
    noise scale, the coefficients add to the log evidence

    $-\frac\nu2 \log \frac{Q_\tau}{Q_0} - \frac12 \sum_i \log(1 + \tau^2 \lambda_i), \quad
    Q_\tau = Q_0 - \sum_i \frac{\tau^2 c_i^2}{1 + \tau^2 \lambda_i}$

    with $Q_0 = r^T V^{-1} r$, $K^T V^{-1} K = W \Lambda W^T$, $c = W^T K^T V^{-1} r$ and
    $\nu = \mathrm{tr}\, V^{-1}$. P belongs to a prior `WIDER` than the model's. Replicates need no
    fit of their own: V is the same, and under so wide a prior their parameters hardly matter.

    Source: Crainiceanu & Ruppert (2004), Likelihood ratio tests in linear mixed models with one
    variance component.
    """

    def __init__(self, linear: Linear):
        self._linear = linear
        slopes = linear.slopes
        precision = linear.precision / WIDER**2
        # 1. V⁻¹ = I - J (JᵀJ + P)⁻¹ Jᵀ, by the Cholesky factor of JᵀJ + P.
        self._factor = cho_factor(slopes.T @ slopes + precision)
        # 2. Residuals V⁻¹ r of the data, and below them of the replicates.
        best = linear.left - slopes @ self._solved(slopes.T @ linear.left + linear.pull / WIDER**2)
        made = linear.noise - self._solved(slopes.T @ linear.noise.T).T @ slopes.T
        self._left = np.concatenate([best[None], made])
        # 3. Q₀ = rᵀ V⁻¹ r, the squares and the cost under the prior; ν = tr V⁻¹.
        pulled = self._left @ slopes
        cost = np.sum(pulled * np.linalg.solve(precision, pulled.T).T, axis=1)
        self._squares = np.sum(self._left**2, axis=1) + cost
        self._free = max(len(linear.left) - np.sum(self._solved(slopes.T) * slopes.T), 1.0)

    @property
    def left(self) -> Float[np.ndarray, "data datum"]:
        """The residuals of the data and, below them, of the replicates."""
        return self._left

    @property
    def log_evidence(self) -> Float[np.ndarray, " data"]:
        """Log evidence at the best noise scale, up to a constant: data first, then replicates."""
        log_det = np.log(np.diag(self._factor[0])).sum()
        return -0.5 * self._free * np.log(self._squares / self._free) - log_det

    def _solved(self, right: np.ndarray) -> np.ndarray:
        return cho_solve(self._factor, right)

    def gain(self, along: Float[np.ndarray, "datum coefficient"]) -> Gain:
        """The gain by coefficients with slopes K = `along`.

        Returns:
            The gain, the best variance, the gains of replicates, and the mean coefficients.
        """
        # 1. Eigenvalues λ and vectors W of Kᵀ V⁻¹ K, without those that are rounding errors.
        across = self._linear.slopes.T @ along
        size = along.T @ along
        eigenvalues, basis = np.linalg.eigh(size - across.T @ self._solved(across))
        some = eigenvalues > _ROUNDING * max(np.trace(size), 1e-300)
        eigenvalues = eigenvalues[some]
        basis = basis[:, some]
        if not eigenvalues.size:
            return Gain(0.0, 0.0, np.zeros(len(self._left) - 1), np.zeros(along.shape[1]))
        # 2. c = Wᵀ Kᵀ V⁻¹ r, and Q for each trial variance.
        found = self._left @ along @ basis
        variances = _VARIANCES / eigenvalues.max()
        shrunk = [v / (1 + v * eigenvalues) for v in variances]
        taken = [np.sum(found**2 * share, axis=1) for share in shrunk]
        left = np.maximum(self._squares - np.stack(taken), _ROUNDING * self._squares)
        # 3. The gain, less the log determinant that the variance costs.
        price = np.array([np.sum(np.log1p(v * eigenvalues)) for v in variances])
        added = -0.5 * self._free * np.log(left / self._squares) - 0.5 * price[:, None]
        # 4. The variance that is best for the data; each replicate has its own best.
        best = int(added[:, 0].argmax())
        gains = np.maximum(added.max(axis=0), 0.0)
        ratio = variances[best]
        means = basis @ (found[0] * ratio / (1 + ratio * eigenvalues))
        return Gain(float(gains[0]), float(ratio * left[best, 0] / self._free), gains[1:], means)

    def with_them(self, along: Float[np.ndarray, "datum coefficient"], variance: float) -> Lacking:
        """The test of the model that has these coefficients, too.

        Returns:
            A test of further coefficients.
        """
        linear = self._linear
        number = along.shape[1]
        wider = linear._replace(
            slopes=np.concatenate([linear.slopes, along], axis=1),
            pull=np.concatenate([linear.pull, np.zeros(number)]),
            precision=block_diag(linear.precision, np.eye(number) / variance),
        )
        return Lacking(wider)

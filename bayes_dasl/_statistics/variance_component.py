"""Likelihood-ratio test of one variance component, which is zero in the fitted model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import block_diag, cho_factor, cho_solve

WIDER = 10.0
"""The test widens all priors by this factor, so that a prior's pull does not look like misfit."""
# Trial variances of the coefficients, in units of the variance of the best determined one.
_VARIANCES = np.geomspace(1e-2, 1e6, 33)
# Parts of a sum of squares below this share are rounding errors.
_ROUNDING = 1e-10


class Linear(NamedTuple):
    """A model that is linearised at a reference point, with residuals in units of their noise.

    Args:
        left: the residuals at the reference point, `(datum,)`.
        slopes: derivatives of the predictions by the parameters, `(datum, unknown)`.
        pull: the gradient of the log prior at the reference point, `(unknown,)`.
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
        before: the index of the previous datum of the same series, −1 for the first, `(datum,)`.
        steps: the time since the previous datum in usual time steps, at least 1, `(datum,)`.
    """

    before: Int[np.ndarray, " datum"]
    steps: Float[np.ndarray, " datum"]

    def correlation(self, residuals: Float[np.ndarray, "n datum"]) -> Float[np.ndarray, " n"]:
        """Return the lag-one autocorrelation of residuals, about a mean of zero.

        Args:
            residuals: rows of residuals, `(n, datum)`.

        Returns:
            One correlation for each row of residuals.
        """
        later = self.before >= 0
        products = (residuals[:, later] * residuals[:, self.before[later]]).sum(axis=1)
        return products / np.maximum((residuals**2).sum(axis=1), 1e-300)

    def whitened(
        self, values: Float[np.ndarray, "datum ..."], rho: float
    ) -> Float[np.ndarray, "datum ..."]:
        r"""Return the innovations of a first-order autoregression.

        They are $(x_i - a_i x_{i-1}) / \sqrt{1 - a_i^2}$ for values $x_i$, where $x_{i-1}$ is the
        previous value of the series. The correlation of the two values is $a_i =
        \rho^{\text{steps}}$.

        Args:
            values: the values, `(datum, …)`.
            rho: the correlation ρ over one usual time step.

        Returns:
            The innovations, in the shape of `values`.
        """
        a, left = (v.reshape(-1, *[1] * (values.ndim - 1)) for v in self._shares(rho))
        return (values - a * values[self.before]) / left

    def correlated(
        self, noise: Float[np.ndarray, "n datum"], rho: float
    ) -> Float[np.ndarray, "n datum"]:
        """Return the first-order autoregression with given innovations: the inverse of `whitened`.

        Args:
            noise: rows of innovations, `(n, datum)`.
            rho: the correlation over one usual time step.

        Returns:
            Correlated values `(n, datum)`.
        """
        a, left = self._shares(rho)
        values = noise * left
        for i in np.flatnonzero(a):
            values[:, i] += a[i] * values[:, self.before[i]]
        return values

    def log_volume(self, rho: float) -> float:
        """Return the log determinant of `whitened`, which is a linear map of the data.

        Returns:
            log |det|.
        """
        return float(-np.log(self._shares(rho)[1]).sum())

    def _shares(
        self, rho: float
    ) -> tuple[Float[np.ndarray, " datum"], Float[np.ndarray, " datum"]]:
        """Return the coefficients a, and the standard deviations √(1 - a²) of innovations."""
        a = np.where(self.before >= 0, rho**self.steps, 0.0)
        return a, np.sqrt(1 - a**2)


class Gain(NamedTuple):
    """The gain in log evidence by added coefficients, at their best common variance.

    Args:
        gain: the gain, in nats.
        variance: the best variance of the coefficients.
        replicates: the gains of replicates, which are simulated without these coefficients,
            `(replicate,)`.
        coefficients: the posterior mean of the coefficients, `(coefficient,)`.
    """

    gain: float
    variance: float
    replicates: Float[np.ndarray, " replicate"]
    coefficients: Float[np.ndarray, " coefficient"]


class Lacking:
    r"""The test whether a linear model lacks coefficients, by their gain in log evidence.

    Residuals r have the slopes J by the parameters, whose prior has precision P. They have the
    slopes K by the added coefficients, which have variance $\tau^2$. The covariance of r is $V = I
    + J P^{-1} J^T$ without the coefficients, and $V + \tau^2 K K^T$ with them. At the best noise
    scale, the coefficients add to the log evidence

    $-\frac\nu2 \log \frac{Q_\tau}{Q_0} - \frac12 \sum_i \log(1 + \tau^2 \lambda_i), \quad
    Q_\tau = Q_0 - \sum_i \frac{\tau^2 c_i^2}{1 + \tau^2 \lambda_i}$

    with $Q_0 = r^T V^{-1} r$, $K^T V^{-1} K = W \Lambda W^T$, $c = W^T K^T V^{-1} r$ and
    $\nu = \mathrm{tr}\, V^{-1}$. P belongs to a prior that is wider than the model's by the factor
    `WIDER`. Replicates need no fit of their own: V is the same, and under so wide a prior their
    parameters hardly matter.

    Args:
        linear: the linear model.

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
        """The residuals at the best parameters: first of the data, then of replicates."""
        return self._left

    @property
    def log_evidence(self) -> Float[np.ndarray, " data"]:
        """Log evidence at the best noise scale, up to a constant; data first, then replicates."""
        log_det = np.log(np.diag(self._factor[0])).sum()
        return -0.5 * self._free * np.log(self._squares / self._free) - log_det

    def _solved(self, right: np.ndarray) -> np.ndarray:
        """Return (JᵀJ + P)⁻¹ times the columns of a matrix."""
        return cho_solve(self._factor, right)

    def gain(self, along: Float[np.ndarray, "datum coefficient"]) -> Gain:
        """Return the gain by coefficients with the slopes `along`, K in the formula.

        Args:
            along: the slopes of the data by the coefficients.

        Returns:
            The gain, the best variance, the gains of replicates, and the mean coefficients.
        """
        # 1. Eigenvalues λ and eigenvectors W of Kᵀ V⁻¹ K, without eigenvalues that are rounding
        #    errors.
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
        # 3. The gain, minus the log determinant.
        price = np.array([np.sum(np.log1p(v * eigenvalues)) for v in variances])
        added = -0.5 * self._free * np.log(left / self._squares) - 0.5 * price[:, None]
        # 4. The variance that is best for the data; each replicate has its own best.
        best = int(added[:, 0].argmax())
        gains = np.maximum(added.max(axis=0), 0.0)
        ratio = variances[best]
        means = basis @ (found[0] * ratio / (1 + ratio * eigenvalues))
        return Gain(float(gains[0]), float(ratio * left[best, 0] / self._free), gains[1:], means)

    def with_them(self, along: Float[np.ndarray, "datum coefficient"], variance: float) -> Lacking:
        """Return the test of the model to which these coefficients were added.

        Args:
            along: the slopes of the data by the coefficients.
            variance: the variance of the coefficients.

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

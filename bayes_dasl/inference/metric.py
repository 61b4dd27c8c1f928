"""Metrics of NUTS: linear maps that whiten the posterior, from draws and gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from .._jax.lazily import lazily

metric_estimators = lazily("blackjax.adaptation.metric_estimators")

DENSE_UP_TO = 64
# The states at the shooting points of a chaotic system are correlated in more directions than a low
# rank can describe. Their posterior is nearly normal, so that a few draws suffice for a covariance.
DENSE_OF_SCIENCE = 128
RANK = 20

# Weight of the present metric in a fit: this number of draws, plus a tenth of the dimension.
_SHRINKAGE = 3.0
# No direction is wider than ten at a mode.
_LEAST_PRECISION = 1e-2


class Metric(eqx.Module):
    r"""A linear map $x = A z$ to whitened parameters $z$, for the mass matrix of NUTS.

    The matrix $A$ is dense for one block of parameters and low-rank for the rest. On the block it
    is a Cholesky factor. On the rest
    $A = \mathrm{diag}(\sigma)\,(I + U\,\mathrm{diag}(s - 1)\,U^T)$. NUTS with a unit metric in $z$
    is NUTS in $x$ with the inverse mass matrix $A A^T$.

    Args:
        block: indices of the parameters in the dense block.
        rest: indices of all other parameters.
        factor: the Cholesky factor on the block.
        scale: $\sigma$.
        vectors: $U$, whose columns are orthonormal.
        stretch: $s$, the scale factor along each column of $U$.

    Source: Seyboldt, Carlson & Carpenter (2026), arXiv:2603.18845.
    """

    block: tuple[int, ...] = eqx.field(static=True)
    rest: tuple[int, ...] = eqx.field(static=True)
    factor: Float[Array, "block block"]
    scale: Float[Array, " rest"]
    vectors: Float[Array, "rest rank"]
    stretch: Float[Array, " rank"]

    def position(self, z: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the parameters x = A z for whitened parameters z."""
        inner = self._stretched(z[len(self.block) :], self.stretch)
        return self._join(self.factor @ z[: len(self.block)], self.scale * inner)

    def whitened(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the whitened parameters z = A⁻¹ x."""
        block, rest = self._parts(x)
        inner = self._stretched(rest / self.scale, 1 / self.stretch)
        return jnp.concatenate([solve_triangular(self.factor, block, lower=True), inner])

    def gradient(self, whitened: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the gradient by x, A⁻ᵀ g, given the gradient g by z."""
        size = len(self.block)
        inner = self._stretched(whitened[size:], 1 / self.stretch) / self.scale
        return self._join(
            solve_triangular(self.factor, whitened[:size], lower=True, trans=1), inner
        )

    def whitened_gradient(self, gradient: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the gradient by z, Aᵀ g, given the gradient g by x."""
        block, rest = self._parts(gradient)
        inner = self._stretched(rest * self.scale, self.stretch)
        return jnp.concatenate([self.factor.T @ block, inner])

    def _stretched(self, inner: Array, stretch: Array) -> Array:
        """Return (I + U diag(s − 1) Uᵀ) v for a vector v over the rest.

        Args:
            inner: v.
            stretch: s.
        """
        return inner + self.vectors @ ((stretch - 1) * (self.vectors.T @ inner))

    def _parts(self, x: Array) -> tuple[Array, Array]:
        """Split a vector into its elements in the block and its elements in the rest."""
        # Without a rest no gather is needed.
        if not self.rest:
            return x, x[:0]
        return x[np.asarray(self.block, int)], x[np.asarray(self.rest)]

    def _join(self, block: Array, rest: Array) -> Array:
        """Return the vector whose elements in the block and in the rest are given."""
        if not self.rest:
            return block
        order = np.argsort(np.asarray(self.block + self.rest))
        return jnp.concatenate([block, rest])[order]

    def differs_from(self, other: "Metric") -> float:
        """Return the largest factor between the variances of two metrics along any direction.

        It is at least 1, and 1 for equal metrics.
        """
        basis = np.eye(len(self.block) + len(self.rest))
        relative = np.asarray(_relative(self, other, basis))
        ratios = np.linalg.svd(relative, compute_uv=False) ** 2
        return float(max(ratios.max(), 1 / ratios.min()))


@jax.jit
def _relative(metric: Metric, other: Metric, basis: Array) -> Array:
    """Return (B⁻¹ A)ᵀ for metrics x = A z and x = B z.

    Args:
        metric: the metric with A.
        other: the metric with B.
        basis: the identity matrix.
    """
    return jax.vmap(lambda e: other.whitened(metric.position(e)))(basis)


def refine(
    metric: Metric,
    positions: Float[np.ndarray, "chain draw dimension"],
    gradients: Float[np.ndarray, "chain draw dimension"],
) -> Metric:
    """Return the metric that minimises the Fisher divergence on draws of the warm-up.

    Only the variance within chains counts. The metric of the dense block is shrunk towards the
    present one, which matters while draws are few.

    Args:
        metric: the present metric.
        positions: the draws.
        gradients: gradients of the log density at the draws.
    """
    x, g = (_centred_by_chain(a) for a in (positions, gradients))
    block = list(metric.block)
    rest = list(metric.rest)
    factor = metric.factor
    if block:
        factor = _fisher(np.asarray(factor), x[:, block], g[:, block])
    fitted = metric.scale, metric.vectors, metric.stretch
    if rest:
        low = metric_estimators.fisher_score_low_rank(
            jnp.asarray(x[:, rest]), jnp.asarray(g[:, rest]), metric.stretch.size
        )
        fitted = low.sigma, low.U, jnp.sqrt(low.lam)
    return Metric(metric.block, metric.rest, jnp.asarray(factor), *fitted)


def _fisher(factor: np.ndarray, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the Cholesky factor of the geometric mean of Cov(x) and Cov(g)⁻¹.

    Args:
        factor: the present Cholesky factor, towards which the estimate is shrunk.
        x: draws minus their means, `(draw, dimension)`.
        g: gradients at the draws minus their means, `(draw, dimension)`.
    """
    # 1. In coordinates whitened by the present factor L: z = L⁻¹ x, and gradients Lᵀ g.
    z = np.linalg.solve(factor, x.T).T
    whitened_g = g @ factor
    # 2. Covariances X of z and G of gradients, shrunk to the identity: (Σ v vᵀ + k I) / (n + k).
    weight = _SHRINKAGE + 0.1 * z.shape[1]
    unit = np.eye(z.shape[1])
    spread, slopes = ((a.T @ a + weight * unit) / (len(a) + weight) for a in (z, whitened_g))
    # 3. Geometric mean M of X and G⁻¹: G^−½ (G^½ X G^½)^½ G^−½.
    root = _matrix_power(slopes, 0.5)
    inverse_root = _matrix_power(slopes, -0.5)
    mean = inverse_root @ _matrix_power(root @ spread @ root, 0.5) @ inverse_root
    # 4. In the original coordinates the factor is L times a triangular root of M.
    return factor @ lower_factor(_matrix_power(mean, 0.5))


def lower_factor(root: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "d d"]:
    """Return the Cholesky factor of R Rᵀ for a matrix R.

    The QR decomposition of Rᵀ avoids R Rᵀ, whose condition number is the square of that of R.
    """
    lower = np.linalg.qr(root.T, mode="r").T
    return lower * np.where(np.diag(lower) < 0, -1.0, 1.0)


def _matrix_power(matrix: np.ndarray, power: float) -> np.ndarray:
    """Return a power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-12) ** power) @ vectors.T


def _centred_by_chain(values: np.ndarray) -> np.ndarray:
    """Return the draws of all chains as rows, minus the mean of their chain.

    Args:
        values: `(chain, draw, dimension)`.
    """
    return (values - values.mean(axis=1, keepdims=True)).reshape(-1, values.shape[-1])


def root_of_inverse(precision: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Return a matrix R such that R Rᵀ is the inverse of a precision matrix.

    Eigenvalues are replaced by their absolute values, and by 0.01 if they are smaller. So no
    standard deviation is above ten.
    """
    values, vectors = np.linalg.eigh(precision)
    return vectors / np.sqrt(np.maximum(np.abs(values), _LEAST_PRECISION))


def log_volume(precision: Float[np.ndarray, "d d"]) -> float:
    """Return half the log determinant of the covariance, the inverse of a precision matrix.

    Eigenvalues are bounded as in `root_of_inverse`.
    """
    values = np.linalg.eigvalsh(precision)
    return -0.5 * float(np.sum(np.log(np.maximum(np.abs(values), _LEAST_PRECISION))))

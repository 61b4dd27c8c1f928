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
# States at the knots of a chaotic system are correlated in more directions than a low rank has.
# Their posterior is nearly normal, so that a few draws suffice for a covariance.
DENSE_OF_SCIENCE = 128
RANK = 20

# The present metric counts as so many draws, plus a tenth per dimension.
_SHRINKAGE = 3.0
# No direction is wider than ten at a mode.
_LEAST_PRECISION = 1e-2


class Metric(eqx.Module):
    r"""Whitened coordinates $z$ with $x = A z$, dense for one block and low-rank for the rest.

    On the block $A$ is a Cholesky factor. On the rest
    $A = \mathrm{diag}(\sigma)\,(I + U\,\mathrm{diag}(s - 1)\,U^T)$. NUTS with a unit metric in $z$
    is NUTS in $x$ with the inverse mass matrix $A A^T$.

    Source: Seyboldt, Carlson & Carpenter (2026), arXiv:2603.18845.
    """

    block: tuple[int, ...] = eqx.field(static=True)
    rest: tuple[int, ...] = eqx.field(static=True)
    factor: Float[Array, "block block"]
    scale: Float[Array, " rest"]
    vectors: Float[Array, "rest rank"]
    stretch: Float[Array, " rank"]

    def position(self, z: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return x = A z."""
        inner = self._stretched(z[len(self.block) :], self.stretch)
        return self._join(self.factor @ z[: len(self.block)], self.scale * inner)

    def whitened(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z = A⁻¹ x."""
        block, rest = self._parts(x)
        inner = self._stretched(rest / self.scale, 1 / self.stretch)
        return jnp.concatenate([solve_triangular(self.factor, block, lower=True), inner])

    def gradient(self, whitened: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the gradient by x, A⁻ᵀ g, from the gradient g by z."""
        size = len(self.block)
        inner = self._stretched(whitened[size:], 1 / self.stretch) / self.scale
        return self._join(
            solve_triangular(self.factor, whitened[:size], lower=True, trans=1), inner
        )

    def whitened_gradient(self, gradient: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the gradient by z, Aᵀ g, from the gradient g by x."""
        block, rest = self._parts(gradient)
        inner = self._stretched(rest * self.scale, self.stretch)
        return jnp.concatenate([self.factor.T @ block, inner])

    def _stretched(self, inner: Array, stretch: Array) -> Array:
        """Return (I + U diag(s − 1) Uᵀ) v."""
        return inner + self.vectors @ ((stretch - 1) * (self.vectors.T @ inner))

    def _parts(self, x: Array) -> tuple[Array, Array]:
        """Return the block and the rest of a vector."""
        # Without a rest no gather is needed.
        if not self.rest:
            return x, x[:0]
        return x[np.asarray(self.block, int)], x[np.asarray(self.rest)]

    def _join(self, block: Array, rest: Array) -> Array:
        """Return the vector with this block and rest."""
        if not self.rest:
            return block
        order = np.argsort(np.asarray(self.block + self.rest))
        return jnp.concatenate([block, rest])[order]

    def differs_from(self, other: "Metric") -> float:
        """Return the largest ratio of the two metrics' variances in any direction, 1 if equal."""
        basis = np.eye(len(self.block) + len(self.rest))
        relative = np.asarray(_relative(self, other, basis))
        ratios = np.linalg.svd(relative, compute_uv=False) ** 2
        return float(max(ratios.max(), 1 / ratios.min()))


@jax.jit
def _relative(metric: Metric, other: Metric, basis: Array) -> Array:
    """Return the rows of (B⁻¹ A)ᵀ, for metrics A and B."""
    return jax.vmap(lambda e: other.whitened(metric.position(e)))(basis)


def refine(
    metric: Metric,
    positions: Float[np.ndarray, "chain draw dimension"],
    gradients: Float[np.ndarray, "chain draw dimension"],
) -> Metric:
    """Return the metric that minimises the Fisher divergence on draws of the warm-up.

    Only the variance within chains counts. The block's metric is shrunk towards the present one,
    which matters while draws are few.
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
    """Return the Cholesky factor of the geometric mean of Cov(x) and Cov(g)⁻¹."""
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
    # 4. Back: L times a triangular root of M.
    return factor @ lower_factor(_matrix_power(mean, 0.5))


def lower_factor(root: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "d d"]:
    """Return the Cholesky factor of R Rᵀ from R, without the squared condition of R Rᵀ."""
    lower = np.linalg.qr(root.T, mode="r").T
    return lower * np.where(np.diag(lower) < 0, -1.0, 1.0)


def _matrix_power(matrix: np.ndarray, power: float) -> np.ndarray:
    """Return a power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-12) ** power) @ vectors.T


def _centred_by_chain(values: np.ndarray) -> np.ndarray:
    """Return rows of all chains, minus the mean of their chain."""
    return (values - values.mean(axis=1, keepdims=True)).reshape(-1, values.shape[-1])


def root_of_inverse(precision: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Return a root R of the covariance R Rᵀ at a mode; no direction is wider than ten."""
    values, vectors = np.linalg.eigh(precision)
    return vectors / np.sqrt(np.maximum(np.abs(values), _LEAST_PRECISION))


def log_volume(precision: Float[np.ndarray, "d d"]) -> float:
    """Return half the log determinant of the covariance at a mode."""
    values = np.linalg.eigvalsh(precision)
    return -0.5 * float(np.sum(np.log(np.maximum(np.abs(values), _LEAST_PRECISION))))

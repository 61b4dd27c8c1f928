"""A linear map to coordinates in which the posterior is nearly a unit normal, estimated from draws
and gradients.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from .._jax.lazily import lazily

metric_estimators = lazily("blackjax.adaptation.metric_estimators")

DENSE_UP_TO = 64
# States at the knots of a chaotic system are correlated in more directions than a low rank has;
# their posterior is close to a normal, so that few draws give its covariance.
DENSE_OF_SCIENCE = 128
RANK = 20

# So many draws, and a tenth for each dimension, is the metric so far worth.
_SHRINKAGE = 3.0
_LEAST_PRECISION = 1e-2


class Metric(eqx.Module):
    r"""Whitened coordinates $z$ with $x = A z$: dense for a block of coordinates, low-rank for the
    rest.

    $A = \mathrm{diag}(\sigma)\,(I + U\,\mathrm{diag}(s - 1)\,U^T)$ on the rest, a Cholesky factor
    on the block. NUTS with a unit metric in $z$ is NUTS in $x$ with the inverse mass matrix
    $A A^T$.

    Source: Seyboldt, Carlson & Carpenter (2026), arXiv:2603.18845.
    """

    block: tuple[int, ...] = eqx.field(static=True)
    rest: tuple[int, ...] = eqx.field(static=True)
    factor: Float[Array, "block block"]
    scale: Float[Array, " rest"]
    vectors: Float[Array, "rest rank"]
    stretch: Float[Array, " rank"]

    def position(self, z: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The position of whitened coordinates."""
        inner = self._stretched(z[len(self.block) :], self.stretch)
        return self._join(self.factor @ z[: len(self.block)], self.scale * inner)

    def whitened(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The whitened coordinates of a position."""
        block, rest = self._parts(x)
        inner = self._stretched(rest / self.scale, 1 / self.stretch)
        return jnp.concatenate([solve_triangular(self.factor, block, lower=True), inner])

    def gradient(self, whitened: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The gradient by position, from the gradient by whitened coordinates."""
        size = len(self.block)
        inner = self._stretched(whitened[size:], 1 / self.stretch) / self.scale
        return self._join(
            solve_triangular(self.factor, whitened[:size], lower=True, trans=1), inner
        )

    def whitened_gradient(self, gradient: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The gradient by whitened coordinates, from the gradient by position."""
        block, rest = self._parts(gradient)
        return jnp.concatenate(
            [self.factor.T @ block, self._stretched(rest * self.scale, self.stretch)]
        )

    def _stretched(self, inner: Array, stretch: Array) -> Array:
        return inner + self.vectors @ ((stretch - 1) * (self.vectors.T @ inner))

    def _parts(self, x: Array) -> tuple[Array, Array]:
        if not self.rest:
            return x, x[:0]
        return x[np.asarray(self.block, int)], x[np.asarray(self.rest)]

    def _join(self, block: Array, rest: Array) -> Array:
        if not self.rest:
            return block
        order = np.argsort(np.asarray(self.block + self.rest))
        return jnp.concatenate([block, rest])[order]

    def differs_from(self, other: "Metric") -> float:
        """The largest ratio of variances that the two suppose, over all directions; 1 if they are
        the same.
        """
        basis = np.eye(len(self.block) + len(self.rest))
        relative = np.asarray(_relative(self, other, basis))
        ratios = np.linalg.svd(relative, compute_uv=False) ** 2
        return float(max(ratios.max(), 1 / ratios.min()))


@jax.jit
def _relative(metric: Metric, other: Metric, basis: Array) -> Array:
    return jax.vmap(lambda e: other.whitened(metric.position(e)))(basis)


def refine(
    metric: Metric,
    positions: Float[np.ndarray, "chain draw dimension"],
    gradients: Float[np.ndarray, "chain draw dimension"],
) -> Metric:
    """The metric that minimises the Fisher divergence on draws of the warm-up, spread within chains
    only.

    The block's is shrunk towards the metric so far, which matters while draws are few.
    """
    x, g = (_within(a) for a in (positions, gradients))
    block, rest = list(metric.block), list(metric.rest)
    factor = (
        _fisher(np.asarray(metric.factor), x[:, block], g[:, block]) if block else metric.factor
    )
    fitted = metric.scale, metric.vectors, metric.stretch
    if rest:
        low = metric_estimators.fisher_score_low_rank(
            jnp.asarray(x[:, rest]), jnp.asarray(g[:, rest]), metric.stretch.size
        )
        fitted = low.sigma, low.U, jnp.sqrt(low.lam)
    return Metric(metric.block, metric.rest, jnp.asarray(factor), *fitted)


def _fisher(factor: np.ndarray, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Cholesky factor of the geometric mean of the covariance of draws and the inverse covariance
    of gradients.
    """
    z, whitened_g = np.linalg.solve(factor, x.T).T, g @ factor
    weight, unit = _SHRINKAGE + 0.1 * z.shape[1], np.eye(z.shape[1])
    spread, slopes = ((a.T @ a + weight * unit) / (len(a) + weight) for a in (z, whitened_g))
    root, inverse_root = _power(slopes, 0.5), _power(slopes, -0.5)
    mean = inverse_root @ _power(root @ spread @ root, 0.5) @ inverse_root
    return factor @ lower_factor(_power(mean, 0.5))


def lower_factor(root: Float[np.ndarray, "d n"]) -> Float[np.ndarray, "d d"]:
    """The Cholesky factor of R Rᵀ from the root R;
    unlike R Rᵀ itself it may be of any condition.
    """
    lower = np.linalg.qr(root.T, mode="r").T
    return lower * np.where(np.diag(lower) < 0, -1.0, 1.0)


def _power(matrix: np.ndarray, power: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-12) ** power) @ vectors.T


def _within(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=1, keepdims=True)).reshape(-1, values.shape[-1])


def root_of_inverse(precision: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """A root R of the covariance R Rᵀ at a mode; no direction is taken to be wider than a standard
    deviation of ten.
    """
    values, vectors = np.linalg.eigh(precision)
    return vectors / np.sqrt(np.maximum(np.abs(values), _LEAST_PRECISION))


def log_volume(precision: Float[np.ndarray, "d d"]) -> float:
    """Half the log determinant of the covariance at a mode."""
    values = np.linalg.eigvalsh(precision)
    return -0.5 * float(np.sum(np.log(np.maximum(np.abs(values), _LEAST_PRECISION))))

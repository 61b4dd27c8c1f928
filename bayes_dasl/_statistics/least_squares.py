"""Linear least squares for a matrix whose columns may be linearly dependent."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Dependent columns have many solutions: ridge regularisation selects a small and stable one.
_RIDGE = 1e-10


def least_squares(
    matrix: Float[Array, "row k"], target: Float[Array, " row"]
) -> Float[Array, " k"]:
    """Solve least squares by ridge-regularised normal equations.

    Args:
        matrix: the matrix.
        target: the right-hand side.

    Returns:
        The coefficient of each column; 0 for a column of zeros.
    """
    norms = jnp.sqrt(jnp.sum(matrix**2, axis=0))
    scaled = matrix / jnp.where(norms > 0, norms, 1.0)
    gram = scaled.T @ scaled + _RIDGE * jnp.eye(matrix.shape[1])
    return jnp.linalg.solve(gram, scaled.T @ target) / jnp.where(norms > 0, norms, 1.0)

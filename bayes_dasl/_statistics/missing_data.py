"""Log density of data with gaps: the masked likelihood that all inference and prediction share."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def seen_and_filled(
    values: Float[Array, "time ..."],
) -> tuple[Bool[Array, "time ..."], Float[Array, "time ..."]]:
    """Whether each datum was observed, and the data with 1 in place of NaN.

    Returns:
        Both in the shape of the data.
    """
    # A gradient passes through both branches of `where`, so NaN must not reach a log density.
    # The support of every noise holds 1.
    seen = ~jnp.isnan(values)
    return seen, jnp.where(seen, values, 1.0)


def masked_log_prob(law: Any, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
    """Log density of each datum under a distribution; 0 where the datum is missing (NaN).

    Returns:
        The log densities, in the shape of the data.
    """
    seen, filled = seen_and_filled(values)
    return jnp.where(seen, law.log_prob(filled), 0.0)

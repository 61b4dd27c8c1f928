"""Random keys: a whole number is enough, and results say which one made them."""

import jax
import numpy as np
from jaxtyping import Array

from ..errors import ModelError


def as_key(key: int | Array) -> Array:
    """A JAX key from a whole number or a key.

    Raises: ModelError for anything else.
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return key
    raise ModelError(f"key must be a whole number or a jax.random.key, not {key!r}")


def printable(key: int | Array) -> int | str:
    """The key in a form that an attribute of a file can hold."""
    return int(key) if isinstance(key, (int, np.integer)) else str(jax.random.key_data(key).tolist())

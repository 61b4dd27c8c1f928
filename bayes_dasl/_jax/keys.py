"""Random keys: a whole number is enough, and results say which one made them."""

import hashlib
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import ModelError

_BITS_OF_A_FILE = 64  # of a whole number in an attribute


def as_key(key: int | Array) -> Array:
    """A JAX key from a whole number of any size, a key, or a raw key such as `jax.random.PRNGKey`
    makes.

    Raises:
        ModelError: for anything else.
    """
    number = _whole(key)
    if number is not None:
        bits = 64 if jax.config.jax_enable_x64 else 32  # pyright: ignore
        return jax.random.key(number if _fits(number, bits) else _digest(number, bits))
    if (
        isinstance(key, jax.Array)
        and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
        and key.ndim == 0
    ):
        return key
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim == 1:
        try:
            return jax.random.wrap_key_data(jnp.asarray(key))
        except (TypeError, ValueError):  # of another length than the keys of JAX have
            pass
    raise ModelError(f"key must be a whole number or a jax.random.key, not {key!r}")


def whole_number(key: object) -> int:
    """A key that is a whole number, as Python's.

    Raises:
        ModelError: for anything else.
    """
    number = _whole(key)
    if number is None:
        raise ModelError(f"key must be a whole number here, not {key!r}")
    return number


def printable(key: int | Array) -> int | str:
    """The key in a form that an attribute of a file can hold."""
    number = _whole(key)
    if number is not None:
        return number if _fits(number, _BITS_OF_A_FILE) else str(number)
    return str(jax.random.key_data(as_key(key)).tolist())


def _whole(key: object) -> int | None:
    try:
        return None if isinstance(key, (bool, np.bool_)) else operator.index(key)  # pyright: ignore
    except TypeError:
        return None


def _fits(number: int, bits: int) -> bool:
    return -(2 ** (bits - 1)) <= number < 2 ** (bits - 1)


def _digest(number: int, bits: int) -> int:
    """A whole number of so many bits, as good as another one for each number."""
    said = hashlib.sha256(str(number).encode()).digest()[: bits // 8]
    return int.from_bytes(said, "little", signed=True)

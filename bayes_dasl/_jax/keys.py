"""Random seeds: conversion to JAX keys, and the form in which results store them."""

import hashlib
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..errors import ModelError

# Bits of a whole number in an attribute of a NetCDF file.
_BITS_OF_A_FILE = 64


def as_key(key: int | Array) -> Array:
    """Convert a random seed to a JAX key.

    Args:
        key: a whole number of any size, a JAX key, or a raw key as `jax.random.PRNGKey` returns it.

    Raises:
        ModelError: if the argument is none of these.
    """
    number = _as_integer(key)
    if number is not None:
        bits = 64 if jax.config.jax_enable_x64 else 32  # pyright: ignore
        return jax.random.key(number if _fits(number, bits) else _hashed(number, bits))
    is_array = isinstance(key, (jax.Array, np.ndarray))
    if is_array and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return key  # pyright: ignore
    if is_array and key.dtype == np.uint32 and key.ndim == 1:
        try:
            return jax.random.wrap_key_data(jnp.asarray(key))
        except (TypeError, ValueError):  # the length is not that of a JAX key
            pass
    raise ModelError(f"key must be a whole number or a jax.random.key, not {key!r}")


def whole_number(key: object) -> int:
    """Convert a random seed that must be a whole number to Python's `int`.

    Raises:
        ModelError: if the argument is not a whole number.
    """
    number = _as_integer(key)
    if number is None:
        raise ModelError(f"key must be a whole number here, not {key!r}")
    return number


def printable(key: int | Array) -> int | str:
    """Return a random seed as a number or text that an attribute of a file can hold."""
    number = _as_integer(key)
    if number is not None:
        return number if _fits(number, _BITS_OF_A_FILE) else str(number)
    return str(jax.random.key_data(as_key(key)).tolist())


def _as_integer(key: object) -> int | None:
    """Return a whole number as `int`; None for any other object, including booleans."""
    try:
        return None if isinstance(key, (bool, np.bool_)) else operator.index(key)  # pyright: ignore
    except TypeError:
        return None


def _fits(number: int, bits: int) -> bool:
    """Whether a number fits into a signed integer of `bits` bits."""
    return -(2 ** (bits - 1)) <= number < 2 ** (bits - 1)


def _hashed(number: int, bits: int) -> int:
    """Return a hash of a large number as a signed integer of `bits` bits."""
    digest = hashlib.sha256(str(number).encode()).digest()[: bits // 8]
    return int.from_bytes(digest, "little", signed=True)

"""Random keys: whole numbers of any size or keys of JAX, and how files hold them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_dasl._jax import as_key, printable
from bayes_dasl.errors import ModelError


@pytest.mark.usefixtures("unchecked")
class TestKeys:
    @pytest.mark.parametrize(
        "key",
        [7, np.int64(7), np.uint8(7), jnp.asarray(7), jax.random.key(7), jax.random.PRNGKey(7)],
    )
    def test_a_whole_number_or_a_key(self, key):
        assert as_key(key) == jax.random.key(7)

    @pytest.mark.parametrize(
        "key", [1.0, True, "7", None, jax.random.split(jax.random.key(0)), np.zeros(3, "uint32")]
    )
    def test_refuses_anything_else(self, key):
        with pytest.raises(ModelError, match="key must be a whole number"):
            as_key(key)

    def test_whole_numbers_of_any_size_are_keys_of_their_own(self):
        numbers = [
            0,
            1,
            -1,
            -2,
            2**32,
            2**32 + 1,
            2**63 - 1,
            2**63,
            -(2**63),
            2**64,
            2**64 + 1,
            10**30,
            -(10**30),
        ]
        keys = {tuple(jax.random.key_data(as_key(number)).tolist()) for number in numbers}
        assert len(keys) == len(numbers)
        assert as_key(2**40) == jax.random.key(2**40)
        assert as_key(np.uint64(2**63)) == as_key(2**63)

    def test_a_file_can_hold_them_all(self):
        assert (
            printable(2**62) == 2**62
            and printable(2**63) == str(2**63)
            and printable(np.int8(-3)) == -3
        )
        assert printable(jax.random.PRNGKey(5)) == printable(jax.random.key(5))

    def test_printable_tells_keys_apart(self):
        shown = [printable(k) for k in (7, np.int64(8), jax.random.key(7), jax.random.key(8))]
        assert shown[:2] == [7, 8]
        assert len(set(shown)) == 4

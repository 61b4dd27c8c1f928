"""Priors from plausible ranges, and prior draws of all random leaves of a tree."""

import functools
import io
import math
import pickle
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array
from scipy.special import ndtri

from .errors import ModelError
from .random import Dependent, RandomLeaf, paths

# One compiled program makes 512 draws, if a draw has at most 4096 numbers.
_DRAWS_A_PROGRAM = 512
_FEW_NUMBERS = 4096


def between(low: float, high: float, mass: float = 0.95) -> dist.Distribution:
    """Return a prior with a central probability `mass` between `low` and `high`.

    Positive ranges give a log-normal prior, so that the parameter stays positive; others a normal
    one.

    Args:
        low: the lower end of the range, in the units of the parameter.
        high: its upper end.
        mass: the prior probability of the range; the rest is split equally below and above.

    Returns:
        The distribution.

    Raises:
        ModelError: if the range is empty or starts at 0, or the mass lies outside (0, 1).

    Example:
        ```python
        rate = bd.between(0.1, 1.0)  # 95 % of a log-normal distribution
        print(rate)
        ```
    """
    try:
        sound = math.isfinite(low) and math.isfinite(high) and bool(low < high)
    except TypeError:  # no number
        sound = False
    if not sound:
        raise ModelError(
            f"between({low!r}, {high!r}) is no range: low must be less than high, both finite "
            "numbers"
        )
    if not 0 < mass < 1:
        raise ModelError(f"mass must lie between 0 and 1, not {mass}")
    if low == 0:
        raise ModelError(
            "a range that starts at 0 does not say how small the number may be: give a small "
            "positive low for a positive number, or a distribution such as numpyro's HalfNormal"
        )
    # The central mass of a normal distribution is mean ± q · sd, q the quantile of (1 + mass) / 2.
    quantile = float(ndtri(0.5 + mass / 2))
    if low > 0:
        a = math.log(low)
        b = math.log(high)
        return dist.LogNormal((a + b) / 2, (b - a) / (2 * quantile))
    return dist.Normal((low + high) / 2, (high - low) / (2 * quantile))


def draw_prior(tree: Any, draws: int, *, key: Array) -> dict[str, Array]:
    """Draw all random leaves independently, stacked along a leading axis; no solver runs."""
    leaves = paths(tree)
    # Make a multiple of 512 draws and keep the first: one program serves all numbers of draws.
    small = sum(math.prod(leaf.shape) for leaf in leaves.values()) <= _FEW_NUMBERS
    drawn = -(-draws // _DRAWS_A_PROGRAM) * _DRAWS_A_PROGRAM if small else draws
    keys = jax.random.split(key, max(len(leaves), 1))[: len(leaves)]
    values = _sample(_Leaves(tuple(leaves.values())), keys, drawn)
    return {path: _first(v, draws) for path, v in zip(leaves, values, strict=True)}


def _first(values: Array, number: int) -> Array:
    """Keep the first values; NumPy cuts known arrays without compiling anything."""
    if isinstance(values, Tracer):
        return values[:number]
    return jnp.asarray(np.asarray(values)[:number])


class _Leaves:
    """Random leaves as a static argument of `jit`: equal leaves share a compiled program.

    As traced arguments their parameters would come in another order in every process, because
    NumPyro keeps the names in a set. No program in the cache on disk would then be found again.
    """

    def __init__(self, every: tuple[RandomLeaf, ...]):
        self.every = every
        said = io.BytesIO()
        try:
            _ById(said).dump([leaf.distribution for leaf in every])
            if any(isinstance(leaf.distribution, Dependent) for leaf in every):
                _ById(said).dump([leaf.path for leaf in every])
            self._said = said.getvalue()
        except Exception:  # pickle raises many types for objects of users
            self._said = b"%d" % id(every)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Leaves) and self._said == other._said

    def __hash__(self) -> int:
        return hash(self._said)

    def alike(self) -> list[list[int]]:
        """Group the independent leaves that differ in the values of their parameters only."""
        groups: dict[Any, list[int]] = {}
        for i, leaf in enumerate(self.every):
            if not isinstance(leaf.distribution, Dependent):
                groups.setdefault(_family_of(leaf.distribution) or i, []).append(i)
        return list(groups.values())


class _ById(pickle.Pickler):
    """A pickler that identifies functions and classes by identity: names may be reused."""

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)):
            return id(obj)
        return None


def _family_of(distribution: Any) -> Any:
    """Return the structure of a distribution of NumPyro without its numbers; None for others."""
    values, structure = jax.tree.flatten(distribution)
    if any(isinstance(value, Tracer) for value in values):
        return None
    while type(distribution).__module__.startswith("numpyro."):
        if not hasattr(distribution, "base_dist"):
            return structure, *(np.shape(v) for v in values)
        distribution = distribution.base_dist
    return None


@functools.partial(jax.jit, static_argnames=("leaves", "draws"))
def _sample(leaves: _Leaves, keys: Array, draws: int) -> list[Array]:
    """Draw from all leaves; leaves of one family are drawn at once, which compiles faster."""
    found: dict[str, Any] = {}
    # 1. Independent leaves, each with its own random key.
    for group in leaves.alike():
        several = [leaves.every[i].distribution for i in group]
        if len(several) == 1:
            drawn = [several[0].sample(keys[group[0]], (draws,))]
        else:
            numbers = jax.tree.map(lambda *v: np.stack(v), *several)
            drawn = jax.vmap(lambda d, key: d.sample(key, (draws,)))(numbers, keys[np.array(group)])
        found |= dict(zip((leaves.every[i].path for i in group), drawn, strict=True))
    # 2. Dependent leaves, given the draws of their arguments.
    for leaf, key in zip(leaves.every, keys, strict=True):
        if isinstance(leaf.distribution, Dependent):
            one = lambda values, key, leaf=leaf: leaf.given(values).sample(key)  # noqa: E731
            found[leaf.path] = jax.vmap(one)(dict(found), jax.random.split(key, draws))
    return [found[leaf.path] for leaf in leaves.every]

"""Priors from plausible ranges, and prior draws of all random leaves of a model."""

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

# The number of draws is rounded up to a multiple of 512 if a draw has at most 4096 numbers, so that
# few programs are compiled.
_DRAWS_A_PROGRAM = 512
_FEW_NUMBERS = 4096


def between(low: float, high: float, mass: float = 0.95) -> dist.Distribution:
    """Return a prior that puts a probability `mass` on the range from `low` to `high`.

    If `low` is positive, the prior is log-normal, so that the parameter stays positive. Otherwise
    it is normal.

    Args:
        low: the lower end of the range, in the units of the parameter.
        high: the upper end of the range.
        mass: the prior probability of the range. The remaining probability is divided equally
            between values below and above it.

    Returns:
        The distribution.

    Raises:
        ModelError: if the range is empty or starts at 0, or `mass` lies outside (0, 1).

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
    # The central range of a normal distribution is mean ± q · sd, with q its quantile of
    # (1 + mass) / 2.
    quantile = float(ndtri(0.5 + mass / 2))
    if low > 0:
        a = math.log(low)
        b = math.log(high)
        return dist.LogNormal((a + b) / 2, (b - a) / (2 * quantile))
    return dist.Normal((low + high) / 2, (high - low) / (2 * quantile))


def draw_prior(tree: Any, draws: int, *, key: Array) -> dict[str, Array]:
    """Draw the random leaves of a tree from their prior, without running a solver.

    Args:
        tree: a model or a part of it.
        draws: the number of draws.
        key: the JAX random key.

    Returns:
        The draws by path, `(draws, …)`.
    """
    leaves = paths(tree)
    # Make a multiple of 512 draws and keep the first: one program serves all numbers of draws.
    small = sum(math.prod(leaf.shape) for leaf in leaves.values()) <= _FEW_NUMBERS
    drawn = -(-draws // _DRAWS_A_PROGRAM) * _DRAWS_A_PROGRAM if small else draws
    keys = jax.random.split(key, max(len(leaves), 1))[: len(leaves)]
    values = _sample(_Leaves(tuple(leaves.values())), keys, drawn)
    return {path: _first(v, draws) for path, v in zip(leaves, values, strict=True)}


def _first(values: Array, number: int) -> Array:
    """Return the first values; NumPy slices arrays that JAX does not trace, without compiling."""
    if isinstance(values, Tracer):
        return values[:number]
    return jnp.asarray(np.asarray(values)[:number])


class _Leaves:
    """Random leaves as a static argument of `jit`, so that equal leaves share a compiled program.

    If the leaves were traced arguments, their parameters would have another order in every process,
    because NumPyro keeps the names of parameters in a set. JAX would then never find the program in
    its cache on disk.

    Args:
        every: the random leaves.
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
        """Group the independent leaves of which one vectorised call can draw.

        Returns:
            For each group the positions of its leaves. Leaves of one group differ only in the
            values of the parameters of their distributions.
        """
        groups: dict[Any, list[int]] = {}
        for i, leaf in enumerate(self.every):
            if not isinstance(leaf.distribution, Dependent):
                groups.setdefault(_family_of(leaf.distribution) or i, []).append(i)
        return list(groups.values())


class _ById(pickle.Pickler):
    """A pickler that stores functions and classes by `id`, since several may have one name."""

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)):
            return id(obj)
        return None


def _family_of(distribution: Any) -> Any:
    """Return the tree structure and the shapes of a distribution, without its numbers.

    None if the distribution is not from NumPyro, or if JAX traces its numbers.
    """
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
    """Draw from all leaves; each group of `_Leaves.alike` is drawn together, to compile faster.

    Args:
        leaves: the random leaves.
        keys: a random key for each leaf.
        draws: the number of draws.

    Returns:
        The draws of each leaf, `(draws, …)`.
    """
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

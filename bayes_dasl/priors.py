"""What is said of priors, and draws from them: informed ranges, bounds, and every random leaf of a
tree at once.
"""

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

_DRAWS_A_PROGRAM, _FEW_NUMBERS = 512, 4096


def between(low: float, high: float, mass: float = 0.95) -> dist.Distribution:
    """An informed prior from a plausible range: the central `mass` of it lies between `low` and
    `high`.

    A range of positive numbers gives a log-normal prior (the number stays positive), a range that
    holds negative numbers a normal one.

    Args:
        low: the lower end of the range, in the units of the number.
        high: its upper end, in the same units.
        mass: the prior probability of the range; half of the rest lies below it, half above.

    Raises:
        ModelError: for an empty range, a mass outside (0, 1), or a range that starts at exactly 0.

    Example:
        ```python
        rate = bd.between(0.1, 1.0)  # 95 % of a log-normal distribution
        print(rate)
        ```
    """
    try:
        sound = math.isfinite(low) and math.isfinite(high) and bool(low < high)
    except TypeError:  # what is no number
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
            "positive low for a "
            "positive number, or a distribution such as numpyro's HalfNormal"
        )
    half_width = float(ndtri(0.5 + mass / 2))
    family, (a, b) = (
        (dist.LogNormal, (math.log(low), math.log(high))) if low > 0 else (dist.Normal, (low, high))
    )
    return family((a + b) / 2, (b - a) / (2 * half_width))


def draw_prior(tree: Any, draws: int, *, key: Array) -> dict[str, Array]:
    """Independent draws of every random leaf, stacked along a leading axis; no solver runs."""
    leaves = paths(tree)
    # One program for all numbers of draws up to 512, of which the first are the same, where there
    # is room.
    small = sum(math.prod(leaf.shape) for leaf in leaves.values()) <= _FEW_NUMBERS
    drawn = -(-draws // _DRAWS_A_PROGRAM) * _DRAWS_A_PROGRAM if small else draws
    keys = jax.random.split(key, max(len(leaves), 1))[: len(leaves)]
    values = _sample(_Leaves(tuple(leaves.values())), keys, drawn)
    return {path: _first(v, draws) for path, v in zip(leaves, values, strict=True)}


def _first(values: Array, number: int) -> Array:
    """Cut by NumPy, which compiles nothing, where they are known."""
    return (
        values[:number] if isinstance(values, Tracer) else jnp.asarray(np.asarray(values)[:number])
    )


class _Leaves:
    """Some random leaves, equal to others with the same numbers: what draws from them is then
    compiled once.

    They stay in the program. As arguments their numbers would come in another order in every
    process, since NumPyro keeps their names in a set, and no program on disk would be found again.
    """

    def __init__(self, every: tuple[RandomLeaf, ...]):
        self.every = every
        said = io.BytesIO()
        try:
            _ById(said).dump([leaf.distribution for leaf in every])
            if any(isinstance(leaf.distribution, Dependent) for leaf in every):
                _ById(said).dump([leaf.path for leaf in every])
            self._said = said.getvalue()
        except Exception:  # whatever pickle may raise for what a user wrote
            self._said = b"%d" % id(every)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Leaves) and self._said == other._said

    def __hash__(self) -> int:
        return hash(self._said)

    def alike(self) -> list[list[int]]:
        """Those that depend on no other, in groups that differ in numbers only."""
        groups: dict[Any, list[int]] = {}
        for i, leaf in enumerate(self.every):
            if not isinstance(leaf.distribution, Dependent):
                groups.setdefault(_kind(leaf.distribution) or i, []).append(i)
        return list(groups.values())


class _ById(pickle.Pickler):
    """Functions and classes are what they are: one of the same name may be another."""

    def persistent_id(self, obj: Any) -> Any:
        return id(obj) if isinstance(obj, (type, FunctionType)) else None


def _kind(distribution: Any) -> Any:
    """What those of NumPyro's own share that differ in known numbers only; none for any other
    distribution.
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
    """Independent draws from each; those that differ in numbers only are drawn at once, which
    compiles as one.
    """
    found: dict[str, Any] = {}
    for group in leaves.alike():
        several = [leaves.every[i].distribution for i in group]
        if len(several) == 1:
            drawn = [several[0].sample(keys[group[0]], (draws,))]
        else:
            numbers = jax.tree.map(lambda *v: np.stack(v), *several)
            drawn = jax.vmap(lambda d, key: d.sample(key, (draws,)))(numbers, keys[np.array(group)])
        found |= dict(zip((leaves.every[i].path for i in group), drawn, strict=True))
    for leaf, key in zip(leaves.every, keys, strict=True):
        if isinstance(leaf.distribution, Dependent):
            one = lambda values, key, leaf=leaf: leaf.given(values).sample(key)  # noqa: E731
            found[leaf.path] = jax.vmap(one)(dict(found), jax.random.split(key, draws))
    return [found[leaf.path] for leaf in leaves.every]

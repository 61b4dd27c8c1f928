"""The core: a model is a pytree, and a distribution may stand wherever a number could.

A leaf that is a NumPyro distribution is a *random leaf*. `sample` replaces every random leaf by a draw
inside a NumPyro model, `realise` by a given draw; both are the same walk over the tree.
"""

import dataclasses
import functools
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from scipy.special import ndtri

from ._jax.tree import dotted, key_name, nodes_along
from .errors import MismatchError, ModelError

type Scalar = float | Float[Array, ""] | dist.Distribution
"""A number, or the distribution that stands in its place."""

type Values = Mapping[str, Float[Array, "..."]]
"""Named arrays: states, forcings, rates of change, observables."""

type VectorField = Callable[[Any, Values, Values], Values]
"""`vector_field(t, y, u)`: the rate of change of each state, given time, states and forcings."""

_DRAWS_A_PROGRAM, _FEW_NUMBERS = 512, 4096


class Module(eqx.Module):
    """A frozen dataclass that is a pytree; its fields may hold numbers or distributions.

    A field annotated `Scalar` must hold one number, or a distribution over one number: this is checked
    when the module is built.

    Raises: ModelError if such a field holds an array or a distribution of another shape.
    """

    def __check_init__(self):
        for name in _scalar_fields(type(self)):
            check_scalar(getattr(self, name), f"{type(self).__name__}.{name}")


def field(*, units: str, **kwargs: Any) -> Any:
    """A dataclass field with units, which the parameter table of a report shows.

    `birth: bd.Scalar = bd.field(units="1/year")`

    Args:
        units: those of the number, as text, such as "1/year".
        kwargs: what else `equinox.field` takes, such as `default`.
    """
    return eqx.field(metadata={"units": units}, **kwargs)


def _scalar_fields(cls: type) -> list[str]:
    try:
        hints = get_type_hints(cls)
    except NameError:  # an annotation that is only known to the type checker
        return []
    return [f.name for f in dataclasses.fields(cls) if hints.get(f.name) is Scalar]


def check_scalar(value: Any, where: str) -> None:
    """Refuse anything that is not one number or a distribution over one number."""
    if is_random(value):
        if fault := of_a_prior(value):
            raise ModelError(f"{where} {fault}")
        shape = shape_of(value)
        if shape:
            raise ModelError(
                f"{where} must be a distribution over one number, but this {type(value).__name__} has shape "
                f"{shape}: give each number a field of its own"
            )
    elif not eqx.is_array_like(value) or jnp.ndim(value) or not _is_number(value):
        alike = eqx.is_array_like(value) and jnp.ndim(value)
        what = f"an array of shape {jnp.shape(value)}" if alike else repr(value)
        raise ModelError(f"{where} must be a number or a distribution over one number, not {what}")


def _is_number(value: Any) -> bool:
    """Whether a scalar is real and not NaN, as far as that is known before a program runs."""
    kind = jnp.result_type(value).kind
    return kind in "iuf" and (isinstance(value, Tracer) or not np.isnan(value))


def of_a_prior(distribution: dist.Distribution) -> str:
    """What is wrong with a prior whose parameter is a distribution; nothing of others.

    NumPyro refuses most of these itself, where they are made, but for one told not to check its arguments.
    """
    for name in distribution.arg_constraints:
        if is_random(vars(distribution).get(name)):
            return (
                f"has the distribution {type(distribution).__name__}, whose {name} is itself a distribution: give each "
                "a field of its own, and work out the one from the other in the equations"
            )
    return ""


def is_random(leaf: Any) -> bool:
    """Whether a leaf is inferred (a distribution) rather than known (a number)."""
    return isinstance(leaf, dist.Distribution)


def is_function(value: Any) -> bool:
    """Whether something is a function; a NumPyro distribution can be called too, but stands for a number."""
    return callable(value) and not is_random(value)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a number, an array or a random leaf."""
    return value.batch_shape + value.event_shape if is_random(value) else jnp.shape(value)


@dataclasses.dataclass(frozen=True)
class RandomLeaf:
    """What is known of one random leaf without drawing it; `owners` are the classes from the root to it."""

    path: str
    distribution: dist.Distribution
    group: str
    units: str
    owners: str

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self.distribution)


def paths(tree: Any) -> dict[str, RandomLeaf]:
    """Every random leaf of a tree by its dotted path, in the order of the tree."""
    leaves = jtu.tree_flatten_with_path(tree, is_leaf=is_random)[0]
    return {leaf.path: leaf for leaf in (_describe(tree, p, x) for p, x in leaves if is_random(x))}


def _describe(tree: Any, path: tuple, leaf: dist.Distribution) -> RandomLeaf:
    group, owners = "science", []
    for depth, (node, _) in enumerate(_nodes(tree, path)):
        group = getattr(node, "random_group", group)
        if key_name(path[depth]) in getattr(node, "latent_fields", ()):
            group = "latent"
        owners.append(type(node).__name__)
    return RandomLeaf(dotted(path), leaf, group, stated_units(tree, path), "/".join(owners))


def stated_units(tree: Any, path: tuple) -> str:
    """The units that a tree states for one of its leaves, random or known; the innermost statement holds."""
    units = ""
    for depth, (node, _) in enumerate(_nodes(tree, path)):
        units = _units(node, path[depth:]) or units
    return units


def _nodes(tree: Any, path: tuple) -> list[tuple[Any, Any]]:
    try:
        return list(nodes_along(tree, path))
    except TypeError as error:
        raise ModelError(
            f"a distribution lies at {jtu.keystr(path)}, inside an object whose parts have no names (such as JAX's "
            "Partial): put it into a field of a bd.Module"
        ) from error


def _units(node: Any, path: tuple) -> str:
    """Units that a node states for the leaf that `path` leads to: by its fields, or by `leaf_units`."""
    if hasattr(node, "leaf_units"):
        return node.leaf_units(tuple(key_name(key) for key in path))
    fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
    stated = {f.name: f.metadata.get("units", "") for f in fields}
    return stated.get(key_name(path[0]), "")


def _replace(tree: Any, value_of: Callable[[str, dist.Distribution], Any]) -> Any:
    def swap(path, leaf):
        return value_of(dotted(path), leaf) if is_random(leaf) else leaf

    return jtu.tree_map_with_path(swap, tree, is_leaf=is_random)


def sample(tree: Any) -> Any:
    """The tree with every random leaf drawn by `numpyro.sample`; the site's name is the leaf's path."""
    return _replace(tree, numpyro.sample)


def realise(tree: Any, draw: Mapping[str, Array]) -> Any:
    """The tree with every random leaf replaced by `draw[path]`.

    Raises: MismatchError if the draw lacks a random leaf of the tree.
    """
    missing = [path for path in paths(tree) if path not in draw]
    if missing:
        raise MismatchError(f"the draw has no value for {', '.join(missing)}; it has {', '.join(draw)}")
    return _replace(tree, lambda path, _: draw[path])


def with_ones(tree: Any) -> Any:
    """The tree with ones for every random leaf, to find out shapes that do not depend on their values."""
    return _replace(tree, lambda _, leaf: jnp.ones(shape_of(leaf)))


def draw_prior(tree: Any, draws: int, *, key: Array) -> dict[str, Array]:
    """Independent draws of every random leaf, stacked along a leading axis; no solver runs."""
    leaves = paths(tree)
    # One program for all numbers of draws up to 512, of which the first are the same, where there is room.
    small = sum(math.prod(leaf.shape) for leaf in leaves.values()) <= _FEW_NUMBERS
    drawn = -(-draws // _DRAWS_A_PROGRAM) * _DRAWS_A_PROGRAM if small else draws
    keys = jax.random.split(key, max(len(leaves), 1))[: len(leaves)]
    values = _sample(_Distributions(tuple(leaf.distribution for leaf in leaves.values())), keys, drawn)
    return {path: _first(v, draws) for path, v in zip(leaves, values, strict=True)}


def _first(values: Array, number: int) -> Array:
    """Cut by NumPy, which compiles nothing, where they are known."""
    return values[:number] if isinstance(values, Tracer) else jnp.asarray(np.asarray(values)[:number])


class _Distributions:
    """Some distributions, equal to others with the same numbers: what draws from them is then compiled once.

    They stay in the program. As arguments their numbers would come in another order in every process, since NumPyro
    keeps their names in a set, and no program on disk would be found again.
    """

    def __init__(self, every: tuple[dist.Distribution, ...]):
        self.every = every
        try:
            self._said = pickle.dumps(every)
        except Exception:  # whatever pickle may raise for what a user wrote
            self._said = b"%d" % id(every)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Distributions) and self._said == other._said

    def __hash__(self) -> int:
        return hash(self._said)

    def alike(self) -> list[list[int]]:
        """Which differ in numbers only."""
        groups: dict[Any, list[int]] = {}
        for i, distribution in enumerate(self.every):
            groups.setdefault(_kind(distribution) or i, []).append(i)
        return list(groups.values())


def _kind(distribution: Any) -> Any:
    """What those of NumPyro's own share that differ in known numbers only; none for any other distribution."""
    values, structure = jax.tree.flatten(distribution)
    if any(isinstance(value, Tracer) for value in values):
        return None
    while type(distribution).__module__.startswith("numpyro."):
        if not hasattr(distribution, "base_dist"):
            return structure, *(np.shape(v) for v in values)
        distribution = distribution.base_dist
    return None


@functools.partial(jax.jit, static_argnames=("distributions", "draws"))
def _sample(distributions: _Distributions, keys: Array, draws: int) -> list[Array]:
    """Independent draws from each; those that differ in numbers only are drawn at once, which compiles as one."""
    found = {}
    for group in distributions.alike():
        several = [distributions.every[i] for i in group]
        if len(several) == 1:
            drawn = [several[0].sample(keys[group[0]], (draws,))]
        else:
            numbers = jax.tree.map(lambda *v: np.stack(v), *several)
            drawn = jax.vmap(lambda d, key: d.sample(key, (draws,)))(numbers, keys[np.array(group)])
        found |= dict(zip(group, drawn, strict=True))
    return [found[i] for i in range(len(distributions.every))]


def between(low: float, high: float, mass: float = 0.95) -> dist.Distribution:
    """An informed prior from a plausible range: the central `mass` of it lies between `low` and `high`.

    A range of positive numbers gives a log-normal prior (the number stays positive), a range that holds
    negative numbers a normal one.

    Args:
        low: the lower end of the range, in the units of the number.
        high: its upper end, in the same units.
        mass: the prior probability of the range; half of the rest lies below it, half above.

    Raises: ModelError for an empty range, a mass outside (0, 1), or a range that starts at exactly 0.
    """
    try:
        sound = math.isfinite(low) and math.isfinite(high) and bool(low < high)
    except TypeError:  # what is no number
        sound = False
    if not sound:
        raise ModelError(f"between({low!r}, {high!r}) is no range: low must be less than high, both finite numbers")
    if not 0 < mass < 1:
        raise ModelError(f"mass must lie between 0 and 1, not {mass}")
    if low == 0:
        raise ModelError(
            "a range that starts at 0 does not say how small the number may be: give a small positive low for a "
            "positive number, or a distribution such as numpyro's HalfNormal"
        )
    half_width = float(ndtri(0.5 + mass / 2))
    family, (a, b) = (dist.LogNormal, (math.log(low), math.log(high))) if low > 0 else (dist.Normal, (low, high))
    return family((a + b) / 2, (b - a) / (2 * half_width))


def describe_support(support: Any) -> str:
    """`greater than 0`, `whole numbers, at least 0`, to say which data or values there may be."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    words = ["whole numbers"] if support.is_discrete else []
    for side, value in bounds(support).items():
        beyond, within = ("greater than", "at least") if side == "lower" else ("less than", "at most")
        words.append(f"{within if bool(support(value)) else beyond} {value:g}")
    return ", ".join(words) or "any numbers"


def bounds(support: Any) -> dict[str, float]:
    """`lower` and `upper` of a support, as far as they are finite and the same for every element."""
    return {side: float(value.ravel()[0]) for side, value in _ends(support).items() if float(np.ptp(value)) == 0}


def _ends(support: Any) -> dict[str, np.ndarray]:
    """`lower` and `upper` of a support, as far as they are finite."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    found = {}
    for side, other in (("lower", "lower_bound"), ("upper", "upper_bound")):
        value = getattr(support, other, None)
        # By NumPy, since what is wrong with data is said before anything is compiled.
        value = np.asarray(math.nan if value is None or isinstance(value, Tracer) else value)
        if bool(np.isfinite(value).all()):
            found[side] = value
    return found


def may_be_negative(value: Any) -> bool:
    """Whether a distribution has negative numbers too, or a known number is not positive."""
    if isinstance(value, dist.Delta):
        value = value.v
    if is_random(value):
        return bounds(value.support).get("lower", -math.inf) < 0
    return eqx.is_array_like(value) and not isinstance(value, Tracer) and not bool(np.all(np.asarray(value) > 0))


def chosen_bounds(distribution: dist.Distribution) -> dict[str, Any]:
    """`lower` and `upper` of what someone allowed, such as the ends of a uniform prior; nested lists where they differ.

    What the family itself demands is none of these: a half-normal is positive, a beta a share. Nor is a truncation at
    zero alone.
    """
    support: Any = distribution.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    same = bounds(support)
    found = {side: same.get(side, value.tolist()) for side, value in _ends(support).items()}
    own = support is constraints.unit_interval or support is constraints.circular
    return {} if own or found == {"lower": 0.0} else found


def describe_distribution(distribution: Any) -> str:
    """`LogNormal(-0.6, 0.51)`, to print beside a posterior; where elements differ, the range of each parameter."""
    inner: Any = distribution
    while isinstance(inner, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        inner = inner.base_dist
    name, support = type(inner).__name__, ""
    if "Truncated" in name and hasattr(inner, "base_dist"):
        low, high = (getattr(inner, side, None) for side in ("low", "high"))
        bounds = [f"> {_range(low)}" if low is not None else "", f"< {_range(high)}" if high is not None else ""]
        inner, support = inner.base_dist, ", " + " and ".join(b for b in bounds if b)
        name = type(inner).__name__
    values = [_range(getattr(inner, p)) for p in inner.arg_constraints if getattr(inner, p, None) is not None]
    return f"{name}({', '.join(values)}){support}"


def _range(value: Any) -> str:
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.3g}" if low == high else f"{low:.3g}…{high:.3g}"

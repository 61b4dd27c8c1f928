"""What NumPyro's distributions say of themselves: where their numbers lie, and how they are
written.
"""

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from numpyro.distributions import biject_to, constraints

_SIGNS = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.pow: "**",
}


def of_a_prior(distribution: dist.Distribution) -> str:
    """What is wrong with a prior whose parameter is a distribution; nothing of others.

    NumPyro refuses most of these itself, where they are made, but for one told not to check its
    arguments.
    """
    kind = type(distribution).__name__
    for name in distribution.arg_constraints:
        if isinstance(vars(distribution).get(name), dist.Distribution):
            return (
                f"has the distribution {kind}, whose {name} is itself a distribution: write "
                f"bd.dependent(dist.{kind}, …) with the same arguments"
            )
    return ""


def possible(distribution: dist.Distribution, at: float) -> Any:
    """A number that a distribution may give, another for every `at` in (0, 1); as a rule nothing is
    compiled.
    """
    support: Any = distribution.support
    shape = distribution.batch_shape + distribution.event_shape
    ends = bounds(support)
    low, high = ends.get("lower"), ends.get("upper")
    if support.is_discrete:
        return jnp.asarray(np.ones(shape))
    if low is not None:
        return jnp.asarray(
            np.full(shape, low + (math.exp(at) if high is None else (high - low) * (1 + at) / 2))
        )
    if high is not None or support in (constraints.real, constraints.real_vector):
        return jnp.asarray(np.full(shape, at if high is None else high - math.exp(at)))
    try:
        way = biject_to(support)
        return way(jnp.full(way.inverse_shape(shape), at))
    except NotImplementedError:  # a support without coordinates, such as a sphere
        return distribution.sample(jax.random.key(0))


def free_shape(distribution: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the coordinates of a number, of a matrix of correlations a triangle; its own
    where it has none.
    """
    try:
        return tuple(biject_to(distribution.support).inverse_shape(shape))
    except NotImplementedError:  # such as a sphere
        return shape


def same_support(one: dist.Distribution, other: dist.Distribution) -> bool:
    """Whether two distributions give the same numbers."""
    supports: Any = one.support, other.support
    ends = [jax.tree.leaves(support) for support in supports]
    return type(supports[0]) is type(supports[1]) and all(map(np.array_equal, *ends))


def support_of_draws(draws: Any) -> Any:
    """Positive numbers if all draws are, else any; of draws that only a running program knows
    nothing is doubted.
    """
    positive = jnp.all(draws > 0)
    return (
        constraints.positive if isinstance(positive, Tracer) or bool(positive) else constraints.real
    )


def describe_support(support: Any) -> str:
    """`greater than 0`, `whole numbers, at least 0`, to say which data or values there may be."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    words = ["whole numbers"] if support.is_discrete else []
    for side, value in bounds(support).items():
        beyond, within = (
            ("greater than", "at least") if side == "lower" else ("less than", "at most")
        )
        words.append(f"{within if bool(support(value)) else beyond} {value:g}")
    return ", ".join(words) or "any numbers"


def bounds(support: Any) -> dict[str, float]:
    """`lower` and `upper` of a support,
    as far as they are finite and the same for every element.
    """
    return {
        side: float(value.ravel()[0])
        for side, value in _ends(support).items()
        if float(np.ptp(value)) == 0
    }


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


def chosen_bounds(distribution: dist.Distribution) -> dict[str, Any]:
    """`lower` and `upper` of what someone allowed, such as the ends of a uniform prior; nested
    lists where they differ.

    What the family itself demands is none of these: a half-normal is positive, a beta a share. Nor
    is a truncation at zero alone.
    """
    support: Any = distribution.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    same = bounds(support)
    found = {side: same.get(side, value.tolist()) for side, value in _ends(support).items()}
    own = support is constraints.unit_interval or support is constraints.circular
    return {} if own or found == {"lower": 0.0} else found


def may_be_negative(value: Any) -> bool:
    """Whether a distribution has negative numbers too, or a known number is not positive."""
    if isinstance(value, dist.Delta):
        value = value.v
    if isinstance(value, dist.Distribution):
        return bounds(value.support).get("lower", -math.inf) < 0
    return (
        eqx.is_array_like(value)
        and not isinstance(value, Tracer)
        and not bool(np.all(np.asarray(value) > 0))
    )


def describe_distribution(distribution: Any) -> str:
    """`LogNormal(-0.6, 0.51)`, to print beside a posterior; where elements differ, the range of
    each parameter.
    """
    if hasattr(distribution, "described"):  # one that is shared, or depends on others
        return distribution.described()
    inner: Any = distribution
    while isinstance(inner, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        inner = inner.base_dist
    name, support = type(inner).__name__, ""
    if "Truncated" in name and hasattr(inner, "base_dist"):
        low, high = (getattr(inner, side, None) for side in ("low", "high"))
        bounds = [
            f"> {_range(low)}" if low is not None else "",
            f"< {_range(high)}" if high is not None else "",
        ]
        inner, support = inner.base_dist, ", " + " and ".join(b for b in bounds if b)
        name = type(inner).__name__
    values = [
        _range(getattr(inner, p))
        for p in inner.arg_constraints
        if getattr(inner, p, None) is not None
    ]
    return f"{name}({', '.join(values)}){support}"


def name_of(function: Any) -> str:
    """What a function is called, or else its class."""
    return getattr(function, "__name__", type(function).__name__)


def describe_call(function: Any, values: Iterable[Any], made: Any = None) -> str:
    """`LogNormal(Normal(0, 1), 0.3)` or `2 * rate`: a function, what it is called with, and what it
    made.
    """
    values, function = list(values), getattr(function, "of_one", function)
    if function is operator.neg:
        return f"-{_describe_argument(values[0], inside=True)}"
    if function in _SIGNS:
        return f" {_SIGNS[function]} ".join(
            _describe_argument(value, inside=True) for value in values
        )
    name, said = name_of(function), ", ".join(map(_describe_argument, values))
    if name != "<lambda>":
        return f"{name}({said})"
    return (
        f"{describe_distribution(made).partition('(')[0]} given {said}"
        if made
        else f"a function({said})"
    )


def _describe_argument(value: Any, inside: bool = False) -> str:
    if isinstance(value, dist.Distribution):
        said = describe_distribution(value)
        return f"({said})" if inside and getattr(value, "function", None) in _SIGNS else said
    return (
        _range(value, digits=6) if eqx.is_array_like(value) else type(value).__name__
    )  # as someone wrote it


def _range(value: Any, digits: int = 3) -> str:
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.{digits}g}" if low == high else f"{low:.3g}…{high:.3g}"


def describe_value(value: Any) -> str:
    """What stands where a number belongs, and how to say what was meant,
    where that can be guessed.
    """
    if isinstance(value, (tuple, list)):
        ordered = (
            len(value) == 2 and all(isinstance(v, Real) for v in value) and value[0] < value[1]
        )
        return f"{value!r}" + (
            f": between two limits it is bd.between({value[0]:g}, {value[1]:g})" if ordered else ""
        )
    if eqx.is_array_like(value) and jnp.ndim(value):
        return f"an array of shape {jnp.shape(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__}: call it with its arguments"
    if isinstance(value, eqx.Module):
        return f"a {type(value).__name__}"
    return repr(value)

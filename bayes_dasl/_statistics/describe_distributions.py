"""Supports, bounds and descriptions in words of NumPyro's distributions."""

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
# Sides of a support in words: if the bound is excluded, and if it is included.
_ENDS_IN_WORDS = {"lower": ("greater than", "at least"), "upper": ("less than", "at most")}


def of_a_prior(distribution: dist.Distribution) -> str:
    """Return the end of an error message for a prior with a random parameter.

    NumPyro refuses such a prior itself, unless it was built with `validate_args=False`.

    Returns:
        The message; "" for any other prior.
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
    """Return a value in the support of a distribution.

    Args:
        distribution: the distribution.
        at: a number in (0, 1), which selects the value; different numbers give different values,
            except for discrete supports and supports such as a sphere.

    Returns:
        An array of the distribution's shape.
    """
    support: Any = distribution.support
    shape = distribution.batch_shape + distribution.event_shape
    ends = bounds(support)
    low = ends.get("lower")
    high = ends.get("upper")
    if support.is_discrete:
        return jnp.asarray(np.ones(shape))
    # NumPy compiles nothing, so the common supports do not go through a bijector.
    if low is not None:
        above = math.exp(at) if high is None else (high - low) * (1 + at) / 2
        return jnp.asarray(np.full(shape, low + above))
    if high is not None:
        return jnp.asarray(np.full(shape, high - math.exp(at)))
    if support in (constraints.real, constraints.real_vector):
        return jnp.asarray(np.full(shape, at))
    try:
        bijector = biject_to(support)
        return bijector(jnp.full(bijector.inverse_shape(shape), at))
    except NotImplementedError:
        # A support without unconstrained coordinates, such as a sphere.
        return distribution.sample(jax.random.key(0))


def free_shape(distribution: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a parameter in unconstrained space, as of a correlation matrix.

    Args:
        distribution: the prior of the parameter.
        shape: the shape of the parameter.

    Returns:
        The unconstrained shape; `shape` itself if the support has no bijector.
    """
    try:
        return tuple(biject_to(distribution.support).inverse_shape(shape))
    except NotImplementedError:
        # Such as a sphere.
        return shape


def same_support(one: dist.Distribution, other: dist.Distribution) -> bool:
    """Return whether two distributions have the same support.

    Returns:
        True for supports of one type with equal ends.
    """
    first: Any = one.support
    second: Any = other.support
    ends = jax.tree.leaves(first), jax.tree.leaves(second)
    return type(first) is type(second) and all(map(np.array_equal, *ends))


def support_of_draws(draws: Any) -> Any:
    """Return the support that draws suggest: positive if all draws are positive, else real.

    Returns:
        The constraint; positive for traced draws, whose values are not known.
    """
    positive = jnp.all(draws > 0)
    if isinstance(positive, Tracer) or positive:
        return constraints.positive
    return constraints.real


def _base_of(support: Any) -> Any:
    """Return the constraint on a single element of a support."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def describe_support(support: Any) -> str:
    """Return a support in words, such as `greater than 0` or `whole numbers, at least 0`.

    Returns:
        The words, for error messages.
    """
    support = _base_of(support)
    words = ["whole numbers"] if support.is_discrete else []
    for side, value in bounds(support).items():
        open_end, closed_end = _ENDS_IN_WORDS[side]
        words.append(f"{closed_end if support(value) else open_end} {value:g}")
    return ", ".join(words) or "any numbers"


def bounds(support: Any) -> dict[str, float]:
    """Return the bounds of a support that are finite and equal for all elements.

    Returns:
        `lower` and `upper`; a side without such a bound is absent.
    """
    ends = _finite_bounds(support).items()
    return {side: float(value.ravel()[0]) for side, value in ends if np.ptp(value) == 0}


def _finite_bounds(support: Any) -> dict[str, np.ndarray]:
    """Return the finite bounds of a support as arrays, `lower` and `upper`.

    A side is absent if some element has no finite bound.
    """
    support = _base_of(support)
    found = {}
    for side in _ENDS_IN_WORDS:
        value = getattr(support, f"{side}_bound", None)
        # NumPy, since data are checked before anything is compiled.
        value = np.asarray(math.nan if value is None or isinstance(value, Tracer) else value)
        if np.isfinite(value).all():
            found[side] = value
    return found


def chosen_bounds(distribution: dist.Distribution) -> dict[str, Any]:
    """Return bounds that the user chose, such as the ends of a uniform prior.

    Bounds that the family implies are left out: a half-normal is positive, and a beta variable lies
    in (0, 1). A lower bound of zero without an upper bound is left out, too.

    Returns:
        `lower` and `upper`; nested lists where elements differ.
    """
    support = _base_of(distribution.support)
    if support is constraints.unit_interval or support is constraints.circular:
        return {}
    same = bounds(support)
    ends = _finite_bounds(support).items()
    found = {side: same.get(side, value.tolist()) for side, value in ends}
    return {} if found == {"lower": 0.0} else found


def may_be_negative(value: Any) -> bool:
    """Return whether a distribution allows negative numbers, or a known number is not positive.

    Returns:
        The answer; False for a traced number, whose value is not known.
    """
    if isinstance(value, dist.Delta):
        value = value.v
    if isinstance(value, dist.Distribution):
        return bounds(value.support).get("lower", -math.inf) < 0
    if not eqx.is_array_like(value) or isinstance(value, Tracer):
        return False
    return not np.all(np.asarray(value) > 0)


def describe_distribution(distribution: Any) -> str:
    """Return a distribution in words, such as `LogNormal(-0.6, 0.51)`.

    Returns:
        Family and parameters. A parameter whose elements differ is given as a range.
    """
    # Shared and dependent distributions describe themselves.
    if hasattr(distribution, "described"):
        return distribution.described()
    inner: Any = distribution
    while isinstance(inner, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
        inner = inner.base_dist
    support = ""
    if "Truncated" in type(inner).__name__ and hasattr(inner, "base_dist"):
        ends = {sign: getattr(inner, side, None) for sign, side in ((">", "low"), ("<", "high"))}
        said = [f"{sign} {_value_or_range(end)}" for sign, end in ends.items() if end is not None]
        inner = inner.base_dist
        support = ", " + " and ".join(said)
    parameters = [getattr(inner, name, None) for name in inner.arg_constraints]
    values = [_value_or_range(value) for value in parameters if value is not None]
    return f"{type(inner).__name__}({', '.join(values)}){support}"


def name_of(function: Any) -> str:
    """Return the name of a function, or of its class if it has no name.

    Returns:
        The name.
    """
    return getattr(function, "__name__", type(function).__name__)


def describe_call(function: Any, values: Iterable[Any], made: Any = None) -> str:
    """Return a call in words, such as `LogNormal(Normal(0, 1), 0.3)` or `2 * rate`.

    Args:
        function: a function, a class or an operator.
        values: its arguments.
        made: the distribution that it returned, if any.

    Returns:
        The words.
    """
    values = list(values)
    function = getattr(function, "of_one", function)
    operands = [_describe_argument(value, inside=True) for value in values]
    if function is operator.neg:
        return f"-{operands[0]}"
    if function in _SIGNS:
        return f" {_SIGNS[function]} ".join(operands)
    name = name_of(function)
    said = ", ".join(map(_describe_argument, values))
    if name != "<lambda>":
        return f"{name}({said})"
    if made:
        return f"{describe_distribution(made).partition('(')[0]} given {said}"
    return f"a function({said})"


def _describe_argument(value: Any, inside: bool = False) -> str:
    """Return an argument in words; in parentheses if it is an operand and itself an operation."""
    if isinstance(value, dist.Distribution):
        said = describe_distribution(value)
        return f"({said})" if inside and getattr(value, "function", None) in _SIGNS else said
    # Six digits, since the user wrote the number.
    return _value_or_range(value, digits=6) if eqx.is_array_like(value) else type(value).__name__


def _value_or_range(value: Any, digits: int = 3) -> str:
    """Return a number with so many digits, or the range of an array with different elements."""
    low = float(np.min(value))
    high = float(np.max(value))
    return f"{low:.{digits}g}" if low == high else f"{low:.3g}…{high:.3g}"


def describe_value(value: Any) -> str:
    """Return in words an object that was given in place of a number, with a likely remedy.

    Returns:
        The words, for error messages.
    """
    if isinstance(value, (tuple, list)):
        numbers = len(value) == 2 and all(isinstance(v, Real) for v in value)
        if numbers and value[0] < value[1]:
            meant = f"bd.between({value[0]:g}, {value[1]:g})"
            return f"{value!r}: between two limits it is {meant}"
        return f"{value!r}"
    if eqx.is_array_like(value) and jnp.ndim(value):
        return f"an array of shape {jnp.shape(value)}"
    if isinstance(value, type):
        return f"the class {value.__name__}: call it with its arguments"
    if isinstance(value, eqx.Module):
        return f"a {type(value).__name__}"
    return repr(value)

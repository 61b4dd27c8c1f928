"""Checks of users' functions `(t, y, u)`: names and shapes of values, without running them."""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from types import FunctionType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._jax.tree import FrozenDict, parts_inside
from ..data.forcings import KINDS
from ..errors import BayesDaslError, ModelError, ShapeError
from ..random import check_scalar, is_function, is_random, paths, shape_of, with_possible


def named(values: Any, what: str) -> dict[str, Any]:
    """Arrays by name from the value of a function.

    Raises:
        ModelError: if the value is no dict.
    """
    if not isinstance(values, Mapping):
        raise ModelError(f"{what} must return a dict of named values, not {type(values).__name__}")
    return {name: jnp.asarray(value, float) for name, value in values.items()}


def shapes_of(function: Any, what: str, states: Any, forcings: Iterable[str]) -> dict[str, Any]:
    """Shapes of the values of a function by name, for any values of its random leaves.

    Raises:
        ModelError: if the function cannot be evaluated, or returns no dict.
    """
    # Random leaves get some possible value: shapes do not depend on it.
    known, u = with_possible(function), dict.fromkeys(forcings, jnp.zeros(()))
    try:
        return jax.eval_shape(lambda y: named(known(jnp.zeros(()), y, u), what), states)
    except BayesDaslError:
        raise
    except Exception as error:  # whatever a user's function may raise
        given = f"the states {_names_or_none(states)} and the forcings {_names_or_none(u)}"
        raise ModelError(
            f"{what} cannot be evaluated with {given}: {type(error).__name__}: {error}"
        ) from error


def _names_or_none(names: Iterable[str]) -> str:
    return ", ".join(names) or "(none)"


def output_names(
    observe: Any, equations: Any, states: Mapping[str, Any], forcings: Iterable[str]
) -> tuple[str, ...]:
    """Names of predicted values: the states, or the values that `observe` returns."""
    observe = method_of(with_possible(equations), observe)
    return tuple(states if observe is None else shapes_of(observe, "observe", states, forcings))


def method_of(equations: Any, function: Any) -> Any:
    """Bind an unbound method such as `Bucket.flow` to the equations, or to the part that has it.

    Returns:
        A function `(t, y, u)`; any other function as it is.

    Raises:
        ModelError: for a method bound to an object with random leaves of its own, or for a method
            that several parts have.
    """
    # 1. A bound method is fine, unless its object has random leaves, which would be left out.
    owner = getattr(function, "__self__", None)
    if isinstance(owner, eqx.Module) and paths(owner):
        kind, name = type(owner).__name__, getattr(function, "__name__", "observe")
        raise ModelError(
            f"observe is a method of another {kind}, with unknowns of its own: write {kind}.{name}"
        )
    # 2. An unbound method belongs to the one part of the equations whose class defines it.
    having = list(_having(equations, function)) if isinstance(function, FunctionType) else []
    if len(having) > 1:
        raise ModelError(
            f"observe is the method '{function.__name__}' of {len(having)} parts of the equations: "
            "write a method of "
            "the whole that calls that of the part that is observed"
        )
    return (lambda t, y, u: function(having[0], t, y, u)) if having else function


def _having(tree: Any, method: FunctionType) -> Iterator[eqx.Module]:
    """The outermost modules of a tree whose class has a method, also if they override it."""
    if isinstance(tree, eqx.Module) and any(_defines(kind, method) for kind in type(tree).__mro__):
        yield tree
        return
    inside = lambda node: node is not tree and isinstance(node, eqx.Module)  # noqa: E731
    for node in jax.tree.leaves(tree, is_leaf=inside):
        if inside(node):
            yield from _having(node, method)


def _defines(kind: type, method: FunctionType) -> bool:
    # A static method needs no object.
    own = inspect.getattr_static(kind, method.__name__, None)
    return not isinstance(own, staticmethod) and getattr(kind, method.__name__, None) is method


def any_state(initial: Mapping[str, Any]) -> dict[str, Any]:
    """Example states with the shapes of the initial values."""
    return {
        name: jnp.ones(shape_of(v)) if is_random(v) else jnp.asarray(v, float)
        for name, v in initial.items()
    }


def check_initial(initial: Any, observe: Any) -> None:
    """Check initial values and `observe`.

    Raises:
        ModelError: if `initial` is no dict, `observe` is no function, or, without `observe`, if an
            initial value is no scalar.
    """
    if not isinstance(initial, dict) or not initial:
        raise ModelError(
            "initial must be a dict that names every state and gives its initial value"
        )
    if observe is not None and not is_function(observe):
        raise ModelError(
            f"observe must be a function (t, y, u) that returns named values, not {observe!r}"
        )
    # Without `observe` the states are the predictions, which must be scalars.
    if observe is None:
        for name, value in initial.items():
            check_scalar(value, f"initial['{name}']")


def check_tolerances(layer: Any) -> None:
    """Raise ModelError unless tolerances are positive and `max_steps` is a positive integer."""
    positive = all(
        isinstance(v, Real) and 0 < float(v) < math.inf for v in (layer.rtol, layer.atol)
    )
    if not positive or not isinstance(layer.max_steps, Integral) or layer.max_steps < 1:
        raise ModelError(
            "rtol and atol must be positive and max_steps at least 1, whole: not "
            f"rtol={layer.rtol!r}, atol={layer.atol!r}, max_steps={layer.max_steps!r}"
        )


def several_names(names: Any) -> tuple[str, ...]:
    """Convert one name or several to a tuple.

    Raises:
        ModelError: if any of them is no string.
    """
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"give the names of forcings, such as ('rain', 'sun'), not {names!r}")
    return tuple(names)


def by_name(values: Any) -> FrozenDict:
    """A hashable copy of a dict, for a static field.

    Raises:
        ModelError: if the value is no dict.
    """
    if not isinstance(values, Mapping):
        raise ModelError(
            f"units, interpolation, sums and means are dicts by name, as {{'prey': …}}, not "
            f"{values!r}"
        )
    return FrozenDict(values)


def agreed(what: str, stated: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Join the statements (part, name, value) of several parts to one value for each name.

    Raises:
        ModelError: if two parts state different values for one name.
    """
    owner: dict[str, tuple[str, str]] = {}
    for part, name, value in stated:
        first, other = owner.setdefault(name, (part, value))
        if other != value:
            raise ModelError(
                f"{what} of '{name}': '{other}' in '{first}' but '{value}' in '{part}'; choose one"
            )
    return {name: value for name, (_, value) in owner.items()}


def agreed_interpolation(
    layers: Mapping[str, Any], read: Mapping[str, Iterable[str]]
) -> dict[str, str]:
    """Joint interpolation of the forcings of several layers, without the linear ones.

    Args:
        layers: layers by name.
        read: the forcings that matter of each layer, by its name.

    Returns:
        The kind of interpolation by forcing.

    Raises:
        ModelError: if two layers want different kinds for one forcing.
    """
    kinds = agreed(
        "interpolation",
        (
            (name, f, layer.interpolation.get(f, "linear"))
            for name, layer in layers.items()
            for f in read[name]
        ),
    )
    return {name: kind for name, kind in kinds.items() if kind != "linear"}


def solver_settings(layer: Any) -> tuple[str, ...]:
    """Names of the solver settings of a layer: some of `max_steps`, `rtol` and `solver`."""
    every = ("max_steps", "rtol", "solver")
    parts = parts_inside(layer, lambda node: any(hasattr(node, name) for name in every))
    return tuple(name for name in every if any(hasattr(node, name) for _, node in parts))


def check_interpolation(interpolation: Mapping[str, str], forcings: tuple[str, ...]) -> None:
    """Raise ModelError if `interpolation` names no forcing, or an unknown kind."""
    for name, kind in interpolation.items():
        if name not in forcings:
            raise ModelError(
                f"interpolation is given for '{name}', which is no forcing; the forcings are "
                f"{', '.join(forcings) or 'none'}"
            )
        if kind not in KINDS:
            raise ModelError(f"'{name}' is interpolated by one of {', '.join(KINDS)}, not {kind!r}")


def checked_rates(rates: Any, y: Any) -> dict[str, Any]:
    """Rates by state, in the order and with the dtypes of the states.

    Raises:
        ModelError: if the rates are no dict, or name other states.
        ShapeError: if a rate has another shape than its state.
    """
    if not isinstance(rates, Mapping):
        raise ModelError(
            f"the vector field must return a dict of rates by state, not {type(rates).__name__}"
        )
    if set(rates) != set(y):
        raise ModelError(
            f"the vector field returns rates for {', '.join(rates)} but the states are "
            f"{', '.join(y)}"
        )
    for name, state in y.items():
        if jnp.shape(rates[name]) != state.shape:
            raise ShapeError(
                f"the vector field returns a rate of shape {jnp.shape(rates[name])} for '{name}', "
                "which has the shape "
                f"{state.shape}"
            )
    return {name: jnp.asarray(rates[name], state.dtype) for name, state in y.items()}

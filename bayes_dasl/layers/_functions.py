"""Checks of users' functions `(t, y, u)` and of other arguments of layers.

`t` is the time, `y` are the states by name, `u` the forcings by name. JAX finds the names and
shapes of the returned values by abstract evaluation, without computing numbers.
"""

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
    """Convert the dict that a function returned to float arrays by name.

    Args:
        values: the returned value.
        what: the name of the function, for the error message.

    Raises:
        ModelError: if the value is no dict.
    """
    if not isinstance(values, Mapping):
        raise ModelError(f"{what} must return a dict of named values, not {type(values).__name__}")
    return {name: jnp.asarray(value, float) for name, value in values.items()}


def shapes_of(function: Any, what: str, states: Any, forcings: Iterable[str]) -> dict[str, Any]:
    """Find the shapes of the values that a function `(t, y, u)` returns.

    Args:
        function: the function, which may have random leaves.
        what: its name, for error messages.
        states: example states by name.
        forcings: the names of the forcings.

    Returns:
        A `jax.ShapeDtypeStruct` for each returned value, by name.

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
    """Return the names of predicted values: those that `observe` returns, else the states.

    Args:
        observe: a function `(t, y, u)`, or None to predict the states.
        equations: the vector field or step, of which `observe` may be a method.
        states: example states by name.
        forcings: the names of the forcings.
    """
    observe = method_of(with_possible(equations), observe)
    return tuple(states if observe is None else shapes_of(observe, "observe", states, forcings))


def method_of(equations: Any, function: Any) -> Any:
    """Bind an unbound method such as `Bucket.flow` to the equations, or to a part of them.

    Args:
        equations: the vector field or step, a module that may contain other modules.
        function: the unbound method of one of these modules, or any other function `(t, y, u)`.

    Returns:
        The bound method as a function `(t, y, u)`. Any other function is returned unchanged.

    Raises:
        ModelError: if a method is bound already to an object with random leaves, or if several
            parts of the equations have the method.
    """
    # 1. A bound method is fine, unless its object has random leaves: the layer does not hold that
    # object, so they would not be inferred.
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
    """Yield the outermost modules of a tree whose class, or a base class, defines a method."""
    if isinstance(tree, eqx.Module) and any(_defines(kind, method) for kind in type(tree).__mro__):
        yield tree
        return
    inside = lambda node: node is not tree and isinstance(node, eqx.Module)  # noqa: E731
    for node in jax.tree.leaves(tree, is_leaf=inside):
        if inside(node):
            yield from _having(node, method)


def _defines(kind: type, method: FunctionType) -> bool:
    """Whether a class has this function as an ordinary method; static methods do not count."""
    own = inspect.getattr_static(kind, method.__name__, None)
    return not isinstance(own, staticmethod) and getattr(kind, method.__name__, None) is method


def any_state(initial: Mapping[str, Any]) -> dict[str, Any]:
    """Return example states by name, with the shapes of the initial values."""
    return {
        name: jnp.ones(shape_of(v)) if is_random(v) else jnp.asarray(v, float)
        for name, v in initial.items()
    }


def check_initial(initial: Any, observe: Any) -> None:
    """Check the arguments `initial` and `observe` of a layer.

    Raises:
        ModelError: if `initial` is no dict or is empty, or if `observe` is no function. Also if an
            initial value is no scalar and there is no `observe`.
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
    """Raise ModelError unless a layer's `rtol`, `atol` and integer `max_steps` are positive."""
    positive = all(
        isinstance(v, Real) and 0 < float(v) < math.inf for v in (layer.rtol, layer.atol)
    )
    if not positive or not isinstance(layer.max_steps, Integral) or layer.max_steps < 1:
        raise ModelError(
            "rtol and atol must be positive and max_steps at least 1, whole: not "
            f"rtol={layer.rtol!r}, atol={layer.atol!r}, max_steps={layer.max_steps!r}"
        )


def several_names(names: Any) -> tuple[str, ...]:
    """Convert one name or several names to a tuple.

    Raises:
        ModelError: if a name is no string.
    """
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"give the names of forcings, such as ('rain', 'sun'), not {names!r}")
    return tuple(names)


def by_name(values: Any) -> FrozenDict:
    """Copy a dict to a hashable one, as static fields of a module need it.

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
    """Merge what several parts of a model state about the same names.

    Args:
        what: the stated property, such as "units", for the error message.
        stated: tuples (part, name, value), such as ("slow", "prey", "g/L").

    Returns:
        The value of each name.

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
    """Merge the kinds of interpolation that several layers state for their forcings.

    Args:
        layers: layers by name.
        read: for each layer, by its name, the forcings to take into account.

    Returns:
        The kind of interpolation by forcing, "step" or "cubic". Linear forcings are left out.

    Raises:
        ModelError: if two layers state different kinds for one forcing.
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
    """Return which of the settings `max_steps`, `rtol` and `solver` a layer or its parts have."""
    every = ("max_steps", "rtol", "solver")
    parts = parts_inside(layer, lambda node: any(hasattr(node, name) for name in every))
    return tuple(name for name in every if any(hasattr(node, name) for _, node in parts))


def check_interpolation(interpolation: Mapping[str, str], forcings: tuple[str, ...]) -> None:
    """Raise ModelError if `interpolation` has a name that is no forcing, or an unknown kind.

    Args:
        interpolation: the kind of interpolation by forcing.
        forcings: the names of the layer's forcings.
    """
    for name, kind in interpolation.items():
        if name not in forcings:
            raise ModelError(
                f"interpolation is given for '{name}', which is no forcing; the forcings are "
                f"{', '.join(forcings) or 'none'}"
            )
        if kind not in KINDS:
            raise ModelError(f"'{name}' is interpolated by one of {', '.join(KINDS)}, not {kind!r}")


def checked_rates(rates: Any, y: Any) -> dict[str, Any]:
    """Check the rates that a vector field returned.

    Args:
        rates: the returned value.
        y: the states by name.

    Returns:
        The rates by state, in the order and with the dtypes of the states.

    Raises:
        ModelError: if the rates are no dict, or their names differ from those of the states.
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

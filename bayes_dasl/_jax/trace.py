"""Tracing of functions, and removal of runtime checks, which JAX's disk cache does not support."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from equinox import error_if
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr

# Only one thread may trace at a time, because all threads share JAX's cache of derivatives of
# traced functions.
_ONE_AT_A_TIME = threading.RLock()


def traced(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """Trace a function once, and remove its runtime checks.

    The removed checks are those by `eqx.error_if`, including the checks of solvers. They would keep
    the program out of JAX's cache on disk, and a sampler needs a value instead of an error. Diffrax
    checks that output times increase and lie inside the solve; the package checks data for this
    before.

    Args:
        function: the function.
        examples: example arguments, or their shapes.

    Returns:
        A function that runs the traced program, for arguments of the same shapes.
    """
    run, held, _ = parted(function, *examples)
    return functools.partial(run, held)


def parted(
    function: Callable[..., Any], *examples: Any, scalars: bool = False
) -> tuple[Callable[..., Any], list[Any], Any]:
    """Trace a function as `traced` does, and separate the arrays that it captures.

    If captured arrays are arguments, XLA need not process them as constants during compilation.
    The program on disk then also serves other data of the same shape. Captured numbers stay in the
    program by default, since XLA can then simplify it. Arrays that a `jax.jit` inside the function
    captures stay in the program too.

    Args:
        function: the function.
        examples: example arguments, or their shapes.
        scalars: whether captured single numbers are separated too.

    Returns:
        The traced function, whose first argument is the list of captured arrays; this list; and the
        shapes of the results.
    """
    # With the lock the program does not depend on what other threads trace.
    with _ONE_AT_A_TIME:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    closed = unchecked(closed)
    tree = jax.tree.structure(shape)

    def run(held, *arguments):
        # `jaxpr_as_fun` switches the check for NaN off too.
        with _ONE_AT_A_TIME, jax.debug_nans(False):
            left = iter(held)
            constants = [next(left) if c is None else c for c in inside]
            flat = eval_jaxpr(closed.jaxpr, constants, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(tree, flat)

    # JAX names the compiled program after the function.
    run.__name__ = getattr(function, "__name__", run.__name__)
    kept = [jnp.ndim(c) == 0 and not scalars for c in closed.consts]
    inside = [c if stays else None for c, stays in zip(closed.consts, kept, strict=True)]
    captured = [c for c, stays in zip(closed.consts, kept, strict=True) if not stays]
    return run, captured, shape


def unchecked(inner: Any) -> Any:
    """Return a jaxpr without Equinox's runtime checks.

    Args:
        inner: a jaxpr; any other object is returned unchanged.
    """
    if not _is_jaxpr(inner) or not calls_back(inner):
        return inner
    # Before JAX 0.12 a closed jaxpr holds an open one.
    if not isinstance(inner, Jaxpr):
        return inner.replace(jaxpr=unchecked(inner.jaxpr))
    return inner.replace(eqns=[_unchecked_equation(e) for e in inner.eqns])


def _unchecked_equation(equation: Any) -> Any:
    """Return an equation of a jaxpr without runtime checks; unchanged if it has no checks."""
    parameters = dict(equation.params)
    lenient = _lenient(equation.primitive.name, parameters)
    if lenient is parameters and not any(map(calls_back, inner_programs(equation))):
        return equation
    # `eqx.error_if` is a conditional of which one branch raises: take the other one always.
    if equation.primitive.name == "cond":
        branches = parameters["branches"]
        sound = [branch for branch in branches if not _reports(branch)]
        if len(sound) < len(branches):
            return equation.replace(params=parameters | {"branches": (sound[0],) * len(branches)})
    rewritten = jax.tree.map(unchecked, lenient, is_leaf=_is_jaxpr)
    return equation.replace(params=rewritten)


def _lenient(primitive: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of an equation, without the check of a linear solve by Lineax.

    A failed linear solve then returns NaN. Its check is no equation of the jaxpr, since Lineax adds
    it when the program is compiled.

    Args:
        primitive: the name of the equation's primitive.
        parameters: the parameters of the equation.

    Returns:
        The changed parameters; the same object if the equation is no linear solve with a check.
    """
    # The last static argument is `throw`.
    if primitive == "linear_solve" and parameters["static"][-1] is True:
        return parameters | {"static": (*parameters["static"][:-1], False)}
    # Equinox's batched primitive holds the inner one and its parameters.
    if primitive == "vprim":
        inside = dict(parameters["params"])
        found = _lenient(parameters["prim"].name, inside)
        return parameters if found is inside else parameters | {"params": tuple(found.items())}
    return parameters


def _reports(branch: Any) -> bool:
    """Whether a branch of a conditional is the branch of `eqx.error_if` that raises.

    Other branches with callbacks belong to the model.
    """
    for equation in open_program(branch).eqns:
        if equation.primitive.name == "pure_callback":
            callback = equation.params["callback"]
            function = getattr(callback, "callback_func", callback)
            if getattr(function, "__module__", None) == error_if.__module__:
                return True
    return False


def calls_back(inner: Any) -> bool:
    """Whether a jaxpr calls Python while it runs, or contains a linear solve with a check."""
    return any(
        e.primitive.name == "pure_callback"
        or _lenient(e.primitive.name, e.params) is not e.params
        or any(map(calls_back, inner_programs(e)))
        for e in open_program(inner).eqns
    )


def open_program(inner: Any) -> Any:
    """Return the open jaxpr inside a closed one, which also holds constants."""
    return getattr(inner, "jaxpr", inner)


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, (ClosedJaxpr, Jaxpr))


def inner_programs(equation: Any) -> list[Any]:
    """Return the jaxprs inside an equation: branches, loop bodies, called functions."""
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
    return [leaf for leaf in leaves if _is_jaxpr(leaf)]

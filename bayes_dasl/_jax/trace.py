"""Functions traced once, to be compiled into several programs and kept in JAX's cache on disk."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from equinox import error_if
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun


def traced(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """`function` with its Python run once, here, for arguments like `examples`.

    Runtime checks by `eqx.error_if`, the solver's as well as a model's own, are left out: a program with one is never
    kept in JAX's cache on disk, and a sampler needs a value where they would raise. The solver's own (the times of the
    output lie in order, and inside the solve) hold for checked data.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    flat, tree = jaxpr_as_fun(_unchecked(closed)), jax.tree.structure(shape)
    return lambda *arguments: jax.tree.unflatten(tree, flat(*jax.tree.leaves(arguments)))


def parted(function: Callable[..., Any], *examples: Any) -> tuple[Callable[..., Any], list[Any]]:
    """`traced`, with the arrays that the function holds beside it: they are its first argument.

    Held by a program, long series are constants that XLA works on while it compiles; it says so where that takes a
    second. As arguments they cost nothing there, and other series of the same length find the program on disk.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    closed, tree = _unchecked(closed), jax.tree.structure(shape)

    def run(held, *arguments):
        with jax.debug_nans(False):  # as `jaxpr_as_fun` does
            flat = eval_jaxpr(closed.jaxpr, held, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(tree, flat)

    return run, list(closed.consts)


def _unchecked(inner: Any) -> Any:
    """A jaxpr without Equinox's checks: what they look at is passed on, whatever it is."""
    if not _is_jaxpr(inner) or not calls_back(inner):
        return inner
    if not isinstance(inner, Jaxpr):  # before JAX 0.12 a closed jaxpr held an open one
        return inner.replace(jaxpr=_unchecked(inner.jaxpr))
    return inner.replace(eqns=[_unchecked_equation(e) for e in inner.eqns])


def _unchecked_equation(equation: Any) -> Any:
    if not any(map(calls_back, _inner(equation))):
        return equation
    parameters = dict(equation.params)
    if equation.primitive.name == "cond":
        sound = [branch for branch in parameters["branches"] if not _reports(branch)]
        if len(sound) < len(parameters["branches"]):
            return equation.replace(params=parameters | {"branches": (sound[0],) * len(parameters["branches"])})
    rewritten = jax.tree.map(_unchecked, parameters, is_leaf=_is_jaxpr)
    return equation.replace(params=rewritten)


def _reports(branch: Any) -> bool:
    """Whether a branch is the one of `eqx.error_if` that raises; a callback of anyone else may be part of a model."""
    called = (e.params["callback"] for e in _equations(branch) if e.primitive.name == "pure_callback")
    functions = (getattr(callback, "callback_func", callback) for callback in called)
    return any(getattr(f, "__module__", None) == error_if.__module__ for f in functions)


def calls_back(inner: Any) -> bool:
    """Whether a jaxpr calls back into Python."""
    return any(e.primitive.name == "pure_callback" or any(map(calls_back, _inner(e))) for e in _equations(inner))


def constants(inner: Any) -> Iterator[Any]:
    """All arrays that a jaxpr holds, also those of functions that it calls, in a fixed order."""
    yield from getattr(inner, "consts", ())
    yield from _arrays(getattr(inner, "jaxpr", inner).outvars)
    for equation in _equations(inner):
        yield from _arrays(equation.invars)
        for called in _inner(equation):
            yield from constants(called)


def _arrays(variables: list[Any]) -> Iterator[Any]:
    """Those that are known; numbers stand in the text of a jaxpr, arrays do not."""
    return (v.val for v in variables if isinstance(v, Literal) and np.ndim(v.val))


def _equations(inner: Any) -> list[Any]:
    return getattr(inner, "jaxpr", inner).eqns


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, (ClosedJaxpr, Jaxpr))


def _inner(equation: Any) -> list[Any]:
    """The jaxprs inside an equation: branches, bodies, called functions."""
    return [x for x in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(x)]

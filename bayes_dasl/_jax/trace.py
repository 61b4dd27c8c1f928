"""Functions traced once, to be compiled into several programs and kept in JAX's cache on disk."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from equinox import error_if
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr

# JAX keeps what the derivatives of a traced function return in one place, for all threads that
# build programs of it.
_ONE_AT_A_TIME = threading.RLock()


def traced(function: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """`function` with its Python run once, here, for arguments like `examples`.

    Runtime checks by `eqx.error_if`, those of solvers as well as a model's own, are left out: a
    program with one is never kept in JAX's cache on disk, and a sampler needs a value where they
    would raise. Diffrax's own (the times of the output lie in order, and inside the solve) hold for
    checked data.
    """
    run, held, _ = parted(function, *examples)
    return functools.partial(run, held)


def parted(
    function: Callable[..., Any], *examples: Any, scalars: bool = False
) -> tuple[Callable[..., Any], list[Any], Any]:
    """`traced`, with the arrays that the function holds beside it: they are its first argument. And
    what it returns, as shapes.

    Held by a program, long series are constants that XLA works on while it compiles; it says so
    where that takes a second. As arguments they cost nothing there, and other series of the same
    length find the program on disk. Single numbers stay in the program, which XLA then simplifies,
    unless `scalars` are held too: so that another start of a solve finds the program. What a
    `jax.jit` inside the function holds stays where it is.
    """
    with _ONE_AT_A_TIME:  # and so it is the same program each time, whatever another thread traces
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*examples)
    closed, tree = unchecked(closed), jax.tree.structure(shape)

    def run(held, *arguments):
        with _ONE_AT_A_TIME, jax.debug_nans(False):  # as `jaxpr_as_fun` does
            left = iter(held)
            constants = [next(left) if c is None else c for c in inside]
            flat = eval_jaxpr(closed.jaxpr, constants, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(tree, flat)

    run.__name__ = getattr(
        function, "__name__", run.__name__
    )  # by which JAX tells what it compiles
    kept = [jnp.ndim(c) == 0 and not scalars for c in closed.consts]
    inside = [c if stays else None for c, stays in zip(closed.consts, kept, strict=True)]
    return run, [c for c, stays in zip(closed.consts, kept, strict=True) if not stays], shape


def unchecked(inner: Any) -> Any:
    """A jaxpr without Equinox's checks: what they look at is passed on, whatever it is."""
    if not _is_jaxpr(inner) or not calls_back(inner):
        return inner
    if not isinstance(inner, Jaxpr):  # before JAX 0.12 a closed jaxpr held an open one
        return inner.replace(jaxpr=unchecked(inner.jaxpr))
    return inner.replace(eqns=[_unchecked_equation(e) for e in inner.eqns])


def _unchecked_equation(equation: Any) -> Any:
    parameters = dict(equation.params)
    lenient = _lenient(equation.primitive.name, parameters)
    if lenient is parameters and not any(map(calls_back, inner_programs(equation))):
        return equation
    if equation.primitive.name == "cond":
        sound = [branch for branch in parameters["branches"] if not _reports(branch)]
        if len(sound) < len(parameters["branches"]):
            return equation.replace(
                params=parameters | {"branches": (sound[0],) * len(parameters["branches"])}
            )
    rewritten = jax.tree.map(unchecked, lenient, is_leaf=_is_jaxpr)
    return equation.replace(params=rewritten)


def _lenient(primitive: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters with which a linear solve of Lineax, alone or batched, returns NaN where it
    would raise.

    Its check is no part of the jaxpr: it is made when the program is compiled. Those that have none
    are returned.
    """
    if (
        primitive == "linear_solve" and parameters["static"][-1] is True
    ):  # the last argument is `throw`
        return parameters | {"static": (*parameters["static"][:-1], False)}
    if primitive == "vprim":
        inside = dict(parameters["params"])
        found = _lenient(parameters["prim"].name, inside)
        return parameters if found is inside else parameters | {"params": tuple(found.items())}
    return parameters


def _reports(branch: Any) -> bool:
    """Whether a branch is the one of `eqx.error_if` that raises; a callback of anyone else may be
    part of a model.
    """
    called = (
        e.params["callback"] for e in _equations(branch) if e.primitive.name == "pure_callback"
    )
    functions = (getattr(callback, "callback_func", callback) for callback in called)
    return any(getattr(f, "__module__", None) == error_if.__module__ for f in functions)


def calls_back(inner: Any) -> bool:
    """Whether a jaxpr calls back into Python."""
    return any(
        e.primitive.name == "pure_callback"
        or _lenient(e.primitive.name, e.params) is not e.params
        or any(map(calls_back, inner_programs(e)))
        for e in _equations(inner)
    )


def _equations(inner: Any) -> list[Any]:
    return open_program(inner).eqns


def open_program(inner: Any) -> Any:
    """A jaxpr without the constants that a closed one holds."""
    return getattr(inner, "jaxpr", inner)


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, (ClosedJaxpr, Jaxpr))


def inner_programs(equation: Any) -> list[Any]:
    """The jaxprs inside an equation: branches, bodies, called functions."""
    return [
        x
        for x in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
        if _is_jaxpr(x)
    ]

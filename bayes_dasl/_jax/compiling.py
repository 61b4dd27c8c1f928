"""Compilation without what would cost more than it saves."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from .devices import computing_devices
from .trace import inner_programs, open_program, parted

# Moving what does not change out of loops takes a third of the compilation of a solve, and more of
# NUTS around one: each move lets XLA simplify all loops anew. It pays where something dear stays
# the same from step to step.
NO_MOVES = {
    "xla_disable_hlo_passes": "while-loop-invariant-code-motion,while-loop-constant-sinking"
}
# Share of the work of a program.
_WORTH_MOVING = 0.015
# How often a loop is taken to run if nobody knows, and how many additions an exponential is.
_TURNS, _DEAR = 10, 10
_KINDS = 16  # of arguments for which a program is kept in memory
_FREE = re.compile(
    "broadcast_in_dim|concatenate|convert_element_type|copy|dynamic_slice|expand_dims|gather|iota|pad|reshape|rev|"
    "slice|split|squeeze|stop_gradient|transpose"
)
_CHEAP = re.compile(
    "abs|add|add_any|and|clamp|eq|ge|gt|integer_pow|is_finite|le|lt|max|min|mul|ne|neg|not|or|select_n|sign|square|sub|"
    "xor"
)
_OF_MATRICES = re.compile(
    "cholesky|eig.*|geqrf|householder_product|lu.*|qr|schur|svd|triangular_solve"
)
# Their inner program is that of one number.
_BY_NUMBERS = re.compile("(scatter|reduce|select_and).*")


def compiled(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """A function compiled for arguments like these, which may be `jax.ShapeDtypeStruct`."""
    program = jax.jit(function).trace(*arguments)
    moves = computing_devices()[0].platform != "cpu" or steady_share(program.jaxpr) > _WORTH_MOVING
    return program.lower().compile(None if moves else NO_MOVES)


class Program:
    """A function compiled by `jax.jit`, once for each kind of arguments, with the arrays that it
    holds beside it.

    JAX would write them into the program: a fit to other data of the same shape finds this one on
    disk instead.
    """

    def __init__(self, function: Callable[..., Any]):
        @functools.lru_cache(maxsize=_KINDS)
        def known(
            structure: Any, kinds: tuple[tuple[tuple[int, ...], Any], ...]
        ) -> tuple[Callable[..., Any], Any]:
            examples = jax.tree.unflatten(
                structure, [jax.ShapeDtypeStruct(*kind) for kind in kinds]
            )
            run, held, shapes = parted(function, *examples)
            return functools.partial(jax.jit(run), held), shapes

        self._known = known

    def __call__(self, *arguments: Any) -> Any:
        return self._of(arguments)[0](*arguments)

    def shapes(self, *arguments: Any) -> Any:
        """Shapes of what it returns for arguments like these; what was traced for that serves to
        call it.
        """
        return self._of(arguments)[1]

    def _of(self, arguments: tuple) -> tuple[Callable[..., Any], Any]:
        leaves, structure = jax.tree.flatten(arguments)
        return self._known(
            structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        )


def steady_share(program: Any) -> float:
    """Which share of the work of a program is done anew in loops although it stays the same from
    turn to turn.

    A rough count: elements of arrays, dear functions ten times; a loop of unknown length as if it
    ran ten times.
    """
    work = _Work()
    work.look(program, [False] * len(open_program(program).invars), 1, looped=False)
    return work.steady / max(work.total, 1.0)


class _Work:
    """What is counted so far."""

    def __init__(self):
        self.total = self.steady = 0.0

    def look(self, program: Any, steady: list[bool], turns: int, *, looped: bool) -> list[bool]:
        """Count a program that runs so many times; which of its results stay the same, given which
        arguments do.
        """
        inside = open_program(program)
        same = dict(zip(inside.invars, steady, strict=True)) | dict.fromkeys(inside.constvars, True)
        of = lambda v: isinstance(v, Literal) or same[v]  # noqa: E731
        for equation in inside.eqns:
            total, before, arguments = self.total, self.steady, [of(v) for v in equation.invars]
            results = self._equation(equation, arguments, turns, looped=looped)
            if looped and all(arguments):  # also a loop or a branch as a whole
                self.steady = before + self.total - total
            same |= dict(zip(equation.outvars, results, strict=True))
        return [of(v) for v in inside.outvars]

    def _equation(
        self, equation: Any, steady: list[bool], turns: int, *, looped: bool
    ) -> list[bool]:
        name, parameters = equation.primitive.name, equation.params
        if name == "while":
            self._loop(parameters["cond_jaxpr"], parameters["cond_nconsts"], turns * _TURNS)
            self._loop(parameters["body_jaxpr"], parameters["body_nconsts"], turns * _TURNS)
        elif name == "scan":
            inside = open_program(parameters["jaxpr"])
            carried = _alike(equation.outvars, inside.outvars)
            constants = _alike(equation.invars, inside.invars) - carried
            self._loop(inside, constants, turns * parameters["length"], carried)
        else:
            inner = [] if _BY_NUMBERS.fullmatch(name) else inner_programs(equation)
            if _is_call(equation, inner):
                return self.look(inner[0], steady, turns, looped=looped)
            for one in inner:  # branches, of which nothing is moved by itself
                self.look(one, [False] * len(open_program(one).invars), turns, looped=False)
            if not inner:
                self.total += _work(equation) * turns
        return [all(steady)] * len(equation.outvars)

    def _loop(self, body: Any, constants: int, turns: int, carried: int | None = None) -> None:
        inside = open_program(body)
        steady = [True] * constants + [False] * (len(inside.invars) - constants)
        for i, left in enumerate(inside.outvars[:carried]):
            steady[constants + i] = left is inside.invars[constants + i]
        self.look(body, steady, turns, looped=True)


def _is_call(equation: Any, inner: list[Any]) -> bool:
    """Whether an equation is a function that is called with its arguments."""
    if equation.primitive.name == "cond" or len(inner) != 1:
        return False
    inside = open_program(inner[0])
    return (len(inside.invars), len(inside.outvars)) == (
        len(equation.invars),
        len(equation.outvars),
    )


def _work(equation: Any) -> int:
    """Roughly how many additions an equation is."""
    name = equation.primitive.name
    if _FREE.fullmatch(name):
        return 0
    shapes: list[tuple[int, ...]] = [
        getattr(v.aval, "shape", ()) for v in (*equation.invars, *equation.outvars)
    ]
    size = max(map(math.prod, shapes), default=0)
    if name == "dot_general":
        (summed, _), _ = equation.params["dimension_numbers"]
        return math.prod(shapes[-1]) * math.prod(shapes[0][i] for i in summed)
    if _OF_MATRICES.fullmatch(name):
        return size * shapes[0][-1]
    return size if _CHEAP.fullmatch(name) else _DEAR * size


def _alike(outside: list[Any], inside: list[Any]) -> int:
    """How many arrays a scan does not take apart, or put together."""
    return sum(a.aval.ndim == b.aval.ndim for a, b in zip(outside, inside, strict=True))

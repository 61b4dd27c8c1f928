"""Compilation without what would cost more than it saves."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal

from .devices import computing_devices
from .trace import inner_programs, open_program

# Moving what does not change out of loops takes a third of the compilation of a solve, and half of NUTS around one:
# each move lets XLA simplify all loops anew. It pays where something dear stays the same from step to step.
_NO_MOVES = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion,while-loop-constant-sinking"}
# Share of the work of a program.
_WORTH_MOVING = 0.01
# How often a loop is taken to run, and how many additions an exponential is.
_TURNS, _DEAR = 10, 10
_FREE = re.compile(
    "broadcast_in_dim|concatenate|convert_element_type|copy|dynamic_slice|expand_dims|gather|iota|pad|reshape|rev|"
    "slice|split|squeeze|stop_gradient|transpose"
)
_CHEAP = re.compile(
    "abs|add|add_any|and|clamp|eq|ge|gt|integer_pow|is_finite|le|lt|max|min|mul|ne|neg|not|or|select_n|sign|square|sub|"
    "xor"
)


def compiled(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """A function compiled for arguments like these, which may be `jax.ShapeDtypeStruct`."""
    program = jax.jit(function).trace(*arguments)
    moves = computing_devices()[0].platform != "cpu" or steady_share(program.jaxpr) > _WORTH_MOVING
    return program.lower().compile(None if moves else _NO_MOVES)


def steady_share(program: Any) -> float:
    """Which share of the work of a program is done anew in loops although it stays the same from turn to turn.

    A rough count: elements of arrays, dear functions ten times; every loop as if it ran ten times.
    """
    work = _Work()
    work.look(program, [False] * len(open_program(program).invars), 0)
    return work.steady / max(work.total, 1.0)


class _Work:
    """What is counted so far."""

    def __init__(self):
        self.total = self.steady = 0.0

    def look(self, program: Any, steady: list[bool], depth: int) -> list[bool]:
        """Count a program inside so many loops; which of its results stay the same, given which arguments do."""
        inside = open_program(program)
        same = dict(zip(inside.invars, steady, strict=True)) | dict.fromkeys(inside.constvars, True)
        of = lambda v: isinstance(v, Literal) or same[v]  # noqa: E731
        for equation in inside.eqns:
            arguments = [of(v) for v in equation.invars]
            results = self._equation(equation, arguments, depth)
            same |= dict(zip(equation.outvars, results, strict=True))
        return [of(v) for v in inside.outvars]

    def _equation(self, equation: Any, steady: list[bool], depth: int) -> list[bool]:
        name, parameters = equation.primitive.name, equation.params
        every = [all(steady)] * len(equation.outvars)
        if name == "while":
            self._loop(parameters["cond_jaxpr"], parameters["cond_nconsts"], depth)
            self._loop(parameters["body_jaxpr"], parameters["body_nconsts"], depth)
        elif name == "scan":
            inside = open_program(parameters["jaxpr"])
            carried = _alike(equation.outvars, inside.outvars)
            constants = _alike(equation.invars, inside.invars) - carried
            self._loop(inside, constants, depth, carried)
        elif inner := inner_programs(equation):
            if name != "cond" and len(inner) == 1 and len(open_program(inner[0]).invars) == len(steady):
                return self.look(inner[0], steady, depth)
            for one in inner:  # nothing is moved out of a branch
                self.look(one, [False] * len(open_program(one).invars), depth)
        elif not _FREE.fullmatch(name):
            size = max(math.prod(v.aval.shape) for v in (*equation.invars, *equation.outvars))
            work = size * _TURNS**depth * (1 if _CHEAP.fullmatch(name) else _DEAR)
            self.total += work
            # What hangs on nothing is worked out by the compiler.
            if depth and every[0] and not all(isinstance(v, Literal) for v in equation.invars):
                self.steady += work
        return every

    def _loop(self, body: Any, constants: int, depth: int, carried: int | None = None) -> None:
        inside = open_program(body)
        steady = [True] * constants + [False] * (len(inside.invars) - constants)
        for i, left in enumerate(inside.outvars[:carried]):
            steady[constants + i] = left is inside.invars[constants + i]
        self.look(body, steady, depth + 1)


def _alike(outside: list[Any], inside: list[Any]) -> int:
    """How many arrays a scan does not take apart, or put together."""
    return sum(a.aval.ndim == b.aval.ndim for a, b in zip(outside, inside, strict=True))

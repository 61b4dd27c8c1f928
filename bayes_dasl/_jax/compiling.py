"""Compilation of programs: the choice of XLA options, and reuse of programs for other data."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from .devices import computing_devices
from .trace import inner_programs, open_program, parted

# Moving loop invariants out of loops takes a third of the compilation time of a solve, and a larger
# share for NUTS around a solve: after each move XLA simplifies all loops again. Moving is worth it
# only if an expensive result stays the same from iteration to iteration.
NO_MOVES = {
    "xla_disable_hlo_passes": "while-loop-invariant-code-motion,while-loop-constant-sinking"
}
# Number of rows that `in_batches` evaluates at once.
_ROWS = 100
# Share of a program's work above which loop invariants are moved.
_WORTH_MOVING = 0.015
# Assumed number of iterations of a loop of unknown length.
_TURNS = 10
# The cost of one expensive function, such as exp, in additions.
_DEAR = 10
# Number of compiled programs, for different kinds of arguments, that stay in memory.
_KINDS = 16
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
# The inner program of these equations acts on one element.
_BY_NUMBERS = re.compile("(scatter|reduce|select_and).*")


def compiled(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """Compile a function, and choose whether XLA moves loop invariants out of loops.

    Args:
        function: the function.
        arguments: example arguments, or `jax.ShapeDtypeStruct` in place of arrays.

    Returns:
        The compiled program for arguments of these shapes and dtypes.
    """
    program = jax.jit(function).trace(*arguments)
    moves = computing_devices()[0].platform != "cpu" or steady_share(program.jaxpr) > _WORTH_MOVING
    return program.lower().compile(None if moves else NO_MOVES)


class Program:
    """A function that `jax.jit` compiles once for each kind of arguments.

    Arrays that the function captures become arguments of the compiled program. So the program is
    the same for other data of the same shape and is found in JAX's cache on disk. JAX alone would
    write captured arrays into the program as constants.

    Args:
        function: the function.
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
        """Return the shapes of the results for example arguments, without compiling.

        A later call with arguments of the same shapes uses the same trace.
        """
        return self._of(arguments)[1]

    def _of(self, arguments: tuple) -> tuple[Callable[..., Any], Any]:
        """Return the jitted function and the shapes of its results for arguments of one kind.

        The kind is the tree structure, shapes and dtypes.
        """
        leaves, structure = jax.tree.flatten(arguments)
        return self._known(
            structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
        )


def in_batches(
    program: Callable[..., Any], *arrays: np.ndarray, batch: int = _ROWS
) -> tuple[np.ndarray, ...]:
    """Run a program for any number of rows, in batches of one size, so that it compiles once.

    Args:
        program: a function of a batch of rows of each array; it returns arrays of rows.
        *arrays: arrays with a leading axis of rows.
        batch: the number of rows in a batch.

    Returns:
        The arrays that the program returns, for all rows.
    """
    number, parts = len(arrays[0]), []
    for begin in range(0, number, batch):
        # Copies of the last row fill the last batch; their results are dropped.
        index = np.minimum(np.arange(begin, begin + batch), number - 1)
        parts.append(program(*(a[index] for a in arrays)))
    return tuple(np.concatenate(column)[:number] for column in zip(*parts, strict=True))


def steady_share(program: Any) -> float:
    """Return the share of a program's work that is inside a loop although it is loop-invariant.

    The work is a rough count of array elements, where expensive functions count ten times. A loop
    of unknown length counts as ten iterations.

    Args:
        program: a jaxpr.
    """
    work = _Work()
    work.look(program, [False] * len(open_program(program).invars), 1, looped=False)
    return work.steady / max(work.total, 1.0)


class _Work:
    """A counter of the work of a program.

    `total` is the count of all work, `steady` that of loop-invariant work inside loops.
    """

    def __init__(self):
        self.total = self.steady = 0.0

    def look(self, program: Any, steady: list[bool], turns: int, *, looped: bool) -> list[bool]:
        """Add the work of a program to the counts.

        Args:
            program: a jaxpr.
            steady: for each argument, whether it is loop-invariant.
            turns: how often the program runs.
            looped: whether it is the body of a loop.

        Returns:
            For each result of the program, whether it is loop-invariant.
        """
        inside = open_program(program)
        # 1. Literals and constants are invariant, and so are the invariant arguments.
        same = dict(zip(inside.invars, steady, strict=True)) | dict.fromkeys(inside.constvars, True)
        is_steady = lambda v: isinstance(v, Literal) or same[v]  # noqa: E731
        for equation in inside.eqns:
            total = self.total
            before = self.steady
            arguments = [is_steady(v) for v in equation.invars]
            results = self._equation(equation, arguments, turns, looped=looped)
            # 2. An equation whose arguments are all invariant could move out of the loop. The
            # equation may be a whole inner loop.
            if looped and all(arguments):
                self.steady = before + self.total - total
            same |= dict(zip(equation.outvars, results, strict=True))
        return [is_steady(v) for v in inside.outvars]

    def _equation(
        self, equation: Any, steady: list[bool], turns: int, *, looped: bool
    ) -> list[bool]:
        """Add the work of an equation to the counts.

        Args:
            equation: an equation of a jaxpr.
            steady: for each argument, whether it is loop-invariant.
            turns: how often the equation runs.
            looped: whether it is inside the body of a loop.

        Returns:
            For each result, whether it is loop-invariant.
        """
        name = equation.primitive.name
        parameters = equation.params
        if name == "while":
            self._loop(parameters["cond_jaxpr"], parameters["cond_nconsts"], turns * _TURNS)
            self._loop(parameters["body_jaxpr"], parameters["body_nconsts"], turns * _TURNS)
        elif name == "scan":
            inside = open_program(parameters["jaxpr"])
            carried = _unscanned(equation.outvars, inside.outvars)
            constants = _unscanned(equation.invars, inside.invars) - carried
            self._loop(inside, constants, turns * parameters["length"], carried)
        else:
            inner = [] if _BY_NUMBERS.fullmatch(name) else inner_programs(equation)
            if _is_call(equation, inner):
                return self.look(inner[0], steady, turns, looped=looped)
            # XLA moves nothing out of a single branch.
            for one in inner:
                self.look(one, [False] * len(open_program(one).invars), turns, looped=False)
            if not inner:
                self.total += _work(equation) * turns
        return [all(steady)] * len(equation.outvars)

    def _loop(self, body: Any, constants: int, turns: int, carried: int | None = None) -> None:
        """Add the work of a loop body to the counts.

        Args:
            body: a jaxpr.
            constants: the number of its first arguments that stay constant in the loop.
            turns: the number of iterations.
            carried: the number of arguments that an iteration passes to the next one; by default
                all results of the body.
        """
        inside = open_program(body)
        steady = [True] * constants + [False] * (len(inside.invars) - constants)
        # A carried value that the body returns unchanged is invariant too.
        for i, left in enumerate(inside.outvars[:carried]):
            steady[constants + i] = left is inside.invars[constants + i]
        self.look(body, steady, turns, looped=True)


def _is_call(equation: Any, inner: list[Any]) -> bool:
    """Whether an equation, such as `jit`, calls one inner function with its own arguments."""
    if equation.primitive.name == "cond" or len(inner) != 1:
        return False
    inside = open_program(inner[0])
    return (len(inside.invars), len(inside.outvars)) == (
        len(equation.invars),
        len(equation.outvars),
    )


def _work(equation: Any) -> int:
    """Return the work of an equation, roughly in additions."""
    name = equation.primitive.name
    if _FREE.fullmatch(name):
        return 0
    shapes: list[tuple[int, ...]] = [
        getattr(v.aval, "shape", ()) for v in (*equation.invars, *equation.outvars)
    ]
    size = max(map(math.prod, shapes), default=0)
    # A product of matrices takes one addition per element of the result and summed index.
    if name == "dot_general":
        (summed, _), _ = equation.params["dimension_numbers"]
        return math.prod(shapes[-1]) * math.prod(shapes[0][i] for i in summed)
    # A factorisation of n × n elements takes about n³ additions.
    if _OF_MATRICES.fullmatch(name):
        return size * shapes[0][-1]
    return size if _CHEAP.fullmatch(name) else _DEAR * size


def _unscanned(outside: list[Any], inside: list[Any]) -> int:
    """Return the number of arrays that a scan passes whole, without slicing or stacking.

    Args:
        outside: the arguments or results of the scan.
        inside: the arguments or results of its body, in the same order.
    """
    return sum(a.aval.ndim == b.aval.ndim for a, b in zip(outside, inside, strict=True))

"""Gradients of the log density by reverse-mode or forward-mode differentiation of the solver."""

import contextlib
import json
import re
import timeit
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._jax.compiling import in_batches
from .._jax.devices import cache_folder, computing_devices
from .._jax.trace import parted
from .._runs.files import write_text
from ..errors import BayesDaslError, ModelError, WriteError
from .problem import Evaluation, LogDensity, Problem, ValueAndGradient
from .sharding import Sharded

STRATEGIES = ("auto", "forward", "reverse")
# Forward mode carries one tangent per parameter: a few are cheaper than an adjoint solve.
_FORWARD_UP_TO, _REVERSE_FROM = 8, 65
# From this number of states on, forward mode is slower even for two parameters.
_MANY_STATES = 30
# Forward mode must take at most this share of the time of reverse mode.
_MARGIN = 0.8
# Number of positions at which `many_gradients` takes gradients at once.
BATCH = 16


def choose(problem: Problem, wanted: str) -> str:
    """Return the mode of differentiation, `forward` or `reverse`.

    Args:
        problem: the posterior.
        wanted: "forward", "reverse", or "auto" for the faster one, by rules or by a measurement.

    Raises:
        ModelError: if the adjoint of the model's solver does not support the wanted mode.
    """
    adjoints = problem.adjoints()
    # 1. The user's adjoint of a solver decides.
    chosen = _chosen_by_user(adjoints)
    if chosen:
        only = "forward" if any(isinstance(a, diffrax.ForwardMode) for a in chosen) else "reverse"
        if wanted not in ("auto", only):
            raise ModelError(
                f"gradient='{wanted}' cannot be had: the model's solver has "
                f"adjoint={type(chosen[0]).__name__}(), by which only {only} mode works; leave "
                "adjoint or gradient at its default"
            )
        return only
    if wanted != "auto":
        return wanted
    # 2. Without a solver reverse mode is never slower.
    if not adjoints:
        return "reverse"
    # 3. The number of parameters decides if it is small or large, else a measurement.
    if problem.dimension <= _FORWARD_UP_TO and problem.states() < _MANY_STATES:
        return "forward"
    if problem.dimension >= _REVERSE_FROM:
        return "reverse"
    return _remembered(problem)


def _chosen_by_user(adjoints: list[diffrax.AbstractAdjoint]) -> list[diffrax.AbstractAdjoint]:
    """Return the adjoints other than Diffrax's default, which only a user can have set."""
    return [a for a in adjoints if not isinstance(a, diffrax.RecursiveCheckpointAdjoint)]


def _remembered(problem: Problem) -> str:
    """Return the faster mode on this kind of device, from the cache folder or by measurement.

    A measurement is written to the cache folder. It also serves other data of the same shape, so
    that repeated fits choose the same mode.
    """
    folder = cache_folder()
    kind = re.sub(r"\W+", "-", computing_devices()[0].device_kind.lower())
    known = "" if folder is None else problem.without_data().fingerprint()
    note = folder / "gradients" / f"{known}-{kind}.json" if folder and known else None
    noted = note and _noted(note)
    if noted:
        return noted
    seconds = {
        way: seconds_a_gradient(problem, way, BATCH, key=jax.random.key(0))
        for way in STRATEGIES[1:]
    }
    strategy = "forward" if seconds["forward"] < _MARGIN * seconds["reverse"] else "reverse"
    if note is not None:
        text = json.dumps({"strategy": strategy, "seconds_per_gradient": seconds})
        with contextlib.suppress(WriteError):
            write_text(note, f"{text}\n")
    return strategy


def _noted(note: Path) -> str | None:
    """Return the differentiation mode in a cache file: "forward" or "reverse".

    The result is None if the file cannot be read or holds neither.
    """
    try:
        strategy = json.loads(note.read_text(encoding="utf-8"))["strategy"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return strategy if strategy in STRATEGIES[1:] else None


def seconds_a_gradient(problem: Problem, strategy: str, count: int, *, key: Array) -> float:
    """Return the seconds per gradient with all devices busy, without compilation.

    It is the fastest of five runs, which is least disturbed by other work on the machine.

    Args:
        problem: the posterior.
        strategy: the mode of differentiation, "forward" or "reverse".
        count: the number of prior draws at which gradients are taken together.
        key: random seed of the draws.
    """
    run = Sharded(traced_once(problem, strategy)[0], count)
    positions = problem.prior(count, key=key)
    run.compile(positions)
    return min(timeit.repeat(lambda: run(positions), number=1)) / count


def many_gradients(value_and_gradient: ValueAndGradient) -> Evaluation:
    """Return a function that evaluates log densities and gradients at any number of positions.

    It takes 16 positions at once, so that the choice of the mode, `check` and a fit compile the
    same program.

    Args:
        value_and_gradient: the function of one position, as `traced_once` returns it.
    """
    run = Sharded(value_and_gradient, BATCH)
    return lambda positions: in_batches(run, positions, batch=BATCH)


def differentiated(
    problem: Problem, strategy: str, *, other: bool = True
) -> tuple[str, ValueAndGradient, LogDensity]:
    """Differentiate the log density, in the other mode if the wanted one fails.

    Some equations can be differentiated in one mode only. Reverse mode fails for a loop of unknown
    length, forward mode for a `jax.custom_vjp`.

    Args:
        problem: the posterior.
        strategy: "forward" or "reverse".
        other: whether the other mode may be used.

    Returns:
        The mode, a function that returns value and gradient, and the log density. Both functions
        share one trace.

    Raises:
        ModelError: if no allowed mode works.
    """
    free = other and not _chosen_by_user(problem.adjoints())
    ways = [strategy, *(way for way in STRATEGIES[1:] if free and way != strategy)]
    refused = None
    for way in ways:
        try:
            return way, *_traced(problem, way)
        except BayesDaslError:
            raise
        # JAX, or a rule of the user, may raise anything.
        except Exception as error:
            refused = refused or error
    raise ModelError(
        f"the model cannot be differentiated in {' or '.join(ways)} mode: "
        f"{type(refused).__name__}: {refused}"
    ) from refused


def traced_once(problem: Problem, strategy: str = "reverse") -> tuple[ValueAndGradient, LogDensity]:
    """Trace the log density once, and return two functions of the flat vector.

    Args:
        problem: the posterior.
        strategy: "forward" or "reverse"; the other mode is used if this one fails.

    Returns:
        A function that returns value and gradient, and the log density.
    """
    return differentiated(problem, strategy)[1:]


def _traced(problem: Problem, strategy: str) -> tuple[ValueAndGradient, LogDensity]:
    """Trace the log density in one mode, and return two functions of the flat vector.

    Tracing a solver takes about as long as compiling it, so all programs of an engine are built
    from these two functions. Unlike the solver itself, they can be used inside `shard_map`
    (diffrax#765).

    Args:
        problem: the posterior.
        strategy: "forward" or "reverse".

    Returns:
        A function that returns value and gradient, and the log density with that gradient.
    """
    if strategy == "forward":
        both = _by_tangents(problem.forward().log_density)
    else:
        both = jax.value_and_grad(problem.log_density)
    one, held, _ = parted(both, jnp.zeros(problem.dimension))
    evaluate = jax.jit(one)

    def value_and_gradient(position):
        # The data are an argument of the program, see `parted`.
        value, gradient = evaluate(held, position)
        # A vector field that becomes NaN (the root of a negative state) has a NaN gradient. The
        # draw is rejected anyway, and no NaN may spread.
        return value, jnp.where(jnp.isfinite(value), gradient, 0.0)

    @jax.custom_vjp
    def log_density_of(position):
        return value_and_gradient(position)[0]

    log_density_of.defvjp(value_and_gradient, lambda gradient, scale: (scale * gradient,))
    return value_and_gradient, log_density_of


def _by_tangents(log_density: LogDensity) -> ValueAndGradient:
    """Return a function for value and gradient in forward mode.

    It runs one solve with a tangent for each parameter.
    """

    def value_and_gradient(position):
        along = lambda direction: jax.jvp(log_density, (position,), (direction,))  # noqa: E731
        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(position.size))

    return value_and_gradient

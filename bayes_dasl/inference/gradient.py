"""How the gradient of a posterior is taken: by reverse or by forward mode through the solver,
traced once.
"""

import contextlib
import json
import re
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp

from .._jax.devices import cache_folder, computing_devices
from .._jax.trace import parted
from .._runs.files import write_text
from ..errors import BayesDaslError, ModelError, WriteError
from .problem import LogDensity, Problem, ValueAndGradient
from .sharding import lap_times

STRATEGIES = ("auto", "forward", "reverse")
# Forward mode carries one tangent for each unknown number along: few cost less than the way back,
# many do not.
_FORWARD_UP_TO, _REVERSE_FROM = 8, 65
# But with many states, forward mode is the slower one for two unknown numbers already.
_MANY_STATES = 30
# Reverse mode unless forward mode is clearly faster.
_MARGIN = 0.8
_POSITIONS, _LAPS = 16, 3


def choose(problem: Problem, wanted: str) -> str:
    """`forward` or `reverse`: as wanted, or by a short measurement that is remembered, so that a
    choice is stable.

    Raises:
        ModelError: if the adjoint of the model's solver cannot do what is wanted.
    """
    adjoints = problem.adjoints()
    chosen = _chosen_by_user(adjoints)
    if chosen:
        only = "forward" if any(isinstance(a, diffrax.ForwardMode) for a in chosen) else "reverse"
        if wanted not in ("auto", only):
            raise ModelError(
                f"gradient='{wanted}' cannot be had: the model's solver has "
                f"adjoint={type(chosen[0]).__name__}(), by "
                f"which only {only} mode works; leave adjoint or gradient at its default"
            )
        return only
    if wanted != "auto":
        return wanted
    if not adjoints:
        return "reverse"  # there is no solver
    if problem.dimension <= _FORWARD_UP_TO and problem.states() < _MANY_STATES:
        return "forward"
    if problem.dimension >= _REVERSE_FROM:
        return "reverse"
    return _remembered(problem)


def _chosen_by_user(adjoints: list[diffrax.AbstractAdjoint]) -> list[diffrax.AbstractAdjoint]:
    """Every other adjoint than Diffrax's default is the user's choice of how the gradient is
    taken.
    """
    return [a for a in adjoints if not isinstance(a, diffrax.RecursiveCheckpointAdjoint)]


def _remembered(problem: Problem) -> str:
    """The choice measured on this kind of device, which holds from then on, for other data of this
    shape too.
    """
    folder = cache_folder()
    kind = re.sub(r"\W+", "-", computing_devices()[0].device_kind.lower())
    known = "" if folder is None else problem.without_data().fingerprint()
    note = folder / "gradients" / f"{known}-{kind}.json" if folder and known else None
    noted = None if note is None else _noted(note)
    if noted is not None:
        return noted
    seconds = {strategy: _measure(problem, strategy) for strategy in ("forward", "reverse")}
    strategy = "forward" if seconds["forward"] < _MARGIN * seconds["reverse"] else "reverse"
    if note is not None:
        with contextlib.suppress(WriteError):
            write_text(
                note, json.dumps({"strategy": strategy, "seconds_per_gradient": seconds}) + "\n"
            )
    return strategy


def _noted(note: Path) -> str | None:
    """The strategy in a note; none if there is no note, or a torn one."""
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    strategy = held.get("strategy") if isinstance(held, dict) else None
    return strategy if strategy in STRATEGIES[1:] else None


def _measure(problem: Problem, strategy: str) -> float:
    """Seconds for one gradient, on average over prior draws; all devices work side by side."""
    _, value_and_gradient, _ = differentiated(problem, strategy)
    positions = problem.prior(_POSITIONS, key=jax.random.key(0))
    return min(lap_times(value_and_gradient, positions, _POSITIONS, laps=_LAPS)) / _POSITIONS


def differentiated(
    problem: Problem, strategy: str, *, other: bool = True
) -> tuple[str, ValueAndGradient, LogDensity]:
    """How the gradient is taken, with value and gradient, and the log density itself, from one
    shared trace.

    Not every equation can be differentiated both ways: a loop of unknown length only forward, a
    rule of its own by `jax.custom_vjp` only in reverse. Then it is the `other` way, if that may be.

    Raises:
        ModelError: where neither way can be had.
    """
    free = other and not _chosen_by_user(problem.adjoints())
    ways = [strategy, *(way for way in STRATEGIES[1:] if free and way != strategy)]
    refused = None
    for way in ways:
        try:
            return way, *_traced(problem, way)
        except BayesDaslError:
            raise
        except Exception as error:  # whatever JAX, or a rule of the user, may raise
            refused = refused or error
    raise ModelError(
        f"the model cannot be differentiated in {' or '.join(ways)} mode: "
        f"{type(refused).__name__}: {refused}"
    ) from refused


def traced_once(problem: Problem, strategy: str = "reverse") -> tuple[ValueAndGradient, LogDensity]:
    """Value and gradient of the log density, and the log density itself, as `differentiated` makes
    them.
    """
    return differentiated(problem, strategy)[1:]


def _traced(problem: Problem, strategy: str) -> tuple[ValueAndGradient, LogDensity]:
    """Value and gradient of the log density, and the log density itself, from one shared trace.

    Tracing a solver takes about as long as compiling it, so every program of an engine is built
    from these two. They are closed: unlike the solver itself they can be used inside `shard_map`
    (diffrax#765).
    """
    forward = strategy == "forward"
    both = (
        _forward(problem.forward().log_density)
        if forward
        else jax.value_and_grad(problem.log_density)
    )
    one, held, _ = parted(both, jnp.zeros(problem.dimension))
    evaluate = jax.jit(one)

    def value_and_gradient(position):
        # The data, too, as an argument: see `parted`, inside of which alone it may be traced where
        # threads do so.
        value, gradient = evaluate(held, position)
        # A vector field that turns NaN (the root of a negative state) has a NaN gradient: the draw
        # is lost anyway.
        return value, jnp.where(jnp.isfinite(value), gradient, 0.0)

    @jax.custom_vjp
    def log_density_of(position):
        return value_and_gradient(position)[0]

    log_density_of.defvjp(value_and_gradient, lambda gradient, scale: (scale * gradient,))
    return value_and_gradient, log_density_of


def _forward(log_density: LogDensity) -> ValueAndGradient:
    """One solve that carries the sensitivities to every unknown number along."""

    def value_and_gradient(position):
        along = lambda direction: jax.jvp(log_density, (position,), (direction,))  # noqa: E731
        return jax.vmap(along, out_axes=(None, 0))(jnp.eye(position.size))

    return value_and_gradient

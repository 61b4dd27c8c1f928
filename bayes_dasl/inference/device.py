"""Which kind of device a fit computes on."""

import contextlib
import warnings
from collections.abc import Iterator

import jax
import numpy as np

from .._runs.journal import Arrays, Journal
from ..errors import MismatchError, ModelError
from .gradient import traced_once
from .problem import Problem
from .sharding import lap_times, shards_of

_LAPS = 5


def kinds() -> list[str]:
    """The kinds of device that JAX sees here, its default first."""
    try:
        jax.devices("cpu")
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return [jax.default_backend()]
    return list(dict.fromkeys([jax.default_backend(), "cpu"]))


def check_device(device: str) -> None:
    """Raise ModelError for a device that is not here."""
    if device != "auto" and device not in kinds():
        extra = (
            "; for an NVIDIA GPU install bayes-dasl[cuda12] or bayes-dasl[cuda13]"
            if device == "gpu"
            else ""
        )
        raise ModelError(
            f"there is no device '{device}': give 'auto' or one of {', '.join(kinds())}{extra}"
        )


@contextlib.contextmanager
def computing_on(device: str, problem: Problem, batch: int, journal: Journal) -> Iterator[str]:
    """Compute on this kind of device; says which it is and why.

    `auto` takes the kind with the most gradients a second for a batch of so many positions. The
    choice is a step of the journal: the rest of a run is computed on what it was begun with.

    Raises:
        ModelError: if that is not here.
        MismatchError: if another is asked for.
    """
    chosen = journal.step("device", lambda: _choose(device, problem, batch))
    kind, reason = str(chosen["kind"]), str(chosen["reason"])
    if device not in ("auto", kind):
        raise MismatchError(
            f"the checkpoint was computed on {kind}: resume it there, not with device='{device}'"
        )
    check_device(kind)
    begun_on, here = int(chosen["number"]), _number(kind)
    if begun_on != here:
        warnings.warn(
            f"the checkpoint was begun on {begun_on} {kind} devices and here are {here}: the draws "
            "will be those of an "
            "uninterrupted run to rounding only",
            stacklevel=2,
        )
    untouched = jax.config.jax_default_device is None and kind == jax.default_backend()
    with contextlib.nullcontext() if untouched else jax.default_device(jax.devices(kind)[0]):
        yield f"{kind}: {reason}"


def _choose(device: str, problem: Problem, batch: int) -> Arrays:
    if device != "auto":
        kind, reason = device, "as asked"
    elif len(kinds()) == 1:
        kind, reason = kinds()[0], "the only kind of device here"
    else:
        speeds = {kind: _gradients_a_second(problem, batch, kind) for kind in kinds()}
        kind = max(speeds, key=lambda k: speeds[k])
        measured = ", ".join(f"{speed:.0f} on {name}" for name, speed in speeds.items())
        reason = f"gradients a second for a batch of {batch}: {measured}"
    return {
        "kind": np.asarray(kind),
        "reason": np.asarray(reason),
        "number": np.asarray(_number(kind)),
    }


def _number(kind: str) -> int:
    return shards_of(kind)


def _gradients_a_second(problem: Problem, batch: int, kind: str) -> float:
    with jax.default_device(jax.devices(kind)[0]):
        value_and_gradient, _ = traced_once(problem)
        times = lap_times(
            value_and_gradient, problem.prior(batch, key=jax.random.key(0)), batch, laps=_LAPS
        )
    return batch * _LAPS / sum(times)

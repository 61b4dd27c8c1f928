"""The choice between CPU and accelerator for a fit."""

import contextlib
import warnings
from collections.abc import Iterator

import jax
import numpy as np

from .._runs.journal import Arrays, Journal
from ..errors import MismatchError, ModelError
from .gradient import seconds_a_gradient
from .problem import Problem
from .sharding import shards_of


def kinds() -> list[str]:
    """Return the kinds of device that JAX finds, such as "gpu" and "cpu", its default first."""
    try:
        jax.devices("cpu")
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        return [jax.default_backend()]
    return list(dict.fromkeys([jax.default_backend(), "cpu"]))


def check_device(device: str) -> None:
    """Raise ModelError if a kind of device does not exist.

    Args:
        device: "auto", "cpu" or "gpu", or another platform of JAX.

    Raises:
        ModelError: if JAX finds no such device.
    """
    if device != "auto" and device not in kinds():
        extra = ""
        if device == "gpu":
            extra = "; for an NVIDIA GPU install bayes-dasl[cuda12] or bayes-dasl[cuda13]"
        raise ModelError(
            f"there is no device '{device}': give 'auto' or one of {', '.join(kinds())}{extra}"
        )


@contextlib.contextmanager
def computing_on(device: str, problem: Problem, batch: int, journal: Journal) -> Iterator[str]:
    """Compute on one kind of device inside a `with` block.

    The block receives the kind and the reason of the choice as text. The choice is a step of the
    journal, so that a resumed run continues on the same kind.

    Args:
        device: a kind of device, or "auto" for the kind with the most gradients per second.
        problem: the posterior.
        batch: number of positions that the engine evaluates together.
        journal: stores the choice.

    Raises:
        ModelError: if the device does not exist.
        MismatchError: if the run began on another kind of device.
    """
    chosen = journal.step("device", lambda: _fastest_kind(device, problem, batch))
    kind = str(chosen["kind"])
    reason = str(chosen["reason"])
    if device not in ("auto", kind):
        raise MismatchError(
            f"the checkpoint was computed on {kind}: resume it there, not with device='{device}'"
        )
    check_device(kind)
    # With another number of devices batches have other sizes, so that sums round differently.
    begun_on = int(chosen["number"])
    here = shards_of(kind)
    if begun_on != here:
        warnings.warn(
            f"the checkpoint was begun on {begun_on} {kind} devices and here are {here}: the draws "
            "will be those of an uninterrupted run to rounding only",
            stacklevel=2,
        )
    untouched = jax.config.jax_default_device is None and kind == jax.default_backend()
    with contextlib.nullcontext() if untouched else jax.default_device(jax.devices(kind)[0]):
        yield f"{kind}: {reason}"


def _fastest_kind(device: str, problem: Problem, batch: int) -> Arrays:
    """Choose the kind of device, and return the choice as a step of the journal.

    Returns:
        `kind`, the text `reason`, and the `number` of shards on this kind of device.
    """
    if device != "auto":
        kind, reason = device, "as asked"
    elif len(kinds()) == 1:
        kind = kinds()[0]
        reason = "the only kind of device here"
    else:
        speeds = {kind: _gradients_a_second(problem, batch, kind) for kind in kinds()}
        kind = max(speeds, key=speeds.__getitem__)
        measured = ", ".join(f"{speed:.0f} on {name}" for name, speed in speeds.items())
        reason = f"gradients a second for a batch of {batch}: {measured}"
    return {
        "kind": np.asarray(kind),
        "reason": np.asarray(reason),
        "number": np.asarray(shards_of(kind)),
    }


def _gradients_a_second(problem: Problem, batch: int, kind: str) -> float:
    """Return the number of gradients per second on a kind of device, measured at prior draws."""
    with jax.default_device(jax.devices(kind)[0]):
        return 1 / seconds_a_gradient(problem, "reverse", batch, key=jax.random.key(0))

"""Which kind of device a fit computes on."""

import contextlib
import time
from collections.abc import Iterator

import jax

from .._errors import ModelError
from ._problem import Problem, traced_once
from ._spread import spread

_LAPS = 5


def kinds() -> list[str]:
    """The kinds of device that JAX sees here, its default first."""
    return list(dict.fromkeys([jax.default_backend(), "cpu"]))


def check_device(device: str) -> None:
    """Raises: ModelError for a device that is not here."""
    if device != "auto" and device not in kinds():
        extra = "; for an NVIDIA GPU install bayes-dasl[cuda12] or bayes-dasl[cuda13]" if device == "gpu" else ""
        raise ModelError(f"there is no device '{device}': give 'auto' or one of {', '.join(kinds())}{extra}")


@contextlib.contextmanager
def computing_on(device: str, problem: Problem, chains: int) -> Iterator[str]:
    """Compute on this kind of device; says which it is and why.

    `auto` takes the kind with the most gradients a second for so many chains at once.
    """
    if device != "auto":
        kind, reason = device, "as asked"
    elif len(kinds()) == 1:
        kind, reason = kinds()[0], "the only kind of device here"
    else:
        rates = {kind: _gradients_a_second(problem, chains, kind) for kind in kinds()}
        kind = max(rates, key=lambda k: rates[k])
        measured = ", ".join(f"{rate:.0f} on {name}" for name, rate in rates.items())
        reason = f"gradients a second for {chains} chains: {measured}"
    with jax.default_device(jax.devices(kind)[0]) if kind != jax.default_backend() else contextlib.nullcontext():
        yield f"{kind}: {reason}"


def _gradients_a_second(problem: Problem, chains: int, kind: str) -> float:
    with jax.default_device(jax.devices(kind)[0]):
        value_and_gradient, _ = traced_once(problem)
        over = spread(value_and_gradient, chains)
        run = jax.jit(over.function)
        x = jax.device_put(problem.prior(chains, key=jax.random.key(0)), over.sharding)
        jax.block_until_ready(run(x))
        began = time.perf_counter()
        for _ in range(_LAPS):
            jax.block_until_ready(run(x))
        return _LAPS * chains / (time.perf_counter() - began)

"""Robust starts: many prior draws, a short optimisation of the best, the modes, the curvature at the best one."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._errors import ModelError
from ._problem import Problem, ValueAndGradient
from ._spread import spread

_PRIOR_DRAWS = 128
# Only promising draws are optimised: one of the others may need every step that the solver allows.
_STARTS = 32
_STEPS = 400
# A mode so much lower in log density than the best holds little of the posterior.
_WORTH_HAVING = 5.0
_HESSIAN_STEP = 1e-4
_TRIES = 16


@dataclasses.dataclass(frozen=True)
class Start:
    """Where chains begin: modes (best first), minus the Hessian at the best, and how prior draws fared."""

    modes: Float[np.ndarray, "modes dimension"]
    log_densities: Float[np.ndarray, " modes"]
    precision: Float[np.ndarray, "dimension dimension"]
    prior_draws: int
    prior_failures: int


class Optimiser:
    """Adam from `_STARTS` positions; one compiled program serves to optimise and to evaluate.

    `seconds` and `gradients` count what it has computed so far.
    """

    def __init__(self, value_and_gradient: ValueAndGradient):
        schedule = optax.cosine_decay_schedule(0.1, _STEPS)
        adam = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))

        def descend(x, steps):
            def step(_, carry):
                x, memory, (best, highest), _ = carry
                value, gradient = value_and_gradient(x)
                better = value > highest
                best = jnp.where(better, x, best), jnp.where(better, value, highest)
                ascent = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
                update, memory = adam.update(-ascent, memory)
                return x + update, memory, best, gradient

            begun = (x, adam.init(x), (x, -jnp.inf), jnp.zeros_like(x))
            _, _, (best, highest), gradient = jax.lax.fori_loop(0, steps, step, begun)
            return best, highest, gradient

        over = spread(descend, _STARTS, shared=1)
        self._sharding, self._descend = over.sharding, jax.jit(over.function)
        self._program: Any = None
        self.seconds, self.gradients = 0.0, 0

    def _run(self, x: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        given = jax.device_put(x, self._sharding), np.asarray(steps)
        self._program = self._program or self._descend.lower(*given).compile()
        began = time.perf_counter()
        found = jax.tree.map(np.asarray, self._program(*given))
        self.seconds += time.perf_counter() - began
        self.gradients += steps * len(x)
        return found

    def optimise(self, x: Float[np.ndarray, "batch dimension"]) -> Float[np.ndarray, "batch dimension"]:
        """The positions after a short ascent of the log density."""
        return self._run(x, _STEPS)[0]

    def evaluate(self, x: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Log density and gradient at any number of positions."""
        values, gradients = [], []
        for begin in range(0, len(x), _STARTS):
            part = x[begin : begin + _STARTS]
            padded = np.concatenate([part, np.repeat(part[-1:], _STARTS - len(part), axis=0)])
            _, value, gradient = self._run(padded, 1)
            values.append(value[: len(part)])
            gradients.append(gradient[: len(part)])
        return np.concatenate(values), np.concatenate(gradients)


type Climb = Callable[[Float[np.ndarray, "batch dimension"]], Float[np.ndarray, "batch dimension"]]
"""A way from prior draws to where the posterior is high."""


def find_start(problem: Problem, optimiser: Optimiser, *, climb: Climb | None = None, key: Array) -> Start:
    """Modes worth having and the curvature at the best; by the optimiser, or another way to climb there.

    Raises: ModelError if no prior draw leads to a finite log density.
    """
    first = np.asarray(problem.prior(_PRIOR_DRAWS, key=key))
    at_first, _ = optimiser.evaluate(first)
    promising = first[np.argsort(-np.where(np.isfinite(at_first), at_first, -np.inf))[:_STARTS]]
    x = (climb or optimiser.optimise)(promising)
    value, _ = optimiser.evaluate(x)
    value = np.where(np.isfinite(value), value, -np.inf)
    if not np.isfinite(value).any():
        raise ModelError(
            f"none of {_PRIOR_DRAWS} prior draws leads to a finite log density: run bd.check(model, data), which "
            "says how prior draws fare in the solver, and narrow the priors or loosen the solver"
        )
    order = np.argsort(-value)
    best = x[order[0]]
    precision = _precision(optimiser, best)
    modes = _distinct(x[order], value[order], precision)
    failures = int((~np.isfinite(at_first)).sum())
    return Start(x[order][modes], value[order][modes], precision, _PRIOR_DRAWS, failures)


def _precision(optimiser: Optimiser, mode: np.ndarray) -> np.ndarray:
    """Minus the Hessian, by central differences: the solver's adjoint has no second derivative."""
    nudge = _HESSIAN_STEP * np.eye(len(mode))
    _, gradient = optimiser.evaluate(np.concatenate([mode + nudge, mode - nudge]))
    up, down = np.split(np.nan_to_num(gradient), 2)
    hessian = (down - up) / (2 * _HESSIAN_STEP)
    return (hessian + hessian.T) / 2


def _distinct(x: np.ndarray, value: np.ndarray, precision: np.ndarray) -> list[int]:
    """Indices of the modes worth having, of those that lie together only the best."""
    kept: list[int] = []
    for i in np.flatnonzero(value > value[0] - _WORTH_HAVING):
        apart = (abs((x[i] - x[j]) @ precision @ (x[i] - x[j])) > 9.0 for j in kept)
        if all(apart):
            kept.append(int(i))
    return kept


def first_positions(
    start: Start, optimiser: Optimiser, chains: int, *, key: Array
) -> Float[np.ndarray, "chains dimension"]:
    """A dispersed start for each chain: a Laplace draw around one of the modes, where the density is finite."""
    values, vectors = np.linalg.eigh(start.precision)
    scale = (vectors / np.sqrt(np.maximum(np.abs(values), 1e-2))).T
    modes = start.modes[np.arange(chains) % len(start.modes)]
    noise = np.asarray(jax.random.normal(key, (_TRIES, chains, modes.shape[1])))
    candidates = modes + noise @ scale
    value, _ = optimiser.evaluate(candidates.reshape(_TRIES * chains, -1))
    finite = np.isfinite(value.reshape(_TRIES, chains))
    return np.where(finite.any(0)[:, None], candidates[finite.argmax(0), np.arange(chains)], modes)

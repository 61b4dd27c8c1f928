"""Robust starts: many prior draws, a short batched optimisation, the best modes, a Laplace metric."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._errors import ModelError
from ._problem import Problem, ValueAndGradient

_PRIOR_DRAWS = 128
# A batch is as slow as its slowest solve, so only promising draws are optimised: 20 s instead of 70 where one
# of them needs every step that the solver allows.
_STARTS = 16
_STEPS = 400
_DENSE_UP_TO = 64
# A mode so much lower in log density than the best holds little of the posterior.
_WORTH_HAVING = 5.0
_HESSIAN_STEP = 1e-4


@dataclasses.dataclass(frozen=True)
class Start:
    """Where chains begin: modes (best first), the metric there, and how prior draws fared."""

    modes: Float[np.ndarray, "modes dimension"]
    log_densities: Float[np.ndarray, " modes"]
    metric: np.ndarray
    prior_draws: int
    prior_failures: int


def metric_shape(dimension: int) -> jax.ShapeDtypeStruct:
    """Dense for few dimensions, diagonal for many."""
    shape = (dimension, dimension) if dimension <= _DENSE_UP_TO else (dimension,)
    return jax.ShapeDtypeStruct(shape, float)


class Optimiser:
    """Adam on a batch of `_STARTS` positions; one compiled program serves to optimise and to evaluate."""

    def __init__(self, value_and_gradient: ValueAndGradient):
        schedule = optax.cosine_decay_schedule(0.1, _STEPS)
        adam = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
        self._init = jax.vmap(adam.init)

        def descend(x, memory, steps):
            def step(_, carry):
                x, memory, _, _ = carry
                value, gradient = jax.vmap(value_and_gradient)(x)
                ascent = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
                update, memory = jax.vmap(adam.update)(-ascent, memory)
                return x + update, memory, value, gradient

            nothing = jnp.zeros(x.shape[0])
            return jax.lax.fori_loop(0, steps, step, (x, memory, nothing, jnp.zeros_like(x)))

        self._descend = jax.jit(descend)

    def optimise(self, x: Float[Array, "batch dimension"]) -> Float[Array, "batch dimension"]:
        """The positions after a short ascent of the log density."""
        return self._descend(x, self._init(x), _STEPS)[0]

    def evaluate(self, x: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Log density and gradient at any number of positions."""
        values, gradients = [], []
        for begin in range(0, len(x), _STARTS):
            part = x[begin : begin + _STARTS]
            padded = jnp.asarray(np.concatenate([part, np.repeat(part[-1:], _STARTS - len(part), axis=0)]))
            _, _, value, gradient = self._descend(padded, self._init(padded), 1)
            values.append(np.asarray(value)[: len(part)])
            gradients.append(np.asarray(gradient)[: len(part)])
        return np.concatenate(values), np.concatenate(gradients)


def find_start(problem: Problem, optimiser: Optimiser, *, key: Array) -> Start:
    """Modes worth having and the Laplace metric at the best.

    Raises: ModelError if no prior draw leads to a finite log density.
    """
    first = np.asarray(problem.prior(_PRIOR_DRAWS, key=key))
    at_first, _ = optimiser.evaluate(first)
    promising = first[np.argsort(-np.where(np.isfinite(at_first), at_first, -np.inf))[:_STARTS]]
    x = np.asarray(optimiser.optimise(jnp.asarray(promising)))
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
    return Start(x[order][modes], value[order][modes], _invert(precision), _PRIOR_DRAWS, failures)


def _precision(optimiser: Optimiser, mode: np.ndarray) -> np.ndarray:
    """Minus the Hessian, by central differences: the solver's adjoint has no second derivative."""
    nudge = _HESSIAN_STEP * np.eye(len(mode))
    _, gradient = optimiser.evaluate(np.concatenate([mode + nudge, mode - nudge]))
    up, down = np.split(np.nan_to_num(gradient), 2)
    hessian = (down - up) / (2 * _HESSIAN_STEP)
    return (hessian + hessian.T) / 2


def _invert(precision: np.ndarray) -> np.ndarray:
    """The metric: a covariance for few dimensions, its diagonal for many."""
    if len(precision) > _DENSE_UP_TO:
        return 1 / np.maximum(np.abs(np.diag(precision)), 1e-2)
    eigenvalues, vectors = np.linalg.eigh(precision)
    return (vectors / np.maximum(np.abs(eigenvalues), 1e-2)) @ vectors.T


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
    tries = 16
    scale = np.linalg.cholesky(start.metric).T if start.metric.ndim == 2 else np.diag(np.sqrt(start.metric))
    modes = start.modes[np.arange(chains) % len(start.modes)]
    noise = np.asarray(jax.random.normal(key, (tries, chains, modes.shape[1])))
    candidates = modes + noise @ scale
    value, _ = optimiser.evaluate(candidates.reshape(tries * chains, -1))
    finite = np.isfinite(value.reshape(tries, chains))
    return np.where(finite.any(0)[:, None], candidates[finite.argmax(0), np.arange(chains)], modes)

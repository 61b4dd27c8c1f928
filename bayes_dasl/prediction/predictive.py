"""Push draws through a model, chunk by chunk, so that memory stays bounded whatever their number."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._jax import memory as _memory
from .._jax.devices import keep_programs
from .._jax.trace import traced
from .._statistics.importance import total_log_likelihood
from ..data.layer_inputs import Inputs
from ..model import Model, Observed
from ..random import realise
from .conditional import parameters_of

_LARGEST_CHUNK = 500
_SHARE = 0.25
"""Of the memory at hand, for one chunk."""

type Draws = Mapping[str, np.ndarray]


class Pushed(eqx.Module):
    """What draws predict; the leading axis is the draw. Values are NaN where the solver failed.

    `mismatch` is the root mean square of each standardised mismatch and broken constraint, `log_factor` what all of
    them add to the log density. `noise` has the parameters of the distribution of each datum where its family, by name
    in `families`, and they make it anew.
    """

    mean: dict[str, Any]
    variance: dict[str, Any]
    ok: Any
    steps: Any
    log_likelihood: dict[str, Any]
    predictions: dict[str, Any]
    mismatch: dict[str, Any] = eqx.field(default_factory=dict)
    log_factor: Any = 0.0
    noise: dict[str, dict[str, Any]] = eqx.field(default_factory=dict)
    families: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    def log_weight(self, observed: Observed) -> Any:
        """What data and constraints together say of each draw."""
        return total_log_likelihood(self.log_likelihood, observed) + self.log_factor


def push(
    model: Model,
    inputs: Inputs,
    draws: Draws,
    *,
    observed: Observed | None = None,
    key: Array | None = None,
    repeats: int = 1,
) -> Pushed:
    """Conditional mean and variance of each observable for every draw.

    With `observed` also the log likelihood of each datum (NaN where it is missing); with `key` also one predictive draw
    and the parameters of the noise; of a noise that these do not make anew `repeats` draws, along a second axis.
    `draws` maps each random leaf's path to an array `(draws, …)`. A chunk is as large as a quarter of the memory at
    hand allows: the compiled program itself says what it needs.
    """
    keep_programs()
    total = len(next(iter(draws.values())))
    draws = {path: np.asarray(values) for path, values in draws.items()}
    # Numbers, which NumPy can index; without predictive draws nothing looks at them.
    keys = np.zeros((total, 0)) if key is None else np.asarray(jax.random.key_data(jax.random.split(key, total)))
    kind = None if key is None else jax.random.key_impl(key)
    run, chunk = _compiled(_one_draw(model, inputs, observed, kind, repeats), draws, keys)
    parts = []
    for start in range(0, total, chunk):
        # The last chunk repeats draws up to full length: one shape, one compilation.
        index = np.minimum(np.arange(start, start + chunk), total - 1)
        part = run({path: v[index] for path, v in draws.items()}, keys[index])
        keep = min(chunk, total - start)
        parts.append(jax.tree.map(lambda a, keep=keep: np.asarray(a)[:keep], part))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def _compiled(function: Callable, draws: Draws, keys: np.ndarray) -> tuple[Callable, int]:
    """A program for as many draws at once as a share of the memory allows, and their number."""
    first = {path: values[0] for path, values in draws.items()}
    # Traced once, without callbacks: another chunk costs no second trace, and JAX keeps the program on disk.
    flat = traced(function, first, keys[0])

    def one(draw, key):
        return flat(draw, key)

    budget = _SHARE * _memory.available()
    chunk = min(_LARGEST_CHUNK, len(keys))
    while True:
        shapes = jax.tree.map(lambda x, n=chunk: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), (first, keys[0]))
        program = jax.jit(jax.vmap(one)).lower(*shapes).compile()
        needed = _memory.needed(program)
        if needed <= budget or chunk == 1:
            return program, chunk
        # A power of two: free memory is never twice the same, but a program on disk is found by its chunk.
        chunk = 2 ** math.floor(math.log2(min(max(chunk * budget / needed, 1), chunk / 2)))


def _one_draw(model: Model, inputs: Inputs, observed: Observed | None, kind: Any, repeats: int) -> Any:
    """Of a draw; with random keys of some `kind` also predictions."""

    def one(draw, key):
        realised = realise(model, draw)
        prediction = realised.predict(inputs)
        ok = prediction.ok
        noise = realised.conditional(prediction, inputs)
        masked = lambda value: jnp.where(ok, value, jnp.nan)  # noqa: E731
        likelihood = {
            name: jnp.where(jnp.isnan(y), jnp.nan, noise[name].log_prob(jnp.where(jnp.isnan(y), 1.0, y)))
            for name, y in (observed or {}).items()
        }
        predictions, parameters = {}, {}
        if kind is not None:
            keys = jax.random.split(jax.random.wrap_key_data(key, impl=kind), len(noise))
            parameters = {name: found for name, d in noise.items() if (found := parameters_of(d))}
            for k, (name, d) in zip(keys, noise.items(), strict=True):
                several = repeats > 1 and name not in parameters
                predictions[name] = masked(d.sample(k, (repeats,) if several else ()))
        return Pushed(
            {name: masked(d.mean) for name, d in noise.items()},
            {name: masked(d.variance) for name, d in noise.items()},
            ok,
            prediction.stats.get("steps", jnp.zeros((), int)),
            {name: jnp.where(ok | jnp.isnan(value), value, -jnp.inf) for name, value in likelihood.items()},
            predictions,
            {name: masked(jnp.sqrt(jnp.mean(jnp.square(v)))) for name, v in prediction.mismatches.items()},
            prediction.log_factor,
            {name: _marked(ok, held) for name, held in parameters.items()},
            tuple((name, type(noise[name]).__name__) for name in parameters),
        )

    return one


def _marked(ok: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with NaN for those of a failed solve; whole numbers, such as one of trials, stay such."""
    return {p: jnp.where(ok, v, jnp.nan) if jnp.issubdtype(v.dtype, jnp.inexact) else v for p, v in parameters.items()}

"""Push draws through a model, chunk by chunk, so that memory stays bounded whatever their number."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .data import Inputs
from .model import Model, Observed
from .random import realise

_CHUNK_BYTES = 32 * 2**20
_LARGEST_CHUNK = 500

type Draws = Mapping[str, np.ndarray]


class Pushed(eqx.Module):
    """What draws predict; the leading axis is the draw. Values are NaN where the solver failed."""

    mean: dict[str, Any]
    variance: dict[str, Any]
    ok: Any
    steps: Any
    log_likelihood: dict[str, Any]
    predictions: dict[str, Any]


def push(
    model: Model,
    given: Inputs,
    draws: Draws,
    *,
    observed: Observed | None = None,
    key: Array | None = None,
) -> Pushed:
    """Conditional mean and variance of each observable for every draw.

    With `observed` also the log likelihood of each datum (NaN where it is missing); with `key` also one
    predictive draw. `draws` maps each random leaf's path to an array `(draws, …)`.
    """
    total = len(next(iter(draws.values())))
    chunk = min(_chunk_size(model, given), total)
    one = _one_draw(model, given, observed, key is not None)
    run = jax.jit(jax.vmap(one))
    keys = jax.random.split(jax.random.key(0) if key is None else key, total)
    parts = []
    for start in range(0, total, chunk):
        # The last chunk repeats draws up to full length: one shape, one compilation.
        index = np.minimum(np.arange(start, start + chunk), total - 1)
        part = run({path: jnp.asarray(v[index]) for path, v in draws.items()}, keys[index])
        keep = min(chunk, total - start)
        parts.append(jax.tree.map(lambda a, keep=keep: np.asarray(a)[:keep], part))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def _chunk_size(model: Model, given: Inputs) -> int:
    per_draw = 8 * 8 * given.times.size * max(len(model.layer.outputs), 1)
    return int(np.clip(_CHUNK_BYTES // per_draw, 1, _LARGEST_CHUNK))


def _one_draw(model: Model, given: Inputs, observed: Observed | None, predict: bool) -> Any:
    def one(draw, key):
        realised = realise(model, draw)
        prediction = realised.layer(given)
        ok = prediction.ok
        noise = realised.conditional(prediction)
        masked = lambda value: jnp.where(ok, value, jnp.nan)  # noqa: E731
        likelihood = {
            name: jnp.where(jnp.isnan(y), jnp.nan, noise[name].log_prob(jnp.where(jnp.isnan(y), 1.0, y)))
            for name, y in (observed or {}).items()
        }
        keys = jax.random.split(key, len(noise))
        predictions = {name: masked(d.sample(k)) for k, (name, d) in zip(keys, noise.items(), strict=True) if predict}
        return Pushed(
            {name: masked(d.mean) for name, d in noise.items()},
            {name: masked(d.variance) for name, d in noise.items()},
            ok,
            prediction.stats["steps"],
            {name: jnp.where(ok | jnp.isnan(value), value, -jnp.inf) for name, value in likelihood.items()},
            predictions,
        )

    return one

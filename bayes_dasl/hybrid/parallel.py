"""Models side by side, with learned shares."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from .._errors import ModelError
from .._types import Values
from ..random import is_function, shape_of
from ._joined import AbstractHybrid


class Parallel(AbstractHybrid):
    r"""A weighted mean of models that predict the same values.

    $\sum_k w_k\, f_k(t, y, u), \quad w_k \ge 0,\ \sum_k w_k = 1$

    `models` are vector fields or layers by name. `weights` are their shares: an array that sums to one or a
    distribution over the simplex (default: uniform), in the order of the models; or a gate, a function `(t, y, u)`
    such as a `Network` that returns a logit for each model by its name, so that the shares vary with what it reads.
    `extra` names what functions read from the data and the layers do not.
    Raises: ModelError for fewer than two models, weights of another number, or models that predict other values.
    """

    models: Mapping[str, Any]
    weights: Any
    # JAX sorts the names of a dict, the weights do not move with them.
    names: tuple[str, ...] = eqx.field(static=True)
    extra: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, models: Mapping[str, Any], weights: Any = None, *, extra: tuple[str, ...] = ()):
        if not isinstance(models, Mapping) or len(models) < 2:
            raise ModelError("models must be a dict of at least two vector fields or layers, by name")
        self.models, self.names, self.extra = models, tuple(models), tuple(extra)
        self.weights = dist.Dirichlet(jnp.ones(len(models))) if weights is None else weights
        if is_function(self.weights):
            return
        shape = shape_of(self.weights)
        if shape != (len(models),):
            raise ModelError(f"there are {len(models)} models, but weights of shape {shape}: give one for each")

    @property
    def parts(self):
        return self.models

    def join(self, t, y, u, found) -> Values:
        first, *others = found.items()
        for name, values in others:
            if set(values) != set(first[1]):
                raise ModelError(
                    f"'{first[0]}' returns {', '.join(first[1])}, but '{name}' returns {', '.join(values)}: models "
                    "side by side must return the same"
                )
        shares = self._shares(t, y, u)
        return {
            name: sum((share * found[model][name] for model, share in shares.items()), jnp.zeros(()))
            for name in first[1]
        }

    def _shares(self, t: Any, y: Values, u: Values) -> dict[str, Any]:
        if not callable(self.weights):
            return dict(zip(self.names, jnp.asarray(self.weights), strict=True))
        logits: Values = self.weights(t, y, u)  # type: ignore[operator]
        if set(logits) != set(self.models):
            raise ModelError(
                f"the gate returns {', '.join(logits)}: it must return a logit for each of {', '.join(self.models)}"
            )
        stacked = jnp.stack(jnp.broadcast_arrays(*(logits[model] for model in self.names)))
        return dict(zip(self.names, jax.nn.softmax(stacked, axis=0), strict=True))

"""`Parallel`: a weighted mean of several models, with learned weights."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from numpyro.distributions import constraints

from ..errors import ModelError
from ..layers._parts import check_function, check_part
from ..random import Values, is_function, is_random, shape_of
from ._joined import AbstractHybrid

# Tolerance of weights that were computed in single precision.
_ROUND_OFF = 1e-6


class Parallel(AbstractHybrid):
    r"""A weighted mean of models that predict the same values.

    $\sum_k w_k\, f_k(t, y, u), \quad w_k \ge 0,\ \sum_k w_k = 1$

    $f_k$ are the models and $w_k$ their weights; y are the states and u the forcings at time t.

    Args:
        models: the models by name: vector fields or layers.
        weights: the weights in the order of the models: an array that sums to one, or a
            distribution over the simplex. The default is a uniform distribution. Or a gate, for
            weights that depend on time, states and forcings: a function `(t, y, u)`, such as a
            `Network`, that returns one logit for each model by name.
        extra: with layers, the data variables that only functions read.

    Raises:
        ModelError: if there are fewer than two models, if the number of weights is wrong, or if
            they do not sum to one. When called, if models return different names.

    Example:
        ```python
        slow, fast = Decay(bd.between(0.1, 0.3)), Decay(bd.between(0.5, 1.0))
        layer = bd.ODE(bd.Parallel({"slow": slow, "fast": fast}), {"y": 2.0})
        ```
    """

    models: Mapping[str, Any]
    weights: Any
    # JAX sorts the keys of a dict, but weights are in the order of the user.
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self, models: Mapping[str, Any], weights: Any = None, *, extra: tuple[str, ...] = ()
    ):
        if not isinstance(models, Mapping) or len(models) < 2:
            raise ModelError(
                "models must be a dict of at least two vector fields or layers, by name"
            )
        for name, model in models.items():
            check_part(model, f"models['{name}']")
        self.models = models
        self.names = tuple(models)
        self.extra = tuple(extra)
        self.weights = dist.Dirichlet(jnp.ones(len(models))) if weights is None else weights
        if is_function(self.weights):
            check_function(self.weights, "a gate")
            return
        if not is_random(self.weights):
            self.weights = _as_array(self.weights)
        shape = shape_of(self.weights)
        if shape != (len(models),):
            raise ModelError(
                f"there are {len(models)} models, but weights of shape {shape}: give one for each"
            )
        _check_shares(self.weights)

    @property
    def parts(self):
        return self.models

    def join(self, t, y, u, found) -> Values:
        first, *others = found.items()
        for name, values in others:
            if set(values) != set(first[1]):
                raise ModelError(
                    f"'{first[0]}' returns {', '.join(first[1])}, but '{name}' returns "
                    f"{', '.join(values)}: models side by side must return the same"
                )
        shares = self._shares(t, y, u)
        total = dict.fromkeys(first[1], jnp.zeros(()))
        for model, share in shares.items():
            total = {name: total[name] + share * found[model][name] for name in total}
        return total

    def _shares(self, t: Any, y: Values, u: Values) -> dict[str, Any]:
        """Return the weight of each model at one point; for a gate, the softmax of its logits."""
        if not callable(self.weights):
            return dict(zip(self.names, jnp.asarray(self.weights), strict=True))
        logits: Values = self.weights(t, y, u)  # type: ignore[operator]
        if set(logits) != set(self.models):
            raise ModelError(
                f"the gate returns {', '.join(logits)}: it must return a logit for each of "
                f"{', '.join(self.models)}"
            )
        stacked = jnp.stack(jnp.broadcast_arrays(*(logits[model] for model in self.names)))
        return dict(zip(self.names, jax.nn.softmax(stacked, axis=0), strict=True))


def _as_array(weights: Any) -> Any:
    """Return weights as an array, or raise ModelError."""
    try:
        return jnp.asarray(weights, float)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"weights must be an array, a distribution or a gate (t, y, u), not {weights!r}"
        ) from error


def _check_shares(weights: Any) -> None:
    """Raise ModelError unless weights, or their distribution, are non-negative and sum to 1."""
    if is_random(weights):
        if weights.support != constraints.simplex:
            kind = type(weights).__name__
            raise ModelError(
                "weights must be a distribution over shares that sum to 1, as Dirichlet is, not "
                f"{kind}"
            )
    elif not isinstance(weights, Tracer):
        shares = np.asarray(weights, float)
        if not (np.all(shares >= 0) and abs(shares.sum() - 1) <= _ROUND_OFF):
            raise ModelError(
                f"weights must be shares that are not negative and sum to 1, not {shares}"
            )

"""Networks whose weights are random variables."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ._errors import ModelError
from ._tree import FrozenDict, dotted
from ._types import Scalar, Values
from .random import Module, is_random


def bayesian(module: Any) -> Any:
    """Every array of a module becomes a random leaf: weights N(0, 1 / fan-in), biases N(0, 1)."""

    def prior(weight):
        fan_in = weight.shape[-1] if weight.ndim > 1 else 1
        return dist.Normal(0.0, fan_in**-0.5).expand(weight.shape).to_event(weight.ndim)

    return jax.tree.map(lambda leaf: prior(leaf) if eqx.is_inexact_array(leaf) else leaf, module, is_leaf=is_random)


class Network(Module):
    r"""A Bayesian network between named values.

    $g(x) = s\,\mathrm{net}\!\left((x - m) / w\right)$, weights $\sim N(0, 1/\text{fan-in})$

    `module` is any Equinox module from a vector to a vector, for example `eqx.nn.MLP`; its arrays become
    random leaves. `inputs` names states, forcings or `"t"`: a mapping name → (location m, width w) standardises
    them (see `standardise`), a tuple of names takes them as they are; of fields it is taken at every point. `scale` s
    is about the standard deviation of the outputs under the prior: keep it small for a correction, or give a
    distribution to learn it.

    Its random leaves form the group *network*; all others are *science*.
    Raises: ModelError if the sizes of `module` do not match the names.
    """

    random_group: ClassVar[str] = "network"

    module: Any
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True)
    outputs: tuple[str, ...] = eqx.field(static=True)
    scale: Scalar = 1.0

    def __init__(
        self,
        module: Any,
        inputs: Mapping[str, tuple[float, float]] | tuple[str, ...],
        outputs: tuple[str, ...],
        scale: Scalar = 1.0,
    ):
        if isinstance(inputs, str) or isinstance(outputs, str):
            raise ModelError("inputs and outputs must be tuples of names, such as ('hare', 'lynx')")
        named = inputs.items() if isinstance(inputs, Mapping) else ((name, (0.0, 1.0)) for name in inputs)
        self.inputs = FrozenDict((name, (float(m), float(w))) for name, (m, w) in named)
        self.outputs = tuple(outputs)
        self.scale = scale
        _check_sizes(module, len(self.inputs), len(self.outputs))
        self.module = bayesian(module)

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        known = {"t": t, **u, **y}
        missing = [name for name in self.inputs if name not in known]
        if missing:
            raise ModelError(f"network input {', '.join(missing)} is none of {', '.join(known)}")
        features = [(jnp.asarray(known[name]) - m) / w for name, (m, w) in self.inputs.items()]
        features = jnp.stack(jnp.broadcast_arrays(*features), axis=-1)
        out = jnp.asarray(self.scale) * _pointwise(self.module, features)
        return {name: out[..., i] for i, name in enumerate(self.outputs)}


def networks(tree: Any) -> list[tuple[str, Network]]:
    """The networks inside a tree, with their dotted paths."""
    found = jtu.tree_flatten_with_path(tree, is_leaf=lambda node: isinstance(node, Network))[0]
    return [(dotted(path), node) for path, node in found if isinstance(node, Network)]


def _pointwise(module: Any, features: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
    """The module at every point of a field."""
    for _ in range(features.ndim - 1):
        module = jax.vmap(module)
    return module(features)


def _check_sizes(module: Any, inputs: int, outputs: int) -> None:
    try:
        shape = jax.eval_shape(module, jax.ShapeDtypeStruct((inputs,), jnp.result_type(float))).shape
    except (TypeError, ValueError) as error:
        raise ModelError(f"the network does not take a vector of {inputs} inputs: {error}") from error
    if shape != (outputs,):
        raise ModelError(f"the network returns shape {shape}, but {outputs} outputs are named: want ({outputs},)")

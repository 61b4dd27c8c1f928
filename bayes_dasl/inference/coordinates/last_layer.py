"""The last layers of networks: weights that their outputs are linear in, normal under the prior."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float

from ...networks.network import Network, linear_layers, networks
from ...random import RandomLeaf, draw_prior, paths, realise
from ..problem import Problem

_LINEAR = 1e-9


class LastLayer(NamedTuple):
    """Coordinates of a posterior, and their normal prior."""

    coordinates: tuple[int, ...]
    mean: Float[np.ndarray, " weight"]
    sd: Float[np.ndarray, " weight"]


def last_layer(problem: Problem) -> LastLayer:
    """Those of all networks of a model; none of a network whose outputs are not linear in the last of its layers."""
    leaves = paths(problem.model)
    inside = [(where, network) for where, network in networks(problem.model) if where.startswith("layer.")]
    parts = [path for where, network in inside for path in _linear_paths(where, network, leaves)]
    coordinates: list[int] = []
    moments: list[list[np.ndarray]] = [[], []]
    for path in parts:
        site, prior = problem.sites[path], leaves[path].distribution
        coordinates += range(site.start, site.start + site.size)
        for kept, value in zip(moments, (prior.mean, jnp.sqrt(prior.variance)), strict=True):
            kept.append(np.broadcast_to(np.asarray(value), leaves[path].shape).ravel())
    mean, sd = (np.concatenate([*kept, np.zeros(0)]) for kept in moments)
    return LastLayer(tuple(coordinates), mean, sd)


def _linear_paths(where: str, network: Network, leaves: dict[str, RandomLeaf]) -> list[str]:
    """The paths of weight and bias of its last layer, if the network is linear in them and their prior is normal."""
    layers = linear_layers(network)
    if not layers:
        return []
    # Of weights under a horseshoe it is the standard normal factor that is linear.
    named = [f"{layers[-1]}.{part}" for part in ("weight", "weight.weights.z", "bias")]
    inside = [name for name in named if _is_normal(leaves.get(f"{where}.{name}"))]
    return [f"{where}.{name}" for name in inside] if inside and _is_affine(network, inside) else []


def _is_normal(leaf: RandomLeaf | None) -> bool:
    prior: Any = None if leaf is None else leaf.distribution
    while isinstance(prior, (dist.Independent, dist.ExpandedDistribution)):
        prior = prior.base_dist
    return isinstance(prior, dist.Normal)


def _is_affine(network: Network, names: list[str]) -> bool:
    """Whether halfway between two values of these weights the outputs are halfway as well."""
    draws = {path: np.asarray(v) for path, v in draw_prior(network, 2, key=jax.random.key(0)).items()}
    two = {path: v if path in names else v[[0, 0]] for path, v in draws.items()}
    three = {path: np.concatenate([v, v.mean(axis=0, keepdims=True)]) for path, v in two.items()}
    at = dict.fromkeys(network.inputs, jnp.asarray(0.5))

    def outputs(draw):
        return jnp.stack([*realise(network, draw)(0.5, at, {}).values()])

    one, other, between = np.asarray(jax.jit(jax.vmap(outputs))(three))
    return bool(np.abs(between - (one + other) / 2).max() <= _LINEAR * np.abs([one, other]).max())

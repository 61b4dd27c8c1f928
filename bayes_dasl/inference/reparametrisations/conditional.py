"""The last layers of networks, reparametrised to be nearly standard normal given all else."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ..._jax.trace import traced
from ..._statistics.tails import seen_and_filled
from ...layers import AbstractTrajectory
from ...layers.layer import States, at_states, trajectories
from ...model import Model
from ...networks.network import Network, linear_layers, networks
from ...priors import draw_prior
from ...random import RandomLeaf, paths, realise
from ..problem import Problem
from ..sites import constrained
from .reparametrisation import Reparametrisation

_LINEAR = 1e-9


class Path(eqx.Module):
    """A solution of a trajectory, and what small changes of its rates and its start do to it.

    `along` are its states at the times `grid`, and `rates` what its vector field says there;
    `states` are those at the times of the data. `by_rates` and `by_start` are the derivatives of
    the latter by rates that run as a cubic spline between the times of the grid, and by the states
    at the start.
    """

    grid: Float[Array, " grid"]
    along: States
    rates: Float[Array, "grid state"]
    start: Float[Array, " state"]
    states: States
    by_rates: Float[Array, "time_state grid_state"]
    by_start: Float[Array, "time_state state"]

    def change(self, ode: AbstractTrajectory, inputs: Any) -> States:
        """To first order, how far the states at the times of the data are from the path if the ODE
        is this one.
        """
        faster = in_rows(ode.rates_along(inputs, self.grid, self.along)) - self.rates
        away = in_rows(jax.tree.map(lambda y: y[None], ode.begin(inputs)))[0] - self.start
        moved = self.by_rates @ faster.ravel() + self.by_start @ away
        return from_rows(moved.reshape(inputs.times.size, -1), self.states)


def in_rows(values: Any) -> Float[Array, "time state"]:
    """Named states over time as columns of a matrix, in the order of their names."""
    return jnp.concatenate(
        [jnp.reshape(values[name], (len(values[name]), -1)) for name in sorted(values)], axis=1
    )


def from_rows(rows: Float[Array, "time state"], like: States) -> States:
    names = sorted(like)
    sizes = [like[name][0].size for name in names]
    parts = jnp.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}


class LinearModel:
    """What a model predicts near reference paths of its ODEs, to first order and without a solve.

    `indices` are those of the last layers' weights, `mean` and `sd` their normal prior.
    """

    def __init__(
        self, problem: Problem, indices: tuple[int, ...], mean: np.ndarray, sd: np.ndarray
    ):
        self.model, self.inputs, self.observed = problem.model, problem.inputs, problem.observed
        self.sites, self.dimension = problem.sites, problem.dimension
        self.weights, self.mean, self.sd = np.asarray(indices, int), mean, sd
        last = set(indices)
        self._last = {path for path, site in self.sites.items() if site.start in last}
        self._moments: Any = None

    def moments(self, given: "Conditional", x: Float[Array, " dimension"]) -> tuple[Array, Array]:
        """Return mean and Cholesky factor of the precision of the last layers' weights given h."""
        return self._moments(given, x)

    def trace(self, like: "Conditional") -> None:
        """Trace the moments once: `shard_map` cannot use arrays that a model closes over."""
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        self._moments = traced(Conditional.normal, blank, jnp.zeros(self.dimension))

    def realised(self, x: Float[Array, " dimension"]) -> Model:
        return realise(self.model, constrained(self.sites, x)[0])

    def reweighted(self, x: Float[Array, " dimension"], weights: Float[Array, " w"]) -> Model:
        """The model of a position with other last layers, whose derivatives by these go through
        nothing else of `x`.
        """
        position, values = x.at[self.weights].set(weights), {}
        for path, site in self.sites.items():
            values[path], _ = site.value(position if path in self._last else x, values)
        return realise(self.model, values)

    def predicted(self, realised: Model, paths: tuple[Path, ...]) -> tuple[Any, Any]:
        """What the layer predicts on the reference paths, and how far it is from that to first
        order.
        """
        inputs = self.inputs
        changes = [
            path.change(ode, inputs)
            for path, ode in zip(paths, trajectories(realised.layer), strict=True)
        ]

        def at(share):
            states = [
                jax.tree.map(lambda y, dy: y + share * dy, path.states, change)
                for path, change in zip(paths, changes, strict=True)
            ]
            return dict(at_states(realised, states).predict(inputs).values)

        return jax.jvp(at, (jnp.zeros(()),), (jnp.ones(()),))


class Conditional(Reparametrisation):
    r"""Non-centred reparametrisation of the last layers of networks, given everything else.

    To first order around reference paths the data are linear in the weights $w$ of the last layers,
    so that given all other numbers $h$ they are nearly normal, with a precision
    $\Lambda(h) = L L^\top$ and a mean $m(h)$. The new parameters are $h$ and $L^\top (w - m)$, with
    $\log|\det J| = -\sum_i \log L_{ii}$. The posterior itself does not change.

    `centre` is what the layer predicts on the reference paths, `slack` how far a datum is spread
    beyond its noise, for the purpose of these coordinates, because of what the first order misses:
    by observable, on the scale of `AbstractNoise.link`.
    """

    paths: tuple[Path, ...]
    centre: dict[str, Array]
    slack: dict[str, Array]
    linear: LinearModel = eqx.field(static=True)

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters, and log |det J|."""
        mean, factor = self.linear.moments(self, z)
        at = self.linear.weights
        weights = mean + solve_triangular(factor, z[at], lower=True, trans=1)
        return z.at[at].set(weights), -jnp.sum(jnp.log(jnp.diag(factor)))

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z(x)."""
        mean, factor = self.linear.moments(self, x)
        at = self.linear.weights
        return x.at[at].set(factor.T @ (x[at] - mean))

    def normal(
        self, x: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " w"], Float[Array, "w w"]]:
        """Return mean and Cholesky factor of the precision of the last layers' weights given h."""
        linear, at = self.linear, self.linear.weights

        def predict(weights):
            realised = linear.reweighted(x, weights)
            values, changes = linear.predicted(realised, self.paths)
            return self._linked(realised, values, changes)

        # 1. Predictions at w = 0, and their slopes A by each weight; they are linear in w.
        nothing = jnp.zeros(at.size)
        along = lambda direction: jax.jvp(predict, (nothing,), (direction,))  # noqa: E731
        predicted, slopes = jax.vmap(along, out_axes=(None, 1))(jnp.eye(at.size))
        # 2. Data minus predictions, d, and the precision of each datum, R⁻¹.
        innovation, precision = self._innovation(linear.reweighted(x, nothing), predicted)
        # 3. Conjugate normal: Λ = AᵀR⁻¹A + S⁻¹ and Λ m = AᵀR⁻¹d + S⁻¹μ.
        prior = 1 / jnp.asarray(linear.sd) ** 2
        weighted = slopes.T * precision
        factor = jnp.linalg.cholesky(weighted @ slopes + jnp.diag(prior))
        mean = cho_solve((factor, True), weighted @ innovation + prior * jnp.asarray(linear.mean))
        return mean, factor

    def _linked(self, realised: Model, values: Any, changes: Any) -> Float[Array, " datum"]:
        """Predictions on the scale on which their noise is nearly normal."""
        parts = []
        for name in realised.observables:
            centre, link = self.centre[name], realised.noise_of(name).link
            at, away = jax.jvp(link, (centre,), (values[name] - centre + changes[name],))
            parts.append(jnp.ravel(at + away))
        return jnp.concatenate(parts)

    def _innovation(self, realised: Model, predicted: Array) -> tuple[Array, Array]:
        """How far data are from predictions, and the precision of each;
        0 where a datum is missing.
        """
        data, precisions = [], []
        for name in realised.observables:
            observed = self.linear.observed[name]
            noise = realised.noise_at(name, self.centre, self.linear.inputs)
            seen, filled = seen_and_filled(observed)
            data.append(jnp.ravel(noise.link(noise.as_predicted(filled))))
            spread = noise.spread(self.centre[name]) ** 2 + self.slack[name] ** 2
            precisions.append(jnp.ravel(jnp.where(seen, 1 / spread, 0.0)))
        return jnp.concatenate(data) - predicted, jnp.concatenate(precisions)


class LastLayer(NamedTuple):
    """Indices of last layers' weights in the flat vector, and their normal prior."""

    indices: tuple[int, ...]
    mean: Float[np.ndarray, " weight"]
    sd: Float[np.ndarray, " weight"]


def last_layer(problem: Problem) -> LastLayer:
    """Return the last layers of all networks whose outputs are linear in them."""
    leaves = paths(problem.model)
    inside = [
        (where, network) for where, network in networks(problem.model) if where.startswith("layer.")
    ]
    # A network that is shared stands in several places.
    parts = dict.fromkeys(
        path for where, network in inside for path in _linear_paths(where, network, leaves)
    )
    indices: list[int] = []
    moments: list[list[np.ndarray]] = [[], []]
    for path in parts:
        site, prior = problem.sites[path], leaves[path].distribution
        indices += range(site.start, site.start + site.size)
        for kept, value in zip(moments, (prior.mean, jnp.sqrt(prior.variance)), strict=True):
            kept.append(np.broadcast_to(np.asarray(value), leaves[path].shape).ravel())
    mean, sd = (np.concatenate([*kept, np.zeros(0)]) for kept in moments)
    return LastLayer(tuple(indices), mean, sd)


def _linear_paths(where: str, network: Network, leaves: dict[str, RandomLeaf]) -> list[str]:
    """Return the paths of its last weight and bias, if linear with a normal prior."""
    layers = linear_layers(network)
    if not layers:
        return []
    # Of weights under a horseshoe it is the standard normal factor that is linear.
    at = {f"{where}.{layers[-1]}.{part}" for part in ("weight", "weight.weights.z", "bias")}
    found = [leaf for leaf in leaves.values() if at & {*leaf.places} and is_normal(leaf)]
    return [leaf.path for leaf in found] if found and _is_affine(network, where, found) else []


def is_normal(leaf: RandomLeaf) -> bool:
    """Whether the prior of a leaf is normal."""
    prior: Any = leaf.distribution
    while isinstance(prior, (dist.Independent, dist.ExpandedDistribution)):
        prior = prior.base_dist
    return isinstance(prior, dist.Normal)


def _is_affine(network: Network, where: str, last: list[RandomLeaf]) -> bool:
    """Whether halfway between two values of these weights the outputs are halfway as well."""
    names = {path.removeprefix(f"{where}.") for leaf in last for path in (leaf.path, *leaf.places)}
    draws = {
        path: np.asarray(v) for path, v in draw_prior(network, 2, key=jax.random.key(0)).items()
    }
    two = {path: v if path in names else v[[0, 0]] for path, v in draws.items()}
    three = {path: np.concatenate([v, v.mean(axis=0, keepdims=True)]) for path, v in two.items()}
    at = dict.fromkeys(network.inputs, jnp.asarray(0.5))

    def outputs(draw):
        return jnp.stack([*realise(network, draw)(0.5, at, {}).values()])

    one, other, between = np.asarray(jax.jit(jax.vmap(outputs))(three))
    return bool(np.abs(between - (one + other) / 2).max() <= _LINEAR * np.abs([one, other]).max())

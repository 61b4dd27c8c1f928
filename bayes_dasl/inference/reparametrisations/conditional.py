"""The weights of last layers, reparametrised to be nearly standard normal given the rest."""

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
from ...model import Model, noise_at
from ...networks.network import Network, linear_layers, networks
from ...priors import draw_prior
from ...random import RandomLeaf, paths, realise
from ..problem import Problem
from ..sites import constrained
from .reparametrisation import Reparametrisation

# Relative deviation from linearity that is attributed to rounding.
_LINEAR = 1e-9


class Path(eqx.Module):
    """A reference path of an ODE, with derivatives by its rates and by its initial state.

    The index `time_state` of the derivatives combines a time and a state, and so does `grid_state`.

    Args:
        grid: times of the grid.
        along: states at the times of the grid.
        rates: time derivatives of the states at the times of the grid.
        start: the initial state.
        states: states at the times of the data.
        by_rates: derivatives of `states` by the rates, which are a cubic spline through their
            values on the grid.
        by_start: derivatives of `states` by the initial state.
    """

    grid: Float[Array, " grid"]
    along: States
    rates: Float[Array, "grid state"]
    start: Float[Array, " state"]
    states: States
    by_rates: Float[Array, "time_state grid_state"]
    by_start: Float[Array, "time_state state"]

    def change(self, ode: AbstractTrajectory, inputs: Any) -> States:
        """Return the first-order change of `states` under another vector field and initial state.

        Args:
            ode: an ODE with the other vector field and initial state.
            inputs: times and forcings.
        """
        # δy = (∂y/∂f) (f_ode(y_ref) − f_ref) + (∂y/∂y₀) (y₀ − y₀_ref).
        faster = in_rows(ode.rates_along(inputs, self.grid, self.along)) - self.rates
        away = in_rows(jax.tree.map(lambda y: y[None], ode.begin(inputs)))[0] - self.start
        moved = self.by_rates @ faster.ravel() + self.by_start @ away
        return from_rows(moved.reshape(inputs.times.size, -1), self.states)


def in_rows(values: Any) -> Float[Array, "time state"]:
    """Return named states over time as columns of a matrix, in the order of their sorted names."""
    columns = [jnp.reshape(values[name], (len(values[name]), -1)) for name in sorted(values)]
    return jnp.concatenate(columns, axis=1)


def from_rows(rows: Float[Array, "time state"], like: States) -> States:
    """Return named states over time from the columns of a matrix, the inverse of `in_rows`.

    Args:
        rows: the matrix.
        like: named states with the right shapes.
    """
    names = sorted(like)
    sizes = [like[name][0].size for name in names]
    parts = jnp.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return {name: part.reshape(like[name].shape) for name, part in zip(names, parts, strict=True)}


class LinearModel:
    """Predictions of a model to first order around reference paths of its ODEs, without a solve.

    `inner` is whether a network also has random weights before its last layer.

    Args:
        problem: the posterior.
        indices: indices of the last layers' weights in the flat vector.
        mean: prior means of these weights.
        sd: prior standard deviations of these weights.
    """

    def __init__(
        self, problem: Problem, indices: tuple[int, ...], mean: np.ndarray, sd: np.ndarray
    ):
        self.model = problem.model
        self.inputs = problem.inputs
        self.observed = problem.observed
        self.sites = problem.sites
        self.dimension = problem.dimension
        self.weights = np.asarray(indices, int)
        self.mean = mean
        self.sd = sd
        last = set(indices)
        self._last = {path for path, site in self.sites.items() if site.start in last}
        # Beyond the weights of its last layer, a network has a scale.
        beyond = len(problem.of_groups("network")) - len(indices)
        self.inner = beyond > len(networks(problem.model))
        self._moments: Any = None

    def moments(self, given: "Conditional", x: Float[Array, " dimension"]) -> tuple[Array, Array]:
        """Return the normal approximation of the last layers' weights given all other parameters.

        Args:
            given: the reparametrisation, for its reference paths.
            x: unconstrained parameters; the weights among them are ignored.

        Returns:
            The mean, and the Cholesky factor of the precision matrix.
        """
        return self._moments(given, x)

    def trace(self, like: "Conditional") -> None:
        """Trace the program of `moments` once.

        An untraced model contains arrays that `shard_map` cannot use.

        Args:
            like: a reparametrisation of the right shapes.
        """
        blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        self._moments = traced(Conditional.normal, blank, jnp.zeros(self.dimension))

    def realised(self, x: Float[Array, " dimension"]) -> Model:
        """Return the model with the parameters of a position."""
        return realise(self.model, constrained(self.sites, x)[0])

    def reweighted(self, x: Float[Array, " dimension"], weights: Float[Array, " w"]) -> Model:
        """Return the model of a position with other weights of the last layers.

        Differentiation by these weights then skips all other parameters.

        Args:
            x: unconstrained parameters.
            weights: the weights of the last layers.
        """
        position = x.at[self.weights].set(weights)
        values = {}
        for path, site in self.sites.items():
            values[path], _ = site.value(position if path in self._last else x, values)
        return realise(self.model, values)

    def predicted(self, realised: Model, paths: tuple[Path, ...]) -> tuple[Any, Any]:
        """Return predictions on the reference paths, and their first-order changes for a model.

        Args:
            realised: the model, whose ODEs differ from those of the reference paths.
            paths: the reference path of each ODE.

        Returns:
            Predictions and their changes, each `(time, …)` by observable.
        """
        inputs = self.inputs
        changes = [
            path.change(ode, inputs)
            for path, ode in zip(paths, trajectories(realised.layer), strict=True)
        ]

        # The derivative of predict(y_ref + s δy) by s at s = 0.
        def at(share):
            states = [
                jax.tree.map(lambda y, dy: y + share * dy, path.states, change)
                for path, change in zip(paths, changes, strict=True)
            ]
            return dict(at_states(realised, states).predict(inputs).values)

        return jax.jvp(at, (jnp.zeros(()),), (jnp.ones(()),))


class Conditional(Reparametrisation):
    r"""The weights of last layers in networks, non-centred given all other parameters.

    Predictions are linear in the weights $w$ of the last layers, to first order around reference
    paths. So $w$ is nearly normal given all other parameters $h$. Its precision is
    $\Lambda(h) = L L^\top$ and its mean $m(h)$. The new parameters are $h$ and $L^\top (w - m)$,
    with $\log|\det J| = -\sum_i \log L_{ii}$. The posterior itself does not change.

    Args:
        paths: the reference path of each ODE.
        centre: predictions on the reference paths, by observable.
        slack: an additional standard deviation of each datum, for errors of the first order. It is
            on the scale of `AbstractNoise.link`.
        linear: predicts to first order around the paths.
    """

    paths: tuple[Path, ...]
    centre: dict[str, Array]
    slack: dict[str, Array]
    linear: LinearModel = eqx.field(static=True)

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters x(z), and log |det J|."""
        mean, factor = self.linear.moments(self, z)
        at = self.linear.weights
        weights = mean + solve_triangular(factor, z[at], lower=True, trans=1)
        return z.at[at].set(weights), -jnp.sum(jnp.log(jnp.diag(factor)))

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z(x), the inverse of `forward`."""
        mean, factor = self.linear.moments(self, x)
        at = self.linear.weights
        return x.at[at].set(factor.T @ (x[at] - mean))

    def normal(
        self, x: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " w"], Float[Array, "w w"]]:
        """Return the normal approximation of the last layers' weights given all other parameters.

        Args:
            x: unconstrained parameters; the weights among them are ignored.

        Returns:
            The mean, and the Cholesky factor of the precision matrix.
        """
        linear = self.linear
        at = self.linear.weights

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
        """Return predictions on the scale of the link, linearised around `centre`.

        On this scale the noise is nearly normal.

        Args:
            realised: the model.
            values: predictions on the reference paths, by observable.
            changes: the first-order changes of these predictions.
        """
        parts = []
        for name in realised.observables:
            centre = self.centre[name]
            link = realised.noise_of(name).link
            at, away = jax.jvp(link, (centre,), (values[name] - centre + changes[name],))
            parts.append(jnp.ravel(at + away))
        return jnp.concatenate(parts)

    def _innovation(self, realised: Model, predicted: Array) -> tuple[Array, Array]:
        """Return data minus predictions, and the precision of each datum, 0 for missing data.

        Both are on the scale of the link, for all observables together.

        Args:
            realised: the model.
            predicted: predictions on the scale of the link.
        """
        data, precisions = [], []
        for name in realised.observables:
            observed = self.linear.observed[name]
            noise = noise_at(realised, name, self.centre, self.linear.inputs)
            seen, filled = seen_and_filled(observed)
            data.append(jnp.ravel(noise.link(noise.as_predicted(filled))))
            spread = noise.spread(self.centre[name]) ** 2 + self.slack[name] ** 2
            precisions.append(jnp.ravel(jnp.where(seen, 1 / spread, 0.0)))
        return jnp.concatenate(data) - predicted, jnp.concatenate(precisions)


class LastLayer(NamedTuple):
    """The weights of last layers, and their normal prior.

    Args:
        indices: indices of the weights in the flat vector.
        mean: prior means.
        sd: prior standard deviations.
    """

    indices: tuple[int, ...]
    mean: Float[np.ndarray, " weight"]
    sd: Float[np.ndarray, " weight"]


def last_layer(problem: Problem) -> LastLayer:
    """Return the last layers of all networks whose outputs are linear in their last layer.

    Weights with a prior that is not normal are left out.
    """
    leaves = paths(problem.model)
    # A shared network occurs in several places, but its paths count once.
    parts: dict[str, None] = {}
    for where, network in networks(problem.model):
        if where.startswith("layer."):
            parts |= dict.fromkeys(_linear_paths(problem.model, where, network, leaves))
    indices: list[int] = []
    moments: list[list[np.ndarray]] = [[], []]
    for path in parts:
        site = problem.sites[path]
        prior = leaves[path].distribution
        indices += range(site.start, site.start + site.size)
        for kept, value in zip(moments, (prior.mean, jnp.sqrt(prior.variance)), strict=True):
            kept.append(np.broadcast_to(np.asarray(value), leaves[path].shape).ravel())
    mean, sd = (np.concatenate([*kept, np.zeros(0)]) for kept in moments)
    return LastLayer(tuple(indices), mean, sd)


def _linear_paths(
    model: Model, where: str, network: Network, leaves: dict[str, RandomLeaf]
) -> list[str]:
    """Return the paths of a network's last weight and bias.

    Only leaves with a normal prior are returned. The list is empty if outputs are not linear in
    them.

    Args:
        model: the model.
        where: path of the network.
        network: the network.
        leaves: all random leaves by path.
    """
    layers = linear_layers(network)
    if not layers:
        return []
    # With a horseshoe prior, outputs are linear in the standard normal factor of the weights.
    at = {f"{where}.{layers[-1]}.{part}" for part in ("weight", "weight.weights.z", "bias")}
    found = [leaf.path for leaf in leaves.values() if at & {*leaf.places} and is_normal(leaf)]
    return found if found and _is_affine(model, where, found) else []


def is_normal(leaf: RandomLeaf) -> bool:
    """Whether the prior of a leaf is normal."""
    prior: Any = leaf.distribution
    while isinstance(prior, (dist.Independent, dist.ExpandedDistribution)):
        prior = prior.base_dist
    return isinstance(prior, dist.Normal)


def _is_affine(model: Model, where: str, last: list[str]) -> bool:
    """Whether the outputs of a network are affine in some weights.

    The test is f((a + b) / 2) = (f(a) + f(b)) / 2 for two prior draws a and b of the weights.

    Args:
        model: the model.
        where: path of the network.
        last: paths of the weights.
    """
    draws = jax.tree.map(np.asarray, draw_prior(model, 2, key=jax.random.key(0)))
    # Two draws that differ in these weights only, and their mean.
    two = {path: v if path in last else v[[0, 0]] for path, v in draws.items()}
    three = {path: np.concatenate([v, v.mean(axis=0, keepdims=True)]) for path, v in two.items()}

    def outputs(draw):
        network = dict(networks(realise(model, draw)))[where]
        at = dict.fromkeys(network.inputs, jnp.asarray(0.5))
        return jnp.stack([*network(0.5, at, {}).values()])

    one, other, between = np.asarray(jax.jit(jax.vmap(outputs))(three))
    return bool(np.abs(between - (one + other) / 2).max() <= _LINEAR * np.abs([one, other]).max())

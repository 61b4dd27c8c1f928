"""Fit the conditional reparametrisation of networks in ODEs, around reference paths.

A reference path is the solution for the mean vector field of several positions.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.compiling import Program
from ..._jax.tree import prepared
from ..._runs.journal import Arrays
from ...data.layer_inputs import Inputs
from ...layers import AbstractTrajectory
from ...layers.layer import trajectories
from ...model import noise_at
from ...networks.network import networks
from ...random import Module, Values, paths
from ..problem import Problem
from ..starts import (
    Optimiser,
    chosen_for_reference,
    evenly,
    no_start,
    optimised_in,
    or_lowest,
    refined_starts,
    refuse_unresolved,
)
from .conditional import Conditional, LinearModel, Path, from_rows, in_rows, last_layer
from .gradient_matching import Matching
from .reparametrisation import arrays_of, from_arrays

REPARAMETRISATIONS = ("auto", "none")
"""Values of the setting `reparametrisation` of an engine."""

# Least and largest number of times of the coarse grid.
_FEWEST, _MOST = 31, 121
# The largest size of the matrix of derivatives of states by rates.
_LARGEST = 4_000_000
# Intervals of the fine grid, on which rates are piecewise linear, per interval of the coarse one.
_FINER = 4
# How often the last layers are set to their most likely values.
_ROUNDS = 3
# Additional standard deviation of each datum for non-linearity, as a multiple of its noise.
_SLACK = 1.5
# Compile time of an engine's programs, in compile times of a gradient: without and with networks.
_PROGRAMS, _PROGRAMS_OF_NETWORKS = 4, 30


class _MeanField(Module):
    """The mean of several vector fields, plus rates that are piecewise linear in time.

    Args:
        fields: the vector fields, as one tree of arrays with a leading axis.
        grid: times at which the added rates are given.
        added: the added rates, `(grid, …)` by name of the state.
    """

    fields: Any
    grid: Float[Array, " grid"]
    added: Values

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        several = eqx.filter_vmap(lambda field: field(t, y, u), in_axes=(eqx.if_array(0),))(
            self.fields
        )
        return {
            name: jnp.mean(rates, axis=0) + self._added(t, name) for name, rates in several.items()
        }

    def _added(self, t: Any, name: str) -> Array:
        """Return the added rates of one state at time t."""
        value = self.added[name]
        column = lambda v: jnp.interp(t, self.grid, v)  # noqa: E731
        return jax.vmap(column, in_axes=1)(value.reshape(len(value), -1)).reshape(value.shape[1:])


def has_reference(problem: Problem) -> bool:
    """Whether reference paths can be computed for the model.

    Its layer must solve only ODEs, have at least three times with data, and have few enough states.
    """
    times = problem.inputs.times.size
    if problem.model.layer.trajectories is None or times < 3:
        return False
    columns = int(np.clip(times, _FEWEST, _MOST))
    return all(
        times * ode.states * columns * ode.states <= _LARGEST
        for ode in trajectories(problem.model.layer)
    )


def references_of(problem: Problem) -> "References | None":
    """Return a `References` for the networks of a model, or None if it cannot be used.

    The model needs reference paths, and a network whose output is linear in its last layer.
    """
    problem = problem.forward()
    last = last_layer(problem) if has_reference(problem) else None
    return References(LinearModel(problem, *last)) if last is not None and last.indices else None


def programs(problem: Problem) -> int:
    """Return the compile time of an engine's programs, divided by that of one gradient."""
    return _PROGRAMS_OF_NETWORKS if networks_inside(problem) else _PROGRAMS


def networks_inside(problem: Problem) -> bool:
    """Whether the vector field of a trajectory contains a network."""
    return any(networks(ode) for ode in trajectories(problem.model.layer))


def is_sound(reparametrisation: Arrays) -> bool:
    """Whether all arrays of a reparametrisation are finite.

    If the solve of the reference path fails, they are infinite or NaN.
    """
    return all(np.isfinite(leaf).all() for leaf in reparametrisation.values())


class References:
    """Fits the reparametrisation `Conditional` to positions, by a program that is compiled once.

    Args:
        linear: predicts to first order around reference paths.
    """

    kind = "conditional"
    evaluated_anew = False
    ends_early = True

    def __init__(self, linear: LinearModel):
        self.linear = linear
        self._program = Program(self._fitted)
        linear.trace(self.like)

    def from_draws(
        self, positions: Float[np.ndarray, "n dimension"], gradients: Any = None
    ) -> Arrays:
        """Return the arrays of the reparametrisation around the mean of evenly spaced positions.

        Args:
            positions: unconstrained parameters.
            gradients: not used.
        """
        return arrays_of(self._program(jnp.asarray(chosen_for_reference(positions))))

    def widths(self, prior: Float[np.ndarray, " dimension"]) -> Float[np.ndarray, " dimension"]:
        """Return the scale of each parameter z of the reparametrisation, `(dimension,)`.

        It is one for the weights of last layers, and the scale of the prior for all others.

        Args:
            prior: the scale of the prior of each unconstrained parameter.
        """
        widths = prior.copy()
        widths[self.linear.weights] = 1.0
        return widths

    def most_likely(
        self, reparametrisation: Conditional, x: Float[np.ndarray, "n dimension"]
    ) -> np.ndarray:
        """Set the weights of last layers to their most likely values given all other parameters.

        The values follow from predictions to first order.

        Args:
            reparametrisation: the fitted reparametrisation.
            x: unconstrained parameters.

        Returns:
            Unconstrained parameters, `(n, dimension)`.
        """
        z = np.array(x)
        z[:, self.linear.weights] = 0.0
        return reparametrisation.forward_many(z)[0]

    def drawn(
        self, reparametrisation: Conditional, x: Float[np.ndarray, "n dimension"], *, key: Array
    ) -> np.ndarray:
        """Draw the weights of last layers from their approximate normal given all other parameters.

        Args:
            reparametrisation: the fitted reparametrisation.
            x: unconstrained parameters.
            key: random seed.

        Returns:
            Unconstrained parameters, `(n, dimension)`.
        """
        z = np.array(x)
        at = self.linear.weights
        z[:, at] = jax.random.normal(key, (len(x), len(at)))
        return reparametrisation.forward_many(z)[0]

    def restored(self, arrays: Mapping[str, Any]) -> Conditional:
        """Return the reparametrisation from its arrays."""
        return from_arrays(arrays, self.like)

    @functools.cached_property
    def like(self) -> Conditional:
        """A reparametrisation of the right shapes; its values have no meaning."""
        return self._program.shapes(chosen_for_reference(np.zeros((2, self.linear.dimension))))

    def _fitted(self, chosen: Float[Array, "n dimension"]) -> Conditional:
        """Return the reparametrisation around the mean of some positions."""
        linear = self.linear
        model = self.linear.model
        number = len(trajectories(model.layer))
        paths = tuple(self._path(chosen, i) for i in range(number))

        # Predictions on the reference paths and their noise, averaged over the positions.
        def at(x):
            realised = linear.realised(x)
            centre = linear.predicted(realised, paths)[0]
            inputs = linear.inputs
            return centre, {
                n: noise_at(realised, n, centre, inputs).spread(centre[n])
                for n in model.observables
            }

        centre, spread = jax.tree.map(lambda v: v.mean(0), jax.vmap(at)(chosen))
        return Conditional(
            paths, centre, {name: _SLACK * value for name, value in spread.items()}, linear
        )

    def _path(self, chosen: Array, number: int) -> Path:
        """Return the reference path of one ODE, with its derivatives.

        Args:
            chosen: positions whose vector fields and initial states are averaged.
            number: index of the ODE among the trajectories of the layer.
        """
        # 1. The mean of the vector fields and starts of all chosen positions.
        inputs = self.linear.inputs
        ode = lambda x: trajectories(self.linear.realised(x).layer)[number]  # noqa: E731
        fields = eqx.filter_vmap(lambda x: prepared(ode(x).vector_field), out_axes=eqx.if_array(0))(
            chosen
        )
        start = jax.tree.map(lambda y: y.mean(0), jax.vmap(lambda x: ode(x).begin(inputs))(chosen))
        first = ode(chosen[0])
        grid, fine, spline = self._grids(inputs)
        no_rates = jax.tree.map(lambda y: jnp.zeros((fine.size, *y.shape)), start)

        # 2. y' = mean f(t, y) + r(t), with rates r between the times of a fine grid.
        def pushed(rates: Array) -> AbstractTrajectory:
            return eqx.tree_at(
                lambda o: o.vector_field,
                first,
                _MeanField(fields, jnp.asarray(fine), from_rows(rates, no_rates)),
            )

        def solved(times: Inputs, rates: Array, at_start: Array) -> tuple[Any, Any]:
            begun = {
                name: value[0] for name, value in from_rows(at_start[None], _as_row(start)).items()
            }
            states, ok, _ = pushed(rates).solve(times, begun)
            return states, ok

        # 3. The reference path has r = 0. One solve gives it on the coarse grid and at the data.
        # r is a cubic spline through values on the coarse grid.
        still = jnp.zeros((grid.size, in_rows(no_rates).shape[1]))
        at_start = in_rows(_as_row(start))[0]
        data = np.asarray(inputs.times)
        every = np.unique(np.concatenate([grid, data]))
        anywhere = dataclasses.replace(inputs, times=jnp.asarray(every))

        def flattened(coarse: Array, at_start: Array) -> tuple[Array, Any]:
            everywhere, ok = solved(anywhere, jnp.dot(spline, coarse), at_start)
            at = lambda times: np.searchsorted(every, times)  # noqa: E731
            along = jax.tree.map(lambda y: y[at(grid)], everywhere)
            states = jax.tree.map(lambda y: y[at(data)], everywhere)
            return in_rows(states).ravel(), (along, states, ok)

        # 4. Its derivatives by these values and by the start.
        derivatives = jax.jacfwd(flattened, (0, 1), has_aux=True)
        (by_rates, by_start), (along, states, ok) = derivatives(still, at_start)
        by_rates = by_rates.reshape(len(by_rates), -1)
        rates = in_rows(pushed(in_rows(no_rates)).rates_along(inputs, grid, along))
        # With zero derivatives after a failed solve, weights keep their prior.
        by_rates, by_start = (jnp.where(ok & jnp.isfinite(v), v, 0.0) for v in (by_rates, by_start))
        return Path(jnp.asarray(grid), along, rates, at_start, states, by_rates, by_start)

    def _grids(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a coarse grid of times, a fine one, and the cubic spline between them as a matrix.

        The matrix `(fine, coarse)` maps values on the coarse grid to values on the fine one.
        """
        from scipy.interpolate import CubicSpline

        times = np.asarray(inputs.times)
        size = int(np.clip(times.size, _FEWEST, _MOST))
        grid = np.linspace(float(inputs.start), times[-1], size)
        fine = np.linspace(grid[0], grid[-1], _FINER * (size - 1) + 1)
        spline = CubicSpline(grid, np.eye(size))(fine)
        return grid, fine, spline


def _as_row(values: Any) -> Any:
    """Add a leading axis of length one to each array."""
    return jax.tree.map(lambda y: y[None], values)


def matched_start(
    problem: Problem,
    references: References,
    optimiser: Optimiser,
    near: Float[np.ndarray, "draw dimension"] | None,
    *,
    chains: int,
    key: Array,
) -> Arrays:
    """Find modes, and first positions of the chains, for a model with networks.

    1. Prior draws are optimised by gradient matching. In every second draw the scales of networks
       are set to one.
    2. The weights of last layers are set to their most likely values given all other parameters, by
       a reparametrisation around the best positions. This is repeated three times.
    3. The best positions are optimised again in the reparametrisation around them. The log density
       is then nearly marginal in the weights of last layers, since they follow from all other
       parameters. At its optimum a correction has a larger scale, and the noise is smaller.
    4. The weights of last layers are drawn anew at each position, since several starts may end at
       one place.

    Only the highest position is reported as a mode, since different weights of a network can give
    the same function.

    Args:
        problem: the posterior.
        references: fits the reparametrisation.
        optimiser: evaluates and optimises positions.
        near: draws of a similar posterior, which replace half of the prior draws; or None.
        chains: number of chains.
        key: random seed.

    Returns:
        The arrays of `Start.arrays`, and `reached`: at least one good position for each chain.

    Raises:
        ModelError: if no position has a finite log density.
        DataError: if rounding hides differences between log densities.
    """
    # 1. Starts without a solve.
    number = optimiser.count
    x = _prior_draws(problem, number, key=key)
    if near is not None:
        x[: number // 2] = evenly(near, number // 2)
    value = or_lowest(optimiser.evaluate(x)[0])
    failed = np.isinf(value).sum()
    x, value = _better(optimiser, x, value, Matching(problem).optimise(x))
    # 2. The most likely last layers given all other parameters.
    for _ in range(_ROUNDS):
        best = np.argsort(-value)[: max(number // 4, 1)]
        reparametrisation = references.restored(references.from_draws(x[best]))
        x, value = _better(optimiser, x, value, references.most_likely(reparametrisation, x))
    if not np.isfinite(value).any():
        raise no_start(number)
    refuse_unresolved(value)
    # 3. Optimise the best positions with a finite log density further, in z.
    order = np.argsort(-value)
    best = x[order[: min(refined_starts(number), int(np.isfinite(value).sum()))]]
    best = optimised_in(references.restored(references.from_draws(best)), optimiser, best)
    reparametrisation = references.restored(references.from_draws(best))
    # 4. Draw last layers anew; keep the old ones if the new log density is not finite.
    again = np.resize(best, (max(chains, len(best)), best.shape[1]))
    anew = references.drawn(reparametrisation, again, key=jax.random.fold_in(key, 1))
    fine = np.isfinite(or_lowest(optimiser.evaluate(anew)[0]))
    reached = np.where(fine[:, None], anew, again)
    return {
        "modes": best[:1],
        "log_densities": or_lowest(optimiser.evaluate(best[:1])[0]),
        "precisions": np.diag(1 / references.widths(problem.prior_widths()) ** 2)[None],
        "tried": np.asarray(number),
        "failed": np.asarray(failed),
        "reached": reached,
    }


def _prior_draws(problem: Problem, number: int, *, key: Array) -> np.ndarray:
    """Return prior draws, with learned scales of networks set to one in every second draw.

    From a scale near zero an optimisation seldom finds a large correction, since the gradient by
    the weights is nearly zero.
    """
    x = np.array(problem.prior(number, key=key))
    scales = {f"{where}.scale" for where, _ in networks(problem.model)}
    for path, leaf in paths(problem.model).items():
        site = problem.sites[path]
        one = jnp.ones(leaf.shape)
        support: Any = leaf.distribution.support
        if scales & {*leaf.places} and site.standardised is None and jnp.all(support(one)):
            x[::2, site.start : site.start + site.size] = site.flat(one, {})
    return x


def _better(
    optimiser: Optimiser, x: np.ndarray, value: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the better position of each pair, and its log density.

    Args:
        optimiser: evaluates log densities.
        x: the first position of each pair.
        value: log densities at `x`.
        other: the second position of each pair.
    """
    there = or_lowest(optimiser.evaluate(other)[0])
    return np.where((there > value)[:, None], other, x), np.maximum(value, there)

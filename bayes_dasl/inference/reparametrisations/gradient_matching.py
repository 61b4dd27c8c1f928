"""Gradient matching: optimise parameters of ODEs without a solve.

Smooth paths follow the data, and parameters are chosen so that vector fields match the slopes of
the paths.

Source: Ramsay, Hooker, Campbell & Cao (2007).
"""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._jax.compiling import Program
from ..._jax.tree import frozen
from ..._statistics.describe_distributions import bounds
from ..._statistics.tails import masked_log_prob
from ...data.datasets import averaged
from ...data.layer_inputs import Inputs
from ...layers import AbstractTrajectory
from ...layers.layer import States, at_states, trajectories
from ...random import is_random, realise
from ..problem import Problem

_STEPS, _RATE = 1000, 0.05
_MOST_KNOTS = 60
# Number of times of the grid per coefficient of a path.
_GRID = 4
# Tolerance of the rates, as a share of the standard deviation of the slopes of a path.
_TOLERANCE = 0.1
# The least number of data for a smoothing spline.
_FEWEST = 5


class _Paths:
    """Spline paths for the states of one trajectory, or for the logarithms of positive states.

    Args:
        known: the trajectory of the model, whose initial states may be distributions.
        ode: the same trajectory with values for all random leaves.
        inputs: times and forcings.
        observed: data in the units of predictions, by observable.
        supports: the support of the noise, by observable.
    """

    def __init__(
        self,
        known: AbstractTrajectory,
        ode: AbstractTrajectory,
        inputs: Inputs,
        observed: Mapping[str, Array],
        supports: Mapping[str, Any],
    ):
        self._inputs = inputs
        # 1. Cubic B-splines Φ on knots over the times of the data.
        times = np.asarray(inputs.times)
        start = float(inputs.start)
        size = min(np.unique(times).size, _MOST_KNOTS) + 3
        inner = np.linspace(start, times[-1], size - 2)
        self._knots = np.concatenate([[start] * 3, inner, [times[-1]] * 3])
        self.grid = np.linspace(start, times[-1], _GRID * size)
        self.at_times = self._features(times)
        self.at_grid = self._features(self.grid)
        self.slopes = self._features(self.grid, 1)
        # 2. For each state the first coefficients, its scale, and whether its path is optimised.
        begun = ode.begin(inputs)
        seen = observed if ode.observe is None else {}
        self.positive = {
            name: _is_positive_state(known.initial[name], supports.get(name), seen.get(name))
            and bool(jnp.all(value > 0))
            for name, value in begun.items()
        }
        self.first: dict[str, Any] = {}
        self.scale: dict[str, float] = {}
        self.free: dict[str, bool] = {}
        for name, value in begun.items():
            # A path through data is fixed, since an optimised one would follow their noise.
            self.first[name], self.scale[name], self.free[name] = self._first(
                name, np.asarray(value), times, seen.get(name)
            )

    def _features(self, times: np.ndarray, order: int = 0) -> np.ndarray:
        """Return the B-splines, or a derivative of them, at some times, `(time, knot)`.

        Args:
            times: the times.
            order: order of the derivative, 0 for the B-splines themselves.
        """
        from scipy.interpolate import BSpline

        basis = np.eye(len(self._knots) - 4)
        return np.stack([BSpline(self._knots, row, 3)(times, order) for row in basis], axis=1)

    def _first(
        self, name: str, start: np.ndarray, times: np.ndarray, seen: Array | None
    ) -> tuple[np.ndarray, float, bool]:
        """Return the first path of a state.

        The path is a smoothing spline through the data. Without enough data it is constant.

        Args:
            name: the state.
            start: its initial value.
            times: times of the data.
            seen: data of the state, or None.

        Returns:
            Coefficients of the path, `(knot, …)`; the scale of the state; and whether the path is
            optimised.
        """
        link = np.log if self.positive[name] else lambda v: v
        constant = np.broadcast_to(link(start), (self.at_times.shape[1], *start.shape))
        if seen is None or seen.ndim != 1:
            return constant, max(float(np.abs(start).max(initial=0.0)), 1.0), True
        values = np.asarray(seen)
        kept = np.isfinite(values) & ((values > 0) | (not self.positive[name]))
        at, mean = averaged(times[kept], link(values[kept]))
        if at.size < _FEWEST:
            return constant, 1.0, True
        from scipy.interpolate import make_smoothing_spline

        smooth = make_smoothing_spline(at, mean)(self.grid)
        # A spline must not be extrapolated beyond the data: continue with a constant.
        outside = (self.grid < at[0]) | (self.grid > at[-1])
        smooth = np.where(outside, np.interp(self.grid, at, mean), smooth)
        coefficients = np.linalg.lstsq(self.at_grid, smooth, rcond=None)[0]
        return coefficients, max(float(np.std(smooth)), 1e-3), False

    def along(self, coefficients: Mapping[str, Any], features: np.ndarray) -> States:
        """Return the states of paths with given coefficients c: y = Φ c, or exp(Φ c) if positive.

        Args:
            coefficients: c, `(knot, …)` by state.
            features: the B-splines Φ at some times, `(time, knot)`.
        """
        rows = {name: jnp.tensordot(features, c, 1) for name, c in coefficients.items()}
        return {name: jnp.exp(v) if self.positive[name] else v for name, v in rows.items()}

    def agree(self, ode: AbstractTrajectory, c: Mapping[str, Any]) -> Float[Array, ""]:
        """Return how well the rates of an ODE match the slopes of paths, as a log density.

        The rates are normal around the slopes, with a fixed tolerance. The initial states of the
        ODE are normal around the starts of the paths.

        Args:
            ode: the ODE.
            c: coefficients of the paths, `(knot, …)` by state.
        """
        inputs = self._inputs
        along = self.along(c, self.at_grid)
        found = ode.rates_along(inputs, jnp.asarray(self.grid), along)
        value = jnp.zeros(())
        begun = ode.begin(inputs)
        share = len(self.at_times) / len(self.grid)
        duration = self.grid[-1] - self.grid[0]
        # Σ −½ ((f/y − (log y)') / tolerance)², with y' itself for states of any sign.
        for name, rate in found.items():
            slope = jnp.tensordot(self.slopes, c[name], 1)
            positive = self.positive[name]
            first = np.tensordot(self.slopes, self.first[name], 1)
            tolerance = _TOLERANCE * max(float(first.std()), self.scale[name] / duration)
            apart = (rate / along[name] if positive else rate) - slope
            value -= 0.5 * share * jnp.sum((apart / tolerance) ** 2)
            at_start = c[name][0]
            wanted = jnp.log(begun[name]) if positive else begun[name]
            value -= 0.5 * jnp.sum(((wanted - at_start) / (_TOLERANCE * self.scale[name])) ** 2)
        return value


def _is_positive_state(initial: Any, support: Any, seen: Array | None) -> bool:
    """Whether a state is positive, by its noise, its data or its prior at the start.

    Args:
        initial: the initial value or its prior.
        support: the support of the noise, if the state is observed.
        seen: data of the state, or None.
    """
    if seen is not None:
        if bounds(support).get("lower", -math.inf) >= 0 and not bool(support(0.0)):
            return True
        if (np.asarray(seen) <= 0).any():
            return False
    return is_random(initial) and bounds(initial.support).get("lower", -math.inf) >= 0


class Matching:
    """Optimise positions so that vector fields match the slopes of smoothed data.

    Args:
        problem: the posterior.
    """

    def __init__(self, problem: Problem):
        self._problem = problem
        first = realise(problem.model, problem.constrain(jnp.zeros(problem.dimension)))
        supports = {name: problem.model.noise_of(name).support for name in problem.observed}
        # Data on the scale of the predictions.
        predicted = {
            name: problem.model.reader.filled(name, problem.inputs).as_predicted(values)
            for name, values in problem.observed.items()
        }
        pairs = zip(trajectories(problem.model.layer), trajectories(first.layer), strict=True)
        self._paths = [
            _Paths(known, ode, problem.inputs, predicted, supports) for known, ode in pairs
        ]

    def optimise(self, x: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, "n dimension"]:
        """Return the positions after 1000 steps of Adam, `(n, dimension)`.

        Args:
            x: unconstrained parameters.
        """
        adam = optax.chain(
            optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))
        )

        def one(x):
            # Parameters and paths are optimised together; paths begin at their first coefficients.
            begun = x, [jax.tree.map(jnp.zeros_like, paths.first) for paths in self._paths]

            def step(_, carry):
                at, memory = carry
                slope = jax.grad(lambda at: -self._agreement(*at))(at)
                slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)
                update, memory = adam.update(slope, memory)
                return optax.apply_updates(at, update), memory

            return jax.lax.fori_loop(0, _STEPS, step, (begun, adam.init(begun)))[0][0]

        return np.asarray(Program(jax.vmap(one))(jnp.asarray(x)))

    def _agreement(self, x: Array, away: list[States]) -> Float[Array, ""]:
        """Return the log density in which the agreement of rates and slopes replaces solves.

        Args:
            x: unconstrained parameters.
            away: for each trajectory, the change of the coefficients from the first ones, by state.
                It is in units of the scale of the state.
        """
        # 1. log p(θ) + Σ log N(f(y) − y' | tolerance), with paths y = Φ c.
        problem = self._problem
        inputs = self._problem.inputs
        realised = realise(problem.model, problem.constrain(x))
        value, states = problem.log_prior(x), []
        for paths, ode, offset in zip(self._paths, trajectories(realised.layer), away, strict=True):
            # What depends on fixed paths only, XLA computes once.
            c = {
                name: first + paths.scale[name] * offset[name] if paths.free[name] else first
                for name, first in paths.first.items()
            }
            states.append(paths.along(c, paths.at_times))
            value += paths.agree(ode, c)
        # 2. + Σ log p(data | y). The noise gets no gradient: it would shrink to zero as paths move.
        judges = lambda m: (m.noise, m.cross_correlation)  # noqa: E731
        realised = at_states(realised, states)
        realised = eqx.tree_at(
            judges, realised, frozen(judges(realised)), is_leaf=lambda node: node is None
        )
        prediction = realised.predict(inputs)
        for name, noise in realised.conditional(prediction, inputs).items():
            value += jnp.sum(masked_log_prob(noise, problem.observed[name]))
        return value

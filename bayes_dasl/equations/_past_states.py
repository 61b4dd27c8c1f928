"""Past states of a delay differential equation: cubic interpolation and lookup of past times."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Solution(NamedTuple):
    """A piecewise cubic solution: states at the nodes, and slopes at both ends of each step.

    Args:
        nodes: the times at which steps begin and end, in increasing order.
        states: the state vector at each node.
        first: the time derivative of the state vector at the begin of each step.
        last: the time derivative of the state vector at the end of each step.
        ok: whether the solve succeeded.
    """

    nodes: Float[Array, " node"]
    states: Float[Array, "node state"]
    first: Float[Array, "step state"]
    last: Float[Array, "step state"]
    ok: Any

    def with_step(self, k: Any, first: Array, last: Array, state: Array) -> "Solution":
        """Return the solution with step k added.

        Args:
            k: the number of the step.
            first: the slope at the begin of the step.
            last: the slope at the end of the step.
            state: the state vector at the end of the step.
        """
        return self._replace(
            states=self.states.at[k + 1].set(state),
            first=self.first.at[k].set(first),
            last=self.last.at[k].set(last),
        )

    def at(self, t: Any) -> Float[Array, " state"]:
        """Return the interpolated state vector at one time."""
        step = jnp.searchsorted(self.nodes, jax.lax.stop_gradient(t), side="right") - 1
        return self.within(jnp.clip(step, 0, len(self.nodes) - 2), t)

    def within(self, step: Any, t: Any) -> Float[Array, " state"]:
        """Return the state vector at time t in step `step`, by cubic Hermite interpolation."""
        begin, h = self.nodes[step], self.nodes[step + 1] - self.nodes[step]
        # Nodes may coincide: a step of length zero is a constant.
        x = (t - begin) / jnp.where(h > 0, h, 1.0)
        y0, y1 = self.states[step], self.states[step + 1]
        bend = (1 - 2 * x) * (y1 - y0) + (x - 1) * h * self.first[step] + x * h * self.last[step]
        return (1 - x) * y0 + x * y1 + x * (x - 1) * bend


class Lookup(NamedTuple):
    """The past times at which the Runge–Kutta stages need a delayed state, for one delay.

    Arrays have the axes `(step, stage)`, or `(stage,)` for a single step.

    Args:
        times: the past times. Times before the start are replaced by the start.
        step: the number of the step of the solution in which each past time lies.
        history: the past value from before the start, valid where `before` is true.
        before: whether the past times of a step lie before the start.
    """

    times: Float[Array, "... stage"]
    step: Any
    history: Any
    before: Any

    def value(self, solution: Solution, stage: int, unravel: Callable, of: str) -> Any:
        """Return the past value of one state at a stage, from the history or from the solution.

        Args:
            solution: the solution so far.
            stage: the number of the stage.
            unravel: a function from state vectors to states by name.
            of: the name of the state.
        """
        found = unravel(solution.within(self.step[stage], self.times[stage]))[of]
        return jnp.where(self.before, self.history[stage], found)

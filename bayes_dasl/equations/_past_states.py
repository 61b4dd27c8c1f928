"""Past states of a delay differential equation: cubic interpolation, and where steps look."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Solution(NamedTuple):
    """States at nodes, and slopes at both ends of each step, for a cubic in each step."""

    nodes: Float[Array, " node"]
    states: Float[Array, "node state"]
    first: Float[Array, "step state"]
    last: Float[Array, "step state"]
    ok: Any

    def with_step(self, k: Any, first: Array, last: Array, state: Array) -> "Solution":
        """Add step k: its slopes at both ends and the state at its end."""
        return self._replace(
            states=self.states.at[k + 1].set(state),
            first=self.first.at[k].set(first),
            last=self.last.at[k].set(last),
        )

    def at(self, t: Any) -> Float[Array, " state"]:
        """State vector at one time."""
        step = jnp.searchsorted(self.nodes, jax.lax.stop_gradient(t), side="right") - 1
        return self.within(jnp.clip(step, 0, len(self.nodes) - 2), t)

    def within(self, step: Any, t: Any) -> Float[Array, " state"]:
        """State vector at a time in one of the steps, by cubic Hermite interpolation."""
        begin, h = self.nodes[step], self.nodes[step + 1] - self.nodes[step]
        # Nodes may coincide: a step of length zero is a constant.
        x = (t - begin) / jnp.where(h > 0, h, 1.0)
        y0, y1 = self.states[step], self.states[step + 1]
        bend = (1 - 2 * x) * (y1 - y0) + (x - 1) * h * self.first[step] + x * h * self.last[step]
        return (1 - x) * y0 + x * y1 + x * (x - 1) * bend


class Lookup(NamedTuple):
    """Past times of the stages of a step (or of all), the steps that hold them, and the history."""

    times: Float[Array, "... stage"]
    step: Any
    history: Any
    before: Any

    def value(self, solution: Solution, stage: int, unravel: Callable, of: str) -> Any:
        """Past value of the state `of` at a stage: from history before the start, else solved."""
        found = unravel(solution.within(self.step[stage], self.times[stage]))[of]
        return jnp.where(self.before, self.history[stage], found)

"""What a delay differential equation remembers: the states so far as cubics, and where each step
looks in them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Solution(NamedTuple):
    """States at the nodes, and slopes at both ends of each step: a cubic in each."""

    nodes: Float[Array, " node"]
    states: Float[Array, "node state"]
    first: Float[Array, "step state"]
    last: Float[Array, "step state"]
    ok: Any

    def with_step(self, k: Any, first: Array, last: Array, state: Array) -> "Solution":
        return self._replace(
            states=self.states.at[k + 1].set(state),
            first=self.first.at[k].set(first),
            last=self.last.at[k].set(last),
        )

    def at(self, t: Any) -> Float[Array, " state"]:
        """The flat states at one time."""
        step = jnp.searchsorted(self.nodes, jax.lax.stop_gradient(t), side="right") - 1
        return self.within(jnp.clip(step, 0, len(self.nodes) - 2), t)

    def within(self, step: Any, t: Any) -> Float[Array, " state"]:
        """Those at a time in one of the steps."""
        begin, h = self.nodes[step], self.nodes[step + 1] - self.nodes[step]
        x = (t - begin) / jnp.where(h > 0, h, 1.0)
        y0, y1 = self.states[step], self.states[step + 1]
        bend = (1 - 2 * x) * (y1 - y0) + (x - 1) * h * self.first[step] + x * h * self.last[step]
        return (1 - x) * y0 + x * y1 + x * (x - 1) * bend


class Lookup(NamedTuple):
    """Of each step, or of all: the past times of its stages, in which steps they lie, and what
    history says of them.
    """

    times: Float[Array, "... stage"]
    step: Any
    told: Any
    before: Any

    def value(self, solution: Solution, stage: int, unravel: Callable, of: str) -> Any:
        found = unravel(solution.within(self.step[stage], self.times[stage]))[of]
        return jnp.where(self.before, self.told[stage], found)

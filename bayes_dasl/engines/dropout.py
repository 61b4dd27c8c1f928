"""Monte-Carlo dropout: one set of weights, with hidden units dropped at random."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._findings import unshown_spread
from .._runs.journal import Journal, ProgressBar
from ..inference.descent.descent_settings import WINDOW, Descent
from ..inference.descent.members import (
    descended,
    draws_without_chain,
    log_densities,
    point_estimate,
    proposals_to_draw,
    solvable,
)
from ..inference.engine import AbstractEngine, Cost, Samples
from ..inference.problem import Problem
from ..inference.reparametrisations.hidden_units import hidden_units


@dataclasses.dataclass(frozen=True)
class MCDropout(AbstractEngine):
    """Monte-Carlo dropout: a point estimate of the weights, with random masks as draws.

    A mask sets each hidden unit to zero with probability `rate` and scales up the other units. Each
    draw applies one mask. The scientific parameters are the same in all draws.

    Weights and scientific parameters are estimated by gradient descent, with a new mask in each
    step. The priors are evaluated at the weights without a mask. One mask applies to a whole
    trajectory, also inside a vector field. A dropped unit has zero outgoing weights, so a draw is a
    set of weights as with any other engine. Units whose outgoing weights are known numbers are
    never dropped. The best of several descents is used.

    Args:
        rate: the probability of dropping a unit.
        draws: the number of masks.
        starts: the number of descents, each from a prior draw.
        descent: steps and learning rates of the descents. Without `patience` all steps are taken.

    Source: Gal & Ghahramani (2016), Dropout as a Bayesian approximation.

    Raises:
        ModelError: for invalid settings. When run, also if the model has no hidden `eqx.nn.Linear`,
            or has weights that cannot be zero or have a horseshoe prior.
    """

    rate: float = 0.1
    draws: int = 1000
    starts: int = 4
    descent: Descent = Descent(patience=None)

    def __post_init__(self):
        self._check_numbers(draws=1, starts=1)
        self._check_floats("rate")
        self._check_settings(descent=Descent)

    @property
    def batch(self) -> int:
        """Number of positions that are evaluated together: one per start."""
        return self.starts

    def cost(self, problem: Problem) -> Cost:
        return self.descent.cost(problem)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw masks around the best point estimate.

        Arguments and result are those of `AbstractEngine.run`.

        Raises:
            ModelError: if no start has a finite log density, or the model has no hidden units.
        """
        unit = hidden_units(problem)
        key_descent, key_masks = jax.random.split(key)

        # A weight w of unit u becomes w m_u / (1 − rate), with m_u Bernoulli(1 − rate).
        def masked(position: Array, key: Array) -> Array:
            kept = jax.random.bernoulli(key, 1 - self.rate, (unit.max() + 1,)) / (1 - self.rate)
            return position * jnp.where(unit >= 0, kept[unit], 1.0)

        found = descended(
            problem,
            self.starts,
            self.descent,
            key=key_descent,
            journal=journal,
            bar=bar,
            altered=masked,
        )
        # The loss of one step depends on its mask, with which the solver may fail. The median over
        # steps is robust to this.
        best = int(np.nanargmin(np.nanmedian(found.curves["loss"][:, -4 * WINDOW :], axis=1)))
        last = jnp.asarray(found.visited[best, -1])
        keys = jax.random.split(key_masks, proposals_to_draw(self.draws))
        proposed = np.asarray(jax.jit(jax.vmap(lambda k: masked(last, k)))(keys))
        proposals = solvable(proposed, log_densities(problem, proposed), self.draws)
        one_value = (
            "what no mask changes, scientific parameters too, has one value: how uncertain it is "
            "stays unsaid"
        )
        masks = "masks differ by as much as the rate says, whatever the data know"
        return draws_without_chain(
            proposals.positions,
            proposals.log_densities,
            facts={**found.facts, **proposals.facts},
            findings=(point_estimate(one_value), *proposals.findings, unshown_spread(masks)),
            curves=found.curves_of(best),
            draws_are="masks",
        )

"""Monte-Carlo dropout: one set of weights, whose hidden units are left out at random."""

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
    """Draws are masks: each hidden unit of a network is left out at random, the others count for
    more.

    The weights, and the scientific parameters, are a point estimate by a descent under masks drawn
    anew at each step; the priors see the weights without a mask. A mask holds for a whole
    trajectory, inside a vector field as well as outside. To leave a unit out is to make the weights
    that it feeds zero, so that a draw is a set of weights like that of any other engine; units that
    feed known weights always stay. The best of several descents is taken.

    Args:
        rate: the probability with which a unit is left out.
        draws: masks that are drawn.
        starts: descents, each from a prior draw of its own.
        descent: steps and learning rates; all steps are taken unless it has patience.

    Source: Gal & Ghahramani (2016), Dropout as a Bayesian approximation.

    Raises:
        ModelError: for numbers that make no sense, or, when run, for a model without a hidden
            `eqx.nn.Linear`, or weights that cannot be zero or are under a horseshoe.
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
        """Positions that are looked at together: all starts."""
        return self.starts

    def cost(self, problem: Problem) -> Cost:
        return self.descent.cost(problem)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Masked positions.

        Raises:
            ModelError: if no start has a finite log density, or there is nothing to leave out.
        """
        unit = hidden_units(problem)
        key_descent, key_masks = jax.random.split(key)

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
        # Single losses depend on their masks, some of which the solver may refuse; their median
        # hardly does.
        best = int(np.nanargmin(np.nanmedian(found.curves["loss"][:, -4 * WINDOW :], axis=1)))
        last = jnp.asarray(found.visited[best, -1])
        keys = jax.random.split(key_masks, proposals_to_draw(self.draws))
        proposed = np.asarray(jax.jit(jax.vmap(lambda k: masked(last, k)))(keys))
        proposals = solvable(proposed, log_densities(problem, proposed), self.draws)
        unsaid = (
            "what no mask changes, scientific parameters too, has one value: how uncertain it is "
            "stays unsaid"
        )
        masks = "masks differ by as much as the rate says, whatever the data know"
        return draws_without_chain(
            proposals.positions,
            proposals.log_densities,
            facts={**found.facts, **proposals.facts},
            findings=(point_estimate(unsaid), *proposals.findings, unshown_spread(masks)),
            curves=found.curves_of(best),
            draws_are="masks",
        )

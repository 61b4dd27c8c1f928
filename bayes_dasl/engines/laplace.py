"""Laplace's approximation by the generalised Gauss–Newton matrix."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from .._findings import unshown_spread
from .._runs.journal import Arrays, Journal, ProgressBar
from ..errors import ModelError
from ..inference.descent.descent_settings import Descent
from ..inference.descent.members import (
    descended,
    draws_without_chain,
    log_densities,
    proposals_to_draw,
    solvable,
)
from ..inference.descent.spread import spread_of_normal
from ..inference.engine import AbstractEngine, Cost, Modes, Samples
from ..inference.linearisation import gauss_newton
from ..inference.problem import Problem
from ..inference.reparametrisations.conditional import Conditional, last_layer
from ..inference.reparametrisations.reference import References, is_sound, references_of

SUBSETS = ("all", "last")


@dataclasses.dataclass(frozen=True)
class Laplace(AbstractEngine):
    r"""Draws of the normal around the mode whose precision is $J^\top W J$ plus the curvature of
    the priors.

    J are the derivatives of the predictions, and of the logarithms of their standard deviations, W
    what each datum tells of them, both at the mode (generalised Gauss–Newton): unlike the Hessian
    it is never negative, however rough the network. No direction is wider than under the prior,
    priors taken to be independent: correlated ones come out too narrow where data say little.
    Where a network sits inside a solver draws are made in the conditional coordinates in which
    `NUTS` moves: last layers then follow the hidden weights. In the weights themselves predictions
    are far wider than the posterior's.

    Args:
        subset: "all", or "last": all other weights of networks, those of variance heads and random
            scales of networks included, then stay at the mode.
        draws: how many.
        starts: descents, each from a prior draw of its own; the best ends at the mode.
        descent: steps, learning rates and patience of the way to the mode.

    Source: Daxberger et al. (2021), Laplace redux.

    Raises:
        ModelError: for numbers that make no sense, or, when run, for "last" without a last layer to
            be found.
    """

    subset: str = "all"
    draws: int = 1000
    starts: int = 4
    descent: Descent = Descent(patience=20)

    def __post_init__(self):
        self._check_words(subset=SUBSETS)
        self._check_numbers(draws=1, starts=1)
        self._check_settings(descent=Descent)

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all starts."""
        return self.starts

    def cost(self, problem: Problem) -> Cost:
        return self.descent.cost(problem)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draws around the best mode.

        Raises:
            ModelError: if no start has a finite log density.
        """
        free = self._free(problem)
        key_descent, key_draw = jax.random.split(key)
        found = descended(
            problem, self.starts, self.descent, key=key_descent, journal=journal, bar=bar
        )
        value = log_densities(problem, found.positions)
        best = int(np.nanargmax(np.where(np.isfinite(value), value, -np.inf)))
        mode = found.positions[best]
        curvature = journal.step(
            "curvature", lambda: {"precision": np.asarray(gauss_newton(problem, mode))}
        )
        precision = curvature["precision"]
        # In units of the prior's width: no direction is wider than there, even if the log density
        # bends upwards.
        unit = problem.prior_widths()[free]
        values, vectors = np.linalg.eigh(precision[np.ix_(free, free)] * np.outer(unit, unit))
        root = unit[:, None] * vectors / np.sqrt(np.maximum(values, 1.0))
        noise = np.asarray(jax.random.normal(key_draw, (proposals_to_draw(self.draws), len(free))))
        steps = np.zeros((len(noise), problem.dimension))
        steps[:, free] = noise @ root.T
        # What was held out of the descent is in the posterior.
        references = references_of(problem) if self.descent.held_out else found.references
        proposed = journal.step("proposals", lambda: _away(references, mode, steps))
        log_posterior = log_densities(problem, proposed["position"])
        proposals = solvable(proposed["position"], log_posterior, self.draws)
        if len(free) < problem.dimension:
            known, spread = (
                {},
                unshown_spread("what the weights of hidden layers leave open is left out"),
            )
        else:
            log_normal = -0.5 * (noise**2).sum(axis=1) - proposed["log_volume"]
            known, spread = spread_of_normal(proposed["position"], log_posterior, log_normal)
        return draws_without_chain(
            proposals.positions,
            proposals.log_densities,
            facts={**found.facts, **proposals.facts, **known},
            findings=(*found.findings, *proposals.findings, spread),
            modes=Modes(mode[None], value[best : best + 1]),
            curves=found.curves_of(best),
            draws_are="independent",
        )

    def _free(self, problem: Problem) -> np.ndarray:
        """The coordinates that are not known."""
        if self.subset == "all":
            return np.arange(problem.dimension)
        last = last_layer(problem).indices
        if not last:
            raise ModelError(
                "Laplace(subset='last') needs a bd.Network that is linear in the weights of its "
                "last layer"
            )
        hidden = set(problem.of_groups("network")) - set(last)
        return np.asarray([i for i in range(problem.dimension) if i not in hidden])


def _away(
    references: References | None,
    mode: Float[np.ndarray, " dimension"],
    steps: Float[np.ndarray, "draw dimension"],
) -> Arrays:
    """Positions so many steps away from the mode, and the log volume by which the coordinates
    stretch on the way there.

    Steps are taken in conditional coordinates, if there are any.
    """
    plain = {"position": mode + steps, "log_volume": np.zeros(len(steps))}
    if references is None:
        return plain
    arrays = references.from_draws(mode[None])
    if not is_sound(arrays):
        return plain
    frame = references.restored(arrays)
    x, log_volume = frame.forward_many(np.asarray(_turned(frame, mode, steps)))
    return {"position": x, "log_volume": log_volume}


@jax.jit
def _turned(
    frame: Conditional, mode: Float[Array, " dimension"], steps: Float[Array, "draw dimension"]
) -> Array:
    """The coordinates of positions so many steps away, to first order."""
    begin, along = jax.linearize(frame.inverse, mode)
    return begin + jax.vmap(along)(steps)

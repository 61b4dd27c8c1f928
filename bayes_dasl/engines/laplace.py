"""Laplace approximation with the generalised Gauss–Newton matrix."""

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
    r"""A normal around the mode, with precision $J^\top W J$ plus the curvature of the priors.

    J holds the derivatives of all predictions, and of the logarithms of their standard deviations,
    by the parameters. W is the Fisher information of each datum about these quantities. Their
    product is the generalised Gauss–Newton matrix. Unlike the Hessian, it has no negative
    eigenvalues.

    No direction is wider than under the prior. This bound treats the priors of all parameters as
    independent. So parameters with correlated priors become too narrow if data say little about
    them.

    For a network inside a solver, draws are made in the conditional reparametrisation of `NUTS`, in
    which last-layer weights depend on the hidden weights. A normal in the weights themselves would
    give predictions far wider than the posterior's.

    Args:
        subset: "all" varies all parameters. "last" varies the last-layer weights of networks and
            the scientific parameters. Then hidden weights, variance heads and random scales of
            networks stay at the mode.
        draws: the number of draws.
        starts: the number of descents, each from a prior draw. The mode is the end of the best one.
        descent: steps, learning rates and patience of the descents.

    Source: Daxberger et al. (2021), Laplace redux.

    Raises:
        ModelError: for invalid settings. When run, also if `subset` is "last" and no network has a
            last layer in whose weights it is linear.
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
        """Number of positions that are evaluated together: one per start."""
        return self.starts

    def cost(self, problem: Problem) -> Cost:
        return self.descent.cost(problem)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw around the best mode. Arguments and result are those of `AbstractEngine.run`.

        Raises:
            ModelError: if no start has a finite log density.
        """
        free = self._free(problem)
        key_descent, key_draw = jax.random.split(key)
        # 1. The mode: the end of the descent with the highest log density.
        found = descended(
            problem, self.starts, self.descent, key=key_descent, journal=journal, bar=bar
        )
        value = log_densities(problem, found.positions)
        best = int(np.nanargmax(np.where(np.isfinite(value), value, -np.inf)))
        mode = found.positions[best]
        # 2. The precision Λ = Jᵀ W J + prior curvature at the mode.
        curvature = journal.step(
            "curvature", lambda: {"precision": np.asarray(gauss_newton(problem, mode))}
        )
        precision = curvature["precision"]
        # 3. With U the diagonal matrix of prior widths, U Λ U = V diag(λ) Vᵀ. With the root
        #    R = U V diag(max(λ, 1))^(−½) no direction is wider than under the prior.
        unit = problem.prior_widths()[free]
        values, vectors = np.linalg.eigh(precision[np.ix_(free, free)] * np.outer(unit, unit))
        root = unit[:, None] * vectors / np.sqrt(np.maximum(values, 1.0))
        # 4. Draws x = mode + R n, taken in the conditional reparametrisation.
        noise = np.asarray(jax.random.normal(key_draw, (proposals_to_draw(self.draws), len(free))))
        steps = np.zeros((len(noise), problem.dimension))
        steps[:, free] = noise @ root.T
        # The posterior includes the data that the descent held out.
        references = references_of(problem) if self.descent.held_out else found.references
        proposed = journal.step("proposals", lambda: _displaced(references, mode, steps))
        log_posterior = log_densities(problem, proposed["position"])
        proposals = solvable(proposed["position"], log_posterior, self.draws)
        # 5. If all parameters vary, importance weights test the width of the normal.
        if len(free) < problem.dimension:
            known = {}
            spread = unshown_spread("what the weights of hidden layers leave open is left out")
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
        """Return the indices of the parameters that vary, for the given `subset`."""
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


def _displaced(
    references: References | None,
    mode: Float[np.ndarray, " dimension"],
    steps: Float[np.ndarray, "draw dimension"],
) -> Arrays:
    """Return the mode plus each step, taken in the conditional reparametrisation if there is one.

    Args:
        references: makes the conditional reparametrisation at a position; None without one.
        mode: the position of the mode.
        steps: displacements from the mode.

    Returns:
        A dict with `position`, `(draw, dimension)`, and `log_volume`, the log |det J| of the
        reparametrisation at each position (0 without one).
    """
    plain = {"position": mode + steps, "log_volume": np.zeros(len(steps))}
    if references is None:
        return plain
    arrays = references.from_draws(mode[None])
    if not is_sound(arrays):
        return plain
    conditional = references.restored(arrays)
    z = np.asarray(_first_order_inverse(conditional, mode, steps))
    x, log_det = conditional.forward_many(z)
    return {"position": x, "log_volume": log_det}


@jax.jit
def _first_order_inverse(
    conditional: Conditional,
    mode: Float[Array, " dimension"],
    steps: Float[Array, "draw dimension"],
) -> Array:
    """Return z(mode) plus the derivative of z times each step, `(draw, dimension)`.

    z(x) is the inverse of the reparametrisation, from unconstrained parameters x to new ones.
    """
    begin, along = jax.linearize(conditional.inverse, mode)
    return begin + jax.vmap(along)(steps)

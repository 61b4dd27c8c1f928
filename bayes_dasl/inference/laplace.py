"""Laplace's approximation by the generalised Gauss–Newton matrix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import ModelError
from .._journal import Journal
from .._progress import ProgressBar
from ..random import realise
from ._descent import WINDOW, Descent
from ._last_layer import last_layer
from ._members import begin, counts, log_densities, solvable, weighted_loss
from ._problem import Problem
from ._samples import Modes, Samples
from ._settings import check_numbers, check_shares

SUBSETS = ("all", "last")
_SPARE = 1.25
_LEAST = 1e-6  # of the prior's precision, in a direction in which the curvature is negative


@dataclasses.dataclass(frozen=True)
class Laplace:
    r"""Draws of the normal around the mode whose precision is $J^\top W J$ plus the curvature of noise and priors.

    J are the derivatives of the predictions, W one over the variance of each datum, both at the mode (generalised
    Gauss–Newton): unlike the Hessian it is never negative, however rough the network. The mode is the best of `starts`
    descents as in `Joint`. With the `subset` "last" all weights of networks but those of their last layers stay at the
    mode.
    Source: Daxberger et al. (2021), Laplace redux.
    Raises: ModelError for numbers that make no sense, or, when run, for "last" without a last layer to be found.
    """

    subset: str = "all"
    draws: int = 1000
    steps: int = 5000
    starts: int = 4
    science_rate: float = 0.01
    network_rate: float = 0.003

    def __post_init__(self):
        if self.subset not in SUBSETS:
            raise ModelError(f"Laplace(subset={self.subset!r}): subset must be one of {', '.join(SUBSETS)}")
        check_numbers(self, {"draws": 1, "steps": WINDOW, "starts": 1})
        check_shares(self, ("science_rate", "network_rate"))

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all starts."""
        return self.starts

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draws around the best mode.

        Raises: ModelError if no start has a finite log density.
        """
        free = self._free(problem)
        key_start, key_rows, key_steps, key_draw = jax.random.split(key, 4)
        x = journal.step("start", lambda: {"position": begin(problem, self.starts, key=key_start)})["position"]
        own = counts(problem, self.starts, key=key_rows)
        rates = (self.science_rate, self.network_rate)
        descent = Descent(*weighted_loss(problem), rates, adaptive=True, steps=self.steps, patience=20)
        found = descent.run(problem, x, own, key=key_steps, journal=journal, bar=bar)
        value = log_densities(problem, found.positions)
        best = int(np.nanargmax(np.where(np.isfinite(value), value, -np.inf)))
        mode = found.positions[best]
        precision = journal.step("curvature", lambda: {"precision": np.asarray(gauss_newton(problem, mode))})[
            "precision"
        ]
        values, vectors = np.linalg.eigh(precision[np.ix_(free, free)])
        root = vectors / np.sqrt(np.maximum(values, _LEAST))
        noise = np.asarray(jax.random.normal(key_draw, (round(_SPARE * self.draws) + 1, len(free))))
        proposed = np.repeat(mode[None], len(noise), axis=0)
        proposed[:, free] += noise @ root.T
        chosen, lp, lost = solvable(problem, proposed, self.draws)
        facts = {
            "draws_are": "independent",
            "descent_steps": found.steps,
            "descent_stopped": int(found.stopped_early),
            "proposals": len(proposed),
            "proposals_failed": lost,
        }
        modes = Modes(mode[None], value[best : best + 1])
        curves = found.curves_of(best)
        return Samples(chosen[None], {"lp": lp[None]}, False, facts, modes, curves)

    def _free(self, problem: Problem) -> np.ndarray:
        """The coordinates that are not known."""
        if self.subset == "all":
            return np.arange(problem.dimension)
        last = last_layer(problem).coordinates
        if not last:
            raise ModelError(
                "Laplace(subset='last') needs a bd.Network that is linear in the weights of its last layer"
            )
        hidden = set(problem.of_groups("network")) - set(last)
        return np.asarray([i for i in range(problem.dimension) if i not in hidden])


def gauss_newton(problem: Problem, mode: Float[np.ndarray, " dimension"]) -> Float[Array, "dimension dimension"]:
    """Minus the curvature of the log density, without that of the predictions."""
    given, observed = problem.inputs, problem.observed

    def predicted(x):
        realised = realise(problem.model, problem.constrain(x))
        return {name: realised.predict(given).values[name] for name in realised.observables}

    at = jnp.asarray(mode)
    values = jax.jit(predicted)(at)

    def linked(x):
        model = realise(problem.model, problem.constrain(at))
        return jnp.concatenate([jnp.ravel(model.noise_of(n).link(v)) for n, v in predicted(x).items()])

    def noise_and_priors(x):
        """The log density with the predictions held where they are at the mode."""
        realised = realise(problem.model, problem.constrain(x))
        value = problem.log_prior(x)
        for name, v in values.items():
            noise, seen = realised.noise_at(name, values, given)(v), ~jnp.isnan(observed[name])
            value += jnp.sum(jnp.where(seen, noise.log_prob(jnp.where(seen, observed[name], 1.0)), 0.0))
        return value

    model = realise(problem.model, problem.constrain(at))
    weights = [
        jnp.where(jnp.isnan(observed[n]), 0.0, 1 / model.noise_at(n, values, given).spread(v) ** 2).ravel()
        for n, v in values.items()
    ]
    slopes = jax.jit(jax.jacrev(linked))(at)
    return slopes.T @ (jnp.concatenate(weights)[:, None] * slopes) - jax.jit(jax.hessian(noise_and_priors))(at)

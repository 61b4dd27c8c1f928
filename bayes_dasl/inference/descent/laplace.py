"""Laplace's approximation by the generalised Gauss–Newton matrix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._errors import ModelError
from ..._runs.journal import Journal
from ..._runs.progress import ProgressBar
from ...random import realise
from ..coordinates.frame import positions
from ..coordinates.last_layer import last_layer
from ..coordinates.reference import is_sound, references_of
from ..problem import Problem, reversible
from ..samples import Modes, Samples
from ..settings import check_numbers, check_shares, check_words
from .descent import WINDOW
from .members import RATES, descended, log_densities, solvable

SUBSETS = ("all", "last")
_SPARE = 1.25
PATIENCE = 20
"""Windows in which no position was better, after which a mode is found."""


@dataclasses.dataclass(frozen=True)
class Laplace:
    r"""Draws of the normal around the mode whose precision is $J^\top W J$ plus the curvature of the priors.

    J are the derivatives of the predictions, and of the logarithms of their standard deviations, W what each datum
    tells of them, both at the mode (generalised Gauss–Newton): unlike the Hessian it is never negative, however rough
    the network. No direction is wider than under the prior, priors taken to be independent: correlated ones come out
    too narrow where data say little. The mode is the best of `starts` descents as in `Joint`.
    With the `subset` "last" all other weights of networks, those of variance heads and random scales of networks
    included, stay at the mode.
    Where a network sits inside a solver draws are made in the conditional coordinates in which `NUTS` moves: last
    layers then follow the hidden weights. In the weights themselves predictions are far wider than the posterior's.
    Source: Daxberger et al. (2021), Laplace redux.
    Raises: ModelError for numbers that make no sense, or, when run, for "last" without a last layer to be found.
    """

    subset: str = "all"
    draws: int = 1000
    steps: int = 5000
    starts: int = 4
    science_rate: float = RATES[0]
    network_rate: float = RATES[1]

    def __post_init__(self):
        check_words(self, {"subset": SUBSETS})
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
        key_descent, key_draw = jax.random.split(key)
        found = descended(
            problem,
            self.starts,
            key=key_descent,
            journal=journal,
            bar=bar,
            steps=self.steps,
            patience=PATIENCE,
            rates=(self.science_rate, self.network_rate),
        )
        value = log_densities(problem, found.positions)
        best = int(np.nanargmax(np.where(np.isfinite(value), value, -np.inf)))
        mode = found.positions[best]
        precision = journal.step("curvature", lambda: {"precision": np.asarray(gauss_newton(problem, mode))})[
            "precision"
        ]
        # In units of the prior's spread: no direction is wider than there, even if the log density bends upwards.
        unit = problem.prior_spread()[free]
        values, vectors = np.linalg.eigh(precision[np.ix_(free, free)] * np.outer(unit, unit))
        root = unit[:, None] * vectors / np.sqrt(np.maximum(values, 1.0))
        noise = np.asarray(jax.random.normal(key_draw, (round(_SPARE * self.draws) + 1, len(free))))
        steps = np.zeros((len(noise), problem.dimension))
        steps[:, free] = noise @ root.T
        proposed = journal.step("proposals", lambda: {"position": _away(problem, mode, steps)})["position"]
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


def _away(
    problem: Problem, mode: Float[np.ndarray, " dimension"], steps: Float[np.ndarray, "draw dimension"]
) -> Float[np.ndarray, "draw dimension"]:
    """Positions so many steps away from the mode, in conditional coordinates if there are any."""
    references = references_of(problem)
    if references is None:
        return mode + steps
    arrays = references.frame(mode[None])
    if not is_sound(arrays):
        return mode + steps
    frame = references.restored(arrays)
    begin, turned = jax.linearize(frame.coordinates, jnp.asarray(mode))
    return positions(frame, np.asarray(begin + jax.vmap(turned)(jnp.asarray(steps))))[0]


def gauss_newton(problem: Problem, mode: Float[np.ndarray, " dimension"]) -> Float[Array, "dimension dimension"]:
    """Minus the curvature of the log density, without that of predictions and scales of noise.

    These enter by their slopes: a datum tells of its prediction by one over its variance, of the logarithm of its
    standard deviation by two, as for normal noise, and a mismatch is a datum of a standard deviation of one.
    """
    problem = reversible(problem)
    given, at = problem.inputs, jnp.asarray(mode)

    def predicted(x):
        return realise(problem.model, problem.constrain(x)).predict(given)

    held = jax.jit(predicted)(at)

    def features(x):
        """Predictions, the logarithms of their spreads, and mismatches."""
        model, found = realise(problem.model, problem.constrain(x)), predicted(x)
        places, spreads = [], []
        for name in model.observables:
            noise, value = model.noise_at(name, held.values, given), held.values[name]
            spread = noise.spread(value, found.variances.get(name))
            places.append(jnp.ravel(noise.link(found.values[name])))
            spreads.append(jnp.ravel(jnp.broadcast_to(jnp.log(spread), value.shape)))
        broken = [jnp.ravel(v) for v in found.mismatches.values()]
        return jnp.concatenate(places), jnp.concatenate(spreads), jnp.concatenate([*broken, jnp.zeros(0)])

    (_, spreads, _), slopes = jax.jit(lambda x: (features(x), jax.jacrev(features)(x)))(at)
    seen = jnp.concatenate([jnp.ravel(~jnp.isnan(problem.observed[name])) for name in problem.model.observables])
    weights = jnp.where(seen, jnp.exp(-2 * spreads), 0.0), 2.0 * seen, jnp.ones(len(slopes[2]))
    told = sum((slope.T @ (weight[:, None] * slope) for weight, slope in zip(weights, slopes, strict=True)), 0.0)
    return told - jax.jit(jax.hessian(problem.log_prior))(at)

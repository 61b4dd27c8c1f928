"""Monte-Carlo dropout: one set of weights, whose hidden units are left out at random."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from numpyro.distributions.transforms import IdentityTransform

from ..._errors import ModelError
from ..._runs.journal import Journal
from ..._runs.progress import ProgressBar
from ...networks.network import linear_layers, networks
from ..problem import Problem
from ..samples import Samples
from ..settings import check_numbers, check_shares
from .descent import WINDOW
from .members import RATES, descended, solvable

# Some masks may be lost where the solver fails.
_SPARE = 1.25


@dataclasses.dataclass(frozen=True)
class MCDropout:
    """Draws are masks: each hidden unit of a network is left out with probability `rate`, the others count for more.

    The weights, and the scientific parameters, are a point estimate by the descent of `Joint` under masks drawn anew at
    each step; the priors see the weights without a mask. A mask holds for a whole trajectory, inside a vector field as
    well as outside. To leave a unit out is to make the weights that it feeds zero, so that a draw is a set of weights
    like that of any other engine; units that feed known weights always stay. The best of `starts` descents is taken.
    Source: Gal & Ghahramani (2016), Dropout as a Bayesian approximation.
    Raises: ModelError for numbers that make no sense, or, when run, for a model without a hidden `eqx.nn.Linear`, or
    weights that cannot be zero or are under a horseshoe.
    """

    rate: float = 0.1
    draws: int = 1000
    steps: int = 5000
    starts: int = 4
    science_rate: float = RATES[0]
    network_rate: float = RATES[1]

    def __post_init__(self):
        check_numbers(self, {"draws": 1, "steps": WINDOW, "starts": 1})
        check_shares(self, ("rate", "science_rate", "network_rate"))

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all starts."""
        return self.starts

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Masked positions.

        Raises: ModelError if no start has a finite log density, or there is nothing to leave out.
        """
        unit = _units(problem)
        key_descent, key_masks = jax.random.split(key)

        def masked(position: Array, key: Array) -> Array:
            kept = jax.random.bernoulli(key, 1 - self.rate, (unit.max() + 1,)) / (1 - self.rate)
            return position * jnp.where(unit >= 0, kept[unit], 1.0)

        found = descended(
            problem,
            self.starts,
            key=key_descent,
            journal=journal,
            bar=bar,
            steps=self.steps,
            rates=(self.science_rate, self.network_rate),
            altered=masked,
        )
        # Single losses depend on their masks, some of which the solver may refuse; their median hardly does.
        best = int(np.nanargmin(np.nanmedian(found.curves["loss"][:, -4 * WINDOW :], axis=1)))
        last = jnp.asarray(found.visited[best, -1])
        keys = jax.random.split(key_masks, round(_SPARE * self.draws) + 1)
        proposed = np.asarray(jax.jit(jax.vmap(lambda k: masked(last, k)))(keys))
        chosen, value, lost = solvable(problem, proposed, self.draws)
        facts = {"draws_are": "masks", "descent_steps": found.steps, "proposals": len(keys), "proposals_failed": lost}
        curves = found.curves_of(best)
        return Samples(chosen[None], {"lp": value[None]}, False, facts, curves=curves)


def _units(problem: Problem) -> Int[np.ndarray, " dimension"]:
    """For each coordinate the hidden unit that its weight is fed by; −1 for all that is no such weight."""
    unit, number = np.full(problem.dimension, -1), 0
    for where, network in networks(problem.model):
        for path in linear_layers(network)[1:]:
            weight = f"{where}.{path}.weight"
            site = problem.sites.get(weight)
            if any(name.startswith(f"{weight}.") for name in problem.sites) or not (
                site is None or isinstance(site.bijector, IdentityTransform)
            ):
                raise ModelError(f"MCDropout makes weights zero, which the prior of '{weight}' forbids: take fan_in")
            if site is not None:
                outputs, inputs = site.shape
                unit[site.start : site.start + site.size] = number + np.tile(np.arange(inputs), outputs)
                number += inputs
    if not number:
        raise ModelError("MCDropout needs a bd.Network with a hidden layer (eqx.nn.Linear) whose weights are random")
    return unit

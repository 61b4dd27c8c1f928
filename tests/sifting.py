"""An engine that compiles no gradient, for tests of what is done with a posterior rather than of
how it is drawn.
"""

import dataclasses

import jax
import numpy as np

from bayes_dasl.inference import AbstractEngine, Samples


@dataclasses.dataclass(frozen=True)
class Sifting(AbstractEngine):
    """Prior draws resampled by their likelihood: the posterior of a few unknown numbers."""

    chains: int = 2
    draws: int = 100
    proposals: int = 4000

    def run(self, problem, *, key, journal, bar):
        key_prior, key_draw = jax.random.split(key)
        proposed = problem.prior(self.proposals, key=key_prior)
        density, prior = jax.jit(
            jax.vmap(lambda x: (problem.log_density(x), problem.log_prior(x)))
        )(proposed)
        density, log_weight = np.asarray(density), np.asarray(density - prior)
        weight = np.exp(log_weight - log_weight.max())
        assert weight.sum() ** 2 / (weight**2).sum() > 40, "the proposals are worth too few draws"
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key_draw)))
        drawn = rng.choice(self.proposals, (self.chains, self.draws), p=weight / weight.sum())
        return Samples(
            np.asarray(proposed)[drawn],
            {"lp": density[drawn], "diverging": np.zeros(drawn.shape, bool)},
        )

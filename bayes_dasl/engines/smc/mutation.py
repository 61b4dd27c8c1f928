r"""MCMC moves of a particle in a tempered posterior, prior · likelihood^β."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.lazily import lazily
from ..._jax.trace import traced
from ...inference.gradient import traced_once
from ...inference.problem import Problem

hmc = lazily("blackjax.mcmc.hmc")


class Particle(NamedTuple):
    """A position with its log likelihood and the gradient of the log likelihood.

    `gradient` has length 0 for moves that use no gradient.
    """

    position: Any
    log_likelihood: Any
    gradient: Any


type Move = Callable[[Array, Particle], tuple[Particle, Array]]
"""Maps a key and a particle to the particle after a move, and the acceptance rate."""


class Walk:
    """Random-walk Metropolis without gradients; a move is two steps per dimension.

    The step size is adapted to the acceptance rate `target_acceptance`. `counted` is the name of
    the fact that counts the steps: each step is one evaluation of the log density.

    Source: Roberts, Gelman & Gilks (1997) for the step size and the acceptance rate.
    """

    target_acceptance = 0.25
    counted = "evaluations"

    def __init__(self, problem: Problem):
        self._dimension = problem.dimension
        self.log_prior = traced(problem.log_prior, jnp.zeros(problem.dimension))
        _, self._log_density = traced_once(problem)

    def first_step_size(self) -> float:
        """Return the optimal step size for a normal, 2.38 / √d standard deviations.

        d is the dimension of the posterior.
        """
        return 2.38 / np.sqrt(self._dimension)

    def steps(self, step_size: Array) -> Array:
        """Return the number of Metropolis steps of a move; it does not depend on the step size."""
        return jnp.full((), 2 * self._dimension)

    def place(self, position: Array) -> Particle:
        """Return the particle at a position, with its log likelihood and an empty gradient."""
        return Particle(position, self._log_likelihood(position)[0], jnp.zeros(0))

    def _log_likelihood(self, position: Array) -> tuple[Array, Array]:
        """Return log likelihood and log prior; both are −∞ if either is not finite."""
        log_prior = self.log_prior(position)
        value = self._log_density(position)
        # A failing solve has no likelihood, and positions far out have no prior density.
        lost = ~jnp.isfinite(value) | ~jnp.isfinite(log_prior)
        return jnp.where(lost, -jnp.inf, value - log_prior), jnp.where(lost, -jnp.inf, log_prior)

    def mover(self, beta: Array, metric: Array, step_size: Array, steps: Array) -> Move:
        """Return the move for one temperature.

        Args:
            beta: the inverse temperature β.
            metric: the covariance of the particles, or its diagonal.
            step_size: the scale of a proposal, in standard deviations of the particles.
            steps: the number of Metropolis steps of the move.
        """
        root = jnp.linalg.cholesky(metric) if metric.ndim == 2 else jnp.diag(jnp.sqrt(metric))

        def move(key, particle):
            def step(number, carry):
                particle, log_prior, accepted = carry
                key_noise, key_accept = jax.random.split(jax.random.fold_in(key, number))
                # 1. Propose x' = x + ε Σ^½ n, with n standard normal.
                noise = jax.random.normal(key_noise, particle.position.shape)
                position = particle.position + step_size * root @ noise
                log_likelihood, at_proposal = self._log_likelihood(position)
                # 2. log r = log p(x') − log p(x) + β (log L(x') − log L(x)).
                gain = at_proposal - log_prior + beta * (log_likelihood - particle.log_likelihood)
                # 3. Accept with probability min(1, r).
                taken = jnp.log(jax.random.uniform(key_accept)) < gain
                proposal = particle._replace(position=position, log_likelihood=log_likelihood)
                chosen = jax.tree.map(
                    lambda new, old: jnp.where(taken, new, old), proposal, particle
                )
                return (
                    chosen,
                    jnp.where(taken, at_proposal, log_prior),
                    accepted + jnp.exp(jnp.minimum(gain, 0.0)),
                )

            first = particle, self.log_prior(particle.position), jnp.zeros(())
            particle, _, accepted = jax.lax.fori_loop(0, steps, step, first)
            return particle, accepted / steps

        return move


class Hamiltonian:
    """Hamiltonian Monte Carlo by BlackJAX; a move lasts a quarter of the period of a normal.

    For a normal, the position after a quarter period is independent of the position before.
    """

    target_acceptance = 0.8
    counted = "gradients"
    most_steps = 12

    def __init__(self, problem: Problem):
        nowhere = jnp.zeros(problem.dimension)
        self.log_prior = traced(problem.log_prior, nowhere)
        self._prior = traced(jax.value_and_grad(problem.log_prior), nowhere)
        self._value_and_gradient, self._log_density = traced_once(problem)

    def first_step_size(self) -> float:
        """Return the step size before any adaptation."""
        return 0.5

    def steps(self, step_size: Array) -> Array:
        """Return the number of leapfrog steps of a move, π / (2 ε), between 1 and `most_steps`."""
        return jnp.clip(jnp.round(np.pi / 2 / step_size), 1, self.most_steps).astype(int)

    def place(self, position: Array) -> Particle:
        """Return the particle at a position, with its log likelihood and gradient."""
        value, slope = self._value_and_gradient(position)
        log_prior, prior_slope = self._prior(position)
        live = jnp.isfinite(value)
        return Particle(
            position,
            jnp.where(live, value - log_prior, -jnp.inf),
            jnp.where(live, slope - prior_slope, 0.0),
        )

    def mover(self, beta: Array, metric: Array, step_size: Array, steps: Array) -> Move:
        """Return the move for one temperature.

        Args:
            beta: the inverse temperature β.
            metric: the covariance of the particles, or its diagonal, as the inverse mass matrix.
            step_size: the mean leapfrog step size; each particle varies it by up to 20 %.
            steps: the number of leapfrog steps.
        """
        kernel: Any = hmc.build_kernel()

        # log p_β = (1 − β) log prior + β log posterior, since log posterior = log prior + log
        # likelihood.
        def tempered(x: Float[Array, " dimension"]) -> Array:
            value = (1 - beta) * self.log_prior(x) + beta * self._log_density(x)
            return jnp.where(jnp.isnan(value), -jnp.inf, value)

        def move(key, particle):
            key_size, key_move = jax.random.split(key)
            # 1. A random step size per particle keeps trajectories from closing.
            own = step_size * jax.random.uniform(key_size, minval=0.8, maxval=1.2)
            log_prior, slope = self._prior(particle.position)
            value = log_prior + beta * particle.log_likelihood
            # 2. Value and gradient at the start follow from the stored log likelihood and its
            #    gradient, so they need no solve.
            state = hmc.HMCState(particle.position, value, slope + beta * particle.gradient)
            state, info = kernel(key_move, state, tempered, own, metric, steps)
            # 3. log L = (log p_β − log prior) / β, and its gradient likewise.
            log_prior, slope = self._prior(state.position)
            log_likelihood = (state.logdensity - log_prior) / beta
            gradient = (state.logdensity_grad - slope) / beta
            return Particle(state.position, log_likelihood, gradient), info.acceptance_rate

        return move

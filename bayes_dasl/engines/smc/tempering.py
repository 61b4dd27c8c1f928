"""Compiled programs that temper particles from the prior to the posterior, one run at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from ..._jax.devices import computing_devices
from ..._jax.lazily import lazily
from ...inference.sharding import Sharded
from .mutation import Hamiltonian, Particle, Walk

ess = lazily("blackjax.smc.ess")
resampling = lazily("blackjax.smc.resampling")
solver = lazily("blackjax.smc.solver")

FEWEST_MOVES = 2
# Particles that a CPU evaluates together.
_BATCH = 32
# Dimensions up to which the metric is a full covariance.
_DENSE_UP_TO = 64
# Moves stop if the correlation of each coordinate with its value before the moves is below this.
_MOVED = 0.1
# Moves go on while a move reduces the correlation by _STUCK, or by the share _GROWTH of its total
# reduction. Otherwise particles are confined to a mode that further moves would not leave.
_STUCK, _GROWTH = 0.02, 0.05
_SMALLEST_LOG_INCREMENT = -600.0


class Swarm(NamedTuple):
    """The equally weighted particles of every run at its temperature, with statistics.

    `step_size`, `acceptance`, `correlation` and `moves` describe the moves at the last temperature.
    `correlation`, `(run, dimension)`, is between the coordinates before and after these moves.
    `temperatures` and `steps` count all temperatures and steps so far.
    """

    position: Any  # (run, particle, dimension)
    log_likelihood: Any  # (run, particle)
    gradient: Any  # of the log likelihood, (run, particle, dimension); empty if unused
    temperature: Any  # (run,), like all others below except the correlation
    log_evidence: Any
    step_size: Any
    acceptance: Any
    correlation: Any
    moves: Any
    temperatures: Any
    steps: Any


class Tempering:
    """Compiled programs that evaluate prior draws and advance a swarm to the next temperature.

    One program serves all temperatures.

    Args:
        moves: the kind of MCMC moves.
        runs: the number of runs.
        target_ess: target effective sample size of the weights, as a fraction of the particles.
        most_moves: the largest number of moves at each temperature.
    """

    def __init__(self, moves: Walk | Hamiltonian, runs: int, target_ess: float, most_moves: int):
        self._moves = moves
        self._target_ess = target_ess
        self._most_moves = most_moves
        self._on_cpu = computing_devices()[0].platform == "cpu"
        # Runs are not batched, even on an accelerator: in a batch, every run would make as many
        # moves as the slowest.
        self._begin = Sharded(self._begin_run, runs, batched=False)
        self._advance = Sharded(lambda run: self._advance_run(*run), runs, batched=False)

    def begin(self, position: Float[np.ndarray, "run particle dimension"]) -> Swarm:
        """Return the swarm at β = 0 from the prior draws of every run, with log likelihoods."""
        return self._begin(position)

    def advance(self, swarm: Swarm, *, key: Array) -> Swarm:
        """Advance every run to its next temperature; a run at β = 1 does not change."""
        keys = jax.random.split(key, len(swarm.temperature))
        return self._advance((swarm, keys))

    def log_density(self, swarm: Swarm) -> Float[np.ndarray, "run particle"]:
        """Return the log density of the posterior at every particle."""
        log_prior = jax.jit(jax.vmap(jax.vmap(self._moves.log_prior)))(swarm.position)
        return np.asarray(log_prior + swarm.log_likelihood)

    def _begin_run(self, position: Array) -> Swarm:
        """Return one run at β = 0 from its prior draws, an array `(particle, dimension)`."""
        placed = self._in_batches(self._moves.place, position)
        zero = jnp.zeros(())
        none = jnp.zeros((), int)
        return Swarm(
            **placed._asdict(),
            temperature=zero,
            log_evidence=zero,
            step_size=jnp.full((), self._moves.first_step_size()),
            acceptance=zero,
            correlation=jnp.ones(position.shape[1]),
            moves=none,
            temperatures=none,
            steps=none,
        )

    def _in_batches(self, work: Any, *arguments: Any) -> Any:
        """Apply `work` to each particle, in small batches on a CPU.

        Small batches are faster on a CPU because a batch takes as long as its slowest solve. The
        `arguments` and the return value are arrays, or trees of arrays, whose first axis is the
        particle.
        """
        size = len(jax.tree.leaves(arguments)[0])
        batch = min(_BATCH, size) if self._on_cpu else size
        blocks = -(-size // batch)
        index = (jnp.arange(blocks * batch) % size).reshape(blocks, batch)
        done = jax.lax.map(
            lambda i: jax.vmap(work)(*jax.tree.map(lambda a: a[i], arguments)), index
        )
        return jax.tree.map(lambda a: a.reshape(blocks * batch, *a.shape[2:])[:size], done)

    def _advance_run(self, swarm: Swarm, key: Array) -> Swarm:
        """Advance one run to its next temperature, unless it is at β = 1."""
        return jax.lax.cond(swarm.temperature < 1, lambda: self._next(swarm, key), lambda: swarm)

    def _next(self, swarm: Swarm, key: Array) -> Swarm:
        """Reweight, resample and move the particles of one run."""
        key_resample, key_moves = jax.random.split(key)
        # 1. Δβ such that the weights w_i ∝ L_i^Δβ have the target effective sample size.
        left = 1 - swarm.temperature
        increment = next_increment(swarm.log_likelihood, left, self._target_ess)
        log_weight = _tempered_weight(swarm.log_likelihood, increment)
        total = logsumexp(log_weight)
        weight = jnp.exp(log_weight - total)
        # 2. The metric is the weighted covariance Σ = Σ_i w_i (x_i − x̄)(x_i − x̄)ᵀ.
        metric = weighted_metric(swarm.position, weight)
        # 3. Systematic resampling. Copies stay side by side, so that autocorrelation in this order
        # shows how related the draws are. The evidence gains log (1/N) Σ_i L_i^Δβ.
        chosen = resampling.systematic(key_resample, weight, len(weight))
        resampled = swarm._replace(
            position=swarm.position[chosen],
            log_likelihood=swarm.log_likelihood[chosen],
            gradient=swarm.gradient[chosen],
            temperature=jnp.where(increment < left, swarm.temperature + increment, 1.0),
            log_evidence=swarm.log_evidence + total - jnp.log(len(weight)),
            temperatures=swarm.temperatures + 1,
        )
        # 4. Moves that leave π_β invariant.
        return self._move(resampled, metric, key_moves)

    def _move(self, swarm: Swarm, metric: Array, key: Array) -> Swarm:
        """Move particles until all coordinates are decorrelated, or correlations no longer fall.

        Args:
            swarm: one run after resampling.
            metric: the covariance of the particles, or its diagonal.
            key: random seed.
        """
        moves = self._moves
        size = len(swarm.position)

        def unfinished(carry):
            _, seen, before = carry
            gained = before - seen["correlation"]
            # If modes are much narrower than the distance between them, the correlation ρ stays
            # near one. Still, the mean squared jump, 2 (1 − ρ) variances, grows until particles
            # are spread over their mode.
            falling = (gained > _STUCK) | (gained > _GROWTH * (1 - before))
            loose = (seen["correlation"] > _MOVED) & falling
            # If the acceptance is below half of its target, the steps are too long for ρ to tell.
            wanted = loose.any() | (seen["acceptance"] < 0.5 * moves.target_acceptance)
            return (seen["moves"] < FEWEST_MOVES) | (wanted & (seen["moves"] < self._most_moves))

        def move(carry):
            particles, seen, _ = carry
            steps = moves.steps(seen["step_size"])
            # log ε ← log ε + (acceptance − target) after each move.
            keys = jax.random.split(jax.random.fold_in(key, seen["moves"]), size)
            mover = moves.mover(swarm.temperature, metric, seen["step_size"], steps)
            particles, accepted = self._in_batches(mover, keys, particles)
            after = {
                "step_size": seen["step_size"] * jnp.exp(accepted.mean() - moves.target_acceptance),
                "acceptance": accepted.mean(),
                "correlation": _correlation(particles.position, swarm.position),
                "moves": seen["moves"] + 1,
                "steps": seen["steps"] + steps,
            }
            return particles, after, seen["correlation"]

        unmoved = jnp.ones(swarm.position.shape[1])
        seen = {name: getattr(swarm, name) for name in ("step_size", "acceptance", "steps")}
        seen |= {"correlation": unmoved, "moves": jnp.zeros((), int)}
        particles = Particle(swarm.position, swarm.log_likelihood, swarm.gradient)
        particles, seen, _ = jax.lax.while_loop(unfinished, move, (particles, seen, unmoved))
        return swarm._replace(**particles._asdict(), **seen)


def _tempered_weight(log_likelihood: Array, increment: Array) -> Array:
    """Return log weights Δβ log L; a particle with a failed solve always has −∞.

    Args:
        log_likelihood: log L of each particle.
        increment: Δβ, the increment of the inverse temperature.
    """
    live = jnp.isfinite(log_likelihood)
    return jnp.where(live, increment * jnp.where(live, log_likelihood, 0.0), -jnp.inf)


def next_increment(
    log_likelihood: Float[Array, " particle"], most: Any, target_ess: float
) -> Float[Array, ""]:
    """Return the increment Δβ at which the weights have the target effective sample size.

    Args:
        log_likelihood: the log likelihood of each particle.
        most: the largest allowed Δβ.
        target_ess: the target, as a fraction of the particles with finite log likelihood.
    """
    live = jnp.isfinite(log_likelihood).sum()

    def above_target(log_increment):
        return ess.log_ess(_tempered_weight(log_likelihood, jnp.exp(log_increment))) - jnp.log(
            target_ess * live
        )

    # Solve log ESS(Δβ) = log target by bisection in log Δβ. The log scale is needed because log
    # likelihoods of prior draws differ by many powers of ten.
    log_most = jnp.log(jnp.asarray(most))
    lowest = jnp.asarray(_SMALLEST_LOG_INCREMENT)
    found = jnp.asarray(solver.dichotomy(above_target, lowest, log_most))
    return jnp.where(found >= log_most, most, jnp.exp(found))


def weighted_metric(
    position: Float[Array, "particle dimension"], weight: Float[Array, " particle"]
) -> Float[Array, "..."]:
    """Return the weighted covariance of particles, or only its diagonal above 64 dimensions.

    A covariance is shrunk slightly towards its diagonal, so that it is regular for few particles.

    Args:
        position: the particles.
        weight: the weight of each particle; weights sum to one.
    """
    apart = position - weight @ position
    variance = weight @ apart**2
    if position.shape[1] > _DENSE_UP_TO:
        return variance
    covariance = (apart * weight[:, None]).T @ apart
    # The estimate (n Σ + diag Σ) / (n + 1), with effective sample size n = 1 / Σ_i w_i², is as if
    # one more particle had no correlations. It is regular even for few particles.
    seen = 1 / jnp.sum(weight**2)
    return (seen * covariance + jnp.diag(variance)) / (seen + 1)


def _correlation(a: Array, b: Array) -> Array:
    """Return the correlation between a and b over particles, the first axis, by coordinate."""
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).mean(0) / jnp.sqrt((a**2).mean(0) * (b**2).mean(0))

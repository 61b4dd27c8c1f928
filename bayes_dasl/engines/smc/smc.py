"""Sequential Monte Carlo from the prior to the posterior, with an estimate of the evidence."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ..._findings import PARTICLES, Finding, evidence_finding
from ..._runs.journal import Arrays, Journal, ProgressBar
from ..._statistics.convergence import effective_sizes
from ...errors import ModelError
from ...inference.engine import AbstractEngine, Cost, Samples
from ...inference.problem import Problem
from ...inference.starts import refuse_unresolved
from .modes import modes_among
from .mutation import Hamiltonian, Walk
from .tempering import FEWEST_MOVES, Swarm, Tempering

MOVES = ("auto", "walk", "hamiltonian")

# Largest dimension for which moves="auto" takes a walk. For the lynx-hare model (8 dimensions) a
# gradient costs as much as 4.5 evaluations, and a walk needs about two steps per dimension.
WALK_UP_TO = 15
# Particles of finite log density that each run needs.
_FEWEST_LIVE = 10
# Particles of a mode in a run, for an effective sample size.
_FEWEST_IN_RUN = 4
# Assumed minimum and maximum of temperatures, moves per temperature, and steps per move, for
# estimates of the cost.
_TEMPERATURES, _MOVES, _STEPS_A_MOVE = (5, 15), (2, 10), (3, 12)
# Number of evaluations that cost as much as a gradient.
_VALUES = 4
# With the default `target_ess`, resampling halves the effective number of particles: below that,
# moves have not even made up for the last resampling. Checked on 12 new mixtures of 2 to 4 normals
# (1 to 6 dimensions, scales apart by up to 16, 2 or 20 moves), with effective sizes of means. A run
# was unsound if the effective size of a mode's mean was below a fifth of its particles, or moments
# were off by 0.1 sd. The bound finds 84 % of unsound runs and 11 % of the others. A correlation
# with positions before the moves, pooled over modes, finds 48 and 5 % (above 0.7), or 75 and 30 %
# (above 0.3).
_FEWEST_EFFECTIVE = 0.5


@dataclasses.dataclass(frozen=True)
class SMC(AbstractEngine):
    r"""Sequential Monte Carlo: particles move through tempered posteriors, prior to posterior.

    $\pi_\beta \propto \text{prior} \cdot \text{likelihood}^\beta$ with $\beta$ from 0 to 1.

    Each run is an independent population of particles that begins with prior draws. Its inverse
    temperature $\beta$ rises in steps. The next $\beta$ is the one at which the importance weights
    have the effective sample size `target_ess`. Then the particles are resampled, and moved by MCMC
    with their covariance as metric. Moves at one $\beta$ end when every coordinate is nearly
    uncorrelated with its value before the moves. They also end when these correlations no longer
    fall, or after `most_moves` moves.

    SMC finds only modes that contain prior draws, and estimates the weights of these modes. The
    group `modes` of the result has one row per mode, with `mode_weight` and its standard error from
    the runs. If there are several modes, `sample_stats` has the `mode` of each draw. The evidence
    (marginal likelihood) is estimated too; its standard error comes from the variation between
    runs.

    Args:
        particles: the number of particles in each run; they are the draws of a chain.
        runs: the number of independent runs, each of which is a chain of the result.
        moves: "walk" (random-walk Metropolis), "hamiltonian", or "auto": a walk up to 15
            dimensions.
        target_ess: the effective sample size of the weights at which the next $\beta$ is set, as a
            fraction of the particles.
        most_moves: the largest number of moves at each $\beta$.

    Source: Del Moral, Doucet & Jasra (2006); Buchholz, Chopin & Jacob (2021); components from
    BlackJAX.

    Raises:
        ModelError: for invalid settings.
    """

    particles: int = 1000
    runs: int = 4
    moves: str = "auto"
    target_ess: float = 0.5
    most_moves: int = 20

    def __post_init__(self):
        self._check_numbers(particles=_FEWEST_LIVE, runs=1, most_moves=FEWEST_MOVES)
        self._check_words(moves=MOVES)
        self._check_floats("target_ess")

    @property
    def draws(self) -> int:
        """Number of draws of each chain: the particles of a run."""
        return self.particles

    @property
    def batch(self) -> int:
        """Number of positions that are evaluated together: all particles of all runs."""
        return self.runs * self.particles

    def _walks(self, problem: Problem) -> bool:
        """Whether particles move by a random walk."""
        return self.moves == "walk" or (self.moves == "auto" and problem.dimension <= WALK_UP_TO)

    def cost(self, problem: Problem) -> Cost:
        steps = (2 * problem.dimension / _VALUES,) * 2 if self._walks(problem) else _STEPS_A_MOVE
        least, most = (
            temperatures * min(moves, self.most_moves) * each
            for temperatures, moves, each in zip(_TEMPERATURES, _MOVES, steps, strict=True)
        )
        return Cost(least, most)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw equally weighted particles. Arguments and result are those of `AbstractEngine.run`.

        Raises:
            ModelError: if too few particles of a run have a finite log density.
            DataError: if the data lie so far from all predictions that rounding hides differences
                between particles.
        """
        key_prior, key_stages = jax.random.split(key)
        moves = Walk(problem) if self._walks(problem) else Hamiltonian(problem)
        tempering = Tempering(moves, self.runs, self.target_ess, self.most_moves)

        def begin() -> Arrays:
            draws = np.asarray(problem.prior(self.runs * self.particles, key=key_prior))
            return tempering.begin(draws.reshape(self.runs, self.particles, -1))._asdict()

        def advance(swarm: Swarm, number: int) -> Arrays:
            return tempering.advance(swarm, key=jax.random.fold_in(key_stages, number))._asdict()

        # 1. β = 0: prior draws, with their likelihood.
        bar.start("tempering", 100)
        swarm = Swarm(**journal.step("prior", begin))
        self._require_live(swarm)
        failed = int((~np.isfinite(swarm.log_likelihood)).sum())
        # 2. Raise β: reweight, resample and move, until β = 1 in every run.
        number, done, first = 0, 0, 1.0
        while (swarm.temperature < 1).any():
            number += 1
            swarm = Swarm(
                **journal.step(f"temperature {number}", functools.partial(advance, swarm, number))
            )
            beta = float(swarm.temperature.min())
            first = beta if number == 1 else first
            # Progress on a log scale, on which the steps of β are about equal.
            percent = 100 if beta == 1 else round(100 * (1 - np.log(beta) / np.log(first)))
            bar.advance(percent - done, f"inverse temperature {beta:.2g}")
            done = percent
        # 3. Modes, their weights, and the evidence.
        stats = {"lp": tempering.log_density(swarm)}
        modes, number = modes_among(np.asarray(swarm.position), stats["lp"])
        if len(modes.log_densities) > 1:
            stats["mode"] = number
        facts = _run_facts(swarm, moves.counted, failed, number)
        return Samples(
            swarm.position, stats, facts, tuple(findings(facts)), modes, draws_are=PARTICLES
        )

    def _require_live(self, swarm: Swarm) -> None:
        """Raise an error if a run has too few particles of finite log density."""
        live = int(np.isfinite(swarm.log_likelihood).sum(axis=1).min())
        if live < _FEWEST_LIVE:
            raise ModelError(
                f"only {live} of {self.particles} prior draws lead to a finite log density: run "
                "bd.check(model, data), which says how prior draws fare in the solver, and narrow "
                "the priors or loosen the solver"
            )
        # With unresolved likelihoods the first temperatures would never end.
        refuse_unresolved(swarm.log_likelihood)


def effective_share(
    position: Float[np.ndarray, "run particle dimension"], number: Int[np.ndarray, "run particle"]
) -> float:
    """Return the effective sample size per particle, for the mode and coordinate with the fewest.

    Copies of a particle are neighbours in the array, so the autocorrelation along it shows how
    similar copies remain after the moves. Runs whose particles have few ancestors differ from each
    other. Each mode is assessed separately. The effective sample size over all modes would mostly
    measure the uncertainty of the weights of the modes.

    Args:
        position: the particles.
        number: the number of the mode of each particle.
    """
    shares = [1.0]
    for mode in np.unique(number):
        of_runs = [particles[own] for particles, own in zip(position, number == mode, strict=True)]
        # Leave out runs that hold few particles of the mode.
        most = max(map(len, of_runs))
        of_runs = [one for one in of_runs if len(one) >= max(most / 2, _FEWEST_IN_RUN)]
        if of_runs:
            length = min(map(len, of_runs))
            bulk, _ = effective_sizes(np.stack([one[:length] for one in of_runs]))
            shares.append(bulk.min() / (length * len(of_runs)))
    return float(min(shares))


def findings(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings on the error of the evidence and on the independence of the particles.

    `facts` are the facts of a run that `_run_facts` returns.
    """
    yield evidence_finding(
        facts["log_evidence"], facts.get("log_evidence_se"), "take more particles"
    )
    share = facts["effective_share"]
    several = facts.get("modes", 1) > 1
    if share < _FEWEST_EFFECTIVE:
        message = (
            f"the particles{' of a mode' if several else ''} are worth only {share:.0%} as many "
            "independent draws: moves do not take them far enough from their copies"
        )
        # A walk counts evaluations, Hamiltonian moves count gradients.
        other = "" if "gradients" in facts else ", or moves='hamiltonian'"
        remedy = f"take more particles, or allow more moves (most_moves){other}"
        yield Finding("warning", "moves of the particles", message, remedy)


def _run_facts(
    swarm: Swarm, counted: str, failed: int, number: np.ndarray
) -> dict[str, int | float | str]:
    """Return the facts of a result: the log evidence, its standard error, and counts, by name.

    Args:
        swarm: the final particles with their statistics.
        counted: the name of the fact with the number of steps, "evaluations" or "gradients".
        failed: the number of prior draws without a finite log density.
        number: the number of the mode of each particle, `(run, particle)`.
    """
    # Z = mean over runs of Z_r; relative to the largest Z_r, so that nothing overflows.
    best = swarm.log_evidence.max()
    relative = np.exp(swarm.log_evidence - best)
    runs, particles = swarm.log_likelihood.shape
    facts: dict[str, int | float | str] = {
        "log_evidence": float(best + np.log(relative.mean())),
        "temperatures": int(swarm.temperatures.max()),
        counted: int((1 + swarm.steps).sum() * particles),
        "moves": int(swarm.moves.max()),
        "acceptance_rate": float(swarm.acceptance.mean()),
        "effective_share": effective_share(np.asarray(swarm.position), number),
        "modes": len(np.unique(number)),
        "starts": runs * particles,
        "starts_failed": failed,
    }
    if runs > 1:
        facts["log_evidence_se"] = float(relative.std(ddof=1) / relative.mean() / np.sqrt(runs))
    return facts

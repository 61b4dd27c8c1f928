"""SWAG: a mixture of normals, each fitted to the last iterates of one gradient descent."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.special import logsumexp

from .._runs.journal import Journal, ProgressBar
from ..inference.descent.descent_settings import WINDOW, Descent
from ..inference.descent.members import (
    descended,
    draws_without_chain,
    log_densities,
    proposals_to_draw,
    solvable,
    usable,
)
from ..inference.descent.spread import spread_of_normal
from ..inference.engine import AbstractEngine, Cost, Samples
from ..inference.problem import Problem

# Columns of the low-rank part of the covariance.
_RANK = 20


@dataclasses.dataclass(frozen=True)
class SWAG(AbstractEngine):
    r"""Stochastic weight averaging, Gaussian (SWAG), of an ensemble.

    Each member of the ensemble draws from $N\big(\bar\theta, (\Sigma_{diag} + D D^\top / (K - 1)) /
    2\big)$. Here $\bar\theta$ and $\Sigma_{diag}$ are the mean and the variances of the member's
    collected iterates. D holds the last K = 20 deviations of iterates from the mean.

    After its descent a member continues at a constant learning rate, each step with a new minibatch
    of half of the times. If there are constraints, every step uses all times. If `descent` sets a
    minibatch, that size is used instead. Members are dropped as in `DeepEnsemble`. Importance
    weights against the posterior test whether the normals have the right width.

    Args:
        members: the number of descents, each from a prior draw.
        draws: the number of draws of all members together.
        collected: the number of iterates of each member that are collected, 50 steps apart.
        learning_rate: the constant learning rate, in prior standard deviations. The variance of a
            member depends on `learning_rate` and `collected`, not only on the data: its standard
            deviation grows with the root of their product.
        descent: steps and learning rates of the descents. Without `patience` all steps are taken.

    Source: Maddox et al. (2019); as used by DiffHybrid-UQ, Akhare, Luo & Wang (2024),
    arXiv:2401.00161.

    Raises:
        ModelError: for invalid settings.
    """

    members: int = 5
    draws: int = 1000
    collected: int = 40
    learning_rate: float = 0.005
    descent: Descent = Descent(steps=3000, patience=None)

    def __post_init__(self):
        self._check_numbers(members=1, draws=1, collected=3)
        self._check_floats("learning_rate")
        self._check_settings(descent=Descent)

    @property
    def batch(self) -> int:
        """Number of positions that are evaluated together: one per member."""
        return self.members

    def cost(self, problem: Problem) -> Cost:
        descents = self.descent.cost(problem)
        further = WINDOW * self.collected
        return descents._replace(least=descents.least + further, most=descents.most + further)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the normals of the members.

        Arguments and result are those of `AbstractEngine.run`.

        Raises:
            ModelError: if no member has a finite log density, or if the descent has a minibatch and
                the model has constraints.
        """
        # 1. Descents with all data.
        key_descent, key_collect, key_draw = jax.random.split(key, 3)
        found = descended(
            problem,
            self.members,
            dataclasses.replace(self.descent, minibatch=None),
            key=key_descent,
            journal=journal,
            bar=bar,
        )
        # 2. Iterates at a constant learning rate, with minibatches.
        wandered = descended(
            problem,
            self.members,
            self._wandering(problem),
            key=key_collect,
            journal=journal,
            bar=bar,
            begin_at=found.positions,
        )
        visited = wandered.visited
        kept = usable(problem, visited.mean(axis=1), found.weights)
        # 3. Draws of each member's normal. Members take turns, so that the first n draws hold
        #    nearly equally many of each.
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key_draw)).ravel())
        each = -(-(proposals_to_draw(self.draws) - 1) // int(kept.members.sum()))
        normals = visited[kept.members]
        proposed = np.concatenate(
            np.stack([_swag_draws(iterates, each, rng) for iterates in normals], axis=1)
        )
        log_posterior = log_densities(problem, proposed)
        proposals = solvable(proposed, log_posterior, self.draws)
        # 4. Importance weights against the mixture of the normals, up to a constant.
        log_normal = logsumexp(
            [_swag_log_density(proposed, iterates) for iterates in normals], axis=0
        )
        known, spread = spread_of_normal(proposed, log_posterior, log_normal)  # type: ignore[arg-type]
        return draws_without_chain(
            proposals.positions,
            proposals.log_densities,
            facts={
                "descent_steps": found.steps + wandered.steps,
                **kept.facts,
                **proposals.facts,
                **known,
            },
            findings=(kept.finding, *proposals.findings, spread),
            curves=found.curves,
            draws_are=f"draws around {kept.draws_are}",
        )

    def _wandering(self, problem: Problem) -> Descent:
        """Return the descent settings of the steps at a constant learning rate."""
        half = None if problem.constraints else max(problem.times // 2, 1)
        return Descent(
            steps=self.collected * WINDOW,
            science_rate=self.learning_rate,
            network_rate=self.learning_rate,
            adaptive=False,
            patience=None,
            minibatch=half if self.descent.minibatch is None else self.descent.minibatch,
            reparametrisation=self.descent.reparametrisation,
        )


def _swag_draws(
    iterates: Float[np.ndarray, "window dimension"], number: int, rng: np.random.Generator
) -> Float[np.ndarray, "number dimension"]:
    """Draw from the normal of a member.

    A draw is θ̄ + (diag(Σ)^½ n₁ + D n₂ / √(K − 1)) / √2, with standard normal n₁ and n₂.

    Args:
        iterates: the collected iterates of the member. Their mean is θ̄ and their variances are Σ.
            D holds their last K deviations from the mean.
        number: the number of draws.
        rng: the random number generator.
    """
    mean = iterates.mean(axis=0)
    deviations = (iterates - mean)[-_RANK:]
    along = rng.normal(size=(number, len(deviations))) @ deviations / np.sqrt(len(deviations) - 1)
    return mean + (rng.normal(size=(number, mean.size)) * iterates.std(axis=0) + along) / np.sqrt(2)


def _swag_log_density(
    x: Float[np.ndarray, "draw dimension"], iterates: Float[np.ndarray, "window dimension"]
) -> Float[np.ndarray, " draw"]:
    """Return the log density of the normal of a member, up to a constant.

    Args:
        x: the positions.
        iterates: the collected iterates of the member, which define its normal as in `_swag_draws`.
    """
    mean = iterates.mean(axis=0)
    deviations = (iterates - mean)[-_RANK:]
    scale = np.maximum(iterates.std(axis=0) / np.sqrt(2), 1e-300)
    # Divided by the scale, the covariance is 1 + Lᵀ L with loadings L. By Woodbury's identity its
    # inverse is 1 − Lᵀ (1 + L Lᵀ)⁻¹ L, and its determinant equals that of 1 + L Lᵀ.
    loadings = deviations / scale / np.sqrt(2 * (len(deviations) - 1))
    inner = np.eye(len(loadings)) + loadings @ loadings.T
    z = (x - mean) / scale
    along = z @ loadings.T
    squared = (z**2).sum(axis=1) - (along * np.linalg.solve(inner, along.T).T).sum(axis=1)
    return -0.5 * (squared + np.linalg.slogdet(inner)[1]) - np.log(scale).sum()

"""SWAG: a normal around each of several descents, from where they wander at the end."""

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

_RANK = 20


@dataclasses.dataclass(frozen=True)
class SWAG(AbstractEngine):
    r"""Stochastic weight averaging, Gaussian, of an ensemble.

    Draws of $N\big(\bar\theta, (\Sigma_{diag} + D D^\top / (K - 1)) / 2\big)$ for each member. Each
    member descends, and then goes on at a constant learning rate, each step at a minibatch of the
    data drawn anew (half of the times, or all where there are constraints, unless the descent has
    one of its own). The mean of where it is at each look, their variances and the last K = 20
    deviations D from the mean make the normal. Members are dropped as in `DeepEnsemble`. Importance
    weights against the posterior say whether these normals are as wide as it is.

    Args:
        members: how many descend, each from a prior draw of its own.
        draws: draws of all members together.
        collected: looks at each member as it wanders, 50 steps apart.
        learning_rate: the constant one, in widths of the prior: how far a member wanders grows with
            the root of `learning_rate` × `collected`, whatever data know.
        descent: steps and learning rates of the way there; all steps are taken unless it has
            patience.

    Source: Maddox et al. (2019); as used by DiffHybrid-UQ, Akhare, Luo & Wang (2024),
    arXiv:2401.00161.

    Raises:
        ModelError: for numbers that make no sense.
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
        """Positions that are looked at together: all members."""
        return self.members

    def cost(self, problem: Problem) -> Cost:
        there = self.descent.cost(problem)
        return there._replace(
            least=there.least + WINDOW * self.collected, most=there.most + WINDOW * self.collected
        )

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draws of the members' normals.

        Raises:
            ModelError: if no member has a finite log density, or for a minibatch where there are
                constraints.
        """
        key_descent, key_collect, key_draw = jax.random.split(key, 3)
        found = descended(
            problem,
            self.members,
            dataclasses.replace(self.descent, minibatch=None),
            key=key_descent,
            journal=journal,
            bar=bar,
        )
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
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key_draw)).ravel())
        each = -(-(proposals_to_draw(self.draws) - 1) // int(kept.members.sum()))
        # Member by member in turn, so that any number of them has its share of each.
        normals = visited[kept.members]
        proposed = np.concatenate(
            np.stack([_draws(places, each, rng) for places in normals], axis=1)
        )
        log_posterior = log_densities(problem, proposed)
        proposals = solvable(proposed, log_posterior, self.draws)
        log_normal = logsumexp([_log_density(proposed, places) for places in normals], axis=0)
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
        half = None if problem.constraints else max(problem.times // 2, 1)
        return Descent(
            steps=self.collected * WINDOW,
            science_rate=self.learning_rate,
            network_rate=self.learning_rate,
            adaptive=False,
            patience=None,
            minibatch=half if self.descent.minibatch is None else self.descent.minibatch,
            coordinates=self.descent.coordinates,
        )


def _draws(
    places: Float[np.ndarray, "window dimension"], number: int, rng: np.random.Generator
) -> Float[np.ndarray, "number dimension"]:
    mean, deviations = places.mean(axis=0), (places - places.mean(axis=0))[-_RANK:]
    along = rng.normal(size=(number, len(deviations))) @ deviations / np.sqrt(len(deviations) - 1)
    return mean + (rng.normal(size=(number, mean.size)) * places.std(axis=0) + along) / np.sqrt(2)


def _log_density(
    x: Float[np.ndarray, "draw dimension"], places: Float[np.ndarray, "window dimension"]
) -> Float[np.ndarray, " draw"]:
    """The log density of that normal, up to a constant, by Woodbury's identity."""
    mean, deviations = places.mean(axis=0), (places - places.mean(axis=0))[-_RANK:]
    scale = np.maximum(places.std(axis=0) / np.sqrt(2), 1e-300)
    loadings = deviations / scale / np.sqrt(2 * (len(deviations) - 1))
    inner = np.eye(len(loadings)) + loadings @ loadings.T
    z = (x - mean) / scale
    along = z @ loadings.T
    squared = (z**2).sum(axis=1) - (along * np.linalg.solve(inner, along.T).T).sum(axis=1)
    return -0.5 * (squared + np.linalg.slogdet(inner)[1]) - np.log(scale).sum()

"""SWAG: a normal around each of several descents, from where they wander at the end."""

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Array, Float

from ..._runs.journal import Journal
from ..._runs.progress import ProgressBar
from ..problem import Problem
from ..samples import Samples
from ..settings import check_numbers, check_shares
from .descent import WINDOW
from .members import RATES, check_minibatch, descended, solvable, usable

_RANK = 20
_SPARE = 1.25


@dataclasses.dataclass(frozen=True)
class SWAG:
    r"""Stochastic weight averaging, Gaussian, of an ensemble.

    Draws of $N\big(\bar\theta, (\Sigma_{diag} + D D^\top / (K - 1)) / 2\big)$ for each member. Each of the `members`
    descends for `steps` as in `Joint`, and then goes on for `collected` looks, 50 steps apart, at a constant `rate`, in
    widths of the prior (how far it wanders grows with the root of their product, whatever data know), each step at
    `minibatch` times of the data drawn anew (half of them, or all where there are constraints, unless given). Their
    mean, their variances and the last K = 20 deviations D from the mean make the normal; `draws` are shared out among
    the members. Members are dropped as in `DeepEnsemble`.
    Source: Maddox et al. (2019); as used by DiffHybrid-UQ, Akhare, Luo & Wang (2024), arXiv:2401.00161.
    Raises: ModelError for numbers that make no sense.
    """

    members: int = 5
    draws: int = 1000
    steps: int = 3000
    collected: int = 40
    rate: float = 0.005
    minibatch: int | None = None
    science_rate: float = RATES[0]
    network_rate: float = RATES[1]

    def __post_init__(self):
        check_numbers(self, {"members": 1, "draws": 1, "steps": WINDOW, "collected": 3})
        if self.minibatch is not None:
            check_numbers(self, {"minibatch": 1})
        check_shares(self, ("rate", "science_rate", "network_rate"))

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all members."""
        return self.members

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draws of the members' normals.

        Raises: ModelError if no member has a finite log density, or for a `minibatch` where there are constraints.
        """
        check_minibatch(problem, self.minibatch)
        key_descent, key_collect, key_draw = jax.random.split(key, 3)
        descend = functools.partial(descended, problem, self.members, journal=journal, bar=bar)
        rates = (self.science_rate, self.network_rate)
        found = descend(key=key_descent, steps=self.steps, rates=rates)
        half = None if problem.model.constraints else max(problem.inputs.times.size // 2, 1)
        wandered = descend(
            key=key_collect,
            begin_at=found.positions,
            steps=self.collected * WINDOW,
            rates=(self.rate, self.rate),
            adaptive=False,
            minibatch=half if self.minibatch is None else self.minibatch,
        )
        visited = wandered.visited
        kept, failed, stuck = usable(problem, visited.mean(axis=1), found.weights)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key_draw)).ravel())
        each = -(-round(_SPARE * self.draws) // int(kept.sum()))
        # Member by member in turn, so that any number of them has its share of each.
        proposed = np.concatenate(np.stack([_draws(places, each, rng) for places in visited[kept]], axis=1))
        chosen, value, lost = solvable(problem, proposed, self.draws)
        facts = {
            "draws_are": "members",
            "descent_steps": found.steps + wandered.steps,
            "members": self.members,
            "members_failed": failed,
            "members_stuck": stuck,
            "proposals": len(proposed),
            "proposals_failed": lost,
        }
        return Samples(chosen[None], {"lp": value[None]}, False, facts, curves=found.curves)


def _draws(
    places: Float[np.ndarray, "window dimension"], number: int, rng: np.random.Generator
) -> Float[np.ndarray, "number dimension"]:
    mean, deviations = places.mean(axis=0), (places - places.mean(axis=0))[-_RANK:]
    along = rng.normal(size=(number, len(deviations))) @ deviations / np.sqrt(len(deviations) - 1)
    return mean + (rng.normal(size=(number, mean.size)) * places.std(axis=0) + along) / np.sqrt(2)

"""Joint learning: one point estimate of science and network, each at a rate of its own."""

import dataclasses

import numpy as np
from jaxtyping import Array

from ..._runs.journal import Journal
from ..._runs.progress import ProgressBar
from ..coordinates.reference import COORDINATES
from ..problem import Problem
from ..samples import Samples
from ..settings import check_numbers, check_shares, check_words
from ..starts import no_start
from .descent import WINDOW
from .members import RATES, check_minibatch, descended, log_densities


@dataclasses.dataclass(frozen=True)
class Joint:
    r"""A point estimate: the position of the lowest loss $-L_{data} - \lambda_s L_{science} - \lambda_n L_{network}$.

    $L_{data}$ is the log likelihood, $L_{science}$ the log prior of the scientific parameters together with what soft
    constraints say, $L_{network}$ the log prior of the networks' weights, all in the unconstrained space; so with
    `science_weight` $\lambda_s$ and `network_weight` $\lambda_n$ of 1 it is the mode of the posterior.

    Adam with a clipped gradient and a rate for each group, in widths of the prior. With `adaptive` a rate grows while
    its own group goes straight on, and falls while it goes to and fro. `held_out` is the share of the times that the
    descent does not see: every 50 steps it looks how likely they are, keeps the position at which they were most
    likely, and stops when none was better for `patience` looks; without any, it looks at the loss. `minibatch` is the
    number of times that a step looks at, drawn anew each time. The best of `starts` descents is the result: one draw,
    without epistemic uncertainty.
    Where a network sits inside a solver the descent moves in conditional coordinates, as `NUTS` does, unless
    `coordinates` is "plain".
    The group `training` holds the loss and its terms at every step.
    Raises: ModelError for numbers that make no sense.
    """

    steps: int = 5000
    starts: int = 4
    science_weight: float = 1.0
    network_weight: float = 1.0
    science_rate: float = RATES[0]
    network_rate: float = RATES[1]
    adaptive: bool = True
    held_out: float = 0.0
    patience: int = 10
    minibatch: int | None = None
    coordinates: str = "auto"

    def __post_init__(self):
        check_numbers(self, {"steps": WINDOW, "starts": 1, "patience": 1})
        if self.minibatch is not None:
            check_numbers(self, {"minibatch": 1})
        check_words(self, {"coordinates": COORDINATES})
        check_shares(self, ("science_rate", "network_rate"))
        check_shares(self, ("held_out",), zero=True)
        check_shares(self, ("science_weight", "network_weight"), below=float("inf"), zero=True)

    @property
    def draws(self) -> int:
        return 1

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all starts."""
        return self.starts

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """The best position that was reached.

        Raises: ModelError if no start has a finite log density, for a share of `held_out` that leaves no data on one
        side, or a `minibatch` where there are constraints.
        """
        check_minibatch(problem, self.minibatch)
        found = descended(
            problem,
            self.starts,
            key=key,
            journal=journal,
            bar=bar,
            steps=self.steps,
            patience=self.patience,
            rates=(self.science_rate, self.network_rate),
            adaptive=self.adaptive,
            coordinates=self.coordinates,
            held_out=self.held_out,
            science=self.science_weight,
            network=self.network_weight,
            minibatch=self.minibatch,
        )
        lowest = np.nanmin(found.curves["held_out"], axis=1)
        if not np.isfinite(lowest).any():
            raise no_start(self.starts)
        best = int(np.nanargmin(lowest))
        facts = {
            "draws_are": "point",
            "descent_steps": found.steps,
            "descent_stopped": int(found.stopped_early),
            "lowest_loss": float(lowest[best]),
        }
        curves = found.curves_of(best)
        chosen = found.positions[best : best + 1]
        return Samples(chosen[None], {"lp": log_densities(problem, chosen)[None]}, False, facts, curves=curves)

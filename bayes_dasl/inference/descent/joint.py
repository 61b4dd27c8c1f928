"""Joint learning: one point estimate of science and network, each at a learning rate of its own."""

import dataclasses

import numpy as np
from jaxtyping import Array

from ..._runs.journal import Journal, ProgressBar
from ..engine import AbstractEngine, Cost, Samples
from ..problem import Problem
from ..starts import no_start
from .descent_settings import Descent
from .members import descended, draws_without_chain, log_densities, point_estimate


@dataclasses.dataclass(frozen=True)
class Joint(AbstractEngine):
    r"""A point estimate: the position of the lowest loss
    $-L_{data} - \lambda_s L_{science} - \lambda_n L_{network}$.

    $L_{data}$ is the log likelihood, $L_{science}$ the log prior of the scientific parameters
    together with what soft constraints say, $L_{network}$ the log prior of the networks' weights,
    all in the unconstrained space; so with both weights 1 it is the mode of the posterior. The best
    of several descents is the result: one draw, without epistemic uncertainty. The group `training`
    holds the loss and its terms at every step.

    Args:
        starts: descents, each from a prior draw of its own.
        science_weight: $\lambda_s$.
        network_weight: $\lambda_n$.
        descent: steps, learning rates and patience, data held out, and minibatches.

    Raises:
        ModelError: for numbers that make no sense.
    """

    starts: int = 4
    science_weight: float = 1.0
    network_weight: float = 1.0
    descent: Descent = Descent()

    def __post_init__(self):
        self._check_numbers(starts=1)
        self._check_floats("science_weight", "network_weight", below=float("inf"), zero=True)
        self._check_settings(descent=Descent)

    @property
    def draws(self) -> int:
        return 1

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all starts."""
        return self.starts

    def cost(self, problem: Problem) -> Cost:
        return self.descent.cost(problem)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """The best position that was reached.

        Raises:
            ModelError: if no start has a finite log density, for a share held out that leaves no
                data on one side, or a minibatch where there are constraints.
        """
        found = descended(
            problem,
            self.starts,
            self.descent,
            key=key,
            journal=journal,
            bar=bar,
            science=self.science_weight,
            network=self.network_weight,
        )
        lowest = np.nanmin(found.curves["held_out"], axis=1)
        if not np.isfinite(lowest).any():
            raise no_start(self.starts)
        best = int(np.nanargmin(lowest))
        chosen = found.positions[best : best + 1]
        return draws_without_chain(
            chosen,
            log_densities(problem, chosen),
            facts={**found.facts, "lowest_loss": float(lowest[best])},
            findings=(
                point_estimate("one draw says nothing of how uncertain it is"),
                *found.findings,
            ),
            curves=found.curves_of(best),
            draws_are="a point estimate",
        )

"""Joint learning: one point estimate of scientific parameters and networks."""

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
    r"""A point estimate without epistemic uncertainty, by minimising a weighted loss.

    $-L_{data} - \lambda_s L_{science} - \lambda_n L_{network}$

    Here $L_{data}$ is the log likelihood. $L_{science}$ is the log prior of scientific parameters
    and latent states, plus soft constraints. $L_{network}$ is the log prior of network weights.
    Both priors are densities of unconstrained parameters. If $\lambda_s$ and $\lambda_n$ are 1, the
    estimate is the mode of the posterior. The only draw is the best of several descents. The group
    `training` holds the loss and its terms at every step.

    Args:
        starts: the number of descents, each from a prior draw.
        science_weight: $\lambda_s$.
        network_weight: $\lambda_n$.
        descent: steps, learning rates and patience, held-out data, and minibatches.

    Raises:
        ModelError: for settings that are not possible.
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
        """Number of positions that are evaluated together: one for each start."""
        return self.starts

    def cost(self, problem: Problem) -> Cost:
        return self.descent.cost(problem)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Return the best position of all descents, as a single draw.

        Raises:
            ModelError: if no start has a finite log density, if the share held out leaves no data
                on one side, or if there are a minibatch and constraints.
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
        no_spread = point_estimate("one draw says nothing of how uncertain it is")
        return draws_without_chain(
            chosen,
            log_densities(problem, chosen),
            facts={**found.facts, "lowest_loss": float(lowest[best])},
            findings=(no_spread, *found.findings),
            curves=found.curves_of(best),
            draws_are="a point estimate",
        )

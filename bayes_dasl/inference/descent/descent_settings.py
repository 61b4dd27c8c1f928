"""Settings of gradient descent, shared by several engines."""

import dataclasses

from ...errors import ModelError
from ..engine import Cost, Settings
from ..problem import Problem
from ..reparametrisations.reference import REPARAMETRISATIONS, programs

WINDOW = 50
"""Steps after which held-out data are evaluated and learning rates adapted."""


@dataclasses.dataclass(frozen=True)
class Descent(Settings):
    """Adam with clipped gradients and a learning rate per group, in prior standard deviations.

    For a network inside a solver the descent uses the conditional reparametrisation of `NUTS`.

    Args:
        steps: the most steps, in windows of 50.
        science_rate: the first learning rate of scientific parameters and latent states, in prior
            standard deviations.
        network_rate: the first learning rate of network weights.
        adaptive: whether the learning rate of a group rises while it moves in one direction, and
            falls while it oscillates.
        held_out: share of the times that the descent does not use, the same for all members. The
            position with the highest likelihood of these data is kept, or the one with the lowest
            loss if none are held out.
        patience: windows without an improvement after which a descent stops; `None` takes all
            steps.
        minibatch: number of times in a step, drawn anew for each; by default all.
        reparametrisation: "auto", or "none" for none.

    Raises:
        ModelError: for settings that are not possible.
    """

    steps: int = 5000
    science_rate: float = 0.01
    network_rate: float = 0.01
    adaptive: bool = True
    held_out: float = 0.0
    patience: int | None = 10
    minibatch: int | None = None
    reparametrisation: str = "auto"

    def __post_init__(self):
        self._check_numbers(steps=WINDOW)
        for name in ("patience", "minibatch"):
            if getattr(self, name) is not None:
                self._check_numbers(**{name: 1})
        self._check_floats("science_rate", "network_rate")
        self._check_floats("held_out", zero=True)
        self._check_words(reparametrisation=REPARAMETRISATIONS)

    def check(self, problem: Problem) -> None:
        """Refuse a minibatch if the model has constraints, which may need all times.

        Args:
            problem: the posterior.

        Raises:
            ModelError: if a minibatch is set and the model has constraints.
        """
        if self.minibatch is not None and self.minibatch < problem.times and problem.constraints:
            raise ModelError(
                f"minibatch={self.minibatch} would hold the constraints "
                f"{', '.join(problem.constraints)} against some of the times only: leave minibatch "
                "out"
            )

    def cost(self, problem: Problem, *, looks: int = 1) -> Cost:
        """Return the cost of a descent, which may stop early.

        Args:
            problem: the posterior.
            looks: likelihood evaluations of a step.
        """
        patience = self.steps if self.patience is None else self.patience
        least = min(self.steps, WINDOW * (1 + patience))
        return Cost(looks * least, looks * self.steps, programs(problem))

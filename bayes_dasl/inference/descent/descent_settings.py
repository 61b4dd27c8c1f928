"""Settings of gradient descent that several engines share."""

import dataclasses

from ...errors import ModelError
from ..engine import Cost, Settings
from ..problem import Problem
from ..reparametrisations.reference import REPARAMETRISATIONS, programs

WINDOW = 50
"""Number of steps between evaluations of held-out data and adaptations of learning rates."""


@dataclasses.dataclass(frozen=True)
class Descent(Settings):
    """Adam with clipped gradients, and one learning rate for science and one for networks.

    Learning rates are in units of prior standard deviations. For a network inside a solver, the
    descent uses the conditional reparametrisation of `NUTS`.

    Args:
        steps: the largest number of steps, rounded up to a multiple of 50.
        science_rate: the first learning rate of scientific parameters and latent states.
        network_rate: the first learning rate of network weights.
        adaptive: whether learning rates are adapted. A rate rises while the path of its group is
            straight, and falls while the path oscillates.
        held_out: share of the times whose data are held out, the same for all members. Each member
            keeps the position with the highest likelihood of the held-out data. With 0 it keeps the
            position with the lowest loss.
        patience: a descent stops after 50 times this number of steps without an improvement; None
            takes all steps.
        minibatch: number of times whose data are used in a step, drawn anew for each step; by
            default all.
        reparametrisation: "auto", or "none" to optimise network weights directly.

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
        """Refuse a minibatch if the model has constraints, which may need predictions at all times.

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
        """Return the fewest and most gradients of a descent, and its compile time.

        The fewest are needed if `patience` stops the descent as early as possible.

        Args:
            problem: the posterior.
            looks: number of gradients, or equally expensive evaluations, in a step.
        """
        patience = self.steps if self.patience is None else self.patience
        least = min(self.steps, WINDOW * (1 + patience))
        return Cost(looks * least, looks * self.steps, programs(problem))

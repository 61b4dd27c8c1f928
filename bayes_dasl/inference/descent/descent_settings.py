"""Settings that the engines which descend share."""

import dataclasses

from ...errors import ModelError
from ..engine import Cost, Settings
from ..problem import Problem
from ..reparametrisations.reference import COORDINATES, programs

WINDOW = 50
"""Steps between two looks at the held-out data and at the learning rates."""


@dataclasses.dataclass(frozen=True)
class Descent(Settings):
    """Adam with a clipped gradient and a learning rate for each group, in widths of the prior.

    Where a network sits inside a solver the descent moves in conditional coordinates, as `NUTS`
    does.

    Args:
        steps: the most that are taken; they are taken in windows of 50.
        science_rate: the first learning rate of scientific parameters and latent states, in widths
            of the prior.
        network_rate: the same for the weights of networks.
        adaptive: whether a group that goes straight on gets a higher learning rate, and one that
            goes to and fro less.
        held_out: share of the times that the descent does not see, the same for all members. After
            each window it looks how likely they are, and keeps the position at which they were most
            likely; without any it looks at the loss.
        patience: windows in which no position was better, after which a descent stops; all steps
            are taken if none.
        minibatch: times that a step looks at, drawn anew each time; all of them unless given.
        coordinates: "auto", or "plain" to move in the weights themselves.

    Raises:
        ModelError: for numbers that make no sense.
    """

    steps: int = 5000
    science_rate: float = 0.01
    network_rate: float = 0.01
    adaptive: bool = True
    held_out: float = 0.0
    patience: int | None = 10
    minibatch: int | None = None
    coordinates: str = "auto"

    def __post_init__(self):
        self._check_numbers(steps=WINDOW)
        for name in ("patience", "minibatch"):
            if getattr(self, name) is not None:
                self._check_numbers(**{name: 1})
        self._check_floats("science_rate", "network_rate")
        self._check_floats("held_out", zero=True)
        self._check_words(coordinates=COORDINATES)

    def check(self, problem: Problem) -> None:
        """Refuse a minibatch where a law would be held against some of the times only.

        Args:
            problem: the posterior.

        Raises:
            ModelError: if a minibatch is set and the model has constraints.
        """
        if self.minibatch is not None and self.minibatch < problem.times and problem.constraints:
            raise ModelError(
                f"minibatch={self.minibatch} would hold the constraints "
                f"{', '.join(problem.constraints)} against some "
                "of the times only: leave minibatch out"
            )

    def cost(self, problem: Problem, *, looks: int = 1) -> Cost:
        """What a descent takes: it may stop early.

        Args:
            problem: the posterior.
            looks: how many times a step looks at the data.
        """
        patience = self.steps if self.patience is None else self.patience
        least = min(self.steps, WINDOW * (1 + patience))
        return Cost(looks * least, looks * self.steps, programs(problem))

"""Deep ensembles over scientific parameters and weights, each member from a prior draw."""

import dataclasses

from jaxtyping import Array

from ..._runs.journal import Journal, ProgressBar
from ..engine import AbstractEngine, Cost, Samples
from ..problem import Problem
from .descent_settings import Descent
from .members import Adversary, descended, draws_without_chain, log_densities, usable
from .spread import spread_by_density


@dataclasses.dataclass(frozen=True)
class DeepEnsemble(AbstractEngine):
    r"""Point estimates from several starts, whose spread is the epistemic uncertainty.

    For a normal posterior, the variances of anchored and of bootstrapped members add up to the
    posterior variance. Either alone is too small. This assumes residuals as large as the stated
    noise, since a bootstrap uses residuals only. Without both, members differ only by their starts.

    Members are dropped if their solve fails, or if their data are far less likely than for the
    median member (half a nat per datum). The facts `members_failed` and `members_stuck` count
    them. A draw is a member. For noise that varies, give the model a `VaryingScale`.

    Args:
        members: the number of starts, each near prior draws.
        anchored: whether each member's prior is centred at a prior draw, in the unconstrained
            space. Members then differ by the prior standard deviation if the data say nothing.
            Anchored priors are independent normals; soft constraints hold for all members.
        bootstrap: whether each member sees times of the data drawn with replacement. Members then
            differ by the effect of the noise.
        adversarial: a share of the range of each forcing (0.01 in the source). Half of the
            likelihood of each step is taken at forcings moved by this share towards less likely
            data, which makes members smooth. Without forcings and solver the index is moved.
        descent: steps, learning rates and patience, data held out, and minibatches.

    Source: Lakshminarayanan, Pritzel & Blundell (2017); Pearce, Leibfried & Brintrup (2020).

    Raises:
        ModelError: for settings that are not possible.

    Example:
        ```python
        post = bd.fit(model, train, bd.DeepEnsemble(members=4))
        ```
    """

    members: int = 20
    anchored: bool = True
    bootstrap: bool = True
    adversarial: float = 0.0
    descent: Descent = Descent()

    def __post_init__(self):
        self._check_numbers(members=2)
        self._check_floats("adversarial", zero=True)
        self._check_settings(descent=Descent)

    @property
    def draws(self) -> int:
        return self.members

    @property
    def _apart(self) -> str:
        """Say why members differ, and which uncertainty they lack."""
        if self.anchored and self.bootstrap:
            return (
                "anchored and bootstrapped members spread as a normal posterior does, and only to "
                "first order"
            )
        if self.anchored or self.bootstrap:
            kind = "anchored" if self.anchored else "bootstrapped"
            lacking = "the noise" if self.anchored else "the prior"
            return f"members that are {kind} only leave out what {lacking} leaves open"
        return "only where they began tells members apart"

    @property
    def batch(self) -> int:
        """Positions that are evaluated together: all members."""
        return self.members

    def cost(self, problem: Problem) -> Cost:
        # An adversarial step takes a gradient by the inputs, and then two likelihoods.
        return self.descent.cost(problem, looks=3 if self.adversarial else 1)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Return the members that reached a good fit.

        Raises:
            ModelError: if no member has a finite log density, if `adversarial` finds no inputs to
                move, or if the share held out leaves no data on one side.
        """
        found = descended(
            problem,
            self.members,
            self.descent,
            key=key,
            journal=journal,
            bar=bar,
            bootstrap=self.bootstrap,
            anchored=self.anchored,
            adversary=Adversary(problem, self.adversarial) if self.adversarial else None,
        )
        kept = usable(problem, found.positions, found.weights)
        members = found.positions[kept.members]
        value = log_densities(problem, members)
        spread = spread_by_density(value, problem.dimension, self._apart)
        return draws_without_chain(
            members,
            value,
            facts={**found.facts, **kept.facts},
            findings=(*found.findings, kept.finding, spread),
            curves=found.curves,
            draws_are=kept.draws_are,
        )

"""Deep ensembles of scientific parameters and network weights."""

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

    Each member is a draw. Its prior is centred at a prior draw (anchored), and its data are drawn
    with replacement (bootstrapped). For a normal posterior, the variances that both cause add up to
    the posterior variance. Either alone is too small. This assumes residuals as large as the stated
    noise, since a bootstrap uses residuals only. Without both, members differ only by their starts.

    A member is dropped if its solve fails. It is also dropped if its log likelihood is more than
    half a nat per datum below that of the median member. The facts `members_failed` and
    `members_stuck` count dropped members. If the noise varies, use a `VaryingScale` in the model.

    Args:
        members: the number of members.
        anchored: whether the prior of each member is centred at a prior draw, in the unconstrained
            space. If the data contain no information, members then spread as widely as the prior.
            Anchored priors are independent normals; soft constraints hold for all members.
        bootstrap: whether the times of each member's data are drawn with replacement. Members then
            differ by the effect of the noise.
        adversarial: a share of the range of each forcing (0.01 in the source). In each step, half
            of the likelihood is evaluated with forcings moved by this share towards less likely
            data. This makes predictions smooth. Without forcings and solver the index is moved.
        descent: steps, learning rates and patience, held-out data, and minibatches.

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
        """Say in words why members differ, and which uncertainty is left out."""
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
        """Number of positions that are evaluated together: one for each member."""
        return self.members

    def cost(self, problem: Problem) -> Cost:
        # An adversarial step takes a gradient by the inputs, and then two likelihoods.
        return self.descent.cost(problem, looks=3 if self.adversarial else 1)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Return the members that are kept, each as a draw.

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

"""Deep ensembles: members over scientific parameters and weights, each from a prior draw of its
own.
"""

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
    r"""Point estimates from several starts, over science and networks alike; their spread is the
    epistemic uncertainty.

    For a normal posterior the variances of anchored and of bootstrapped members add up to that of
    the posterior, which either alone falls short of, if residuals are as large as the noise is said
    to be: a bootstrap looks at residuals only. With neither, only their starts tell members apart.
    Members whose solve fails, or to whom the data they saw are far less likely than to the median
    member (half a nat for each datum), are dropped and counted: `members_failed`, `members_stuck`.
    A draw is a member. For noise that varies give the model a `VaryingScale`.

    Args:
        members: how many begin, each near prior draws of its own.
        anchored: whether the prior of each is centred at a draw of the prior rather than where the
            prior is, in the unconstrained space, so that members differ by as much as the prior
            allows wherever the data say nothing. Anchored priors are independent normals; soft
            constraints hold for all.
        bootstrap: whether each sees the times of the data as often as they were drawn with
            replacement, so that members differ by what the noise of the data leaves open.
        adversarial: a share of the range of each forcing (0.01 in the source). Half of what the
            data say at each step is said at forcings moved by so much to where the data are least
            likely, which makes members smooth; of a layer that solves nothing and has no forcings
            the index is moved.
        descent: steps, learning rates and patience, data held out, and minibatches.

    Source: Lakshminarayanan, Pritzel & Blundell (2017); Pearce, Leibfried & Brintrup (2020).

    Raises:
        ModelError: for numbers that make no sense.

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
        """What tells members apart."""
        if self.anchored and self.bootstrap:
            return (
                "anchored and bootstrapped members spread as a normal posterior does, and only to "
                "first order"
            )
        if self.anchored or self.bootstrap:
            kind, lacking = (
                ("anchored", "the noise") if self.anchored else ("bootstrapped", "the prior")
            )
            return f"members that are {kind} only leave out what {lacking} leaves open"
        return "only where they began tells members apart"

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all members."""
        return self.members

    def cost(self, problem: Problem) -> Cost:
        # An adversary looks which way to go, and then at the data twice.
        return self.descent.cost(problem, looks=3 if self.adversarial else 1)

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """The members that came to an end.

        Raises:
            ModelError: if no member has a finite log density, there are no inputs for `adversarial`
                to move, or the share held out leaves no data on one side.
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
        return draws_without_chain(
            members,
            value,
            facts={**found.facts, **kept.facts},
            findings=(
                *found.findings,
                kept.finding,
                spread_by_density(value, problem.dimension, self._apart),
            ),
            curves=found.curves,
            draws_are=kept.draws_are,
        )

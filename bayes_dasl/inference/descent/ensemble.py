"""Deep ensembles: members over scientific parameters and weights, each from a prior draw of its own."""

import dataclasses

from jaxtyping import Array

from ..._runs.journal import Journal
from ..._runs.progress import ProgressBar
from ..problem import Problem
from ..samples import Samples
from ..settings import check_numbers, check_shares
from .adversary import Adversary
from .descent import WINDOW
from .members import RATES, descended, log_densities, usable


@dataclasses.dataclass(frozen=True)
class DeepEnsemble:
    r"""Point estimates from several starts, over science and networks alike; their spread is the epistemic uncertainty.

    Each of the `members` begins near prior draws of its own, as `Joint` does. With `anchored` its prior is centred at
    another one rather than where the prior is, in the unconstrained space, so that members differ by as much as the
    prior allows wherever the data say nothing (anchored priors are independent normals); soft constraints hold for all.
    With `bootstrap` each sees the times of the data as often as they were drawn with replacement, so that members
    differ by what the noise of the data leaves open. For a normal posterior the two variances add up to that of the
    posterior, which either alone falls short of, if residuals are as large as the noise is said to be: a bootstrap
    looks at residuals only. With neither, only their starts tell members apart. With `adversarial`, a share of the
    range of each forcing (0.01 in the source), half of what the data say at each step is said at forcings moved by so
    much to where the data are least likely, which makes members smooth; of a layer that solves nothing and has no
    forcings the index is moved.

    Descent is that of `Joint`: a rate for each group, adaptive, with `held_out` times, the same for all members, and
    `patience`. Members whose solve fails, or to whom the data they saw are far less likely than to the median member
    (half a nat for each datum), are dropped and counted: `members_failed`, `members_stuck`. A draw is a member. For
    noise that varies give the model a `VaryingScale`.
    Source: Lakshminarayanan, Pritzel & Blundell (2017); Pearce, Leibfried & Brintrup (2020).
    Raises: ModelError for numbers that make no sense.
    """

    members: int = 20
    steps: int = 5000
    anchored: bool = True
    bootstrap: bool = True
    adversarial: float = 0.0
    science_rate: float = RATES[0]
    network_rate: float = RATES[1]
    adaptive: bool = True
    held_out: float = 0.0
    patience: int = 10

    def __post_init__(self):
        check_numbers(self, {"members": 2, "steps": WINDOW, "patience": 1})
        check_shares(self, ("science_rate", "network_rate"))
        check_shares(self, ("adversarial", "held_out"), zero=True)

    @property
    def draws(self) -> int:
        return self.members

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all members."""
        return self.members

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """The members that came to an end.

        Raises: ModelError if no member has a finite log density, there are no inputs for `adversarial` to move, or the
        share of `held_out` leaves no data on one side.
        """
        adversary = Adversary(problem, self.adversarial) if self.adversarial else None
        found = descended(
            problem,
            self.members,
            key=key,
            journal=journal,
            bar=bar,
            steps=self.steps,
            patience=self.patience,
            rates=(self.science_rate, self.network_rate),
            adaptive=self.adaptive,
            held_out=self.held_out,
            bootstrap=self.bootstrap,
            anchored=self.anchored,
            adversary=adversary,
        )
        kept, failed, stuck = usable(problem, found.positions, found.weights)
        facts = {
            "draws_are": "members",
            "descent_steps": found.steps,
            "descent_stopped": int(found.stopped_early),
            "members": self.members,
            "members_failed": failed,
            "members_stuck": stuck,
        }
        members = found.positions[kept]
        return Samples(members[None], {"lp": log_densities(problem, members)[None]}, False, facts, curves=found.curves)

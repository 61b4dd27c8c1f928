"""Deep ensembles: members over scientific parameters and weights, each from a prior draw of its own."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array

from .._journal import Journal
from .._progress import ProgressBar
from ._adversarial import Adversary
from ._descent import WINDOW, Descent
from ._members import begin, counts, log_densities, usable, weighted_loss
from ._problem import Problem
from ._samples import Samples
from ._settings import check_numbers, check_shares


@dataclasses.dataclass(frozen=True)
class DeepEnsemble:
    r"""Point estimates from several starts, over science and networks alike; their spread is the epistemic uncertainty.

    Each of the `members` begins at a prior draw. With `anchored` its prior is centred there rather than where the prior
    is, in the unconstrained space, so that members differ by as much as the prior allows wherever the data say nothing.
    With `bootstrap` each sees the times of the data as often as they were drawn with replacement, so that members
    differ by what the noise of the data leaves open. For a normal posterior the two variances add up to that of the
    posterior, which either alone falls short of; with neither, only their starts tell members apart. With
    `adversarial`, a share of the range of each forcing (0.01 in the source), half of what the data say at each step is
    said at forcings moved by so much to where the data are least likely, which makes members smooth; of a layer that
    solves nothing and has no forcings the index is moved.

    Descent is that of `Joint`: a rate for each group, adaptive, with `held_out` times (of each member's own) and
    `patience`. Members whose solve fails, or to whom the data are far less likely than to the median member (half a nat
    for each datum), are dropped and counted: `members_failed`, `members_stuck`. A draw is a member. For noise that
    varies give the model a `VaryingScale`.
    Source: Lakshminarayanan, Pritzel & Blundell (2017); Pearce, Leibfried & Brintrup (2020).
    Raises: ModelError for numbers that make no sense.
    """

    members: int = 20
    steps: int = 5000
    anchored: bool = True
    bootstrap: bool = True
    adversarial: float = 0.0
    science_rate: float = 0.01
    network_rate: float = 0.003
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

        Raises: ModelError if no member has a finite log density, or there are no inputs for `adversarial` to move.
        """
        adversary = Adversary(problem, self.adversarial) if self.adversarial else None
        key_start, key_anchor, key_rows, key_steps = jax.random.split(key, 4)
        x = journal.step("start", lambda: {"position": begin(problem, self.members, key=key_start)})["position"]
        own = counts(problem, self.members, held_out=self.held_out, bootstrap=self.bootstrap, key=key_rows)
        own |= {"anchor": np.asarray(problem.prior(self.members, key=key_anchor))}
        objective, judge = weighted_loss(problem, anchored=self.anchored, adversary=adversary)
        rates = (self.science_rate, self.network_rate)
        descent = Descent(objective, judge, rates, self.adaptive, self.steps, self.patience)
        found = descent.run(problem, x, own, key=key_steps, journal=journal, bar=bar)
        kept, failed, stuck = usable(problem, found.positions)
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

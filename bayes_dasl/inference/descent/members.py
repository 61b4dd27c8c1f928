"""What engines of several members share: what they lower, where they begin, and what is kept of
them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._findings import SAMPLER, Finding
from ..._jax.tree import frozen
from ..._runs.journal import Journal, ProgressBar
from ...errors import ModelError
from ..engine import Facts, Samples
from ..problem import Problem, Terms
from ..reparametrisations.gradient_matching import Matching
from ..reparametrisations.reference import has_reference
from ..starts import no_start, or_lowest, refuse_unresolved
from .adam import Descended, Loss, descend
from .descent_settings import Descent

_DRAWS_A_MEMBER = 4
# A member whose data are so much less likely than the median member's, in nats for each datum,
# ended elsewhere.
_FAR_OFF = 0.5
_LOST = 0.2  # share of members, or of proposals
_SPARE = 1.25


class Adversary:
    """Moves forcings, or the index where there are none, by a share of the range of each (fast
    gradient sign).

    Raises:
        ModelError: for a model that reads neither: of a solver the times cannot change their
            places.

    Source: Goodfellow, Shlens & Szegedy (2015).
    """

    def __init__(self, problem: Problem, share: float):
        if not problem.movable:
            raise ModelError(
                "adversarial needs inputs that can be moved: forcings (linear or step), or the "
                "index of a layer that "
                "solves nothing; this model has neither"
            )
        self._by = {
            name: share * float(np.ptp(np.asarray(v))) for name, v in problem.movable.items()
        }

    def moved(self, problem: Problem, log_likelihood: Callable[[Problem], Array]) -> Problem:
        """The problem with inputs at which the data are less likely; no gradient flows through the
        move.
        """
        now = frozen({name: problem.movable[name] for name in self._by})
        slopes = jax.grad(lambda values: log_likelihood(problem.moved_to(values)))(now)
        away = {n: v - self._by[n] * jnp.sign(jnp.nan_to_num(slopes[n])) for n, v in now.items()}
        return problem.moved_to(frozen(away))


def descended(
    problem: Problem,
    members: int,
    descent: Descent,
    *,
    key: Array,
    journal: Journal,
    bar: ProgressBar,
    begin_at: Float[np.ndarray, "member dimension"] | None = None,
    bootstrap: bool = False,
    **loss: Any,
) -> Descended:
    """Where members end that begin at prior draws of their own, or `begin_at` these; `loss` is as
    in `weighted_loss`.

    What is held out is the same for all members, as they could not be compared otherwise.

    Raises:
        ModelError: if no start has a finite log density, nothing would be held out, or nothing
            left, or for a minibatch where there are constraints.
    """
    descent.check(problem)
    # The gradient is that of many numbers, whatever is the best for a sampler of few.
    problem = problem.reversible()
    key_start, key_rows, key_anchor, key_boot, key_steps = jax.random.split(key, 5)
    training, judged = held_back(problem, descent.held_out, key=key_rows)
    x = begin_at
    if x is None:
        x = journal.step("start", lambda: {"position": begin(training, members, key=key_start)})[
            "position"
        ]
    own = {"weights": counts(training, members, bootstrap=bootstrap, key=key_boot)}
    own |= {"anchor": np.asarray(problem.prior(members, key=key_anchor))}
    lowered = weighted_loss(training, judged, minibatch=descent.minibatch, **loss)
    return descend(training, descent, lowered, x, own, key=key_steps, journal=journal, bar=bar)


def begin(problem: Problem, members: int, *, key: Array) -> Float[np.ndarray, "member dimension"]:
    """A position of finite log density for each member, as far as there are any, from prior draws
    of its own.

    Where the states of the data are known a network is first matched to them, which takes no solve.
    """
    draws = np.array(problem.prior(_DRAWS_A_MEMBER * members, key=key))
    if problem.of_groups("network") and has_reference(problem):
        draws[:members] = Matching(problem).optimise(draws[:members])
    value = or_lowest(log_densities(problem, draws)).reshape(_DRAWS_A_MEMBER, members)
    if not np.isfinite(value).any():
        raise no_start(len(draws))
    return draws.reshape(_DRAWS_A_MEMBER, members, -1)[value.argmax(0), np.arange(members)]


def held_back(problem: Problem, share: float, *, key: Array) -> tuple[Problem, Problem | None]:
    """The problem without the data of a share of its times, and the one of these data alone.

    Raises:
        ModelError: if no datum is left on one side.
    """
    if not share:
        return problem, None
    chosen = np.asarray(jax.random.permutation(key, problem.times))[: round(share * problem.times)]
    training, judged = problem.split(np.isin(np.arange(problem.times), chosen))
    if not (training.data and judged.data):
        raise ModelError(
            f"held_out={share:g} of {problem.times} times leaves one side without data: take "
            "another share"
        )
    return training, judged


def weighted_loss(
    problem: Problem,
    judged: Problem | None = None,
    *,
    science: float = 1.0,
    network: float = 1.0,
    minibatch: int | None = None,
    anchored: bool = False,
    adversary: Adversary | None = None,
    altered: Callable[[Array, Array], Array] | None = None,
) -> Loss:
    r"""The loss $-L_{data} - \lambda_s L_{science} - \lambda_n L_{network}$ of a member, and its
    judge.

    A member's own are `weights`, how often each datum counts, and `anchor`: a position about which
    the priors of an `anchored` one are normal, as wide as the prior. With `minibatch` each step
    looks at so many rows, drawn anew. An `adversary` moves the inputs: half of what the data say is
    then said there. The data see the position `altered` by a random key, if that is given. A member
    is judged by how likely the data of `judged` are, or by its loss on all rows, unaltered.
    """
    size = problem.times
    widths = jnp.asarray(problem.prior_widths() if anchored else 1.0)
    of_network = np.asarray(problem.of_groups("network"), int)

    def anchors(position: Array, anchor: Array) -> dict[str, Array]:
        each = -0.5 * ((position - anchor) / widths) ** 2
        learned = jnp.sum(each[of_network])
        return {"science": jnp.sum(each) - learned, "latent": jnp.zeros(()), "network": learned}

    def value(
        position: Array, own: Any, some: Problem, weights: Any, seen: Any = None
    ) -> tuple[Array, Terms]:
        priors = anchors(position, own["anchor"]) if anchored else None
        found = some.terms(position, weights, priors=priors, data_at=seen)
        if adversary is not None:

            def likely(moved):
                return moved.terms(frozen(position), weights, data_at=frozen(seen)).data

            there = adversary.moved(some, likely).terms(
                position, weights, priors=priors, data_at=seen
            )
            found = found._replace(data=(found.data + there.data) / 2)
        total = -(found.data + science * found.science + network * found.network)
        return jnp.where(jnp.isfinite(total), total, jnp.inf), found

    def objective(position: Array, own: Any, key: Array) -> tuple[Array, Terms]:
        key_rows, key_altered = jax.random.split(key)
        seen = None if altered is None else altered(position, key_altered)
        if minibatch is None or minibatch >= size:
            return value(position, own, problem, own["weights"], seen)
        index = jnp.sort(jax.random.choice(key_rows, size, (minibatch,), replace=False))
        weights = {n: w[index] * size / minibatch for n, w in own["weights"].items()}
        return value(position, own, problem.rows(index), weights, seen)

    def judge(position: Array, own: Any) -> Array:
        if judged is None:
            return value(position, own, problem, own["weights"])[0]
        unseen = judged.terms(position).data
        return jnp.where(jnp.isfinite(unseen), -unseen, jnp.inf)

    return Loss(objective, judge)


def counts(
    problem: Problem, members: int, *, bootstrap: bool = False, key: Array
) -> dict[str, Any]:
    """How often each datum counts for each member: once, or as often as its time is drawn with
    replacement.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    number = problem.times
    shape = (members, number)
    times = (
        rng.multinomial(number, np.full(number, 1 / number), size=members)
        if bootstrap
        else np.ones(shape)
    )
    return problem.weights(times.astype(float))


def log_densities(
    problem: Problem, positions: Float[np.ndarray, "n dimension"]
) -> Float[np.ndarray, " n"]:
    return np.asarray(
        jax.jit(lambda x: jax.lax.map(problem.log_density, x))(jnp.asarray(positions))
    )


class Kept(NamedTuple):
    """Which members are kept, and how many failed or ended where their data are far less likely
    than elsewhere.
    """

    members: Bool[np.ndarray, " member"]
    failed: int
    stuck: int

    @property
    def draws_are(self) -> str:
        return f"members ({int(self.members.sum())} of {self.members.size} kept)"

    @property
    def facts(self) -> Facts:
        return {
            "members": self.members.size,
            "members_failed": self.failed,
            "members_stuck": self.stuck,
        }

    @property
    def finding(self) -> Finding:
        """What is left of an ensemble."""
        lost = self.failed + self.stuck > _LOST * self.members.size
        message = f"{int(self.members.sum())} of {self.members.size} members"
        message += f"; {self.failed} failed" if self.failed else ""
        message += (
            f"; to {self.stuck} the data are far less likely than to the others"
            if self.stuck
            else ""
        )
        return Finding(
            "warning" if lost else "good", "ensemble",
            message,
            "allow more steps, or narrow the priors" if lost else "",
        )  # fmt: skip


def usable(
    problem: Problem,
    positions: Float[np.ndarray, "member dimension"],
    weights: dict[str, np.ndarray],
) -> Kept:
    """Which members can be used; `weights` say how often each saw each datum.

    Raises:
        ModelError: if all of them failed.
        DataError: if rounding hides how well they do.
    """

    def data(member):
        position, seen = member
        return problem.terms(position, seen).data

    value = np.asarray(jax.jit(lambda x: jax.lax.map(data, x))((jnp.asarray(positions), weights)))
    solved = np.isfinite(value)
    if not solved.any():
        raise no_start(len(positions))
    refuse_unresolved(value)
    near = solved & (value > np.median(value[solved]) - _FAR_OFF * problem.data)
    return Kept(near, int((~solved).sum()), int((solved & ~near).sum()))


class Proposals(NamedTuple):
    """Proposals of finite log density, some of them twice where there were too few; how many were
    lost, of how many.
    """

    positions: Float[np.ndarray, "draw dimension"]
    log_densities: Float[np.ndarray, " draw"]
    lost: int
    number: int

    @property
    def facts(self) -> Facts:
        return {"proposals": self.number, "proposals_failed": self.lost}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Draws of masks and of normals that the solver refused."""
        if not self.lost:
            return ()
        much = self.lost > _LOST * self.number
        return (
            Finding(
                "warning" if much else "good", "lost draws",
                f"{self.lost} of {self.number} draws have no finite log density and were left out",
                f"what is left is narrower than the approximation: take {SAMPLER}" if much else "",
            ),
        )  # fmt: skip


def draws_without_chain(
    positions: Float[np.ndarray, "draw dimension"],
    log_densities: Float[np.ndarray, " draw"],
    **known: Any,
) -> Samples:
    """Samples of one row of draws that do not follow from one another.

    R-hat and effective sample sizes mean nothing there. `known` are further fields of `Samples`.
    """
    return Samples(positions[None], {"lp": log_densities[None]}, markov=False, **known)


def proposals_to_draw(draws: int) -> int:
    """A few more than are wanted: some may be lost where the solver fails."""
    return round(_SPARE * draws) + 1


def solvable(
    proposed: Float[np.ndarray, "n dimension"], log_density: Float[np.ndarray, " n"], wanted: int
) -> Proposals:
    """The first so many proposals of finite log density.

    Raises:
        ModelError: if there is none.
        DataError: if rounding hides how high they are.
    """
    value = or_lowest(log_density)
    kept = np.flatnonzero(np.isfinite(value))
    if not kept.size:
        raise no_start(len(proposed))
    refuse_unresolved(value)
    chosen = kept[np.arange(wanted) % kept.size]
    return Proposals(proposed[chosen], value[chosen], len(proposed) - kept.size, len(proposed))


def point_estimate(of: str) -> Finding:
    """To be said where scientific parameters have one value only."""
    return Finding(
        "warning",
        "point estimate",
        of,
        f"take {SAMPLER}, or bd.DeepEnsemble(), where uncertainty matters",
    )

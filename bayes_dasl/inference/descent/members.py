"""Functions for engines by gradient descent: starts, losses, and the choice of members."""

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

# Number of prior draws for each member, which begins at the best of them.
_DRAWS_A_MEMBER = 4
# A member is stuck if its log likelihood is this many nats per datum below that of the median.
_FAR_OFF = 0.5
# A larger share of dropped members, or of failed proposals, becomes a warning.
_LOST = 0.2
# Number of proposals for each draw, since some may fail.
_SPARE = 1.25


class Adversary:
    """Move inputs towards less likely data by the fast gradient sign method.

    Each forcing moves by a share of its range. Without forcings and solver, the index moves.

    Args:
        problem: the posterior.
        share: the share of the range.

    Raises:
        ModelError: if the model has a solver, whose times must keep their order, but no forcings.

    Source: Goodfellow, Shlens & Szegedy (2015).
    """

    def __init__(self, problem: Problem, share: float):
        if not problem.movable:
            raise ModelError(
                "adversarial needs inputs that can be moved: forcings (linear or step), or the "
                "index of a layer that solves nothing; this model has neither"
            )
        self._by = {
            name: share * float(np.ptp(np.asarray(v))) for name, v in problem.movable.items()
        }

    def moved(self, problem: Problem, log_likelihood: Callable[[Problem], Array]) -> Problem:
        """Return the problem with moved inputs, which are constants for differentiation.

        Args:
            problem: the posterior.
            log_likelihood: returns the log likelihood of a problem with other inputs.
        """
        # x' = x − share · range · sign(∂ log likelihood / ∂x).
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
    """Minimise the loss of several members by gradient descent.

    All members have the same held-out data, so that they can be compared.

    Args:
        problem: the posterior.
        members: the number of members.
        descent: settings of the descent.
        key: random seed.
        journal: stores the arrays after every 50 steps.
        bar: shows the progress.
        begin_at: first positions, by default the best of several prior draws for each member.
        bootstrap: whether each member's data are drawn with replacement.
        **loss: arguments of `weighted_loss`.

    Returns:
        The final positions of all members, and the curves of the loss.

    Raises:
        ModelError: if no start has a finite log density, if the share held out leaves no data on
            one side, or if there are a minibatch and constraints.
    """
    descent.check(problem)
    # Reverse mode suits the gradient by many weights, whatever the model's solver prefers.
    problem = problem.reversible()
    key_start, key_rows, key_anchor, key_boot, key_steps = jax.random.split(key, 5)
    training, judged = held_back(problem, descent.held_out, key=key_rows)
    x = begin_at
    if x is None:
        begun = lambda: {"position": begin(training, members, key=key_start)}  # noqa: E731
        x = journal.step("start", begun)["position"]
    own = {"weights": counts(training, members, bootstrap=bootstrap, key=key_boot)}
    own |= {"anchor": np.asarray(problem.prior(members, key=key_anchor))}
    lowered = weighted_loss(training, judged, minibatch=descent.minibatch, **loss)
    return descend(training, descent, lowered, x, own, key=key_steps, journal=journal, bar=bar)


def begin(problem: Problem, members: int, *, key: Array) -> Float[np.ndarray, "member dimension"]:
    """Return a first position for each member: the best of four prior draws, `(member, dimension)`.

    Networks inside ODEs first follow the data by gradient matching, which needs no solve.

    Args:
        problem: the posterior.
        members: the number of members.
        key: random seed.

    Raises:
        ModelError: if no draw has a finite log density.
    """
    draws = np.array(problem.prior(_DRAWS_A_MEMBER * members, key=key))
    if problem.of_groups("network") and has_reference(problem):
        draws[:members] = Matching(problem).optimise(draws[:members])
    value = or_lowest(log_densities(problem, draws)).reshape(_DRAWS_A_MEMBER, members)
    if not np.isfinite(value).any():
        raise no_start(len(draws))
    return draws.reshape(_DRAWS_A_MEMBER, members, -1)[value.argmax(0), np.arange(members)]


def held_back(problem: Problem, share: float, *, key: Array) -> tuple[Problem, Problem | None]:
    """Split the data into training data and held-out data at random times.

    Args:
        problem: the posterior.
        share: share of the times that are held out.
        key: random seed.

    Returns:
        The problem with the training data, and the problem with the held-out data. If the share is
        0, the second one is None.

    Raises:
        ModelError: if the share is not 0 and leaves no data on one side.
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
    r"""Return the loss of a step, and the loss that selects the best position of a member.

    $-L_{data} - \lambda_s L_{science} - \lambda_n L_{network}$

    Here $L_{data}$ is the log likelihood, and the other two are log priors, as in `Terms`. The loss
    takes arrays of its own for each member. `weights` are the counts of each datum. `anchor` is the
    mean of the member's normal priors if they are anchored.

    Args:
        problem: the posterior, with the training data.
        judged: the posterior with the held-out data, whose log likelihood selects positions. By
            default the loss without `altered` selects them.
        science: $\lambda_s$.
        network: $\lambda_n$.
        minibatch: number of times in each step, drawn anew.
        anchored: whether priors are replaced by normals around anchors, with the standard
            deviations of the prior.
        adversary: moves the inputs at which half of the likelihood is evaluated.
        altered: maps a position and a random key to the position at which the likelihood is
            evaluated.
    """
    size = problem.times
    widths = jnp.asarray(problem.prior_widths() if anchored else 1.0)
    of_network = np.asarray(problem.of_groups("network"), int)

    # −½ ((x − anchor) / sd)², by group.
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
        # Each row counts size / minibatch times, so that the sum has the right expectation.
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
    """Return how often each datum counts for each member, by observable.

    Without a bootstrap this is once. With it, times are drawn with replacement.

    Args:
        problem: the posterior.
        members: the number of members.
        bootstrap: whether times are drawn with replacement.
        key: random seed.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    number = problem.times
    times = np.ones((members, number))
    if bootstrap:
        times = rng.multinomial(number, np.full(number, 1 / number), size=members)
    return problem.weights(times.astype(float))


def log_densities(
    problem: Problem, positions: Float[np.ndarray, "n dimension"]
) -> Float[np.ndarray, " n"]:
    """Return the log densities at many positions, `(n,)`, evaluated one after the other."""
    one_by_one = jax.jit(lambda x: jax.lax.map(problem.log_density, x))
    return np.asarray(one_by_one(jnp.asarray(positions)))


class Kept(NamedTuple):
    """The members of an ensemble that are kept, and the numbers of dropped ones.

    Args:
        members: which members are kept.
        failed: number of members whose solve failed.
        stuck: number of members whose log likelihood is far below that of the median member.
    """

    members: Bool[np.ndarray, " member"]
    failed: int
    stuck: int

    @property
    def draws_are(self) -> str:
        """The kind of draws in words, with the number of members that are kept."""
        return f"members ({int(self.members.sum())} of {self.members.size} kept)"

    @property
    def facts(self) -> Facts:
        """The numbers `members`, `members_failed` and `members_stuck`."""
        return {
            "members": self.members.size,
            "members_failed": self.failed,
            "members_stuck": self.stuck,
        }

    @property
    def finding(self) -> Finding:
        """A finding on the number of members that are kept."""
        message = f"{int(self.members.sum())} of {self.members.size} members"
        if self.failed:
            message += f"; {self.failed} failed"
        if self.stuck:
            message += f"; to {self.stuck} the data are far less likely than to the others"
        if self.failed + self.stuck <= _LOST * self.members.size:
            return Finding("good", "ensemble", message, "")
        return Finding("warning", "ensemble", message, "allow more steps, or narrow the priors")


def usable(
    problem: Problem,
    positions: Float[np.ndarray, "member dimension"],
    weights: dict[str, np.ndarray],
) -> Kept:
    """Decide which members are kept.

    A member is dropped if its solve fails. It is also dropped if its log likelihood is more than
    half a nat per datum below that of the median member.

    Args:
        problem: the posterior.
        positions: final positions of the members.
        weights: how often each datum counts for each member, by observable.

    Raises:
        ModelError: if all members failed.
        DataError: if rounding hides differences between their likelihoods.
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
    """Proposals with a finite log density. They are repeated if there are too few.

    Args:
        positions: the proposals.
        log_densities: their log densities.
        lost: number of proposals without a finite log density.
        number: number of all proposals.
    """

    positions: Float[np.ndarray, "draw dimension"]
    log_densities: Float[np.ndarray, " draw"]
    lost: int
    number: int

    @property
    def facts(self) -> Facts:
        """The numbers `proposals` and `proposals_failed`."""
        return {"proposals": self.number, "proposals_failed": self.lost}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """A finding on proposals without a finite log density, if there are any."""
        if not self.lost:
            return ()
        message = f"{self.lost} of {self.number} draws have no finite log density and were left out"
        if self.lost <= _LOST * self.number:
            return (Finding("good", "lost draws", message, ""),)
        remedy = f"what is left is narrower than the approximation: take {SAMPLER}"
        return (Finding("warning", "lost draws", message, remedy),)


def draws_without_chain(
    positions: Float[np.ndarray, "draw dimension"],
    log_densities: Float[np.ndarray, " draw"],
    **known: Any,
) -> Samples:
    """Return `Samples` for draws that are not a Markov chain.

    No R-hat or effective sample sizes are computed for them.

    Args:
        positions: the draws.
        log_densities: their log densities.
        **known: further fields of `Samples`.
    """
    return Samples(positions[None], {"lp": log_densities[None]}, markov=False, **known)


def proposals_to_draw(draws: int) -> int:
    """Return how many proposals to make for a number of draws, since some solves may fail."""
    return round(_SPARE * draws) + 1


def solvable(
    proposed: Float[np.ndarray, "n dimension"], log_density: Float[np.ndarray, " n"], wanted: int
) -> Proposals:
    """Return the first proposals with a finite log density.

    Args:
        proposed: the proposals.
        log_density: their log densities.
        wanted: the number to return.

    Raises:
        ModelError: if no log density is finite.
        DataError: if rounding hides differences between log densities.
    """
    value = or_lowest(log_density)
    kept = np.flatnonzero(np.isfinite(value))
    if not kept.size:
        raise no_start(len(proposed))
    refuse_unresolved(value)
    chosen = kept[np.arange(wanted) % kept.size]
    return Proposals(proposed[chosen], value[chosen], len(proposed) - kept.size, len(proposed))


def point_estimate(of: str) -> Finding:
    """Return a warning that scientific parameters have one value without uncertainty.

    Args:
        of: the message of the warning.
    """
    return Finding(
        "warning",
        "point estimate",
        of,
        f"take {SAMPLER}, or bd.DeepEnsemble(), where uncertainty matters",
    )

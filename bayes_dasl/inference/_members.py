"""What engines of several members share: what they lower, where they begin, and what is kept of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._journal import Journal
from .._progress import ProgressBar
from ..layers._prediction import frozen
from ._adversarial import Adversary
from ._descent import Descent, Objective
from ._matching import Matching
from ._problem import Problem
from ._reference import has_reference
from ._start import no_start, or_lowest
from ._terms import Terms, rows, terms

_DRAWS_A_MEMBER = 4
# For chains that begin at members: how long these descend, and at which rates of science and network.
_STEPS, _RATES = 2000, (0.01, 0.003)
# A member whose data are so much less likely than the median member's, in nats for each datum, ended elsewhere.
_FAR_OFF = 0.5


def begin(problem: Problem, members: int, *, key: Array) -> Float[np.ndarray, "member dimension"]:
    """A position of finite log density for each member, as far as there are any, from prior draws of its own.

    Where the states of the data are known a network is first matched to them, which takes no solve.
    """
    draws = np.array(problem.prior(_DRAWS_A_MEMBER * members, key=key))
    if problem.of_groups("network") and has_reference(problem):
        draws[:members] = Matching(problem).climb(draws[:members])
    value = or_lowest(log_densities(problem, draws)).reshape(_DRAWS_A_MEMBER, members)
    if not np.isfinite(value).any():
        raise no_start(len(draws))
    return draws.reshape(_DRAWS_A_MEMBER, members, -1)[value.argmax(0), np.arange(members)]


def weighted_loss(
    problem: Problem,
    *,
    science: float = 1.0,
    network: float = 1.0,
    minibatch: int | None = None,
    anchored: bool = False,
    adversary: Adversary | None = None,
    altered: Callable[[Array, Array], Array] | None = None,
) -> tuple[Objective, Callable[[Array, Any], Array]]:
    r"""The loss $-L_{data} - \lambda_s L_{science} - \lambda_n L_{network}$ of a member, and its judge.

    A member's own are `weights`, how often each datum counts, `held_out`, the same for the data that it is judged by,
    and `anchor`: a position about which the priors of an `anchored` one are normal, as wide as the prior. With
    `minibatch` each step looks at so many rows, drawn anew. Without held-out data a member is judged by its loss. An
    `adversary` moves the inputs: half of what the data say is then said there. The data see the position `altered` by a
    random key, if that is given; the judge sees neither.
    """
    size, everything = problem.inputs.times.size, jnp.arange(problem.inputs.times.size)
    spread = jnp.asarray(np.std(np.asarray(problem.prior(500, key=jax.random.key(0))), axis=0))
    of_network = np.asarray(problem.of_groups("network"), int)

    def loss(
        position: Array,
        own: Any,
        index: Array,
        weights: Any,
        seen: Array | None = None,
        adversary: Adversary | None = None,
    ) -> tuple[Array, Terms]:
        given, observed = rows(problem, index)
        found = terms(problem, position, given, observed, weights, data_at=seen)
        if adversary is not None:

            def data(given):
                return terms(problem, frozen(position), given, observed, weights, data_at=frozen(seen)).data

            there = terms(problem, position, adversary.moved(given, data), observed, weights, data_at=seen)
            found = found._replace(data=(found.data + there.data) / 2)
        if anchored:
            each = -0.5 * ((position - own["anchor"]) / spread) ** 2
            prior = jnp.sum(each[of_network])
            found = found._replace(science=jnp.sum(each) - prior, network=prior)
        value = -(found.data + science * found.science + network * found.network)
        return jnp.where(jnp.isfinite(value), value, jnp.inf), found

    def objective(position: Array, own: Any, key: Array) -> tuple[Array, Terms]:
        key_rows, key_altered = jax.random.split(key)
        seen = None if altered is None else altered(position, key_altered)
        if minibatch is None or minibatch >= size:
            return loss(position, own, everything, own["weights"], seen, adversary)
        index = jnp.sort(jax.random.choice(key_rows, size, (minibatch,), replace=False))
        some = {n: w[index] * size / minibatch for n, w in own["weights"].items()}
        return loss(position, own, index, some, seen, adversary)

    def judge(position: Array, own: Any) -> Array:
        held_out = sum(jnp.sum(w) for w in own["held_out"].values())
        found = terms(problem, position, *rows(problem, everything), own["held_out"])
        whole = loss(position, own, everything, own["weights"])[0]
        unseen = jnp.where(jnp.isfinite(found.data), -found.data, jnp.inf)
        return jnp.where(held_out > 0, unseen, whole)

    return objective, judge


def counts(
    problem: Problem, members: int, *, held_out: float = 0.0, bootstrap: bool = False, key: Array
) -> dict[str, Any]:
    """How often each datum counts for each member, in training and when it is judged; rows are held out together."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    number = problem.inputs.times.size
    left_out = np.zeros((members, number))
    for row in left_out:
        row[rng.permutation(number)[: round(held_out * number)]] = 1.0
    times = (
        rng.multinomial(number, np.full(number, 1 / number), size=members) if bootstrap else np.ones((members, number))
    )

    def over(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: np.broadcast_to(rows.reshape(members, number, *[1] * (v.ndim - 1)), (members, *v.shape)).astype(float)
            for name, v in problem.observed.items()
        }

    return {"weights": over(times * (1 - left_out)), "held_out": over(left_out)}


def descended(
    problem: Problem, members: int, *, key: Array, journal: Journal, bar: ProgressBar
) -> Float[np.ndarray, "member dimension"]:
    """Members of a plain ensemble that can be used, at most so many, for chains to begin at."""
    key_start, key_rows, key_steps = jax.random.split(key, 3)
    x = journal.step("members", lambda: {"position": begin(problem, members, key=key_start)})["position"]
    descent = Descent(*weighted_loss(problem), _RATES, adaptive=True, steps=_STEPS, patience=_STEPS)
    own = counts(problem, members, key=key_rows)
    found = descent.run(problem, x, own, key=key_steps, journal=journal, bar=bar).positions
    return found[usable(problem, found)[0]]


def log_densities(problem: Problem, positions: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, " n"]:
    return np.asarray(jax.jit(lambda x: jax.lax.map(problem.log_density, x))(jnp.asarray(positions)))


def usable(problem: Problem, positions: Float[np.ndarray, "member dimension"]) -> tuple[np.ndarray, int, int]:
    """Which members are kept, and how many failed or ended where the data are far less likely than elsewhere."""
    whole = {name: jnp.ones(v.shape) for name, v in problem.observed.items()}

    def data(position):
        return terms(problem, position, problem.inputs, problem.observed, whole).data

    value = np.asarray(jax.jit(lambda x: jax.lax.map(data, x))(jnp.asarray(positions)))
    solved = np.isfinite(value)
    if not solved.any():
        raise no_start(len(positions))
    seen = sum(int(np.sum(~np.isnan(np.asarray(v)))) for v in problem.observed.values())
    near = solved & (value > np.median(value[solved]) - _FAR_OFF * seen)
    return near, int((~solved).sum()), int((solved & ~near).sum())


def solvable(
    problem: Problem, proposed: Float[np.ndarray, "n dimension"], wanted: int
) -> tuple[Float[np.ndarray, "draw dimension"], Float[np.ndarray, " draw"], int]:
    """The first so many proposals of finite log density, their log densities, and how many of all were lost.

    Where there are too few some come twice. Raises: ModelError if there is none.
    """
    value = or_lowest(log_densities(problem, proposed))
    kept = np.flatnonzero(np.isfinite(value))
    if not kept.size:
        raise no_start(len(proposed))
    chosen = kept[np.arange(wanted) % kept.size]
    return proposed[chosen], value[chosen], len(proposed) - kept.size

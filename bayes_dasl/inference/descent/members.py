"""What engines of several members share: what they lower, where they begin, and what is kept of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._errors import ModelError
from ..._runs.journal import Journal
from ..._runs.progress import ProgressBar
from ...layers._prediction import frozen
from ..coordinates.gradient_matching import Matching
from ..coordinates.reference import has_reference
from ..problem import Problem, reversible
from ..starts import no_start, or_lowest
from ..terms import Terms, rows, terms
from .adversary import Adversary
from .descent import Descended, Descent, Objective

RATES = (0.01, 0.01)
"""First learning rates of science and network, in widths of the prior."""

_DRAWS_A_MEMBER = 4
# A member whose data are so much less likely than the median member's, in nats for each datum, ended elsewhere.
_FAR_OFF = 0.5

type Judge = Callable[[Array, Any], Array]


def descended(
    problem: Problem,
    members: int,
    *,
    key: Array,
    journal: Journal,
    bar: ProgressBar,
    steps: int,
    begin_at: Float[np.ndarray, "member dimension"] | None = None,
    patience: int | None = None,
    rates: tuple[float, float] = RATES,
    adaptive: bool = True,
    coordinates: str = "auto",
    held_out: float = 0.0,
    bootstrap: bool = False,
    **loss: Any,
) -> Descended:
    """Where members end that begin at prior draws of their own, or `begin_at` these; `loss` is as in `weighted_loss`.

    `held_out` is the share of the times that only the judge sees, the same for all members, as they could not be
    compared otherwise. Without `patience` all steps are taken.
    Raises: ModelError if no start has a finite log density, or nothing would be held out, or nothing left.
    """
    # The gradient is that of many numbers, whatever is the best for a sampler of few.
    problem = reversible(problem)
    key_start, key_rows, key_anchor, key_boot, key_steps = jax.random.split(key, 5)
    training, judged = held_back(problem, held_out, key=key_rows)
    x = begin_at
    if x is None:
        x = journal.step("start", lambda: {"position": begin(training, members, key=key_start)})["position"]
    own = {"weights": counts(training, members, bootstrap=bootstrap, key=key_boot)}
    own |= {"anchor": np.asarray(problem.prior(members, key=key_anchor))}
    objective, judge = weighted_loss(training, judged, **loss)
    descent = Descent(objective, judge, rates, adaptive, steps, steps if patience is None else patience, coordinates)
    return descent.run(training, x, own, key=key_steps, journal=journal, bar=bar)


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


def held_back(problem: Problem, share: float, *, key: Array) -> tuple[Problem, Problem | None]:
    """The problem without the data of a share of its times, and the one of these data alone.

    Raises: ModelError if no datum is left on one side.
    """
    if not share:
        return problem, None
    number = problem.inputs.times.size
    at = np.isin(np.arange(number), np.asarray(jax.random.permutation(key, number))[: round(share * number)])
    training, judged = _seeing(problem, ~at), _seeing(problem, at)
    for side in (training, judged):
        if not any(np.isfinite(np.asarray(v)).any() for v in side.observed.values()):
            raise ModelError(f"held_out={share:g} of {number} times leaves one side without data: take another share")
    past = problem.inputs.past  # what is judged are forecasts from all that was before
    return training, judged if past is None else _replaced(judged, past=past)


def _seeing(problem: Problem, at: np.ndarray) -> Problem:
    """The problem with data at some of its times only."""

    def some(values: Mapping[str, Array]) -> dict[str, Array]:
        return {n: jnp.where(at.reshape(-1, *[1] * (v.ndim - 1)), v, jnp.nan) for n, v in values.items()}

    past = problem.inputs.past
    seen = dataclasses.replace(problem, observed=some(problem.observed))
    return seen if past is None else _replaced(seen, past=dataclasses.replace(past, values=some(past.values)))


def _replaced(problem: Problem, **inputs: Any) -> Problem:
    return dataclasses.replace(problem, inputs=dataclasses.replace(problem.inputs, **inputs))


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
) -> tuple[Objective, Judge]:
    r"""The loss $-L_{data} - \lambda_s L_{science} - \lambda_n L_{network}$ of a member, and its judge.

    A member's own are `weights`, how often each datum counts, and `anchor`: a position about which the priors of an
    `anchored` one are normal, as wide as the prior. With `minibatch` each step looks at so many rows, drawn anew. An
    `adversary` moves the inputs: half of what the data say is then said there. The data see the position `altered` by a
    random key, if that is given. A member is judged by how likely the data of `judged` are, or by its loss on all rows,
    unaltered.
    """
    inputs, observed, size = problem.inputs, problem.observed, problem.inputs.times.size
    spread = jnp.asarray(problem.prior_spread() if anchored else 1.0)
    of_network = np.asarray(problem.of_groups("network"), int)

    def anchors(position: Array, anchor: Array) -> dict[str, Array]:
        each = -0.5 * ((position - anchor) / spread) ** 2
        learned = jnp.sum(each[of_network])
        return {"science": jnp.sum(each) - learned, "latent": jnp.zeros(()), "network": learned}

    def loss(position: Array, own: Any, given: Any, data: Any, weights: Any, seen: Any = None) -> tuple[Array, Terms]:
        priors = anchors(position, own["anchor"]) if anchored else None
        found = terms(problem, position, given, data, weights, priors=priors, data_at=seen)
        if adversary is not None:

            def likely(given):
                return terms(problem, frozen(position), given, data, weights, data_at=frozen(seen)).data

            moved = adversary.moved(given, likely)
            there = terms(problem, position, moved, data, weights, priors=priors, data_at=seen)
            found = found._replace(data=(found.data + there.data) / 2)
        value = -(found.data + science * found.science + network * found.network)
        return jnp.where(jnp.isfinite(value), value, jnp.inf), found

    def objective(position: Array, own: Any, key: Array) -> tuple[Array, Terms]:
        key_rows, key_altered = jax.random.split(key)
        seen = None if altered is None else altered(position, key_altered)
        if minibatch is None or minibatch >= size:
            return loss(position, own, inputs, observed, own["weights"], seen)
        index = jnp.sort(jax.random.choice(key_rows, size, (minibatch,), replace=False))
        some = {n: w[index] * size / minibatch for n, w in own["weights"].items()}
        return loss(position, own, *rows(problem, index), some, seen)

    def judge(position: Array, own: Any) -> Array:
        if judged is None:
            return loss(position, own, inputs, observed, own["weights"])[0]
        once = {name: jnp.ones(v.shape) for name, v in judged.observed.items()}
        unseen = terms(judged, position, judged.inputs, judged.observed, once).data
        return jnp.where(jnp.isfinite(unseen), -unseen, jnp.inf)

    return objective, judge


def check_minibatch(problem: Problem, minibatch: int | None) -> None:
    """Raises: ModelError where a law would be looked at some of the times only: it may be one of the whole series."""
    if minibatch is not None and minibatch < problem.inputs.times.size and problem.model.constraints:
        raise ModelError(
            f"minibatch={minibatch} would hold the constraints {', '.join(problem.model.constraints)} against some of "
            "the times only: leave minibatch out"
        )


def counts(problem: Problem, members: int, *, bootstrap: bool = False, key: Array) -> dict[str, Any]:
    """How often each datum counts for each member: once, or as often as its time is drawn with replacement."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    number = problem.inputs.times.size
    shape = (members, number)
    times = rng.multinomial(number, np.full(number, 1 / number), size=members) if bootstrap else np.ones(shape)
    return {
        name: np.broadcast_to(times.reshape(*shape, *[1] * (v.ndim - 1)), (members, *v.shape)).astype(float)
        for name, v in problem.observed.items()
    }


def log_densities(problem: Problem, positions: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, " n"]:
    return np.asarray(jax.jit(lambda x: jax.lax.map(problem.log_density, x))(jnp.asarray(positions)))


def usable(
    problem: Problem, positions: Float[np.ndarray, "member dimension"], weights: dict[str, np.ndarray]
) -> tuple[np.ndarray, int, int]:
    """Which members are kept, and how many failed or ended where their data are far less likely than elsewhere.

    `weights` say how often each member saw each datum.
    """

    def data(member):
        position, seen = member
        return terms(problem, position, problem.inputs, problem.observed, seen).data

    value = np.asarray(jax.jit(lambda x: jax.lax.map(data, x))((jnp.asarray(positions), weights)))
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

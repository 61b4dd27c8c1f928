"""Residuals along the index as a linear Gaussian system, filtered: what each datum is given those
before it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..noise.sequential import Autocorrelated, Before, Seen, within

type System = Any
"""A process, or several of which the innovations are correlated: when it begins, its first state
and later ones.
"""


class Belief(NamedTuple):
    """What is known of the state at some times: of each row, place or member."""

    time: Float[Array, "..."]
    mean: Float[Array, "... state"]
    covariance: Float[Array, "... state state"]


class Paths(eqx.Module):
    """What paths through the times that are asked for are drawn from, of one observable or of
    several together.
    """

    system: System
    numbers: tuple[int, ...] = eqx.field(
        static=True
    )  # where in the state the residual of each observable stands
    times: Float[Array, " time"]
    last: Belief  # before each time, given the data
    anew: Bool[Array, "time ..."]  # whether a datum lies between this time and the one before
    seen: tuple[Seen, ...]  # residuals at these times
    places: tuple[Float[Array, "time ..."], ...]
    white: tuple[Float[Array, "time ..."], ...]

    def __call__(self, key: Array) -> list[Float[Array, "time ..."]]:
        """One path of each observable: what is drawn counts as a datum until the next one.

        Of a time, observables are given those named before them: their data where these were seen.
        """
        keys = jax.random.split(key, len(self.places)) if len(self.places) > 1 else [key]
        noise = tuple(
            jax.random.normal(k, place.shape) for k, place in zip(keys, self.places, strict=True)
        )
        start = jax.tree.map(lambda part: part[0], self.last)

        def step(belief: Belief, at: tuple) -> tuple[Belief, list[Array]]:
            time, last, anew, seen, white, xi = at
            begun = Belief(*(_where(anew, a, b) for a, b in zip(last, belief, strict=True)))
            by_data, ahead, drawn = (
                _moved(self.system, last, time),
                _moved(self.system, begun, time),
                [],
            )
            for number, datum, own, z in zip(self.numbers, seen, white, xi, strict=True):
                total = _total(ahead, number, own)
                drawn.append(ahead.mean[..., number] + jnp.sqrt(total) * z)
                ahead = _conditioned(ahead, number, Seen(drawn[-1], total > 0), total)
                if len(drawn) < len(xi):  # the others of this time are given its datum, and no path
                    by_data = _conditioned(by_data, number, datum, _total(by_data, number, own))
                    ahead = Belief(
                        *(_where(datum.there, a, b) for a, b in zip(by_data, ahead, strict=True))
                    )
            return ahead, drawn

        rows = self.times, self.last, self.anew, self.seen, self.white, noise
        _, paths = jax.lax.scan(step, start, rows)
        return [place + path for place, path in zip(self.places, paths, strict=True)]


class _PathOf(eqx.Module):
    """The path of one of several observables; of one key all of them hold together."""

    paths: Paths
    which: int = eqx.field(static=True)

    def __call__(self, key: Array) -> Float[Array, "time ..."]:
        return self.paths(key)[self.which]


def given_before(
    system: System,
    numbers: tuple[int, ...],
    noises: Sequence[Any],
    predictions: Sequence[Float[Array, "time ..."]],
    times: Float[Array, " time"],
    befores: Sequence[Before | None],
) -> list[Autocorrelated]:
    """The distribution of each datum given those before it, and those of its time of the
    observables before its own.

    Args:
        system: whose state the residuals are numbers of.
        numbers: where in the state that of each observable stands.
        noises: those of the observables, each a `CorrelatedNoise`.
        predictions: of the observables, `(time, …)`, in their units.
        times: those of the predictions, which never fall.
        befores: what was seen of each; none for draws from what is known of no datum.
    """
    linked = [noise.link(value) for noise, value in zip(noises, predictions, strict=True)]
    white = [
        jnp.broadcast_to(jnp.asarray(n.white, float), v.shape)
        for n, v in zip(noises, predictions, strict=True)
    ]
    told = next((b for b in befores if b is not None), None)
    when, same = (times[:0], False) if told is None else (told.times, told.same)
    nothing = jnp.zeros((when.size, *predictions[0].shape[1:]))
    unseen = Before(when, Seen(nothing, nothing.astype(bool)), nothing, same)
    known = [unseen if before is None else before for before in befores]

    beliefs = _filtered(system, numbers, known, _origin(system, times, when))
    # How many rows lie before each time: those at the same time do not.
    rows = jnp.arange(times.size) if same else jnp.searchsorted(when, times)
    last = Belief(*(part[rows] for part in beliefs))
    counted = jnp.cumsum(jnp.stack([b.seen.there for b in known]).any(axis=0), axis=0, dtype=int)
    number = jnp.concatenate([jnp.zeros_like(counted, shape=(1, *counted.shape[1:])), counted])[
        rows
    ]
    anew = jnp.concatenate([jnp.ones_like(number[:1], bool), number[1:] != number[:-1]])
    seen = tuple(_seen_at(times, before) for before in known)
    paths = Paths(system, numbers, times, last, anew, seen, tuple(linked), tuple(white))

    ahead, found = _moved(system, last, times), []
    for which, (at, noise) in enumerate(zip(numbers, noises, strict=True)):
        variance = _total(ahead, at, white[which])
        alone = noise.normal_on_link(linked[which] + ahead.mean[..., at], jnp.sqrt(variance))
        found.append(Autocorrelated(alone, _PathOf(paths, which)))
        if which + 1 < len(numbers):
            ahead = _conditioned(ahead, at, seen[which], variance)
    return found


def _seen_at(times: Array, before: Before) -> Seen:
    """The residuals at the times of interest; missing at times without data."""
    if before.same:
        return before.seen
    if not before.times.size:
        none = jnp.zeros((times.size, *before.seen.there.shape[1:]))
        return Seen(none, none.astype(bool))
    rows = jnp.minimum(jnp.searchsorted(before.times, times), before.times.size - 1)
    found = jax.tree.map(lambda part: part[rows], before.seen)
    there = _where(before.times[rows] == times, found.there, jnp.zeros_like(found.there))
    return found._replace(there=there)


def _origin(system: System, times: Array, past: Array) -> Array:
    """When nothing was known yet: where it begins, or the first of all times for what has always
    been.
    """
    if system.begins is not None:
        return jnp.asarray(system.begins, float)
    return jnp.min(jnp.concatenate([times, past]))


def _filtered(
    system: System, numbers: tuple[int, ...], befores: Sequence[Before], origin: Array
) -> Belief:
    """Beliefs before anything was seen and after each past row, `(1 + past, …)`."""
    places = befores[0].seen.there.shape[1:]
    covariance = jnp.broadcast_to(
        jnp.asarray(system.first), (*places, *jnp.shape(system.first)[-2:])
    )
    first = Belief(jnp.broadcast_to(origin, places), jnp.zeros(covariance.shape[:-1]), covariance)

    def step(belief: Belief, at: tuple) -> tuple[Belief, Belief]:
        time, rows = at
        after = _moved(system, belief, time)
        for number, (seen, white) in zip(numbers, rows, strict=True):
            after = _conditioned(after, number, seen, _total(after, number, white))
        return after, after

    rows = [(b.seen, b.white) for b in befores]
    _, after = jax.lax.scan(step, first, (befores[0].times, rows))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, after)


def _moved(system: System, belief: Belief, to: Array) -> Belief:
    """The belief at a later time."""
    to = jnp.reshape(to, (*jnp.shape(to), *[1] * (belief.time.ndim - jnp.ndim(to))))
    flow, grown = system.over(jnp.maximum(to - belief.time, 0.0))
    mean = jnp.sum(flow * belief.mean[..., None, :], axis=-1)
    covariance = _product(_product(flow, belief.covariance), jnp.swapaxes(flow, -1, -2)) + grown
    return Belief(jnp.broadcast_to(to, belief.time.shape), mean, covariance)


def _total(ahead: Belief, number: int, white: Array) -> Array:
    """The variance of a residual, with its white noise."""
    return jnp.maximum(ahead.covariance[..., number, number], 0.0) + jnp.square(white)


def _conditioned(ahead: Belief, number: int, seen: Seen, total: Array) -> Belief:
    r"""The belief once a residual is known, whose variance was `total`.

    A censored residual r changes it by the mean and variance of r given its bounds (moment
    matching): with the gain $K = \mathrm{cov}(s, r) / \mathrm{var}(r)$ the mean becomes
    $m + K (E[r \mid \text{bounds}] - E[r])$ and the covariance
    $P - K (\mathrm{var}(r) - \mathrm{var}(r \mid \text{bounds})) K^T$.

    Source: Maybeck (1982), Stochastic Models, Estimation, and Control 2, chapter 12 (assumed
    density filter).
    """
    there = seen.there & (total > 0)
    total = jnp.where(there, total, 1.0)
    gain = jnp.where(there[..., None], ahead.covariance[..., number] / total[..., None], 0.0)
    expected = ahead.mean[..., number]
    residual, left = within(seen, expected, total)
    mean = ahead.mean + gain * (jnp.where(there, residual, 0.0) - expected)[..., None]
    learnt = gain[..., :, None] * ahead.covariance[..., None, number, :]
    learnt = learnt if left is None else (1.0 - left)[..., None, None] * learnt
    return ahead._replace(mean=mean, covariance=ahead.covariance - learnt)


def _product(a: Array, b: Array) -> Array:
    # Sums of a few products, which fuse: a matrix product of two by two costs more by its call.
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def _where(condition: Array, a: Array, b: Array) -> Array:
    return jnp.where(
        jnp.reshape(condition, (*condition.shape, *[1] * (a.ndim - condition.ndim))), a, b
    )

"""Kalman filter over residuals: the distribution of each datum given earlier data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..noise.sequential import Autocorrelated, Before, Seen, within

type System = Any
"""A process, or several with correlated innovations, with `begins`, `first` and `over`."""


class Belief(NamedTuple):
    """Normal distribution of the state of the residual process, for each place or group.

    Args:
        time: the time to which the belief belongs.
        mean: the mean of the state.
        covariance: the covariance of the state.
    """

    time: Float[Array, "..."]
    mean: Float[Array, "... state"]
    covariance: Float[Array, "... state state"]


class Paths(eqx.Module):
    """Sampler of joint paths of one or several observables, given the data.

    Args:
        system: the process of the residuals.
        numbers: for each observable, the index of its residual in the state.
        times: the times of the paths.
        last: for each time, the belief after the last datum before it.
        anew: for each time, whether there is a datum between the previous time and this one.
        seen: the residuals of the data at these times, for each observable.
        places: the predictions of each observable, on the scale of `link`.
        white: the standard deviations of the white noise of each observable.
    """

    system: System
    numbers: tuple[int, ...] = eqx.field(static=True)
    times: Float[Array, " time"]
    last: Belief
    anew: Bool[Array, "time ..."]
    seen: tuple[Seen, ...]
    places: tuple[Float[Array, "time ..."], ...]
    white: tuple[Float[Array, "time ..."], ...]

    def __call__(self, key: Array) -> list[Float[Array, "time ..."]]:
        """Draw one path of each observable.

        Each value is conditioned on the data at earlier times, and on earlier draws of the path
        since the last datum. At one time, the observables are drawn in the order of `numbers`, each
        conditioned on the draws before it. A datum of an observable replaces these draws: the next
        observables are conditioned on data only.

        Args:
            key: a JAX random key.

        Returns:
            The path of each observable, on the scale of `link`.
        """
        # 1. Standard normal numbers for all steps.
        keys = jax.random.split(key, len(self.places)) if len(self.places) > 1 else [key]
        noise = tuple(
            jax.random.normal(k, place.shape) for k, place in zip(keys, self.places, strict=True)
        )
        start = jax.tree.map(lambda part: part[0], self.last)

        def step(belief: Belief, at: tuple) -> tuple[Belief, list[Array]]:
            time, last, anew, seen, white, xi = at
            # 2. After a new datum start from the belief given the data, else continue the path.
            begun = _choose_belief(anew, last, belief)
            by_data, ahead = (_belief_at(self.system, b, time) for b in (last, begun))
            drawn = []
            for number, datum, own, z in zip(self.numbers, seen, white, xi, strict=True):
                # 3. Draw r ~ N(E[r], var(r)), and condition the path on it.
                total = _residual_variance(ahead, number, own)
                drawn.append(ahead.mean[..., number] + jnp.sqrt(total) * z)
                ahead = _conditioned(ahead, number, Seen(drawn[-1], total > 0), total)
                # 4. Other observables of this time are conditioned on the datum if there is one.
                if len(drawn) < len(xi):
                    variance = _residual_variance(by_data, number, own)
                    by_data = _conditioned(by_data, number, datum, variance)
                    ahead = _choose_belief(datum.there, by_data, ahead)
            return ahead, drawn

        rows = self.times, self.last, self.anew, self.seen, self.white, noise
        _, paths = jax.lax.scan(step, start, rows)
        return [place + path for place, path in zip(self.places, paths, strict=True)]


class _PathOf(eqx.Module):
    """The path of one of several observables; equal random keys give joint paths.

    Args:
        paths: the sampler of all observables.
        which: the number of the observable.
    """

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
    """The distribution of each datum given earlier data.

    With several observables, a datum is also conditioned on the data of earlier observables at the
    same time.

    Args:
        system: the process whose state contains the residuals.
        numbers: for each observable, the index of its residual in the state.
        noises: the noise of each observable, a `CorrelatedNoise`.
        predictions: predictions of each observable, `(time, …)`, in its units.
        times: the times of the predictions, not decreasing.
        befores: the residuals of past data of each observable; None without data.

    Returns:
        The distributions of the data, one for each observable.

    Source: Särkkä & Solin (2019), Applied Stochastic Differential Equations, chapter 10.
    """
    # 1. Predictions on the scale of `link`, and residuals of past data (missing without data).
    linked = [noise.link(value) for noise, value in zip(noises, predictions, strict=True)]
    white = [
        jnp.broadcast_to(jnp.asarray(n.white, float), v.shape)
        for n, v in zip(noises, predictions, strict=True)
    ]
    some = next((b for b in befores if b is not None), None)
    when, same = (times[:0], False) if some is None else (some.times, some.same)
    nothing = jnp.zeros((when.size, *predictions[0].shape[1:]))
    unseen = Before(when, Seen(nothing, nothing.astype(bool)), nothing, same)
    known = [unseen if before is None else before for before in befores]

    # 2. Filter the past, and take the belief after the last row before each time. Rows at the time
    # itself are not before it.
    beliefs = _filtered(system, numbers, known, _start_of_system(system, times, when))
    rows = jnp.arange(times.size) if same else jnp.searchsorted(when, times)
    last = Belief(*(part[rows] for part in beliefs))
    # 3. A datum lies between two times if the number of data before them differs.
    there = jnp.stack([b.seen.there for b in known]).any(axis=0)
    counted = jnp.cumsum(there, axis=0, dtype=int)
    zero = jnp.zeros_like(counted, shape=(1, *counted.shape[1:]))
    number = jnp.concatenate([zero, counted])[rows]
    first = jnp.ones_like(number[:1], bool)
    anew = jnp.concatenate([first, number[1:] != number[:-1]])
    seen = tuple(_seen_at(times, before) for before in known)
    paths = Paths(system, numbers, times, last, anew, seen, tuple(linked), tuple(white))

    # 4. y ~ link⁻¹ N(link(z) + E[r], var(r)); the next observable is conditioned on this datum.
    ahead, found = _belief_at(system, last, times), []
    for which, (at, noise) in enumerate(zip(numbers, noises, strict=True)):
        variance = _residual_variance(ahead, at, white[which])
        alone = noise.normal_on_link(linked[which] + ahead.mean[..., at], jnp.sqrt(variance))
        found.append(Autocorrelated(alone, _PathOf(paths, which)))
        if which + 1 < len(numbers):
            ahead = _conditioned(ahead, at, seen[which], variance)
    return found


def _seen_at(times: Array, before: Before) -> Seen:
    """Return the residuals of past data at the given times; times without data are missing."""
    if before.same:
        return before.seen
    if not before.times.size:
        none = jnp.zeros((times.size, *before.seen.there.shape[1:]))
        return Seen(none, none.astype(bool))
    rows = jnp.minimum(jnp.searchsorted(before.times, times), before.times.size - 1)
    found = jax.tree.map(lambda part: part[rows], before.seen)
    there = _where_leading(before.times[rows] == times, found.there, jnp.zeros_like(found.there))
    return found._replace(there=there)


def _start_of_system(system: System, times: Array, past: Array) -> Array:
    """Return the start time of the process; for a stationary process the earliest time.

    `times` are the times of the predictions, and `past` the times of the past data.
    """
    if system.begins is not None:
        return jnp.asarray(system.begins, float)
    return jnp.min(jnp.concatenate([times, past]))


def _filtered(
    system: System, numbers: tuple[int, ...], befores: Sequence[Before], origin: Array
) -> Belief:
    """Run the filter over the past data.

    Args:
        system: the process whose state contains the residuals.
        numbers: for each observable, the index of its residual in the state.
        befores: the residuals of past data of each observable.
        origin: the start time of the process.

    Returns:
        The beliefs before all data and after each past row, `(1 + past, …)`.
    """
    places = befores[0].seen.there.shape[1:]
    covariance = jnp.asarray(system.first)
    covariance = jnp.broadcast_to(covariance, (*places, *covariance.shape[-2:]))
    mean = jnp.zeros(covariance.shape[:-1])
    first = Belief(jnp.broadcast_to(origin, places), mean, covariance)

    def step(belief: Belief, at: tuple) -> tuple[Belief, Belief]:
        time, rows = at
        after = _belief_at(system, belief, time)
        for number, (seen, white) in zip(numbers, rows, strict=True):
            after = _conditioned(after, number, seen, _residual_variance(after, number, white))
        return after, after

    rows = [(b.seen, b.white) for b in befores]
    _, after = jax.lax.scan(step, first, (befores[0].times, rows))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, after)


def _belief_at(system: System, belief: Belief, to: Array) -> Belief:
    """Return the belief at the later time `to`: m ← A m, P ← A P Aᵀ + Q.

    Here m is the mean and P the covariance of the belief. A and Q are the transition matrix and the
    innovation covariance over the time between.
    """
    to = jnp.reshape(to, (*jnp.shape(to), *[1] * (belief.time.ndim - jnp.ndim(to))))
    flow, grown = system.over(jnp.maximum(to - belief.time, 0.0))
    mean = jnp.sum(flow * belief.mean[..., None, :], axis=-1)
    pushed = _product(flow, belief.covariance)
    covariance = _product(pushed, jnp.swapaxes(flow, -1, -2)) + grown
    return Belief(jnp.broadcast_to(to, belief.time.shape), mean, covariance)


def _residual_variance(ahead: Belief, number: int, white: Array) -> Array:
    """Return the variance of a residual with its white noise, P_ii + σ².

    `number` is the index i of the residual in the state, and `white` is σ.
    """
    # Rounding may leave a variance a little below zero.
    return jnp.maximum(ahead.covariance[..., number, number], 0.0) + jnp.square(white)


def _conditioned(ahead: Belief, number: int, seen: Seen, total: Array) -> Belief:
    r"""Return the belief conditioned on the datum of one residual r.

    $K = \mathrm{cov}(s, r) / \mathrm{var}(r), \quad
    m \leftarrow m + K (E[r \mid \text{datum}] - E[r]), \quad
    P \leftarrow P - K (\mathrm{var}(r) - \mathrm{var}(r \mid \text{datum})) K^T$

    A measured residual is known exactly. A censored one has the mean and variance of a truncated
    normal (moment matching).

    Args:
        ahead: the belief before the datum: mean m and covariance P of the state s.
        number: the index of the residual in the state.
        seen: the datum.
        total: var(r), which includes white noise.

    Source: Maybeck (1982), Stochastic Models, Estimation, and Control 2, chapter 12 (assumed
    density filter).
    """
    # 1. Gain K, 0 where no datum was seen.
    there = seen.there & (total > 0)
    total = jnp.where(there, total, 1.0)
    gain = ahead.covariance[..., number] / total[..., None]
    gain = jnp.where(there[..., None], gain, 0.0)
    # 2. Mean and covariance; `left` is the share of var(r) that a censored datum leaves.
    expected = ahead.mean[..., number]
    residual, left = within(seen, expected, total)
    surprise = jnp.where(there, residual, 0.0) - expected
    mean = ahead.mean + gain * surprise[..., None]
    learnt = gain[..., :, None] * ahead.covariance[..., None, number, :]
    learnt = learnt if left is None else (1.0 - left)[..., None, None] * learnt
    return ahead._replace(mean=mean, covariance=ahead.covariance - learnt)


def _product(a: Array, b: Array) -> Array:
    """Return the matrix products of two arrays of small matrices."""
    # XLA fuses this sum. Calling a matrix product for two-by-two matrices would be slower.
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def _where_leading(condition: Array, a: Array, b: Array) -> Array:
    """`jnp.where` with a condition that has only the leading axes of the arrays."""
    shape = (*condition.shape, *[1] * (a.ndim - condition.ndim))
    return jnp.where(condition.reshape(shape), a, b)


def _choose_belief(condition: Array, one: Belief, other: Belief) -> Belief:
    """Return `one` where the condition holds, else `other`."""
    return jax.tree.map(lambda a, b: _where_leading(condition, a, b), one, other)

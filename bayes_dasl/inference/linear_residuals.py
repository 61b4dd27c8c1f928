"""Residuals in units of their noise, and what moves them to first order."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._jax.compiling import Program
from .._statistics.tails import masked_log_prob, seen_and_filled
from .._statistics.variance_component import Linear, Series
from ..errors import ModelError
from ..layers import Prediction
from ..model import Model
from ..noise.sequential import on_link, within
from ..random import realise
from .problem import Problem

_MISMATCH = "mismatch "
_BATCH = 16  # directions along which one program moves
_STEPS, _HALVINGS = 30, 8
_ENOUGH = 0.1  # nats by which a step must raise the log density, to go on
_FLATTEST = 1e-4  # curvature that a log prior is taken to have at least


def with_mismatches(problem: Problem, prediction: Prediction) -> dict[str, Array]:
    """What is predicted of the data, and of mismatches, whose data are 0."""
    values = {name: prediction.values[name] for name in problem.observed}
    return values | {
        _MISMATCH + name: jnp.asarray(value) for name, value in prediction.mismatches.items()
    }


def residuals(
    problem: Problem,
    realised: Model,
    centre: dict[str, Array],
    variances: dict[str, Array],
    values: dict[str, Array],
) -> Float[Array, " datum"]:
    """How far data lie from what is predicted, given those before them, in units of their spread; 0
    if missing.

    `realised` has the numbers of the noise, whose spread is that around `centre`.
    """
    inputs, found = problem.inputs, []
    given = {}
    if realised.looks_back:
        given = realised.conditional(Prediction(values, jnp.asarray(True), before=values), inputs)
    for name, value in sorted(values.items()):
        if name.startswith(_MISMATCH):
            found.append(-jnp.ravel(value))
            continue
        noise, observed = realised.noise_at(name, centre, inputs), problem.observed[name]
        seen, filled = seen_and_filled(observed)
        if noise.looks_back:
            location, scale = on_link(given[name])
            linked, seen = _told_on_link(noise, value, observed, location, scale)
        else:
            location, scale = noise.link(value), noise.spread(centre[name], variances.get(name))
            linked = noise.link(noise.as_predicted(filled))
        # A datum without spread, as none of no trials, tells nothing here.
        told = seen & (scale > 0) & jnp.isfinite(scale)
        found.append(
            jnp.ravel(jnp.where(told, (linked - location) / jnp.where(told, scale, 1.0), 0.0))
        )
    return jnp.concatenate(found)


def _told_on_link(
    noise: Any, value: Array, observed: Array, location: Array, scale: Array
) -> tuple[Array, Array]:
    """Data on the scale of `link`, and which of them count: a censored datum is its mean given its
    bounds.
    """
    nowhen = jnp.zeros(observed.shape[:1])
    seen = noise.before(nowhen, observed, value, same=True).seen
    linked = noise.link(jnp.where(seen.there, observed, 1.0))
    if seen.bounds is not None:
        middle = noise.link(value)
        linked = (
            middle
            + within(seen, location - middle, jnp.where(scale > 0, jnp.square(scale), 1.0))[0]
        )
    return linked, seen.there


class Predicted(NamedTuple):
    """What is predicted at a position.

    Args:
        centre: the predictions by observable, and the mismatches.
        variances: those of the predictions, of a filter.
        ok: whether the solver succeeded.
    """

    centre: dict[str, Array]
    variances: dict[str, Array]
    ok: Array


type Enrich = Callable[[Model, Float[Array, " coefficient"]], Model]
"""A realised model with more in it, whose coefficients are 0 in the model itself."""


class Around:
    """The residuals of a problem around any position, and their slopes by its numbers and by
    coefficients of more.

    Its programs are compiled once.

    Args:
        problem: the posterior.
        enrich: what the coefficients add to a model.
        coefficients: how many there are.
        at: a position like those that will be asked for.
    """

    def __init__(
        self,
        problem: Problem,
        enrich: Enrich,
        coefficients: int,
        at: Float[np.ndarray, " dimension"],
    ):
        self.problem, self.coefficients = problem.reversible(), coefficients
        self._enrich, self._forward = enrich, problem.forward()
        self._log_density = Program(self.problem.log_density)
        self._of_prior = Program(
            lambda x: (jax.grad(problem.log_prior)(x), jax.hessian(problem.log_prior)(x))
        )
        self._moved = Program(self._move)
        observed = self.problem.observed
        found = jax.eval_shape(self._moved, at, np.zeros((_BATCH, at.size + coefficients)))[2]
        sizes = {name: value.size for name, value in sorted(found.centre.items())}
        rows = [~np.isnan(np.asarray(observed[n])).ravel() if n in observed else np.ones(size, bool)
                for n, size in sizes.items()]  # fmt: skip
        self._seen = np.concatenate(rows)
        self.series = self._series(sizes)

    def _series(self, sizes: dict[str, int]) -> Series:
        """The order of the data: each observable is a series at each place or of each member."""
        times, observed = np.asarray(self.problem.inputs.times, float), self.problem.observed
        before, steps, start = np.full(self._seen.size, -1), np.ones(self._seen.size), 0
        for name, size in sizes.items():
            if name in observed:
                places = size // len(times)
                at = np.broadcast_to(times.reshape(len(times), -1), (len(times), places))
                rows = start + np.arange(size).reshape(len(times), places)
                for own, when in zip(rows.T, at.T, strict=True):
                    seen = self._seen[own]
                    before[own[seen][1:]], steps[own[seen][1:]] = (
                        own[seen][:-1],
                        np.diff(when[seen]),
                    )
            start += size
        place = np.cumsum(self._seen) - 1
        before, steps = before[self._seen], steps[self._seen]
        usual = np.median(steps[(before >= 0) & (steps > 0)]) if (before >= 0).any() else 1.0
        # Replicates at one time count as a step apart.
        return Series(np.where(before >= 0, place[before], -1), np.maximum(steps / usual, 1.0))

    def likeliest(
        self, positions: Float[np.ndarray, "n dimension"]
    ) -> Float[np.ndarray, " dimension"]:
        """The position of the highest density.

        Raises:
            ModelError: if all are such that a solver fails.
        """
        densities = [self._density(x) for x in positions]
        if not np.isfinite(max(densities)):
            raise ModelError(
                f"the log density is finite at none of {len(densities)} draws of this posterior"
            )
        return positions[np.argmax(densities)]

    def best(
        self, x: Float[np.ndarray, " dimension"]
    ) -> tuple[Float[np.ndarray, " dimension"], bool]:
        """The position to which steps of Gauss and Newton lead, and whether they came to an end.

        Numbers that move no prediction stay as they are.
        """
        value = self._density(x)
        for _ in range(_STEPS):
            linear, _, moving = self._linear(x, 0)
            step = np.zeros_like(x)
            pull = linear.slopes.T @ linear.left + linear.pull
            step[moving] = np.linalg.solve(linear.slopes.T @ linear.slopes + linear.precision, pull)
            for i in range(_HALVINGS):
                tried = x + step / 2**i
                if (higher := self._density(tried)) > value:
                    break
            else:
                return x, True
            gained, x, value = higher - value, tried, higher
            if gained < _ENOUGH:
                return x, True
        return x, False

    def linear(
        self, x: Float[np.ndarray, " dimension"], replicates: int, *, key: Array
    ) -> tuple[Linear, Float[np.ndarray, "datum coefficient"]]:
        """The residuals as linear around a position, and by how much predictions move with the
        coefficients.

        Replicates are of data that the model draws there itself; where noise looks back, or data
        are censored, of standard normal residuals.
        """
        linear, along, _ = self._linear(x, self.coefficients)
        found = self._moved(x, np.zeros((_BATCH, x.size + self.coefficients)))[2]
        keys = jax.random.split(key, replicates)
        noise = Program(self._replicates)(x, found, keys)
        return linear._replace(noise=np.asarray(noise)[:, self._seen]), along

    def _density(self, x: np.ndarray) -> float:
        value = float(self._log_density(x))
        return value if np.isfinite(value) else -np.inf

    def _linear(self, x: np.ndarray, coefficients: int) -> tuple[Linear, np.ndarray, np.ndarray]:
        """Without replicates; the slopes by so many of the coefficients; and which of its numbers
        move predictions.
        """
        every = np.eye(x.size + coefficients, x.size + self.coefficients)
        parts, left = [], np.zeros(0)
        for start in range(0, len(every), _BATCH):
            part = every[start : start + _BATCH]
            filled = np.concatenate([part, np.zeros((_BATCH - len(part), every.shape[1]))])
            slopes, left, _ = self._moved(x, filled)
            parts.append(np.asarray(slopes)[: len(part)])
        slopes, left = np.concatenate(parts).T[self._seen], np.asarray(left)[self._seen]
        pull, curvature = map(np.asarray, self._of_prior(x))
        moving = np.flatnonzero(np.abs(slopes[:, : x.size]).max(axis=0) > 0)
        precision = _positive(-curvature[np.ix_(moving, moving)])
        linear = Linear(left, slopes[:, moving], pull[moving], precision, np.zeros((0, len(left))))
        return linear, slopes[:, x.size :], moving

    def _move(
        self, x: Array, directions: Float[Array, "batch number"]
    ) -> tuple[Array, Array, Predicted]:
        """By how much predictions move along some directions, in units of their noise, and what is
        left of the data.
        """
        problem = self._forward
        held = realise(problem.model, problem.constrain(x))

        def fallen(x, coefficients):
            realised = self._enrich(realise(problem.model, problem.constrain(x)), coefficients)
            prediction = realised.predict(problem.inputs)
            values = with_mismatches(problem, prediction)
            found = Predicted(values, dict(prediction.variances), prediction.ok)
            found = jax.lax.stop_gradient(found)
            return -residuals(problem, held, found.centre, found.variances, values), found

        def along(direction):
            parts = direction[: x.size], direction[x.size :]
            _, slope, found = jax.jvp(
                fallen, (x, jnp.zeros(self.coefficients)), parts, has_aux=True
            )
            return slope, found

        slopes, found = jax.vmap(along, out_axes=(0, None))(directions)
        sound = found.ok & jnp.isfinite(slopes)
        left = self._left(held, found, problem.observed)
        return jnp.where(sound, slopes, 0.0), jnp.where(jnp.isfinite(left), left, 0.0), found

    def _left(
        self, realised: Model, found: Predicted, observed: dict[str, Array]
    ) -> Float[Array, " datum"]:
        """The slope of the log likelihood by the prediction of each datum, over what the datum
        tells of it.

        Of normal noise these are the residuals; of others numbers of mean 0 in a model that is
        right.
        """
        problem = dataclasses.replace(self.problem, observed=observed)
        plain = residuals(problem, realised, found.centre, found.variances, found.centre)
        free = [name for name in observed if not realised.noise_of(name).looks_back]

        def log_likelihood(values):
            prediction = self._given(found, values)
            laws, total = realised.conditional(prediction, problem.inputs), jnp.zeros(())
            for name in free:
                total += jnp.sum(masked_log_prob(laws[name], observed[name]))
            return total

        slopes = jax.grad(log_likelihood)({name: found.centre[name] for name in free})
        parts, start = [], 0
        for name, value in sorted(found.centre.items()):
            own, start = plain[start : start + value.size], start + value.size
            if name in slopes:
                noise = realised.noise_at(name, found.centre, problem.inputs)
                _, by_link = jax.jvp(noise.link, (value,), (jnp.ones_like(value),))
                tells = (
                    jnp.broadcast_to(noise.spread(value, found.variances.get(name)), value.shape)
                    / by_link
                )
                own = jnp.where(jnp.isfinite(tells), slopes[name] * tells, 0.0).ravel()
            parts.append(own)
        return jnp.concatenate(parts)

    def _given(self, found: Predicted, values: dict[str, Array]) -> Prediction:
        every = {**found.centre, **values}
        return Prediction(every, jnp.asarray(True), variances=found.variances, before=every)

    def _replicates(
        self, x: Array, found: Predicted, keys: Array
    ) -> Float[Array, "replicate datum"]:
        """What is left of data that the model draws itself."""
        problem, observed = self.problem, self.problem.observed
        realised = realise(problem.model, problem.constrain(x))
        laws = realised.conditional(self._given(found, {}), problem.inputs)
        drawn = [
            n
            for n in laws
            if not realised.noise_of(n).looks_back and not hasattr(laws[n], "uncensored")
        ]
        normal = jnp.concatenate(
            [jnp.full(v.size, n not in drawn) for n, v in sorted(found.centre.items())]
        )
        cross = problem.model.cross_correlation

        def one(key):
            of_data, of_rest = jax.random.split(key)
            own = dict(zip(laws, jax.random.split(of_data, len(laws)), strict=True))
            own |= (
                {} if cross is None else dict.fromkeys(cross.observables, of_data)
            )  # by one key they hold together
            made = {
                n: jnp.where(jnp.isnan(observed[n]), jnp.nan, laws[n].sample(own[n])) for n in drawn
            }
            left = self._left(realised, found, observed | made)
            return jnp.where(normal, jax.random.normal(of_rest, normal.shape), left)

        return jax.lax.map(one, keys, batch_size=_BATCH)


def _positive(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """A symmetric matrix that is nowhere flatter than the flattest prior."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, _FLATTEST)) @ vectors.T

"""Residuals that are correlated along the index: each datum is judged by what those before it have said."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from .._statistics.describe_distributions import may_be_negative
from ..errors import ModelError
from ..random import Scalar, is_random
from .base import SMALLEST, AbstractNoise, VaryingScale
from .processes import AbstractProcess


class Before(NamedTuple):
    """What was seen of an observable before it is asked for.

    Args:
        times: when, which rise, `(past,)`.
        residuals: data minus predictions on the scale of `link`, `(past, …)`; anything where missing.
        seen: where they are not missing.
        white: the standard deviation of the white noise of each.
        same: whether the times asked for are these.
    """

    times: Float[Array, " past"]
    residuals: Float[Array, "past ..."]
    seen: Bool[Array, "past ..."]
    white: Float[Array, "past ..."]
    same: bool


class CorrelatedNoise(AbstractNoise):
    r"""Correlated residuals: $y(t) = z(t) + x(t) + \epsilon(t)$.

    x is a process along the index, such as `bd.AR1`, the same for each place or member but drawn for each anew; ε is
    white. A datum is judged by its distribution given those before it, by a Kalman filter over the residuals: their
    product is the exact joint density, and no matrix of all data is made. A forecast goes on from the last residuals,
    and its draws hold together over the times asked for.

    Args:
        process: that of x: `bd.AR1`, `bd.OrnsteinUhlenbeck`, `bd.Matern32` or, where the model is known to drift,
            `bd.RandomWalk`.
        white: the standard deviation of ε, in the units of the observable; 0 for none, or a `VaryingScale`.

    Raises: ModelError for what is no process, a white noise that may be negative, or none beside a `RandomWalk`, whose
    start has no noise of its own; by the model, for a layer that is a filter itself.
    Source: Särkkä & Solin (2019), Applied Stochastic Differential Equations, chapter 10.
    """

    process: AbstractProcess
    white: Scalar | VaryingScale = 0.0
    positive: ClassVar[tuple[str, ...]] = ()
    in_units_of_data: ClassVar[tuple[str, ...]] = ("white", "process.scale")
    looks_back: ClassVar[bool] = True
    not_inside: ClassVar[str] = "it judges a datum given those before it, of which the other noise would know nothing"

    def __check_init__(self):
        if not isinstance(self.process, AbstractProcess):
            raise ModelError(f"process must be one such as bd.AR1 or bd.OrnsteinUhlenbeck, not {self.process!r}")
        none = not is_random(self.white) and not isinstance(self.white, VaryingScale) and _is_zero(self.white)
        if not none and may_be_negative(self.white):
            raise ModelError(
                f"white must be positive, a distribution of positive numbers, or 0 for none, not {self.white}"
            )
        if none and self.process.begins is not None:
            raise ModelError(
                f"{type(self.process).__name__} begins at zero, where data would have no noise at all: give white "
                "noise beside it"
            )

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        """The distribution of each datum where nothing is known of others."""
        return self._around(self.link(prediction), self.spread(prediction))

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        usual = self.process.variance + jnp.square(jnp.asarray(self.white))
        return jnp.broadcast_to(jnp.sqrt(usual), prediction.shape)

    def before(
        self,
        times: Float[Array, " past"],
        data: Float[Array, "past ..."],
        prediction: Float[Array, "past ..."],
        *,
        same: bool,
    ) -> Before:
        """What was seen, as residuals.

        Args:
            times: when, which rise.
            data: NaN where missing, in the units of the observable.
            prediction: that of the observable at these times, likewise.
            same: whether the times that are asked for are these.
        """
        seen = ~jnp.isnan(data)
        residuals = self.link(jnp.where(seen, data, 1.0)) - self.link(prediction)
        return Before(times, residuals, seen, jnp.broadcast_to(jnp.asarray(self.white, float), data.shape), same)

    def given(
        self,
        prediction: Float[Array, "time ..."],
        times: Float[Array, " time"],
        before: Before | None,
        variance: Float[Array, "time ..."] | None = None,
    ) -> dist.Distribution:
        """The distribution of each datum given those before it; drawn from, they hold together.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            times: those of the prediction, which never fall.
            before: what was seen; none for draws from what is known of no datum.
            variance: that of the prediction itself, which must be none.

        Raises: ModelError for such a variance.
        """
        if variance is not None:
            raise ModelError(f"a layer that predicts a variance too needs bd.NormalNoise, not {type(self).__name__}")
        process, white = self.process, jnp.broadcast_to(jnp.asarray(self.white, float), prediction.shape)
        if before is None:
            nothing = jnp.zeros((0, *prediction.shape[1:]))
            before = Before(times[:0], nothing, nothing.astype(bool), nothing, False)
        beliefs = _filtered(process, before, _origin(process, times, before))
        # How many rows lie before each time: those at the same time do not.
        rows = jnp.arange(times.size) if before.same else jnp.searchsorted(before.times, times)
        last = _Belief(*(part[rows] for part in beliefs))
        counted = jnp.cumsum(before.seen, axis=0, dtype=int)
        number = jnp.concatenate([jnp.zeros_like(counted, shape=(1, *prediction.shape[1:])), counted])[rows]
        anew = jnp.concatenate([jnp.ones_like(number[:1], bool), number[1:] != number[:-1]])
        path = _Path(process, times, last, anew, self.link(prediction), white)
        ahead = _moved(process, last, times)
        scale = jnp.sqrt(jnp.maximum(ahead.covariance[..., 0, 0], 0.0) + jnp.square(white))
        alone = self._around(self.link(prediction) + ahead.mean[..., 0], scale)
        return Autocorrelated(alone, path)

    def _around(self, location: Array, scale: Array) -> dist.Distribution:
        return dist.Normal(location, scale)


class CorrelatedLogNoise(CorrelatedNoise):
    r"""`CorrelatedNoise` on the log scale: $\log y(t) = \log z(t) + x(t) + \epsilon(t)$.

    Args:
        process: that of x, whose scale has no unit: 0.1 is about a tenth.
        white: the standard deviation of ε, which has no unit; 0 for none, or a `VaryingScale`.

    Raises: ModelError as `CorrelatedNoise` does.
    """

    in_units_of_data: ClassVar[tuple[str, ...]] = ()

    @property
    def support(self) -> constraints.Constraint:
        return constraints.positive

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return jnp.log(jnp.maximum(values, SMALLEST))

    def _around(self, location: Array, scale: Array) -> dist.Distribution:
        return dist.LogNormal(location, scale)


class Autocorrelated(dist.Distribution):
    """Data of which each has a distribution given those before it, and which are drawn together.

    Args:
        alone: the distribution of each, normal or a transformed normal.
        path: a function of a key that draws all of them, before they are transformed.
    """

    pytree_data_fields = ("alone", "path")

    def __init__(self, alone: dist.Distribution, path: Any):
        self.alone, self.path = alone, path
        super().__init__(alone.batch_shape)

    @property
    def support(self) -> Any:
        return self.alone.support

    @property
    def mean(self) -> Array:
        return self.alone.mean

    @property
    def variance(self) -> Array:
        return self.alone.variance

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        draw = self.path
        for _ in sample_shape:
            draw = jax.vmap(draw)
        values = draw(jax.random.split(key, sample_shape) if sample_shape else key)
        for transform in getattr(self.alone, "transforms", ()):
            values = transform(values)
        return values

    def log_prob(self, value: Any) -> Any:
        return self.alone.log_prob(value)


class _Belief(NamedTuple):
    """What is known of the process at some times: of each row, place or member."""

    time: Float[Array, "..."]
    mean: Float[Array, "... state"]
    covariance: Float[Array, "... state state"]


class _Path(eqx.Module):
    """What paths through the times that are asked for are drawn from."""

    process: AbstractProcess
    times: Float[Array, " time"]
    last: _Belief  # before each time, given the data
    anew: Bool[Array, "time ..."]  # whether a datum lies between this time and the one before
    place: Float[Array, "time ..."]
    white: Float[Array, "time ..."]

    def __call__(self, key: Array) -> Float[Array, "time ..."]:
        """One path: what is drawn counts as a datum until the next one."""
        noise = jax.random.normal(key, self.place.shape)
        start = jax.tree.map(lambda part: part[0], self.last)

        def step(belief: _Belief, at: tuple) -> tuple[_Belief, Array]:
            time, last, anew, white, xi = at
            begun = _Belief(*(_where(anew, a, b) for a, b in zip(last, belief, strict=True)))
            ahead = _moved(self.process, begun, time)
            total = jnp.maximum(ahead.covariance[..., 0, 0], 0.0) + jnp.square(white)
            drawn = ahead.mean[..., 0] + jnp.sqrt(total) * xi
            return _told(ahead, drawn, total, total > 0), drawn

        _, paths = jax.lax.scan(step, start, (self.times, self.last, self.anew, self.white, noise))
        return self.place + paths


def _origin(process: AbstractProcess, times: Array, before: Before) -> Array:
    """When nothing was known yet: where it begins, or the first of all times for what has always been."""
    if process.begins is not None:
        return jnp.asarray(process.begins, float)
    return jnp.min(jnp.concatenate([times, before.times]))


def _filtered(process: AbstractProcess, before: Before, origin: Array) -> _Belief:
    """Beliefs before anything was seen and after each past row, `(1 + past, …)`."""
    places = before.residuals.shape[1:]
    covariance = jnp.broadcast_to(jnp.asarray(process.first), (*places, *jnp.shape(process.first)[-2:]))
    first = _Belief(jnp.broadcast_to(origin, places), jnp.zeros(covariance.shape[:-1]), covariance)

    def step(belief: _Belief, at: tuple) -> tuple[_Belief, _Belief]:
        time, residual, seen, white = at
        ahead = _moved(process, belief, time)
        total = ahead.covariance[..., 0, 0] + jnp.square(white)
        after = _told(ahead, residual, total, seen & (total > 0))
        return after, after

    rows = before.times, jnp.where(before.seen, before.residuals, 0.0), before.seen, before.white
    _, after = jax.lax.scan(step, first, rows)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, after)


def _moved(process: AbstractProcess, belief: _Belief, to: Array) -> _Belief:
    """The belief at a later time."""
    to = jnp.reshape(to, (*jnp.shape(to), *[1] * (belief.time.ndim - jnp.ndim(to))))
    flow, grown = process.over(jnp.maximum(to - belief.time, 0.0))
    mean = jnp.sum(flow * belief.mean[..., None, :], axis=-1)
    covariance = _product(_product(flow, belief.covariance), jnp.swapaxes(flow, -1, -2)) + grown
    return _Belief(jnp.broadcast_to(to, belief.time.shape), mean, covariance)


def _told(ahead: _Belief, residual: Array, total: Array, seen: Array) -> _Belief:
    """The belief once a residual is known, whose variance was `total`."""
    gain = ahead.covariance[..., 0] / jnp.where(seen, total, 1.0)[..., None]
    gain = jnp.where(seen[..., None], gain, 0.0)
    mean = ahead.mean + gain * (residual - ahead.mean[..., 0])[..., None]
    covariance = ahead.covariance - gain[..., :, None] * ahead.covariance[..., None, 0, :]
    return ahead._replace(mean=mean, covariance=covariance)


def _product(a: Array, b: Array) -> Array:
    # Sums of a few products, which fuse: a matrix product of two by two costs more by its call.
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def _where(condition: Array, a: Array, b: Array) -> Array:
    return jnp.where(jnp.reshape(condition, (*condition.shape, *[1] * (a.ndim - condition.ndim))), a, b)


def _is_zero(value: Any) -> bool:
    return eqx.is_array_like(value) and not isinstance(value, Tracer) and jnp.ndim(value) == 0 and value == 0

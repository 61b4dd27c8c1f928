"""Correlated noise: earlier residuals, and the distribution of each datum given these."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from .._statistics.distributions import Hurdle
from .._statistics.tails import log_tails, truncated_moments


class Seen(NamedTuple):
    """The residuals of an observable at some times.

    Args:
        residuals: data minus predictions on the scale of `AbstractNoise.link`. Any number where the
            datum is missing.
        there: flags of the residuals whose datum is not missing.
        bounds: the lower and the upper bounds of the residuals. Both are infinite for a residual
            that is not censored. None if no residual can be censored.
    """

    residuals: Float[Array, "time ..."]
    there: Bool[Array, "time ..."]
    bounds: tuple[Float[Array, "time ..."], Float[Array, "time ..."]] | None = None


class Before(NamedTuple):
    """The earlier residuals of an observable, and their white noise.

    Args:
        times: their increasing times, `(past,)`.
        seen: the residuals at these times, `(past, …)`.
        white: the standard deviation of the uncorrelated part of the noise, `(past, …)`.
        same: whether the times to predict are the same times.
    """

    times: Float[Array, " past"]
    seen: Seen
    white: Float[Array, "past ..."]
    same: bool


class Autocorrelated(dist.Distribution):
    """The joint distribution of autocorrelated data.

    `mean`, `variance` and `log_prob` are those of each datum given all earlier data. `sample` draws
    all data jointly.

    Args:
        alone: the distribution of each datum given earlier data, normal or a transformed normal.
        path: a function of a random key that draws all data jointly, before the transforms of
            `alone` are applied.
    """

    pytree_data_fields = ("alone", "path")

    def __init__(self, alone: dist.Distribution, path: Any):
        self.alone = alone
        self.path = path
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

    def log_tails(self, value: Any) -> Any:
        """Return log P(Y ≤ value) and log P(Y > value) for each datum Y, given earlier data."""
        return log_tails(self.alone, value)

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


def on_link(law: Any) -> tuple[Array, Array]:
    """Return the parameters of the normal distribution of each datum on the scale of `link`.

    Args:
        law: the distribution of data with correlated noise, an `Autocorrelated` that may be
            censored.

    Returns:
        The location and the scale of each datum given earlier data, both `(time, …)`.
    """
    alone = getattr(law, "uncensored", law).alone
    amounts: Any = alone.base_dist if isinstance(alone, Hurdle) else alone
    return amounts.loc, amounts.scale


def within(seen: Seen, expected: Array, variance: Array) -> tuple[Array, Array | None]:
    """Return the mean and the relative variance of each residual, given its bounds.

    A censored residual has a truncated normal distribution between its bounds.

    Args:
        seen: the residuals.
        expected: their means given earlier data.
        variance: their positive variances given earlier data.

    Returns:
        The means, and the variances as shares of `variance`, which are 0 for residuals that are not
        censored. The second is None if no residual can be censored.
    """
    if seen.bounds is None:
        return seen.residuals, None
    scale = jnp.sqrt(variance)
    # 1. Standardise the bounds. Infinite ones are masked first: their gradient would be ∞ · 0.
    low, high = seen.bounds
    no_low = jnp.isinf(low)
    no_high = jnp.isinf(high)
    low = jnp.where(no_low, expected, low)
    high = jnp.where(no_high, expected, high)
    low = jnp.where(no_low, -jnp.inf, (low - expected) / scale)
    high = jnp.where(no_high, jnp.inf, (high - expected) / scale)
    # 2. Moments of the truncated normal; a measured residual is known exactly.
    measured = no_low & no_high
    mean, left = truncated_moments(low, high)
    mean = jnp.where(measured, seen.residuals, expected + scale * mean)
    return mean, jnp.where(measured, 0.0, left)

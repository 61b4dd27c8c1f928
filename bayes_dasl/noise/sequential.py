"""Noise that looks back: what it remembers of past data, and the distribution of each datum given
those.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from .._statistics.distributions import Hurdle
from .._statistics.tails import log_tails, truncated_moments


class Seen(NamedTuple):
    """Residuals of an observable at some times.

    Args:
        residuals: data minus predictions on the scale of `link`; any number where missing.
        there: where they are not missing.
        bounds: the lower and upper bound of each censored residual; −∞ and ∞ for one that was
            measured. None if nothing can be censored.
    """

    residuals: Float[Array, "time ..."]
    there: Bool[Array, "time ..."]
    bounds: tuple[Float[Array, "time ..."], Float[Array, "time ..."]] | None = None


class Before(NamedTuple):
    """Data of an observable before the time of interest.

    Args:
        times: increasing, `(past,)`.
        seen: residuals at these times, `(past, …)`.
        white: the standard deviation of the white noise of each.
        same: whether the times of interest are these.
    """

    times: Float[Array, " past"]
    seen: Seen
    white: Float[Array, "past ..."]
    same: bool


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

    def log_tails(self, value: Any) -> Any:
        """The logarithms of P(Y ≤ value) and P(Y > value) of each datum."""
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
    """The location and scale of each datum given those before it, on the scale of `link`.

    Args:
        law: the distribution that a noise which looks back gives the data.
    """
    alone = getattr(law, "uncensored", law).alone
    amounts: Any = alone.base_dist if isinstance(alone, Hurdle) else alone
    return amounts.loc, amounts.scale


def within(seen: Seen, expected: Array, variance: Array) -> tuple[Array, Array | None]:
    """The mean of each residual given its bounds, and the share of its variance that these leave:
    none if measured.

    Args:
        seen: residuals.
        expected: their means before they were seen.
        variance: their variances then, positive.
    """
    if seen.bounds is None:
        return seen.residuals, None
    scale = jnp.sqrt(variance)
    # Infinite bounds are masked before they are scaled: their gradient would be infinity times
    # zero.
    ends = [
        (jnp.isinf(bound), jnp.where(jnp.isinf(bound), expected, bound)) for bound in seen.bounds
    ]
    (no_low, low), (no_high, high) = ends
    low = jnp.where(no_low, -jnp.inf, (low - expected) / scale)
    high = jnp.where(no_high, jnp.inf, (high - expected) / scale)
    measured = no_low & no_high
    mean, left = truncated_moments(low, high)
    return jnp.where(measured, seen.residuals, expected + scale * mean), jnp.where(
        measured, 0.0, left
    )

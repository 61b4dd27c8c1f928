"""Distributions that NumPyro does not have."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr, ndtr, ndtri
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes

from .tails import Tails, censored_log_prob, log_between, log_tails, tails_where

_TINY = 1e-300
# With 100 instead of 48 nodes, moments change by a relative 1e-11 at most.
_GAUSS = np.polynomial.legendre.leggauss(48)
# Quadrature covers this number of standard deviations on each side; the second number limits how
# much more it covers for skewed distributions.
_WIDE, _MOST_SPREAD = 9.0, 5.0
# Beyond this number of standard deviations, the asymptotic tail of the normal density is exact.
_FAR = 30.0
# Replaces zero in a Box–Cox transform without shift, since log(0) is infinite.
_NEXT_TO_ZERO = 1e-12
# The number of rounds in which a hurdle redraws zeros; a draw that is then still zero becomes 1.
_ROUNDS = 50


class CensoredLaw(dist.Distribution):
    """A distribution of data that are either measured or only known to lie between bounds.

    Draws and moments are those of the uncensored distribution.

    Args:
        uncensored: the distribution of the values themselves.
        bounds: a function of values that returns the lower and upper bound of each value. Both
            equal the value if it was measured.
    """

    pytree_data_fields = ("uncensored", "bounds")

    def __init__(self, uncensored: Any, bounds: Callable[[Any], tuple[Any, Any]]):
        self.uncensored, self.bounds = uncensored, bounds
        super().__init__(uncensored.batch_shape)

    @property
    def support(self) -> Any:
        return self.uncensored.support

    @property
    def mean(self) -> Any:
        return self.uncensored.mean

    @property
    def variance(self) -> Any:
        return self.uncensored.variance

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.uncensored.sample(key, sample_shape)

    def log_prob(self, value: Any) -> Any:
        low, high = self.bounds(value)
        return censored_log_prob(self.uncensored, jnp.asarray(value), low, high)


def _promoted(*values: Any, shape: tuple[int, ...] = ()) -> Any:
    """Call NumPyro's `promote_shapes`, whose annotation is too wide for arithmetic."""
    return promote_shapes(*values, shape=shape)


class BoxCoxNormal(dist.Distribution):
    r"""A variable that is normal after a Box–Cox transform.

    $g(y) = ((y + c)^\lambda - 1) / \lambda$, or $\log(y + c)$ for λ = 0. For λ > 0 the transform
    has a lower end $-1/\lambda$, where the normal distribution is truncated.

    Args:
        loc: the location on the transformed scale.
        scale: the standard deviation on the transformed scale, before truncation.
        power: λ, not negative.
        shift: c.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "power": constraints.nonnegative,
        "shift": constraints.real,
    }

    def __init__(
        self,
        loc: Any,
        scale: Any,
        power: Any,
        shift: Any = 0.0,
        *,
        validate_args: bool | None = None,
    ):
        self.loc, self.scale, self.power, self.shift = _promoted(loc, scale, power, shift)
        shape = jax.lax.broadcast_shapes(*map(jnp.shape, (loc, scale, power, shift)))
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)  # pyright: ignore[reportArgumentType]
    def support(self) -> Any:
        return constraints.greater_than(-jnp.asarray(self.shift))

    @property
    def _end(self) -> Any:
        """The lower end of the transformed scale, in standard deviations from the location."""
        positive = self.power > 0
        end = -1 / jnp.where(positive, self.power, 1.0)
        return jnp.where(positive, (end - self.loc) / self.scale, -jnp.inf)

    @property
    def _log_kept(self) -> Any:
        """The log probability that the normal variable lies above the lower end."""
        finite = jnp.isfinite(self._end)
        return jnp.where(finite, log_ndtr(-jnp.where(finite, self._end, 0.0)), 0.0)

    def log_prob(self, value: Any) -> Any:
        value = jnp.asarray(value)
        z = (box_cox(value, self.power, self.shift) - self.loc) / self.scale
        # log |dg/dy| = (λ - 1) log(y + c).
        log_det = (self.power - 1) * jnp.log(value + self.shift) - jnp.log(self.scale)
        return -0.5 * jnp.square(z) - 0.5 * math.log(2 * math.pi) + log_det - self._log_kept

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self._back(normal_above(key, self._end, sample_shape + self.batch_shape))

    def _back(self, z: Any) -> Any:
        """Transform a standard normal variable z back to y."""
        return un_box_cox(self.loc + self.scale * z, self.power, self.shift)

    def _about_median(self, *orders: int) -> tuple[Any, ...]:
        """Return moments E[(y - median)^n] by Gauss–Legendre quadrature over the normal variable z.

        Args:
            orders: the powers n.
        """
        # 1. The interval [low, low + 2 half]: wider where the back-transform is steep.
        relative = self.scale / jnp.maximum(1 + self.power * self.loc, 1e-6)
        relative = jnp.minimum(relative, _MOST_SPREAD)
        low = jnp.maximum(self._end, -_WIDE)
        half = (jnp.maximum(low, 0.0) + _WIDE + 2 * relative - low) / 2
        log_weight = jnp.log(half) - 0.5 * math.log(2 * math.pi) - self._log_kept
        median = self._back(0.0)

        # 2. Sum weight · φ(z) · (y(z) - median)^n, one node at a time to save memory.
        def add(sums: Any, node: Any) -> Any:
            at, weight = node
            z = low + half * (1 + at)
            share = weight * jnp.exp(log_weight - 0.5 * jnp.square(z))
            away = self._back(z) - median
            return tuple(s + share * away**n for s, n in zip(sums, orders, strict=True)), None

        none = jnp.zeros(self.batch_shape)
        return jax.lax.scan(add, (none,) * len(orders), tuple(map(jnp.asarray, _GAUSS)))[0]

    @property
    def mean(self) -> Any:
        return self._back(0.0) + self._about_median(1)[0]

    @property
    def variance(self) -> Any:
        first, second = self._about_median(1, 2)
        return second - jnp.square(first)

    def log_tails(self, value: Any) -> Tails:
        possible = value > -jnp.asarray(self.shift)
        safe = jnp.where(possible, value, 1.0 - self.shift)
        z = (box_cox(safe, self.power, self.shift) - self.loc) / self.scale
        standard = dist.Normal(0.0, 1.0)
        up_to = log_between(standard, self._end, z) - self._log_kept
        beyond = log_between(standard, z, jnp.asarray(jnp.inf)) - self._log_kept
        return tails_where(possible, up_to, beyond)


class RectifiedBoxCoxNormal(BoxCoxNormal):
    r"""A normal variable x on the Box–Cox scale g, censored at zero.

    The value is zero for $x \le g(0)$, else $g^{-1}(x)$, with $g$ as in `BoxCoxNormal`.

    Args:
        loc: the mean of the normal variable.
        scale: its standard deviation.
        power: λ, not negative.
        shift: c, not negative.
    """

    @constraints.dependent_property(is_discrete=False, event_dim=0)  # pyright: ignore[reportArgumentType]
    def support(self) -> Any:
        return constraints.nonnegative

    @property
    def transforms(self) -> tuple[Callable[[Any], Any]]:
        """The map from the normal variable x to the value."""
        return (self._from_normal,)

    def _from_normal(self, latent: Any) -> Any:
        return jnp.where(latent > self._zero, un_box_cox(latent, self.power, self.shift), 0.0)

    @property
    def _zero(self) -> Any:
        return box_cox_of_zero(self.power, self.shift)

    @property
    def _end(self) -> Any:
        return (self._zero - self.loc) / self.scale

    @property
    def _log_kept(self) -> Any:
        return jnp.zeros(())

    def _back(self, z: Any) -> Any:
        return self._from_normal(self.loc + self.scale * z)

    def _z(self, value: Any) -> Any:
        positive = value > 0
        transformed = box_cox(jnp.where(positive, value, 1.0), self.power, self.shift)
        return jnp.where(positive, (transformed - self.loc) / self.scale, self._end)

    def log_prob(self, value: Any) -> Any:
        value = jnp.asarray(value)
        positive = value > 0
        of_positive = super().log_prob(jnp.where(positive, value, 1.0))
        return jnp.where(positive, of_positive, log_ndtr(self._end))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self._back(jax.random.normal(key, sample_shape + self.batch_shape))

    def cdf(self, value: Any) -> Any:
        return jnp.where(jnp.asarray(value) < 0, 0.0, ndtr(self._z(value)))

    def icdf(self, q: Any) -> Any:
        return self._back(ndtri(q))

    def _about_median(self, *orders: int) -> tuple[Any, ...]:
        # The positive part by quadrature; all zeros lie at -median.
        zeros = ndtr(self._end)
        median = self._back(0.0)
        positive = super()._about_median(*orders)
        pairs = zip(positive, orders, strict=True)
        return tuple(part + zeros * (-median) ** n for part, n in pairs)

    def log_tails(self, value: Any) -> Tails:
        z = self._z(jnp.asarray(value))
        return tails_where(jnp.asarray(value) >= 0, log_ndtr(z), log_ndtr(-z))


def normal_above(key: Any, end: Any, shape: tuple[int, ...]) -> Any:
    """Draw a standard normal variable that is truncated from below, also far out in its tail.

    NumPyro and JAX invert the distribution function, which equals 1 in floating point above 8.3.

    Args:
        key: the random seed.
        end: the lower end.
        shape: the shape of the draws.

    Returns:
        Draws of the given shape.
    """
    end = jnp.broadcast_to(end, shape)
    # 1. An end below zero: invert the distribution function Φ.
    near = jax.random.truncated_normal(key, jnp.minimum(end, 0.0), jnp.inf, dtype=end.dtype)
    share = jax.random.uniform(key, shape, end.dtype, minval=_TINY)
    # 2. An end above zero: invert the upper tail, z = -Φ⁻¹(u Φ(-end)) for uniform u.
    middling = -ndtri(jnp.maximum(share * ndtr(-end), _TINY))
    # 3. Far out the tail falls like exp(-z²/2): z² = end² - 2 log u.
    far = jnp.sqrt(jnp.square(jnp.maximum(end, 1.0)) - 2 * jnp.log(share))
    return jnp.where(end > _FAR, far, jnp.where(end > 0, middling, near))


def box_cox(value: Any, power: Any, shift: Any) -> Any:
    """Return the Box–Cox transform of positive `value + shift`.

    Args:
        value: the values.
        power: the power λ.
        shift: the shift c.

    Returns:
        The transformed values.
    """
    log = jnp.log(value + shift)
    # Near λ = 0 the formula is 0/0: use its expansion there.
    near = jnp.abs(power * log) < 1e-6
    safe = jnp.where(near, 1.0, power)
    away = jnp.expm1(safe * jnp.where(near, 1.0, log)) / safe
    return jnp.where(near, log * (1 + power * log / 2), away)


def box_cox_of_zero(power: Any, shift: Any) -> Any:
    """Return the Box–Cox transform of zero.

    Without a shift, it is the transform of 1e-12, where the logarithm is finite.

    Returns:
        One number for each power and shift.
    """
    return box_cox(jnp.where(jnp.asarray(shift) > 0, 0.0, _NEXT_TO_ZERO), power, shift)


def un_box_cox(transformed: Any, power: Any, shift: Any) -> Any:
    """Return the inverse of `box_cox`; below the lower end of the transform it returns `-shift`.

    Returns:
        The values before the transform.
    """
    product = power * transformed
    near = jnp.abs(product) < 1e-6
    safe = jnp.where(near, 1.0, power)
    log = jnp.log1p(jnp.where(near, 1.0, jnp.maximum(product, -1 + 1e-15))) / safe
    return jnp.exp(jnp.where(near, transformed * (1 - product / 2), log)) - shift


class Hurdle(dist.Distribution):
    """Zero with a given probability, else a positive draw of another distribution.

    NumPyro has a hurdle from 0.22 on. Its sampling does not end if the other distribution gives
    only zeros.

    Args:
        base_dist: the distribution of positive amounts, or of counts without its zeros.
        gate: the probability of zero.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"gate": constraints.unit_interval}
    pytree_data_fields = ("base_dist", "gate")

    def __init__(self, base_dist: Any, gate: Any, *, validate_args: bool | None = None):
        shape: Any = jax.lax.broadcast_shapes(jnp.shape(gate), base_dist.batch_shape)
        (self.gate,) = _promoted(gate, shape=shape)
        self.base_dist = base_dist.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=0)  # pyright: ignore[reportArgumentType]
    def support(self) -> Any:
        return constraints.nonnegative_integer if self._counts else constraints.nonnegative

    @property
    def _counts(self) -> bool:
        return bool(self.base_dist.support.is_discrete)

    @property
    def _log_positive(self) -> Any:
        """The log probability of a positive number under the other distribution."""
        if not self._counts:
            return jnp.zeros(())
        return jnp.log(-jnp.expm1(self.base_dist.log_prob(0.0)))

    def log_prob(self, value: Any) -> Any:
        value = jnp.asarray(value)
        positive = self.base_dist.log_prob(jnp.where(value == 0, 1.0, value)) - self._log_positive
        return jnp.where(value == 0, jnp.log(self.gate), jnp.log1p(-self.gate) + positive)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        key_zero, key = jax.random.split(key)
        zero = jax.random.bernoulli(key_zero, self.gate, sample_shape + self.batch_shape)
        drawn = self.base_dist.sample(key, sample_shape)
        if self._counts:
            # If all rounds give zero, positive counts are so rare that they are nearly always 1.
            def again(i, y):
                anew = self.base_dist.sample(jax.random.fold_in(key, i), sample_shape)
                return jnp.where(y == 0, anew, y)

            drawn = jnp.maximum(jax.lax.fori_loop(0, _ROUNDS, again, drawn), 1)
        return jnp.where(zero, jnp.zeros_like(drawn), drawn)

    def cdf(self, value: Any) -> Any:
        """Return P(Y ≤ value) for a hurdle of amounts.

        Like `icdf`, it does not hold for counts.

        Returns:
            The probability of each value.
        """
        positive = self.base_dist.cdf(jnp.where(value > 0, value, 1.0))
        found = self.gate + (1 - self.gate) * jnp.where(value > 0, positive, 0.0)
        return jnp.where(value < 0, 0.0, found)

    def icdf(self, q: Any) -> Any:
        share = (q - self.gate) / (1 - self.gate)
        positive = self.base_dist.icdf(jnp.clip(share, 1e-12, 1 - 1e-16))
        return jnp.where(share > 0, positive, 0.0)

    @property
    def mean(self) -> Any:
        return (1 - self.gate) * self.base_dist.mean / jnp.exp(self._log_positive)

    @property
    def variance(self) -> Any:
        # E[Y²] = (1 - gate) E[X²] / P(X > 0).
        square = self.base_dist.variance + jnp.square(self.base_dist.mean)
        square = square / jnp.exp(self._log_positive)
        return (1 - self.gate) * square - jnp.square(self.mean)

    def log_tails(self, value: Any) -> Tails:
        _, beyond = log_tails(self.base_dist, value)
        above = jnp.log1p(-self.gate) + beyond - self._log_positive
        return tails_where(value >= 0, jnp.log1p(-jnp.exp(above)), above)


NEW_DISTRIBUTIONS: dict[str, type[dist.Distribution]] = {
    law.__name__: law for law in (BoxCoxNormal, RectifiedBoxCoxNormal, Hurdle)
}
"""The distributions of this module that their parameters suffice to rebuild, by name."""

"""How residuals are correlated along the index:
linear Gaussian processes with the Markov property.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .._statistics.describe_distributions import bounds, describe_distribution, may_be_negative
from ..errors import ModelError
from ..random import Module, Scalar, check_scalar, is_random

_SMALLEST = 1e-12  # correlations: the logarithm of none has no derivative


class AbstractProcess(Module):
    r"""A Gaussian process whose future hangs on its present state $s$ alone, whose first number is
    the residual.

    $s(t + \Delta) \sim N(A(\Delta)\, s(t), Q(\Delta))$

    Its numbers may be those of each member of a population, `(member,)`, where lags are
    `(…, member)`. `positive` are the fields that must be.
    """

    positive: ClassVar[tuple[str, ...]] = ("scale",)

    def __check_init__(self):
        for name in self.positive:
            value, where = getattr(self, name), f"{type(self).__name__}.{name}"
            check_scalar(value, where)
            if may_be_negative(value):
                what = (
                    f"{describe_distribution(value)}, which may be negative"
                    if is_random(value)
                    else f"{value}"
                )
                raise ModelError(
                    f"{where} must be positive, or a distribution of positive numbers: not {what}"
                )

    @property
    def begins(self) -> float | None:
        """The time at which it is zero for certain; none where it has always been."""
        return None

    @property
    @abstractmethod
    def first(self) -> Float[Array, "*member state state"]:
        """The covariance of its state before anything was seen; its mean is zero."""

    @abstractmethod
    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        """A and Q.

        Args:
            lag: Δ, not negative, in the units of the index.
        """

    @property
    def variance(self) -> Float[Array, "*member"]:
        """A usual variance of the residual, in the square of its units."""
        return jnp.asarray(self.first)[..., 0, 0]

    @property
    def equation(
        self,
    ) -> tuple[Float[Array, "*member state state"], Float[Array, "*member state"]] | None:
        r"""F and l of the stochastic equation $ds = F s\,dt + l\,dW$ that it obeys, for a
        `CrossCorrelation`.

        None, as here, where it obeys none, or is not stationary.
        """
        return None


class OrnsteinUhlenbeck(AbstractProcess):
    r"""Residuals that forget with a time of their own: an autoregressive process of order one in
    continuous time.

    $\mathrm{cov}(x(t), x(t')) = \text{scale}^2\, e^{-|t - t'| / \text{time}}$

    Args:
        scale: their standard deviation, in the units of the observable (none on the log scale).
        time: after which their correlation has fallen to 1/e, in the units of the index.

    Raises:
        ModelError: for what is not positive.

    Source: Uhlenbeck & Ornstein (1930).
    """

    scale: Scalar
    time: Scalar
    positive: ClassVar[tuple[str, ...]] = ("scale", "time")

    @property
    def first(self) -> Float[Array, "*member state state"]:
        return jnp.square(jnp.asarray(self.scale, float))[..., None, None]

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        return _one_number(-lag / jnp.asarray(self.time), self.scale)

    @property
    def equation(self) -> tuple[Float[Array, "*member state state"], Float[Array, "*member state"]]:
        return _forgetting(1.0 / jnp.asarray(self.time), self.scale)


class AR1(AbstractProcess):
    r"""An autoregressive process of order one: `OrnsteinUhlenbeck` by the correlation of
    neighbours.

    $x_{i+1} = \phi\, x_i + \sqrt{1 - \phi^2}\, \text{scale}\; \epsilon_i$, and
    $\phi^{\Delta / \text{step}}$ between data that lie Δ apart.

    Args:
        scale: the standard deviation of x, in the units of the observable (none on the log scale);
            that of the innovations is $\sqrt{1 - \phi^2}$ of it.
        correlation: φ, of residuals that lie one `step` apart, between 0 and 1.
        step: how far apart these lie, in the units of the index.

    Raises:
        ModelError: for a scale or step that is not positive, or a correlation that may leave 0 to
            1.
    """

    scale: Scalar
    correlation: Scalar
    step: float = eqx.field(default=1.0, static=True, converter=float)

    def __check_init__(self):
        given: Any = self.correlation
        check_scalar(given, "AR1.correlation")
        if is_random(given):
            ends = bounds(given.support)
            fine = ends.get("lower", -1.0) >= 0 and ends.get("upper", 2.0) <= 1
        else:
            fine = isinstance(given, Tracer) or 0 <= float(given) < 1
        if not fine:
            what = describe_distribution(given) if is_random(given) else given
            raise ModelError(
                f"AR1.correlation must lie between 0 and 1, as dist.Uniform(0, 1) does, not {what}"
            )
        if not self.step > 0:
            raise ModelError(f"AR1: the step must be positive, not {self.step}")

    @property
    def first(self) -> Float[Array, "*member state state"]:
        return jnp.square(jnp.asarray(self.scale, float))[..., None, None]

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        return _one_number(lag / self.step * self._forgets, self.scale)

    @property
    def equation(self) -> tuple[Float[Array, "*member state state"], Float[Array, "*member state"]]:
        return _forgetting(-self._forgets / self.step, self.scale)

    @property
    def _forgets(self) -> Float[Array, "*member"]:
        return jnp.log(jnp.maximum(jnp.asarray(self.correlation), _SMALLEST))


class Matern32(AbstractProcess):
    r"""Residuals that run smoothly: a Gaussian process with Matérn's covariance of ν = 3/2.

    $\text{scale}^2
    (1 + \lambda |t - t'|)\, e^{-\lambda |t - t'|}, \quad \lambda = \sqrt 3 / \text{length}$

    Args:
        scale: their standard deviation, in the units of the observable (none on the log scale).
        length: over which they change, in the units of the index.

    Raises:
        ModelError: for what is not positive.

    Source: Hartikainen & Särkkä (2010), for the form that needs no matrix of all data.
    """

    scale: Scalar
    length: Scalar
    positive: ClassVar[tuple[str, ...]] = ("scale", "length")

    @property
    def first(self) -> Float[Array, "*member state state"]:
        # The second number is the slope in units of λ, so that both are of one size.
        return jnp.square(jnp.asarray(self.scale, float))[..., None, None] * jnp.eye(2)

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        x = jnp.sqrt(3.0) / jnp.asarray(self.length) * lag
        fade, twice = jnp.exp(-x), jnp.exp(-2 * x)
        flow = fade[..., None, None] * _matrix(1 + x, x, -x, 1 - x)
        grown = -jnp.expm1(-2 * x)
        of_one = _matrix(
            grown - 2 * x * (1 + x) * twice,
            2 * x**2 * twice,
            2 * x**2 * twice,
            grown + 2 * x * (1 - x) * twice,
        )
        return flow, jnp.square(jnp.asarray(self.scale))[..., None, None] * of_one

    @property
    def equation(self) -> tuple[Float[Array, "*member state state"], Float[Array, "*member state"]]:
        rate, scale = jnp.broadcast_arrays(
            jnp.sqrt(3.0) / jnp.asarray(self.length), jnp.asarray(self.scale)
        )
        none = jnp.zeros_like(rate)
        return _matrix(none, rate, -rate, -2 * rate), jnp.stack(
            [none, 2 * scale * jnp.sqrt(rate)], axis=-1
        )


class RandomWalk(AbstractProcess):
    r"""A discrepancy that begins at zero and wanders: nothing draws it back, and forecasts grow
    with the horizon.

    $\mathrm{var}(x(t)) = \text{scale}^2 (t - \text{start})$

    Given data it goes on from where they left it. It explains a trend as well as the model does:
    take it where the model is known to drift, beside a `white` noise of the data.

    Args:
        scale: how far it goes in a unit of the index (by the square root of time), in the units of
            the observable.
        start: where it is zero, such as the time of the initial state, in the units of the index.

    Raises:
        ModelError: for a scale that is not positive.
    """

    scale: Scalar
    start: float = eqx.field(static=True, converter=float)
    has_a_time: ClassVar[str] = "a RandomWalk"

    @property
    def begins(self) -> float | None:
        return self.start

    @property
    def first(self) -> Float[Array, "*member state state"]:
        return jnp.zeros((1, 1))

    @property
    def variance(self) -> Float[Array, "*member"]:
        return jnp.square(jnp.asarray(self.scale))

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        grown = jnp.square(jnp.asarray(self.scale)) * lag
        return jnp.ones_like(grown)[..., None, None], grown[..., None, None]


class White(AbstractProcess):
    r"""Residuals that forget at once: independent from time to time, for a `CrossCorrelation` of
    observables.

    Args:
        scale: their standard deviation, in the units of the observable (none on the log scale).

    Raises:
        ModelError: for a scale that is not positive.
    """

    scale: Scalar

    @property
    def first(self) -> Float[Array, "*member state state"]:
        return jnp.square(jnp.asarray(self.scale, float))[..., None, None]

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        anew = jnp.where(lag > 0, 1.0, 0.0)
        return (1.0 - anew)[..., None, None], (anew * jnp.square(jnp.asarray(self.scale)))[
            ..., None, None
        ]


def _forgetting(rate: Any, scale: Any) -> tuple[Array, Array]:
    """F and l of a stationary process of one number that forgets at a rate."""
    rate, scale = jnp.broadcast_arrays(jnp.asarray(rate, float), jnp.asarray(scale, float))
    return -rate[..., None, None], (scale * jnp.sqrt(2 * rate))[..., None]


def _one_number(logarithm: Any, scale: Any) -> tuple[Array, Array]:
    """A and Q of a stationary process of one number, from the logarithm of its correlation."""
    left = -jnp.expm1(2 * logarithm) * jnp.square(jnp.asarray(scale))
    return jnp.exp(logarithm)[..., None, None], left[..., None, None]


def _matrix(a: Array, b: Array, c: Array, d: Array) -> Array:
    return jnp.stack([jnp.stack([a, b], axis=-1), jnp.stack([c, d], axis=-1)], axis=-2)

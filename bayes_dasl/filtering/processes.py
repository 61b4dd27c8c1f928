"""Gaussian Markov processes for serially correlated residuals."""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .._statistics.describe_distributions import bounds, describe_distribution, may_be_negative
from ..errors import ModelError
from ..random import Module, Scalar, check_scalar, is_random

# The smallest correlation, since log(0) has no derivative.
_SMALLEST = 1e-12


class AbstractProcess(Module):
    r"""A Gaussian Markov process; the residual is the first element of its state s.

    $s(t + \Delta) \sim N(A(\Delta)\, s(t), Q(\Delta))$

    Its parameters may differ between groups of a population, with shape `(member,)`; lags Δ then
    have the shape `(…, member)`. `positive` names the fields that must be positive.
    """

    positive: ClassVar[tuple[str, ...]] = ("scale",)

    def __check_init__(self):
        for name in self.positive:
            value = getattr(self, name)
            where = f"{type(self).__name__}.{name}"
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
        """The time at which the process is exactly zero; None for a stationary process."""
        return None

    @property
    @abstractmethod
    def first(self) -> Float[Array, "*member state state"]:
        """The covariance of the state before any data; its mean is zero."""

    @abstractmethod
    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        """Return the transition matrix and the innovation covariance over a lag.

        Args:
            lag: Δ, not negative, in the units of the index.

        Returns:
            A(Δ) and Q(Δ).
        """

    @property
    def variance(self) -> Float[Array, "*member"]:
        """The variance of the residual, in the square of its units.

        For a `RandomWalk`, whose variance grows with time, it is the variance after one unit of the
        index.
        """
        return jnp.asarray(self.first)[..., 0, 0]

    @property
    def equation(
        self,
    ) -> tuple[Float[Array, "*member state state"], Float[Array, "*member state"]] | None:
        r"""F and l of the stochastic differential equation $ds = F s\,dt + l\,dW$ of the state s.

        `CrossCorrelation` needs it. It is None (the default) if there is no such equation or the
        process is not stationary.
        """
        return None


class _OneState(AbstractProcess):
    """A stationary process whose state is the residual itself, with a variance of scale²."""

    scale: Scalar

    @property
    def first(self) -> Float[Array, "*member state state"]:
        return jnp.square(jnp.asarray(self.scale, float))[..., None, None]


class OrnsteinUhlenbeck(_OneState):
    r"""An Ornstein–Uhlenbeck process: an AR(1) process in continuous time.

    $\mathrm{cov}(x(t), x(t')) = \text{scale}^2\, e^{-|t - t'| / \text{time}}$

    Args:
        scale: the standard deviation of the process x, in the units of the observable (none on the
            log scale).
        time: the time over which the correlation falls to 1/e, in the units of the index.

    Raises:
        ModelError: if the scale or the time may be zero or negative.

    Source: Uhlenbeck & Ornstein (1930).
    """

    time: Scalar
    positive: ClassVar[tuple[str, ...]] = ("scale", "time")

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        return _one_number(-lag / jnp.asarray(self.time), self.scale)

    @property
    def equation(self) -> tuple[Float[Array, "*member state state"], Float[Array, "*member state"]]:
        return _forgetting(1.0 / jnp.asarray(self.time), self.scale)


class AR1(_OneState):
    r"""A first-order autoregressive process: an `OrnsteinUhlenbeck` with given lag-one correlation.

    $x_{i+1} = \phi\, x_i + \sqrt{1 - \phi^2}\, \text{scale}\; \epsilon_i$

    At a distance Δ, values of x have the correlation $\phi^{\Delta / \text{step}}$.

    Args:
        scale: the standard deviation of x, in the units of the observable (none on the log scale).
            The standard deviation of the innovations is smaller by the factor $\sqrt{1 - \phi^2}$.
        correlation: φ, the correlation of residuals one `step` apart, between 0 and 1.
        step: the lag of the correlation φ, in the units of the index.

    Raises:
        ModelError: if the scale or the step is not positive, or the correlation may lie outside 0
            to 1.
    """

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

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        return _one_number(lag / self.step * self._log_correlation, self.scale)

    @property
    def equation(self) -> tuple[Float[Array, "*member state state"], Float[Array, "*member state"]]:
        return _forgetting(-self._log_correlation / self.step, self.scale)

    @property
    def _log_correlation(self) -> Float[Array, "*member"]:
        """Logarithm of the lag-one correlation."""
        return jnp.log(jnp.maximum(jnp.asarray(self.correlation), _SMALLEST))


class Matern32(AbstractProcess):
    r"""A smooth Gaussian process with Matérn covariance, ν = 3/2.

    $\text{scale}^2
    (1 + \lambda |t - t'|)\, e^{-\lambda |t - t'|}, \quad \lambda = \sqrt 3 / \text{length}$

    Args:
        scale: the standard deviation of the process, in the units of the observable (none on the
            log scale).
        length: the length scale, in the units of the index.

    Raises:
        ModelError: if the scale or the length may be zero or negative.

    Source: Hartikainen & Särkkä (2010), for the form that needs no covariance matrix of all data.
    """

    scale: Scalar
    length: Scalar
    positive: ClassVar[tuple[str, ...]] = ("scale", "length")

    @property
    def first(self) -> Float[Array, "*member state state"]:
        # The second element is the slope divided by λ, so that both have the same variance.
        return jnp.square(jnp.asarray(self.scale, float))[..., None, None] * jnp.eye(2)

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        # A = exp(F Δ) = e^{-x} [[1 + x, x], [-x, 1 - x]] with x = λ Δ.
        x = jnp.sqrt(3.0) / jnp.asarray(self.length) * lag
        fade, twice = jnp.exp(-x), jnp.exp(-2 * x)
        flow = fade[..., None, None] * _matrix(1 + x, x, -x, 1 - x)
        # Q = scale² (I - A Aᵀ), in a form that loses no digits for small x.
        grown = -jnp.expm1(-2 * x)
        shared = 2 * x**2 * twice
        of_one = _matrix(
            grown - 2 * x * (1 + x) * twice,
            shared,
            shared,
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
    r"""A random walk from zero, for a model whose residuals are known to drift.

    $\mathrm{var}(x(t)) = \text{scale}^2 (t - \text{start})$

    Forecasts continue from the last value of the walk x, and their intervals widen with the
    horizon. A random walk can explain a trend as well as the model does. Give the noise a `white`
    part too.

    Args:
        scale: the standard deviation of x after one unit of the index, in the units of the
            observable.
        start: the time at which x is zero, such as the time of the initial state, in the units of
            the index.

    Raises:
        ModelError: if the scale may be zero or negative.
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


class White(_OneState):
    r"""White noise, independent in time, for a `CrossCorrelation` of observables.

    Args:
        scale: the standard deviation, in the units of the observable (none on the log scale).

    Raises:
        ModelError: if the scale may be zero or negative.
    """

    def over(
        self, lag: Float[Array, "..."]
    ) -> tuple[Float[Array, "... state state"], Float[Array, "... state state"]]:
        # Replicates at one time share a value.
        anew = jnp.where(lag > 0, 1.0, 0.0)
        variance = anew * jnp.square(jnp.asarray(self.scale))
        return (1.0 - anew)[..., None, None], variance[..., None, None]


def _forgetting(rate: Any, scale: Any) -> tuple[Array, Array]:
    """Return F = -rate and l = scale √(2 rate) of a stationary scalar process."""
    rate, scale = jnp.broadcast_arrays(jnp.asarray(rate, float), jnp.asarray(scale, float))
    return -rate[..., None, None], (scale * jnp.sqrt(2 * rate))[..., None]


def _one_number(logarithm: Any, scale: Any) -> tuple[Array, Array]:
    """Return A = ρ and Q = scale² (1 - ρ²) of a stationary scalar process.

    `logarithm` is log ρ, the logarithm of the correlation over the lag.
    """
    left = -jnp.expm1(2 * logarithm) * jnp.square(jnp.asarray(scale))
    return jnp.exp(logarithm)[..., None, None], left[..., None, None]


def _matrix(a: Array, b: Array, c: Array, d: Array) -> Array:
    """Return the matrices [[a, b], [c, d]], one for each element of the arguments."""
    return jnp.stack([a, b, c, d], axis=-1).reshape(*a.shape, 2, 2)

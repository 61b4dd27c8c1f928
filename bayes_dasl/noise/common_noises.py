"""Common observation noise: normal, proportional, log-normal, Student's t, and noise of counts."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..errors import ModelError
from ..random import Scalar
from .abstract_noise import SMALLEST, AbstractNoise, PerDatum, VaryingScale, per_datum


class AbstractScaled(AbstractNoise):
    """Base class of noise with a scale, a known error of each datum, or both.

    Args:
        scale: the scale, or a `VaryingScale`; None if there is only a `known_error`.
        known_error: the measurement error of each datum, as the name of a variable of the data or a
            `PerDatum`. Its square is added to the square of the scale.

    Raises:
        ModelError: if both are None.
    """

    scale: Scalar | VaryingScale | PerDatum | None = None
    known_error: PerDatum | None = eqx.field(default=None, kw_only=True, converter=per_datum)
    in_units_of_data: ClassVar[tuple[str, ...]] = ("scale", "known_error")

    def __check_init__(self):
        kind = type(self).__name__
        if self.scale is None and self.known_error is None:
            raise ModelError(f"{kind} needs a scale, a known_error of each datum, or both")
        if not isinstance(self.known_error, PerDatum | None):
            raise ModelError(
                f"{kind}.known_error must be the name of a variable of the data, not "
                f"{self.known_error!r}"
            )

    def support_of(self, field: str) -> constraints.Constraint:
        # If there is a scale too, the known error of a datum may be zero.
        beside = field == "known_error" and self.scale is not None
        if beside:
            return constraints.nonnegative
        return constraints.positive

    @property
    def sigma(self) -> Any:
        r"""The total scale of each datum: $\sqrt{\text{scale}^2 + \text{known error}^2}$."""
        if self.known_error is None:
            return self.scale
        known = jnp.asarray(self.known_error)
        if self.scale is None:
            return known
        return jnp.hypot(jnp.asarray(self.scale), known)


class NormalNoise(AbstractScaled):
    r"""Normal noise of a datum y around its prediction z: $y \sim N(z, \sigma)$.

    Args:
        scale: σ, in the units of the observable, or a `VaryingScale`; None if there is only a
            `known_error`.
        known_error: the measurement error of each datum, in the same units, as the name of a
            variable of the data or a `PerDatum`: $\sigma^2 = \text{scale}^2 +
            \text{known\_error}^2$.

    Example:
        ```python
        noise = bd.NormalNoise(dist.HalfNormal(0.5))
        ```
    """

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.Normal(prediction, self.sigma)

    @property
    def variance(self) -> Float[Array, ""]:
        return jnp.asarray(self.sigma) ** 2


class CombinedNoise(AbstractNoise):
    r"""Normal noise with a constant and a proportional part: $y \sim N(z, \sqrt{a^2 + (b z)^2})$.

    y is the datum and z its prediction.

    Args:
        additive: a, the error for a prediction of zero, in the units of the observable. None for a
            purely proportional error.
        proportional: b, without a unit: 0.2 is an error of 20 % of a large prediction.
        known_error: the measurement error of each datum, in the units of the observable, as the
            name of a variable of the data or a `PerDatum`. Its square is added to the variance.

    Raises:
        ModelError: if a parameter may be negative.
    """

    additive: Scalar | None
    proportional: Scalar
    known_error: PerDatum | None = eqx.field(default=None, kw_only=True, converter=per_datum)
    positive: ClassVar[tuple[str, ...]] = ("additive", "proportional")
    in_units_of_data: ClassVar[tuple[str, ...]] = ("additive", "known_error")

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.Normal(prediction, jnp.sqrt(self._variance(jnp.square(prediction))))

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        r"""Return a normal distribution of the data around a prediction z that has a variance.

        With $E[z] = m$ and $\mathrm{Var}[z] = v$ its mean is m and its variance is
        $v + a^2 + b^2 (m^2 + v)$.
        """
        if variance is None:
            return self(prediction)
        return dist.Normal(
            prediction, jnp.sqrt(variance + self._variance(jnp.square(prediction) + variance))
        )

    def _variance(self, square: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Return the variance of the noise, given the mean of the squared prediction."""
        constant = sum(
            jnp.square(jnp.asarray(v)) for v in (self.additive, self.known_error) if v is not None
        )
        proportional = jnp.square(jnp.asarray(self.proportional)) * square
        # Purely proportional noise would have no density at a prediction of 0.
        return jnp.maximum(constant + proportional, SMALLEST**2)


class LogNormalNoise(AbstractScaled):
    r"""Log-normal noise: $\log y \sim N(\log z, \sigma)$, so that the prediction z is the median.

    y is the datum.

    Args:
        scale: σ, without a unit, or a `VaryingScale`; None if there is only a `known_error`.
        known_error: the standard error of each logarithm, as the name of a variable of the data or
            a `PerDatum`: $\sigma^2 = \text{scale}^2 + \text{known\_error}^2$.

    Example:
        ```python
        noise = bd.LogNormalNoise(dist.HalfNormal(0.5))
        ```
    """

    in_units_of_data: ClassVar[tuple[str, ...]] = ()

    @property
    def support(self) -> constraints.Constraint:
        return constraints.positive

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.LogNormal(self.link(prediction), self.sigma)

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return jnp.log(jnp.maximum(values, SMALLEST))

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        scale = jnp.broadcast_to(jnp.asarray(self.sigma), prediction.shape)
        if variance is None:
            return scale
        return jnp.sqrt(scale**2 + _log_variance(prediction, variance))

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """Return the distribution of the data around a prediction with a variance.

        The prediction is treated as a log-normal variable with mean `prediction` and `variance`.
        """
        if variance is None:
            return self(prediction)
        # The mean of a log-normal variable exceeds its median by half the log variance.
        middle = self.link(prediction) - _log_variance(prediction, variance) / 2
        return dist.LogNormal(middle, self.spread(prediction, variance))


def _log_variance(
    mean: Float[Array, "time ..."], variance: Float[Array, "time ..."]
) -> Float[Array, "time ..."]:
    r"""Return the variance of the logarithm of a log-normal variable: $\log(1 + v / m^2)$.

    m is its mean and v its variance.
    """
    return jnp.log1p(variance / jnp.square(jnp.maximum(mean, SMALLEST)))


class StudentTNoise(AbstractScaled):
    r"""Student's t noise, robust to outliers: $y \sim t_\nu(z, \sigma)$.

    y is the datum and z its prediction. The variance is infinite unless ν > 2.

    Args:
        scale: σ, in the units of the observable, or a `VaryingScale`; None if there is only a
            `known_error`.
        df: ν, the degrees of freedom; fewer give heavier tails.
        known_error: the measurement error of each datum, in the same units, as the name of a
            variable of the data or a `PerDatum`: $\sigma^2 = \text{scale}^2 +
            \text{known\_error}^2$.
    """

    df: Scalar = 4.0
    positive: ClassVar[tuple[str, ...]] = ("scale", "df")

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.StudentT(self.df, prediction, self.sigma)

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        # The variance may be infinite. So take the inverse root of the Fisher information of the
        # location, (ν + 1) / ((ν + 3) σ²).
        df = jnp.asarray(self.df)
        found = jnp.asarray(self.sigma) * jnp.sqrt((df + 3) / (df + 1))
        return jnp.broadcast_to(found, prediction.shape)


class PoissonNoise(AbstractNoise):
    r"""Poisson counts y with mean and variance z, the prediction: $y \sim \mathrm{Poisson}(z)$."""

    counts_by_moments: ClassVar[bool] = True

    @property
    def support(self) -> constraints.Constraint:
        return constraints.nonnegative_integer

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.Poisson(jnp.maximum(prediction, SMALLEST))


class NegativeBinomialNoise(AbstractNoise):
    """Negative binomial counts, whose mean is the prediction z and whose variance is $z + z^2 / k$.

    Args:
        concentration: k, without a unit. For large k the distribution is nearly Poisson.
    """

    concentration: Scalar
    positive: ClassVar[tuple[str, ...]] = ("concentration",)
    counts_by_moments: ClassVar[bool] = True

    @property
    def support(self) -> constraints.Constraint:
        return constraints.nonnegative_integer

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.NegativeBinomial2(jnp.maximum(prediction, SMALLEST), self.concentration)

"""Families of noise: normal, log-normal, Student's t, counts."""

from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..random import Scalar
from .base import SMALLEST, AbstractNoise, VaryingScale


class NormalNoise(AbstractNoise):
    r"""Normal noise: $y \sim N(z, \sigma)$.

    Args:
        scale: σ, in the units of the observable, or a `VaryingScale`.
    """

    scale: Scalar | VaryingScale
    in_units_of_data: ClassVar[tuple[str, ...]] = ("scale",)

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.Normal(prediction, self.scale)

    @property
    def variance(self) -> Float[Array, ""]:
        return jnp.asarray(self.scale) ** 2


class LogNormalNoise(AbstractNoise):
    r"""$\log y \sim N(\log z, \sigma)$: relative noise around the median z.

    Args:
        scale: σ, which has no unit, or a `VaryingScale`.
    """

    scale: Scalar | VaryingScale

    @property
    def support(self) -> constraints.Constraint:
        return constraints.positive

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.LogNormal(self.link(prediction), self.scale)

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return jnp.log(jnp.maximum(values, SMALLEST))

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        scale = jnp.broadcast_to(jnp.asarray(self.scale), prediction.shape)
        return scale if variance is None else jnp.sqrt(scale**2 + _log_variance(prediction, variance))

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """The distribution of the data around a prediction that is itself log-normal, with this mean and `variance`."""
        if variance is None:
            return self(prediction)
        middle = self.link(prediction) - _log_variance(prediction, variance) / 2
        return dist.LogNormal(middle, self.spread(prediction, variance))


def _log_variance(mean: Float[Array, "time ..."], variance: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
    """The variance of the logarithm of a log-normal number with this mean and variance."""
    return jnp.log1p(variance / jnp.square(jnp.maximum(mean, SMALLEST)))


class StudentTNoise(AbstractNoise):
    r"""$y \sim t_\nu(z, \sigma)$: robust to outliers; the variance is infinite unless ν > 2.

    Args:
        scale: σ, in the units of the observable, or a `VaryingScale`.
        df: ν, the degrees of freedom: the fewer, the heavier the tails.
    """

    scale: Scalar | VaryingScale
    df: Scalar = 4.0
    positive: ClassVar[tuple[str, ...]] = ("scale", "df")
    in_units_of_data: ClassVar[tuple[str, ...]] = ("scale",)

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.StudentT(self.df, prediction, self.scale)

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        # By the Fisher information of the location.
        df = jnp.asarray(self.df)
        return jnp.broadcast_to(jnp.asarray(self.scale) * jnp.sqrt((df + 3) / (df + 1)), prediction.shape)


class PoissonNoise(AbstractNoise):
    r"""$y \sim \mathrm{Poisson}(z)$: counts whose variance is their mean."""

    counts_by_moments: ClassVar[bool] = True

    @property
    def support(self) -> constraints.Constraint:
        return constraints.nonnegative_integer

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.Poisson(jnp.maximum(prediction, SMALLEST))


class NegativeBinomialNoise(AbstractNoise):
    """Over-dispersed counts: mean z, variance $z + z^2 / k$.

    Args:
        concentration: k, which has no unit: the larger, the nearer to `PoissonNoise`.
    """

    concentration: Scalar
    positive: ClassVar[tuple[str, ...]] = ("concentration",)
    counts_by_moments: ClassVar[bool] = True

    @property
    def support(self) -> constraints.Constraint:
        return constraints.nonnegative_integer

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.NegativeBinomial2(jnp.maximum(prediction, SMALLEST), self.concentration)

"""Observation noise: how a datum scatters around what the layer predicts."""

from abc import abstractmethod
from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ._errors import ModelError
from ._types import Scalar
from .random import Module

# A solver may step a hair below zero; rates and medians must stay positive.
_SMALLEST = 1e-12


class AbstractNoise(Module):
    """The distribution of a datum, given its prediction; its parameters may be random leaves."""

    counts: ClassVar[bool] = False
    """Whether data are counts 0, 1, 2, …"""
    positive: ClassVar[bool] = False
    """Whether data must be positive."""

    @abstractmethod
    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        """The distribution of the data, with the batch shape of the prediction."""

    @property
    def variance(self) -> Float[Array, ""]:
        """The variance of the noise, where it does not depend on the prediction.

        Raises: ModelError for a noise model that is not normal.
        """
        raise ModelError(f"a filtering layer needs bd.NormalNoise, not {type(self).__name__}")

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """The distribution of the data around a prediction that is uncertain by `variance` itself.

        Raises: ModelError for a variance where the noise is not normal.
        """
        if variance is None:
            return self(prediction)
        return dist.Normal(prediction, jnp.sqrt(variance + self.variance))


class NormalNoise(AbstractNoise):
    r"""$y \sim N(z, \sigma)$; `scale` σ in the units of the observable."""

    scale: Scalar

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.Normal(prediction, self.scale)

    @property
    def variance(self) -> Float[Array, ""]:
        return jnp.asarray(self.scale) ** 2


class LogNormalNoise(AbstractNoise):
    r"""$\log y \sim N(\log z, \sigma)$: relative noise around the median z; `scale` σ has no unit."""

    positive: ClassVar[bool] = True
    scale: Scalar

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.LogNormal(jnp.log(jnp.maximum(prediction, _SMALLEST)), self.scale)


class StudentTNoise(AbstractNoise):
    r"""$y \sim t_\nu(z, \sigma)$: robust to outliers; the variance is infinite unless `df` ν > 2."""

    scale: Scalar
    df: Scalar = 4.0

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.StudentT(self.df, prediction, self.scale)


class PoissonNoise(AbstractNoise):
    r"""$y \sim \mathrm{Poisson}(z)$: counts whose variance is their mean."""

    counts: ClassVar[bool] = True

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.Poisson(jnp.maximum(prediction, _SMALLEST))


class NegativeBinomialNoise(AbstractNoise):
    r"""Over-dispersed counts: mean z, variance $z + z^2 / k$; `concentration` k has no unit."""

    counts: ClassVar[bool] = True
    concentration: Scalar

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.NegativeBinomial2(jnp.maximum(prediction, _SMALLEST), self.concentration)

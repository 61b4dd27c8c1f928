"""Noise with extra zeros: zero-inflated counts, and hurdle models of zeros and positive data."""

from abc import abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._statistics.describe_distributions import bounds, describe_distribution
from .._statistics.distributions import Hurdle
from ..errors import ModelError
from ..random import Scalar, is_random
from .abstract_noise import AbstractNoise
from .sequential import Autocorrelated, Before


class AbstractWithZeros(AbstractNoise):
    """Base class of noise that mixes another noise with a share of zeros.

    Args:
        noise: the other noise.
        zeros: the share of zeros, between 0 and 1: a number, or a distribution such as
            `dist.Beta(1.0, 4.0)`.

    Raises:
        ModelError: if `noise` is no noise, or the share may lie outside 0 and 1.
    """

    noise: AbstractNoise
    zeros: Scalar
    positive: ClassVar[tuple[str, ...]] = ("zeros",)

    def __check_init__(self):
        kind = type(self).__name__
        if not isinstance(self.noise, AbstractNoise):
            raise ModelError(
                f"{kind} is around a noise such as bd.PoissonNoise, not {self.noise!r}"
            )
        self._refuse_noise()
        zeros: Any = self.zeros
        most = bounds(zeros.support).get("upper", jnp.inf) if is_random(zeros) else float(zeros)
        if most > 1 or (most == 1 and not is_random(self.zeros)):
            said = describe_distribution(self.zeros) if is_random(self.zeros) else self.zeros
            raise ModelError(
                f"{kind}.zeros must be a share between 0 and 1, such as dist.Beta(1.0, 4.0), not "
                f"{said}"
            )

    @abstractmethod
    def _refuse_noise(self) -> None:
        """Raise ModelError if the support of the other noise is not suitable."""

    def _possible(self) -> bool:
        """Whether the other noise has no negative data."""
        return bounds(self.noise.support).get("lower", -1.0) >= 0


class ZeroInflatedNoise(AbstractWithZeros):
    r"""Zero-inflated counts: a count is zero with an extra probability, else it follows a noise.

    $P(y) = \pi\, [y = 0] + (1 - \pi)\, p(y \mid z)$

    y is the count, z the prediction and p the distribution of the other noise. If the mean of p is
    z, the mean of y is $(1 - \pi) z$.

    Args:
        noise: the noise of the counts, such as `bd.NegativeBinomialNoise(3.0)`.
        zeros: π, the share of extra zeros: a number, or a distribution such as `dist.Beta(1.0,
            4.0)`.

    Raises:
        ModelError: if the noise is not for counts, or the share may lie outside 0 and 1.
    """

    def _refuse_noise(self) -> None:
        if not (self.noise.support.is_discrete and self._possible()):
            raise ModelError(
                f"ZeroInflatedNoise is around a noise of counts, not {type(self.noise).__name__}: "
                "for amounts, of which none is zero by itself, take bd.noise.HurdleNoise"
            )

    @property
    def support(self) -> constraints.Constraint:
        return self.noise.support

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        law: Any = dist.ZeroInflatedDistribution(
            self.noise(prediction), gate=jnp.asarray(self.zeros)
        )
        return law


class HurdleNoise(AbstractWithZeros):
    r"""Hurdle model of data that are zero or positive, such as daily rain.

    $P(y = 0) = \pi$; for y > 0 the density is $(1 - \pi)\, p(y \mid z)$

    y is the datum, z the prediction, and p the distribution of the other noise, conditional on
    y > 0. For a zero among continuous data, the log density is the log probability π of a zero.
    With correlated residuals a zero is treated as missing, since it carries no information about
    them. If zeros occur mostly near small amounts, use `bd.filtering.CorrelatedBoxCoxNoise`.

    Args:
        noise: the noise of positive data, such as `bd.LogNormalNoise(0.5)`, a
            `bd.filtering.CorrelatedLogNoise`, or a noise of counts.
        zeros: π, the share of zeros: a number, or a distribution such as `dist.Beta(1.0, 1.0)`.

    Raises:
        ModelError: if the noise allows negative data, or is continuous and allows zero. Also if the
            share may lie outside 0 and 1.
    """

    has_masses: ClassVar[bool] = True

    @property
    def looks_back(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.noise.looks_back

    def before(
        self,
        times: Float[Array, " past"],
        data: Float[Array, "past ..."],
        prediction: Float[Array, "past ..."],
        *,
        same: bool,
    ) -> Before:
        """Return the residuals of earlier data, with zeros as missing data.

        Args:
            times: the increasing times of the earlier data.
            data: the earlier data, in the units of the observable, NaN where missing.
            prediction: the prediction at these times, in the same units.
            same: whether the times to predict are the same times.

        Returns:
            The earlier residuals.
        """
        inner: Any = self.noise
        return inner.before(times, jnp.where(data == 0, jnp.nan, data), prediction, same=same)

    def given(
        self,
        prediction: Float[Array, "time ..."],
        times: Float[Array, " time"],
        before: Before | None,
        variance: Float[Array, "time ..."] | None = None,
    ) -> dist.Distribution:
        """Return the distribution of each datum given earlier data.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.
            times: the times of the prediction, which do not decrease.
            before: the earlier residuals; None for draws without data.
            variance: the variance of the prediction itself, which must be None.

        Returns:
            A NumPyro distribution.
        """
        inner: Any = self.noise
        amounts = inner.given(prediction, times, before, variance)
        zeros = jnp.asarray(self.zeros)
        # Zeros are independent, positive amounts are not: draw all amounts jointly, then the zeros.
        path = jax.tree_util.Partial(_sample_of, Hurdle(amounts, zeros))
        return Autocorrelated(Hurdle(amounts.alone, zeros), path)

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        if self.looks_back:
            return self.noise.link(values)
        return values

    def _refuse_noise(self) -> None:
        if not self._possible():
            raise ModelError(
                f"HurdleNoise is around a noise of positive data, such as bd.LogNormalNoise, not "
                f"{type(self.noise).__name__}, which gives negative ones too"
            )
        if not self.noise.support.is_discrete and bool(self.noise.support(0.0)):
            raise ModelError(
                "HurdleNoise is around a noise of amounts above zero, but "
                f"{type(self.noise).__name__} has zeros itself: take it alone, or "
                "bd.LogNormalNoise inside"
            )

    @property
    def support(self) -> constraints.Constraint:
        if self.noise.support.is_discrete:
            return self.noise.support
        return constraints.nonnegative

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return Hurdle(self.noise(prediction), jnp.asarray(self.zeros))


def _sample_of(law: dist.Distribution, key: Any) -> Any:
    """Draw from a distribution; as a function, so that `jax.tree_util.Partial` can hold it."""
    return law.sample(key)

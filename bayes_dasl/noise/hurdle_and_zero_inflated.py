"""More zeros than a noise gives itself: counts with zeros of two kinds, and amounts that are zero
or not.
"""

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
    """Noise around another one, with a share of zeros.

    Args:
        noise: the other one.
        zeros: the share, between 0 and 1: known, or unknown, such as `dist.Beta(1.0, 4.0)`.

    Raises:
        ModelError: for what is no noise, or a share that may be none.
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
        """Raise ModelError for a noise that it cannot be around."""

    def _possible(self) -> bool:
        """Whether the noise inside gives no negative numbers."""
        return bounds(self.noise.support).get("lower", -1.0) >= 0


class ZeroInflatedNoise(AbstractWithZeros):
    r"""Counts of which some are zero for a reason of their own; the others, zeros among them,
    follow a noise.

    $P(y) = \pi\, [y = 0] + (1 - \pi)\, p(y \mid z)$, so that the mean of data is $(1 - \pi) z$

    Args:
        noise: that of the counts, such as `bd.NegativeBinomialNoise(3.0)`.
        zeros: π, the share of data that are zero for that reason: known, or unknown, such as
            `dist.Beta(1.0, 4.0)`.

    Raises:
        ModelError: for a noise of other data than counts, or a share that may lie outside 0 and 1.
    """

    def _refuse_noise(self) -> None:
        if not (self.noise.support.is_discrete and self._possible()):
            raise ModelError(
                f"ZeroInflatedNoise is around a noise of counts, not {type(self.noise).__name__}: "
                "for amounts, "
                "of which none is zero by itself, take bd.noise.HurdleNoise"
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
    r"""Data that are zero or positive, such as daily rain; those that are positive follow a noise.

    $P(y = 0) = \pi$, and otherwise $(1 - \pi)\, p(y \mid z)$, with the zeros of counts left out of
    p. Where an amount is zero its log density is the logarithm of a probability. Around correlated
    residuals a zero says nothing of these: as if it were missing. Where small amounts and zeros
    come together, take `bd.filtering.CorrelatedBoxCoxNoise`.

    Args:
        noise: that of positive data, such as `bd.LogNormalNoise(0.5)` or a
            `bd.filtering.CorrelatedLogNoise`, or of counts.
        zeros: π, the share of data that are zero: known, or unknown, such as `dist.Beta(1.0, 1.0)`.

    Raises:
        ModelError: for a noise that gives negative data, or amounts that are zero themselves, or a
            share that may lie outside 0 and 1.
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
        """Past data as residuals, without the zeros.

        Args:
            times: increasing.
            data: NaN where missing, in the units of the observable.
            prediction: that of the observable at these times, likewise.
            same: whether the times of interest are these.
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
        """The distribution of each datum given those before it.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            times: those of the prediction, not decreasing.
            before: past data; none for draws that are given no data.
            variance: that of the prediction itself, which must be none.
        """
        inner: Any = self.noise
        amounts, zeros = inner.given(prediction, times, before, variance), jnp.asarray(self.zeros)
        return Autocorrelated(
            Hurdle(amounts.alone, zeros), jax.tree_util.Partial(_drawn, Hurdle(amounts, zeros))
        )

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return self.noise.link(values) if self.looks_back else values

    def _refuse_noise(self) -> None:
        if not self._possible():
            raise ModelError(
                f"HurdleNoise is around a noise of positive data, such as bd.LogNormalNoise, not "
                f"{type(self.noise).__name__}, which gives negative ones too"
            )
        if not self.noise.support.is_discrete and bool(self.noise.support(0.0)):
            raise ModelError(
                "HurdleNoise is around a noise of amounts above zero, but "
                f"{type(self.noise).__name__} has zeros "
                "itself: take it alone, or bd.LogNormalNoise inside"
            )

    @property
    def support(self) -> constraints.Constraint:
        return self.noise.support if self.noise.support.is_discrete else constraints.nonnegative

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return Hurdle(self.noise(prediction), jnp.asarray(self.zeros))


def _drawn(law: dist.Distribution, key: Any) -> Any:
    return law.sample(key)

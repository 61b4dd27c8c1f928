"""Noise with serial correlation: each datum is conditioned on earlier data."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._statistics.describe_distributions import may_be_negative
from .._statistics.distributions import RectifiedBoxCoxNormal, box_cox, box_cox_of_zero
from .._statistics.tails import seen_and_filled
from ..errors import ModelError
from ..noise.abstract_noise import SMALLEST, AbstractNoise, VaryingScale
from ..noise.box_cox_noise import refuse_power_or_shift
from ..noise.sequential import Before, Seen
from ..random import Scalar
from .filter import given_before
from .processes import AbstractProcess

type Known = Callable[[Array], tuple[Array, Array]]
"""A function of data that returns their lower and upper bounds; both are the datum if measured."""


class CorrelatedNoise(AbstractNoise):
    r"""Normal noise with serially correlated residuals: $y(t) = z(t) + x(t) + \epsilon(t)$.

    y is the observable, z the prediction, x a Gaussian process along the index such as
    `bd.filtering.AR1`, and ε white noise. Each place or group has its own realisation of x.

    A Kalman filter over the residuals gives the distribution of each datum given earlier data. The
    product of their densities is the exact joint density, without a covariance matrix of all data.
    A forecast continues from the last residuals. Its draws are correlated over times.

    Args:
        process: the process x: `bd.filtering.AR1`, `bd.filtering.OrnsteinUhlenbeck`,
            `bd.filtering.Matern32`, or `bd.filtering.RandomWalk` if residuals are known to drift.
            `bd.filtering.White` is for a `bd.filtering.CrossCorrelation` of residuals that are
            independent in time.
        white: the standard deviation of ε, in the units of the observable; 0 for none, or a
            `VaryingScale`.

    Raises:
        ModelError: if `process` is no process, or the white noise may be negative. Also if a
            `RandomWalk` has no white noise, since data at its start would then have no noise at
            all. The model refuses a layer that is a filter itself.

    Source: Särkkä & Solin (2019), Applied Stochastic Differential Equations, chapter 10.

    Example:
        ```python
        process = bd.filtering.OrnsteinUhlenbeck(bd.between(0.01, 0.3), bd.between(0.5, 5.0))
        noise = bd.filtering.CorrelatedNoise(process, white=bd.between(0.01, 0.1))
        model = bd.Model(bd.ODE(Decay(bd.between(0.1, 1.0)), {"y": 2.0}), noise)
        ```
    """

    process: AbstractProcess
    white: Scalar | VaryingScale = 0.0
    positive: ClassVar[tuple[str, ...]] = ()
    in_units_of_data: ClassVar[tuple[str, ...]] = ("white", "process.scale")
    looks_back: ClassVar[bool] = True

    def __check_init__(self):
        if not isinstance(self.process, AbstractProcess):
            raise ModelError(
                "process must be one such as bd.filtering.AR1 or bd.filtering.OrnsteinUhlenbeck, "
                f"not {self.process!r}"
            )
        none = _is_zero(self.white)
        if not none and may_be_negative(self.white):
            raise ModelError(
                "white must be positive, a distribution of positive numbers, or 0 for none, not "
                f"{self.white}"
            )
        if none and self.process.begins is not None:
            raise ModelError(
                f"{type(self.process).__name__} begins at zero, where data would have no noise at "
                "all: give white "
                "noise beside it"
            )

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        """The marginal distribution of each datum, without conditioning on other data.

        Args:
            prediction: predictions of the observable, `(time, …)`, in its units.

        Returns:
            The distribution of the data.
        """
        return self.normal_on_link(self.link(prediction), self.spread(prediction))

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        usual = self.process.variance + jnp.square(jnp.asarray(self.white))
        return jnp.broadcast_to(jnp.sqrt(usual), prediction.shape)

    def before(
        self,
        times: Float[Array, " past"],
        data: Float[Array, "past ..."],
        prediction: Float[Array, "past ..."],
        *,
        same: bool,
        known: Known | None = None,
    ) -> Before:
        """Convert past data to residuals on the scale of `link`.

        Args:
            times: the times of the past data, increasing.
            data: the past data, in the units of the observable; NaN where missing.
            prediction: predictions at the times of the past data, in the same units.
            same: True if densities are wanted at the times of the past data themselves.
            known: a function that returns the bounds of censored data; None if all data were
                measured.

        Returns:
            The residuals, for `given`.
        """
        there, data = seen_and_filled(data)
        predicted = self.link(prediction)
        bounds = self._bounds(data, (data, data) if known is None else known(data))
        bounds = None if bounds is None else (bounds[0] - predicted, bounds[1] - predicted)
        seen = Seen(jnp.where(there, self.link(data) - predicted, 0.0), there, bounds)
        return Before(
            times, seen, jnp.broadcast_to(jnp.asarray(self.white, float), data.shape), same
        )

    def _bounds(self, data: Array, known: tuple[Array, Array]) -> tuple[Array, Array] | None:
        """Return the bounds of censored data on the scale of `link`.

        Args:
            data: the data, with missing values filled.
            known: the lower and upper bounds of the data; both equal the datum if it was measured.

        Returns:
            The lower and upper bounds, −∞ and ∞ for a measured datum; None if all data were
            measured.
        """
        low, high = known
        if low is data and high is data:
            return None
        measured = low == high
        # Infinite bounds are masked before `link`, whose gradient there would be NaN.
        lower, upper = (self.link(jnp.where(jnp.isinf(end), 1.0, end)) for end in known)
        lower = jnp.where(measured | jnp.isneginf(low), -jnp.inf, lower)
        upper = jnp.where(measured | jnp.isposinf(high), jnp.inf, upper)
        return lower, upper

    def given(
        self,
        prediction: Float[Array, "time ..."],
        times: Float[Array, " time"],
        before: Before | None,
        variance: Float[Array, "time ..."] | None = None,
    ) -> dist.Distribution:
        """Return the distribution of each datum given earlier data.

        Samples of the distribution are joint paths over all times.

        Args:
            prediction: predictions of the observable, `(time, …)`, in its units.
            times: the times of the predictions, not decreasing.
            before: residuals of past data; None without data.
            variance: the variance of the prediction itself, which must be None.

        Returns:
            The distribution of the data.

        Raises:
            ModelError: if `variance` is not None.
        """
        if variance is not None:
            raise ModelError(
                "a layer that predicts a variance too needs bd.NormalNoise, not "
                f"{type(self).__name__}"
            )
        return given_before(self.process, (0,), [self], [prediction], times, [before])[0]

    def normal_on_link(
        self, location: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> dist.Distribution:
        """Return the distribution of data that are normal on the scale of `link`.

        Args:
            location: means on the scale of `link`.
            scale: standard deviations on the scale of `link`.

        Returns:
            The distribution on the scale of the data.
        """
        return dist.Normal(location, scale)


class CorrelatedLogNoise(CorrelatedNoise):
    r"""`CorrelatedNoise` on the log scale: $\log y(t) = \log z(t) + x(t) + \epsilon(t)$.

    y is the observable and z the prediction.

    Args:
        process: the process x; its scale has no unit: 0.1 is about 10 %.
        white: the standard deviation of the white noise ε, which has no unit; 0 for none, or a
            `VaryingScale`.

    Raises:
        ModelError: if the arguments are invalid, as for `CorrelatedNoise`.
    """

    in_units_of_data: ClassVar[tuple[str, ...]] = ()

    @property
    def support(self) -> constraints.Constraint:
        return constraints.positive

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return jnp.log(jnp.maximum(values, SMALLEST))

    def normal_on_link(
        self, location: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> dist.Distribution:
        return dist.LogNormal(location, scale)


class CorrelatedBoxCoxNoise(CorrelatedNoise):
    r"""`CorrelatedNoise` on a Box–Cox scale, with exact zeros: for daily flow or rain.

    $y(t) = g^{-1}(l(t))$ where $l(t) = g(z(t)) + x(t) + \epsilon(t) > g(0)$, else $y(t) = 0$, with
    $g(y) = ((y + c)^\lambda - 1) / \lambda$, or $\log(y + c)$ for λ = 0

    y is the observable, z the prediction, x the correlated process and ε white noise. A zero means
    that the latent normal variable l is at most g(0), as in a Tobit model. So forecasts are never
    negative, and they are zero with the probability that l is at most g(0).

    After a zero, the filter approximates the distribution of x by a normal with the same mean and
    variance. So log densities are approximate. They are exact for residuals independent in time
    (`bd.filtering.White`).

    A layer may predict negative values to express dryness. With a shift c above 0, g then continues
    along its tangent at zero. Without a shift, negative predictions count as zero.

    Args:
        process: the process x, on the scale of g.
        white: the standard deviation of ε, on the scale of g; 0 for none, or a `VaryingScale`.
        power: λ, a number or a distribution of non-negative numbers, such as
            `dist.Uniform(0.0, 1.0)`. A power of 1 does not transform the data, except for a
            constant.
        shift: c, a known number in the units of the observable, such as half of the smallest value
            above zero. A power of 0 needs a shift.

    Raises:
        ModelError: if the power is negative, the shift is negative or no known number, a power of 0
            has no shift, or the other arguments are invalid, as for `CorrelatedNoise`.

    Source: McInerney et al. (2019), Water Resources Research 55, for censored Box–Cox residuals of
    intermittent flow.

    Example:
        ```python
        process = bd.filtering.AR1(scale=dist.HalfNormal(1.0), correlation=dist.Uniform(0.0, 1.0))
        noise = bd.filtering.CorrelatedBoxCoxNoise(process, power=0.5, shift=0.01)
        ```
    """

    power: Scalar = eqx.field(kw_only=True)
    shift: float = eqx.field(default=0.0, static=True, kw_only=True)
    in_units_of_data: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        refuse_power_or_shift(self)
        if not self.shift and _is_zero(self.power):
            raise ModelError(
                "CorrelatedBoxCoxNoise needs a shift above 0 beside a power of 0, where zero has "
                "no logarithm: take "
                "half of the smallest value above zero, or bd.filtering.CorrelatedLogNoise for "
                "data that are never zero"
            )

    @property
    def support(self) -> constraints.Constraint:
        return constraints.nonnegative

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        zero = box_cox_of_zero(self.power, self.shift)
        positive = values > 0
        above = box_cox(jnp.where(positive, values, 1.0), self.power, self.shift)
        if not self.shift:
            return jnp.where(positive, jnp.maximum(above, zero), zero)
        # g'(0) = c^(λ - 1), the slope of the tangent below zero.
        slope = jnp.asarray(self.shift) ** (jnp.asarray(self.power) - 1.0)
        return jnp.where(positive, above, zero + slope * values)

    def _bounds(self, data: Array, known: tuple[Array, Array]) -> tuple[Array, Array]:
        # A zero is censored: l lies anywhere below g(0).
        low, high = known
        found = super()._bounds(data, (jnp.where(low > 0, low, -jnp.inf), high))
        assert found is not None
        return found

    def normal_on_link(
        self, location: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> dist.Distribution:
        return RectifiedBoxCoxNormal(location, scale, self.power, self.shift)


def _is_zero(value: Any) -> bool:
    """Whether a value is the known number 0; False for a traced number."""
    return (
        eqx.is_array_like(value)
        and not isinstance(value, Tracer)
        and jnp.ndim(value) == 0
        and value == 0
    )

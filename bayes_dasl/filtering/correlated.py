"""Residuals that are correlated along the index: each datum is judged by what those before it have
said.
"""

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
from ..random import Scalar, is_random
from .filter import given_before
from .processes import AbstractProcess

type Known = Callable[[Array], tuple[Array, Array]]


class CorrelatedNoise(AbstractNoise):
    r"""Correlated residuals: $y(t) = z(t) + x(t) + \epsilon(t)$.

    x is a process along the index, such as `bd.filtering.AR1`, the same for each place or member
    but drawn for each anew; ε is white. A datum is judged by its distribution given those before
    it, by a Kalman filter over the residuals: their product is the exact joint density, and no
    matrix of all data is made. A forecast goes on from the last residuals, and its draws hold
    together over the times asked for.

    Args:
        process: that of x: `bd.filtering.AR1`, `bd.filtering.OrnsteinUhlenbeck`,
            `bd.filtering.Matern32` or, where the model is known to drift,
            `bd.filtering.RandomWalk`; `bd.filtering.White` for a `bd.filtering.CrossCorrelation` of
            residuals independent in time.
        white: the standard deviation of ε, in the units of the observable; 0 for none, or a
            `VaryingScale`.

    Raises:
        ModelError: for what is no process, a white noise that may be negative, or none beside a
            `RandomWalk`, whose start has no noise of its own; by the model, for a layer that is a
            filter itself.

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
        none = (
            not is_random(self.white)
            and not isinstance(self.white, VaryingScale)
            and _is_zero(self.white)
        )
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
        """The distribution of each datum where nothing is known of others."""
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
        """Past data as residuals.

        Args:
            times: increasing.
            data: NaN where missing, in the units of the observable.
            prediction: that of the observable at these times, likewise.
            same: whether the times of interest are these.
            known: a function of data that gives the bounds within which each lies, the datum itself
                twice where it was measured; none if all were measured.
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
        """The bounds of each datum on the scale of `link`, infinite where it was measured; none if
        all were.
        """
        low, high = known
        if low is data and high is data:
            return None
        measured = low == high
        none_below, none_above = measured | jnp.isneginf(low), measured | jnp.isposinf(high)
        lower, upper = (self.link(jnp.where(jnp.isinf(end), 1.0, end)) for end in known)
        return jnp.where(none_below, -jnp.inf, lower), jnp.where(none_above, jnp.inf, upper)

    def given(
        self,
        prediction: Float[Array, "time ..."],
        times: Float[Array, " time"],
        before: Before | None,
        variance: Float[Array, "time ..."] | None = None,
    ) -> dist.Distribution:
        """The distribution of each datum given those before it; drawn from, they hold together.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            times: those of the prediction, which never fall.
            before: what was seen; none for draws from what is known of no datum.
            variance: that of the prediction itself, which must be none.

        Raises:
            ModelError: for such a variance.
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
        """The distribution of data that are normal on the scale of `link`.

        Args:
            location: their means there.
            scale: their standard deviations there.
        """
        return dist.Normal(location, scale)


class CorrelatedLogNoise(CorrelatedNoise):
    r"""`CorrelatedNoise` on the log scale: $\log y(t) = \log z(t) + x(t) + \epsilon(t)$.

    Args:
        process: that of x, whose scale has no unit: 0.1 is about a tenth.
        white: the standard deviation of ε, which has no unit; 0 for none, or a `VaryingScale`.

    Raises:
        ModelError: as `CorrelatedNoise` does.
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
    r"""`CorrelatedNoise` on a Box–Cox scale, with exact zeros: for daily flow, rain and other
    intermittent amounts.

    $y(t) = g^{-1}(l(t))$ where $l(t) = g(z(t)) + x(t) + \epsilon(t) > g(0)$, else $y(t) = 0$, with
    $g(y) = ((y + c)^\lambda - 1) / \lambda$, or $\log(y + c)$ for λ = 0

    A zero says that the normal number l is at most g(0), as in a Tobit model. Forecasts are never
    negative, and zero as often as l is that small. After a zero the filter takes the mean and the
    variance that x then has, as if x were still normal: log densities are approximate, those of
    residuals independent in time (`bd.filtering.White`) exact. A prediction below zero, of a layer
    that says how dry it is, continues g along its tangent if there is a shift; without one it
    counts as zero.

    Args:
        process: that of x, on the scale of g.
        white: the standard deviation of ε, on the scale of g; 0 for none, or a `VaryingScale`.
        power: λ, not negative: known, or unknown, such as `dist.Uniform(0.0, 1.0)`. 1 leaves data
            as they are.
        shift: c, a known number in the units of the observable, such as half of the smallest value
            above zero. A power of 0 needs it.

    Raises:
        ModelError: as `CorrelatedNoise` does; for a negative power, a shift that is no known number
            or is negative, or no shift beside a power of 0.

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
        slope = jnp.asarray(self.shift) ** (jnp.asarray(self.power) - 1.0)
        return jnp.where(positive, above, zero + slope * values)

    def _bounds(self, data: Array, known: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = known
        found = super()._bounds(data, (jnp.where(low > 0, low, -jnp.inf), high))
        assert found is not None
        return found

    def normal_on_link(
        self, location: Float[Array, "..."], scale: Float[Array, "..."]
    ) -> dist.Distribution:
        return RectifiedBoxCoxNormal(location, scale, self.power, self.shift)


def _is_zero(value: Any) -> bool:
    return (
        eqx.is_array_like(value)
        and not isinstance(value, Tracer)
        and jnp.ndim(value) == 0
        and value == 0
    )

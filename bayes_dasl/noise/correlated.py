"""Residuals that are correlated along the index: each datum is judged by what those before it have said."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._statistics.describe_distributions import may_be_negative
from ..errors import ModelError
from ..random import Scalar, is_random
from .base import SMALLEST, AbstractNoise, VaryingScale
from .filtering import Before, given_before
from .processes import AbstractProcess


class CorrelatedNoise(AbstractNoise):
    r"""Correlated residuals: $y(t) = z(t) + x(t) + \epsilon(t)$.

    x is a process along the index, such as `bd.AR1`, the same for each place or member but drawn for each anew; ε is
    white. A datum is judged by its distribution given those before it, by a Kalman filter over the residuals: their
    product is the exact joint density, and no matrix of all data is made. A forecast goes on from the last residuals,
    and its draws hold together over the times asked for.

    Args:
        process: that of x: `bd.AR1`, `bd.OrnsteinUhlenbeck`, `bd.Matern32` or, where the model is known to drift,
            `bd.RandomWalk`; `bd.noise.White` for a `bd.noise.CrossCorrelation` of residuals independent in time.
        white: the standard deviation of ε, in the units of the observable; 0 for none, or a `VaryingScale`.

    Raises: ModelError for what is no process, a white noise that may be negative, or none beside a `RandomWalk`, whose
    start has no noise of its own; by the model, for a layer that is a filter itself.
    Source: Särkkä & Solin (2019), Applied Stochastic Differential Equations, chapter 10.
    """

    process: AbstractProcess
    white: Scalar | VaryingScale = 0.0
    positive: ClassVar[tuple[str, ...]] = ()
    in_units_of_data: ClassVar[tuple[str, ...]] = ("white", "process.scale")
    looks_back: ClassVar[bool] = True
    not_inside: ClassVar[str] = "it judges a datum given those before it, of which the other noise would know nothing"

    def __check_init__(self):
        if not isinstance(self.process, AbstractProcess):
            raise ModelError(f"process must be one such as bd.AR1 or bd.OrnsteinUhlenbeck, not {self.process!r}")
        none = not is_random(self.white) and not isinstance(self.white, VaryingScale) and _is_zero(self.white)
        if not none and may_be_negative(self.white):
            raise ModelError(
                f"white must be positive, a distribution of positive numbers, or 0 for none, not {self.white}"
            )
        if none and self.process.begins is not None:
            raise ModelError(
                f"{type(self.process).__name__} begins at zero, where data would have no noise at all: give white "
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
    ) -> Before:
        """What was seen, as residuals.

        Args:
            times: when, which rise.
            data: NaN where missing, in the units of the observable.
            prediction: that of the observable at these times, likewise.
            same: whether the times that are asked for are these.
        """
        seen = ~jnp.isnan(data)
        residuals = self.link(jnp.where(seen, data, 1.0)) - self.link(prediction)
        return Before(times, residuals, seen, jnp.broadcast_to(jnp.asarray(self.white, float), data.shape), same)

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

        Raises: ModelError for such a variance.
        """
        if variance is not None:
            raise ModelError(f"a layer that predicts a variance too needs bd.NormalNoise, not {type(self).__name__}")
        return given_before(self.process, (0,), [self], [prediction], times, [before])[0]

    def normal_on_link(self, location: Float[Array, "..."], scale: Float[Array, "..."]) -> dist.Distribution:
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

    Raises: ModelError as `CorrelatedNoise` does.
    """

    in_units_of_data: ClassVar[tuple[str, ...]] = ()

    @property
    def support(self) -> constraints.Constraint:
        return constraints.positive

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return jnp.log(jnp.maximum(values, SMALLEST))

    def normal_on_link(self, location: Float[Array, "..."], scale: Float[Array, "..."]) -> dist.Distribution:
        return dist.LogNormal(location, scale)


def _is_zero(value: Any) -> bool:
    return eqx.is_array_like(value) and not isinstance(value, Tracer) and jnp.ndim(value) == 0 and value == 0

"""Normal noise on a Box–Cox scale: a logarithm with an offset, a root, or another power."""

from numbers import Real
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._statistics.describe_distributions import bounds, describe_distribution
from .._statistics.distributions import BoxCoxNormal, box_cox
from ..errors import ModelError
from ..random import Scalar, is_random
from .abstract_noise import SMALLEST, AbstractNoise, VaryingScale


class BoxCoxNoise(AbstractNoise):
    r"""Normal noise on a Box–Cox scale: $g(y) \sim N(g(z), \sigma)$.

    $g(y) = ((y + c)^\lambda - 1) / \lambda$

    y is the datum and z the prediction. For λ = 0, g is the logarithm $\log(y + c)$; for λ = 0.5 it
    is a square root, up to constants; for λ = 1 it only shifts the data. If λ < 1, errors grow with
    the prediction, and faster for a smaller λ. Densities, log scores and forecasts refer to the
    data in their own units. For λ > 0 the normal distribution is truncated at y + c = 0. The
    prediction is the median of the data if this bound is many σ below g(z).

    Args:
        scale: σ, on the transformed scale, or a `VaryingScale`.
        power: λ, not negative: a number, or a distribution such as `dist.Uniform(0.0, 1.0)`.
        shift: c, a known number in the units of the observable. Data must be above −c. If data may
            be zero, half of the smallest positive value is a common choice.

    Raises:
        ModelError: if the power may be negative, or the shift is unknown or negative.
    """

    scale: Scalar | VaryingScale
    power: Scalar
    shift: float = eqx.field(default=0.0, static=True)
    positive: ClassVar[tuple[str, ...]] = ("scale",)

    def __check_init__(self):
        refuse_power_or_shift(self)

    @property
    def support(self) -> constraints.Constraint:
        if self.shift:
            return constraints.greater_than(-self.shift)
        return constraints.positive

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return BoxCoxNormal(self.link(prediction), self.scale, self.power, self.shift)

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return box_cox(jnp.maximum(values, SMALLEST - self.shift), self.power, self.shift)

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        return jnp.broadcast_to(jnp.asarray(self.scale), prediction.shape)


def refuse_power_or_shift(noise: Any) -> None:
    """Raise ModelError if the `power` of a noise may be negative, or its `shift` is invalid.

    A shift is valid if it is a known number that is not negative.
    """
    kind = type(noise).__name__
    power = noise.power
    shift = noise.shift
    # The smallest power that the prior allows.
    least = bounds(power.support).get("lower", -np.inf) if is_random(power) else float(power)
    if least < 0:
        said = describe_distribution(power) if is_random(power) else power
        raise ModelError(
            f"{kind}.power must not be negative, as in {said}: moments would be infinite"
        )
    if not isinstance(shift, Real) or not 0 <= float(shift) < np.inf:
        raise ModelError(f"{kind}.shift must be a known number that is not negative, not {shift!r}")

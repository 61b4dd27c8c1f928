"""Binomial noise: counts of successes in a known number of trials."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..errors import ModelError
from ..random import Scalar, is_random
from .abstract_noise import AbstractNoise, PerDatum, per_datum

# Smallest distance of a probability from 0 and 1, since a solver may reach or leave the interval.
_NEAR = 1e-9


class AbstractOfTrials(AbstractNoise):
    """Base class of noise of counts: successes in a known number of trials.

    The layer predicts the probability of a success.

    Args:
        trials: the number of trials of every datum, or the name of a variable of the data that
            holds the number of trials of each datum.

    Raises:
        ModelError: if `trials` is neither a known whole number nor a name.
    """

    trials: int | PerDatum = eqx.field(converter=per_datum)

    def __check_init__(self):
        if isinstance(self.trials, PerDatum):
            return
        known = not is_random(self.trials) and np.ndim(self.trials) == 0
        if not known or self.trials != np.round(self.trials) or self.trials < 1:
            raise ModelError(
                f"{type(self).__name__}.trials must be a whole number, or the name of a variable "
                f"of the data that has that of each datum, not {self.trials!r}"
            )

    @property
    def support(self) -> constraints.Constraint:
        if isinstance(self.trials, PerDatum):
            return constraints.nonnegative_integer
        return constraints.integer_interval(0, self.trials)

    def support_of(self, field: str) -> constraints.Constraint:
        if field == "trials":
            return constraints.nonnegative_integer
        return super().support_of(field)

    def as_predicted(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        """Convert counts to shares of successes, which are the scale of predictions."""
        return values / self._divisor

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        return jnp.sqrt(self.around(prediction, variance).variance) / self._divisor

    @property
    def _divisor(self) -> Any:
        """The number of trials, but at least 1, by which counts are divided."""
        return jnp.maximum(jnp.asarray(self.trials, float), 1.0)

    @property
    def _number(self) -> Any:
        """The number of trials, converted to integers."""
        return jnp.asarray(jnp.round(jnp.asarray(self.trials, float)), int)


def _share(prediction: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
    """Clip a predicted probability to the inside of (0, 1)."""
    return jnp.clip(prediction, _NEAR, 1 - _NEAR)


class BinomialNoise(AbstractOfTrials):
    r"""Binomial counts y with the predicted probability z: $y \sim \mathrm{Binomial}(n, z)$.

    Args:
        trials: n, the number of trials, or the name of a variable of the data that holds the number
            of trials of each datum.
    """

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.BinomialProbs(_share(prediction), self._number)


class BetaBinomialNoise(AbstractOfTrials):
    r"""Over-dispersed binomial counts y: $y \sim \mathrm{BetaBinomial}(n, k z, k (1 - z))$.

    z is the predicted probability of a success.

    Args:
        trials: n, the number of trials, or the name of a variable of the data that holds the number
            of trials of each datum.
        concentration: k, without a unit. The variance of y is $n z (1 - z)\, (k + n) / (k + 1)$.
    """

    concentration: Scalar
    positive: ClassVar[tuple[str, ...]] = ("concentration",)

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        share = _share(prediction)
        size = jnp.asarray(self.concentration)
        return dist.BetaBinomial(size * share, size * (1 - share), self._number)

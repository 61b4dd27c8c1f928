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

# Distance of a probability from 0 and 1: a solver may leave the interval or reach its ends.
_NEAR = 1e-9


class AbstractOfTrials(AbstractNoise):
    """Counts of successes in a known number of trials, each with the predicted probability.

    Args:
        trials: the number of trials, or the name of a variable of the data with the number of each
            datum.

    Raises:
        ModelError: if the trials are no known whole number.
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
        """Return the share of successes, which is what a layer predicts."""
        return values / self._divisor

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        return jnp.sqrt(self.around(prediction, variance).variance) / self._divisor

    @property
    def _divisor(self) -> Any:
        """The number of trials, at least 1: without a trial there is no share."""
        return jnp.maximum(jnp.asarray(self.trials, float), 1.0)

    @property
    def _number(self) -> Any:
        """The number of trials as integers."""
        return jnp.asarray(jnp.round(jnp.asarray(self.trials, float)), int)


def _share(prediction: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
    """Keep a predicted probability inside (0, 1)."""
    return jnp.clip(prediction, _NEAR, 1 - _NEAR)


class BinomialNoise(AbstractOfTrials):
    r"""Binomial counts with the predicted probability z: $y \sim \mathrm{Binomial}(n, z)$.

    Args:
        trials: n, a number, or the name of a variable of the data with the number of each datum.
    """

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return dist.BinomialProbs(_share(prediction), self._number)


class BetaBinomialNoise(AbstractOfTrials):
    r"""Over-dispersed binomial counts: $y \sim \mathrm{BetaBinomial}(n, k z, k (1 - z))$.

    Args:
        trials: n, a number, or the name of a variable of the data with the number of each datum.
        concentration: k, without a unit: the variance is $n z (1 - z)\, (k + n) / (k + 1)$.
    """

    concentration: Scalar
    positive: ClassVar[tuple[str, ...]] = ("concentration",)

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        share = _share(prediction)
        size = jnp.asarray(self.concentration)
        return dist.BetaBinomial(size * share, size * (1 - share), self._number)

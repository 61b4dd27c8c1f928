"""Censored data, for which only bounds of the value are known, such as a detection limit."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._statistics.distributions import CensoredLaw
from .._statistics.tails import has_tails
from ..data.censoring import ABOVE, BELOW, CODE, LIMIT, known_between
from ..errors import ModelError
from .abstract_noise import AbstractNoise, PerDatum
from .sequential import Before


class Censored(AbstractNoise):
    r"""Noise of censored data, of which only bounds are known.

    A left-censored datum y contributes $P(y \le \text{limit})$ to the likelihood, a right-censored
    datum $P(y \ge \text{limit})$. A datum between two limits contributes the probability between
    them. Forecasts are of the uncensored values.

    If neither `below` nor `above` is given, the data state which values are censored, in a variable
    `<observable>_censored` with the dimensions of the observable:

    - 0: the value was measured.
    - 1 (left-censored): the true value is at most the given value.
    - −1 (right-censored): the true value is at least the given value.

    An optional variable `<observable>_limit` holds the other bound of an interval, NaN for none.

    For noise with correlated residuals, the log density is approximate. The filter then uses a
    normal distribution with the mean and variance of the censored residual given its bounds.

    Args:
        noise: the noise of the uncensored values, such as `bd.LogNormalNoise(0.2)`.
        below: the lower limit, in the units of the observable. Data at or below it are
            left-censored.
        above: the upper limit, in the same units. Data at or above it are right-censored.

    Raises:
        ModelError: if `noise` is no noise or is censored itself, or if the limits are not
            increasing numbers. When called, if the noise has no known distribution function.
    """

    noise: AbstractNoise
    below: float | None = eqx.field(static=True)
    above: float | None = eqx.field(static=True)
    code: PerDatum | None
    limit: PerDatum | None
    has_masses: ClassVar[bool] = True
    positive: ClassVar[tuple[str, ...]] = ()
    in_units_of_data: ClassVar[tuple[str, ...]] = ("limit",)
    not_inside: ClassVar[str] = "put bd.noise.Censored around the other noise"

    def __init__(
        self, noise: AbstractNoise, below: float | None = None, above: float | None = None
    ):
        if not isinstance(noise, AbstractNoise) or isinstance(noise, Censored):
            raise ModelError(f"Censored is around a noise such as bd.NormalNoise, not {noise!r}")
        limits = [_finite_or_nan(value) for value in (below, above) if value is not None]
        if not all(map(math.isfinite, limits)) or limits != sorted(set(limits)):
            raise ModelError(
                f"the limits of censored data must be numbers, below < above: not {below!r} and "
                f"{above!r}"
            )
        self.noise = noise
        self.below = below
        self.above = above
        self.code = self.limit = None
        # Without limits the data say which values are censored; forecast data are not.
        if not limits:
            self.code = PerDatum("{observable}" + CODE, otherwise=0.0)
            self.limit = PerDatum("{observable}" + LIMIT, otherwise=math.nan, needed=False)

    @property
    def counts_by_moments(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.noise.counts_by_moments

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
        """Return the residuals of earlier data, with bounds for censored data.

        Args:
            times: the increasing times of the earlier data.
            data: the earlier data, in the units of the observable, NaN where missing.
            prediction: the prediction at these times, in the same units.
            same: whether the times to predict are the same times.

        Returns:
            The earlier residuals.
        """
        inner: Any = self.noise
        return inner.before(times, data, prediction, same=same, known=self.known_between)

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
        return self.censored(inner.given(prediction, times, before, variance))

    @property
    def support(self) -> constraints.Constraint:
        return self.noise.support

    def support_of(self, field: str) -> constraints.Constraint:
        if field == "code":
            return constraints.integer_interval(-1, 1)
        return constraints.real

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return self.censored(self.noise(prediction))

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """Return the distribution of censored data around a prediction that has a variance."""
        return self.censored(self.noise.around(prediction, variance))

    def censored(self, law: dist.Distribution) -> dist.Distribution:
        """Return the distribution of data that may be censored.

        Args:
            law: the distribution of the uncensored values.

        Returns:
            A NumPyro distribution.

        Raises:
            ModelError: if `law` has no known distribution function.
        """
        if not has_tails(law):
            raise ModelError(
                f"{type(self.noise).__name__} cannot be censored: no distribution function of "
                f"{type(law).__name__} is known here"
            )
        return CensoredLaw(law, jax.tree_util.Partial(known_between, **self._bounds()))

    def _bounds(self) -> dict[str, Any]:
        """Return the keyword arguments of `bayes_dasl.data.censoring.known_between`.

        `code` flags the censored data, `limit` is the other bound of an interval, `below` and
        `above` are the limits of all data.
        """
        return {
            "code": 0.0 if self.code is None else self.code,
            "limit": math.nan if self.limit is None else self.limit,
            "below": -math.inf if self.below is None else self.below,
            "above": math.inf if self.above is None else self.above,
        }

    def known_between(self, values: Any) -> tuple[Any, Any]:
        return known_between(values, **self._bounds())

    @property
    def limits(self) -> dict[str, float]:
        found = {BELOW: self.below, ABOVE: self.above}
        return {name: float(value) for name, value in found.items() if value is not None}

    def as_predicted(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return self.noise.as_predicted(values)

    def link(self, values: Float[Array, "time ..."]) -> Float[Array, "time ..."]:
        return self.noise.link(values)

    def spread(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> Float[Array, "time ..."]:
        return self.noise.spread(prediction, variance)

    def ruled_out(self, values: Float[np.ndarray, "time ..."]) -> tuple[np.ndarray, str]:
        outside, said = self.noise.ruled_out(values)
        if outside.any():
            return outside, said
        low, high = self.known_between(values)
        said = (
            "no lower than its other bound, where it is an upper one, or no higher, where it is a "
            "lower one"
        )
        return low > high, said


def _finite_or_nan(value: Any) -> float:
    """Return a number as a float; NaN for anything else, including booleans."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number:
        return float(value)
    return math.nan

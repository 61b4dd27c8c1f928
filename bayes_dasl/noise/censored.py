"""Censored data: only bounds of a value are known, such as a limit of quantification."""

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
    r"""Censored data, around the noise of the values themselves.

    A datum below a limit contributes $P(y \le \text{limit})$, one above it $P(y \ge \text{limit})$,
    and one between two limits the probability between them. Forecasts are of the values themselves,
    as if they could be seen.

    Without limits the data state which values are censored, in a variable `<observable>_censored`
    with the dimensions of the observable. 0 is a value that was seen. 1 (left-censored) is at most
    the value given, −1 (right-censored) at least the value given. An optional variable
    `<observable>_limit` has the other bound of an interval, NaN for none.

    With correlated residuals the filter uses the mean and variance of a censored residual given its
    bounds, as if it were still normal. Log densities are then approximate.

    Args:
        noise: the noise of the values, such as `bd.LogNormalNoise(0.2)`.
        below: a lower limit, in the units of the observable: data at or below it are left-censored.
        above: an upper limit: data at or above it are right-censored.

    Raises:
        ModelError: if the noise has no known distribution function, or limits are not increasing
            numbers.
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
        """Return the residuals of earlier data, with the bounds of censored ones.

        Args:
            times: increasing.
            data: NaN where missing, in the units of the observable.
            prediction: the prediction at these times, in the same units.
            same: whether the times to predict are these.

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
        """Return the distribution of each datum given earlier ones.

        Args:
            prediction: the prediction, `(time, …)`, in the units of the observable.
            times: the times of the prediction, which never fall.
            before: earlier residuals; None for draws without data.
            variance: the variance of the prediction, which must be None.

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
        """Return the distribution of the data around an uncertain prediction."""
        return self.censored(self.noise.around(prediction, variance))

    def censored(self, law: dist.Distribution) -> dist.Distribution:
        """Return the distribution of data that may be censored.

        Args:
            law: the distribution of the values themselves.

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
        """Return the arguments of `known_between`: flags, other bounds, and limits of all data."""
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
    """Return a number as a float; NaN for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number:
        return float(value)
    return math.nan

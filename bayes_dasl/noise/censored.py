"""Censored data, of which only bounds are known: below a limit of quantification, or within an
interval.
"""

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
    r"""Data of which only bounds are known, around the noise of the values themselves.

    A datum below a limit counts with $P(y \le \text{limit})$, one above it with
    $P(y \ge \text{limit})$, one between two with the probability in between. Forecasts are of the
    values themselves, as if they could be seen.

    Without limits the data say which are censored, by a variable `<observable>_censored` with the
    dimensions of the
    observable: 0 for a value that is seen, 1 (left-censored) for one that is at most the value
        given, −1
    (right-censored) for one that is at least that. A variable `<observable>_limit` has the other
    bound of a datum that lies in an interval, NaN for none; it may be left out.

    Args:
        noise: that of the values, such as `bd.LogNormalNoise(0.2)`.
        below: a limit of quantification, in the units of the observable: a datum at or below it is
            left-censored there.
        above: an upper one: a datum at or above it is right-censored there.

    Around correlated residuals a censored datum tells the next ones what its bounds say of the
    residual: the filter takes the mean and the variance that it then has, as if it were still
        normal. So log densities are approximate.

    Raises:
        ModelError: for a noise whose distribution function is not known, or limits that are no
            rising numbers.
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
        limits = [_number(value) for value in (below, above) if value is not None]
        if not all(map(math.isfinite, limits)) or limits != sorted(set(limits)):
            raise ModelError(
                f"the limits of censored data must be numbers, below < above: not {below!r} and "
                f"{above!r}"
            )
        self.noise, self.below, self.above = noise, below, above
        by_datum = not limits
        self.code = PerDatum("{observable}" + CODE, otherwise=0.0) if by_datum else None
        self.limit = (
            PerDatum("{observable}" + LIMIT, otherwise=math.nan, needed=False) if by_datum else None
        )

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
        """Past data as residuals, with the bounds of those that are censored.

        Args:
            times: increasing.
            data: NaN where missing, in the units of the observable.
            prediction: that of the observable at these times, likewise.
            same: whether the times of interest are these.
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
        """The distribution of each datum given those before it.

        Args:
            prediction: that of the observable, `(time, …)`, in its units.
            times: those of the prediction, not decreasing.
            before: past data; none for draws that are given no data.
            variance: that of the prediction itself, which must be none.
        """
        inner: Any = self.noise
        return self.censored(inner.given(prediction, times, before, variance))

    @property
    def support(self) -> constraints.Constraint:
        return self.noise.support

    def support_of(self, field: str) -> constraints.Constraint:
        return constraints.integer_interval(-1, 1) if field == "code" else constraints.real

    def __call__(self, prediction: Float[Array, "time ..."]) -> dist.Distribution:
        return self.censored(self.noise(prediction))

    def around(
        self, prediction: Float[Array, "time ..."], variance: Float[Array, "time ..."] | None = None
    ) -> dist.Distribution:
        """The distribution of the data around a prediction that is uncertain by `variance`
        itself.
        """
        return self.censored(self.noise.around(prediction, variance))

    def censored(self, law: dist.Distribution) -> dist.Distribution:
        """The distribution of data that may be censored.

        Args:
            law: that of the values themselves.
        """
        if not has_tails(law):
            raise ModelError(
                f"{type(self.noise).__name__} cannot be censored: no distribution function of "
                f"{type(law).__name__} is "
                "known here"
            )
        return CensoredLaw(law, jax.tree_util.Partial(known_between, **self._bounds()))

    def _bounds(self) -> dict[str, Any]:
        """Code and other bound of each datum, and the limits of all of them."""
        below, above = (
            (-math.inf if self.below is None else self.below),
            (math.inf if self.above is None else self.above),
        )
        code, limit = (0.0, math.nan) if self.code is None else (self.code, self.limit)
        return {"code": code, "limit": limit, "below": below, "above": above}

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
        low, high = self.known_between(values)
        if outside.any():
            return outside, said
        return (
            low > high,
            "no lower than its other bound, where it is an upper one, or no higher, where it is a "
            "lower one",
        )


def _number(value: Any) -> float:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else math.nan
    )

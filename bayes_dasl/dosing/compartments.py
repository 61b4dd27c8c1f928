"""`Compartments`: linear one- and two-compartment models in closed form, for any doses."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._jax.tree import FrozenDict
from ..data.layer_inputs import NEVER, Inputs
from ..errors import ModelError
from ..layers._functions import by_name
from ..layers.layer import AbstractLayer, AbstractTrajectory, Prediction, predict_rows
from ..random import Scalar
from .schedule import Doses, Pulses, Steady

# Two rates this close, relative to their sum, use the mean slope (`_difference_quotients`).
_NEAR = 1e-3
# Gauss–Legendre nodes and weights on (0, 1).
_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(3)[i] + (1, 0)[i]) for i in (0, 1))


class Compartments(AbstractLayer):
    r"""Concentration in the central compartment of a linear model, in closed form.

    $\dot a = k_a\,d - (CL + Q)\,a / V + Q\,p / V_2, \quad \dot d = -k_a\,d, \quad
    \dot p = Q\,a / V - Q\,p / V_2$

    The result equals the `bd.ODE` of these equations with the same doses, and is much faster: the
    response to each dose is a sum of exponentials. All compartments are empty before the first dose
    and after a reset. Rates may coincide.

    Args:
        clearance: CL, a volume per time.
        volume: V, the volume of the central compartment.
        exchange: Q, the clearance between both compartments, a volume per time; given together with
            `peripheral` for a two-compartment model.
        peripheral: V₂, the volume of the peripheral compartment.
        absorption: kₐ, the rate at which a dose leaves the depot, per time; needed for doses into
            the depot.
        doses: doses from `bd.dosing.doses`, into compartments named "central" and "depot".
        output: the name of the concentration.
        units: the units of the concentration, by its name, and of time.

    Raises:
        ModelError: for invalid doses, doses into other compartments, a depot without `absorption`,
            or only one of `exchange` and `peripheral`.
    """

    clearance: Scalar
    volume: Scalar
    exchange: Scalar | None = eqx.field(default=None, kw_only=True)
    peripheral: Scalar | None = eqx.field(default=None, kw_only=True)
    absorption: Scalar | None = eqx.field(default=None, kw_only=True)
    doses: Doses = eqx.field(kw_only=True)
    output: str = eqx.field(default="conc", static=True, kw_only=True)
    units: Mapping[str, str] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )  # pyright: ignore
    forcings = ()

    def __check_init__(self):
        if not isinstance(self.doses, Doses):
            raise ModelError(
                f"doses must be what bd.dosing.doses(table, …) returns, not {self.doses!r}"
            )
        for given in self.doses.given:
            if given.into not in ("central", "depot"):
                raise ModelError(
                    f"doses go into '{given.into}', but the compartments are central and depot"
                )
            if given.into == "depot" and self.absorption is None:
                raise ModelError("doses go into the depot: give the rate of absorption")
        if (self.exchange is None) != (self.peripheral is None):
            raise ModelError(
                "exchange and peripheral belong together: give both for two compartments, or none"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    @property
    def pointwise(self) -> bool:
        return True

    @property
    def trajectories(self) -> list[AbstractTrajectory]:
        return []

    def __call__(self, inputs: Inputs) -> Prediction:
        return predict_rows(
            lambda times: {self.output: self._at(times)}, inputs.times, self._possible()
        )

    def concentration(self, t: Any) -> Any:
        """Concentration at one time, for a vector field: `self.drug.concentration(t)`.

        Args:
            t: the time, in the unit of time of the doses.

        Returns:
            The concentration, a scalar.
        """
        return self._at(jnp.reshape(t, 1))[0]

    def _at(self, times: Any) -> Any:
        rates, shares = self._modes()
        volume: Any = self.volume
        return (
            sum(
                self._seen(given, times, rates, shares)
                for given in {g.into: 0 for g in self.doses.given}
            )
            / volume
        )

    def _modes(self) -> tuple[Any, Any]:
        """Decay rates λ of both modes, and the weight of each in the response to a bolus."""
        known: Any = self  # random leaves are numbers by now
        out = known.clearance / known.volume
        if self.exchange is None:
            return jnp.stack([jnp.asarray(out, float)]), jnp.ones(1)
        there, back = known.exchange / known.volume, known.exchange / known.peripheral
        between = jnp.sqrt((out + there - back) ** 2 + 4 * there * back)
        # Roots of λ² - (k + k₁₂ + k₂₁) λ + k k₂₁; the smaller one by their product, for accuracy.
        fast = 0.5 * (out + there + back + between)
        slow = out * back / fast
        return jnp.stack([fast, slow]), jnp.stack([fast - back, back - slow]) / between

    def _seen(self, into: str, times: Any, rates: Any, shares: Any) -> Any:
        """Amount in the central compartment at some times, from doses into one compartment."""
        # A bolus into the central compartment decays as Σ w_λ exp(-λ t).
        left = self._left(into, times)
        if into == "central":
            return shares @ jax.vmap(left)(rates)
        # From the depot: kₐ Σ w_λ (L(λ) - L(kₐ)) / (kₐ - λ), where L(r) is left at loss rate r.
        absorption: Any = self.absorption
        return absorption * shares @ _difference_quotients(left, rates, absorption)

    def _left(self, into: str, times: Any) -> Callable[[Any], Any]:
        """Amount left of the doses into a compartment, as a function of its loss rate."""
        parts = [
            _arrived(self.doses.pulses(given), given.until, times)
            for given in self.doses.given
            if given.into == into
        ]
        parts += [
            _forever(self.doses, steady, steady.place[..., steady.into.index(into)], times)
            for steady in self.doses.steady
        ]
        return lambda rate: sum(part(rate) for part in parts)

    def _possible(self) -> Any:
        """Whether lags and infusions fit into the intervals of steady states."""
        ok = jnp.asarray(True)
        for steady in self.doses.steady:
            lag, duration, _, _ = self.doses.lasting(steady)
            fits = (lag < steady.interval) & (duration <= steady.interval)
            ok = ok & (steady.endless | jnp.all(fits | (steady.time == NEVER)))
        return ok


def _infused(rate: Any, since: Any, lasting: Any) -> Any:
    """Amount left of an infusion at rate one that began `since` ago, for one loss rate."""
    # (1 - exp(-r T)) / r at the end of the infusion, then exponential decay.
    done = jnp.clip(since, 0.0, lasting)
    return jnp.exp(-rate * (jnp.maximum(since, 0.0) - done)) * -jnp.expm1(-rate * done) / rate


def _arrived(pulses: Pulses, until: Any, times: Any) -> Callable[[Any], Any]:
    """Amount left of doses at some times, as a function of the loss rate."""
    since = times[:, None] - pulses.begin
    counts = (since >= 0) & (times[:, None] < until)
    since = jnp.where(counts, since, 0.0)

    def left(rate):
        each = pulses.amount * jnp.exp(-rate * since)
        if pulses.infused:
            each = each + pulses.rate * _infused(rate, since, pulses.end - pulses.begin)
        return jnp.sum(jnp.where(counts, each, 0.0), axis=1)

    return left


def _forever(doses: Doses, steady: Steady, place: Any, times: Any) -> Callable[[Any], Any]:
    """Amount left of the doses before steady-state records, as a function of the loss rate."""
    lag, duration, speed, amount = doses.lasting(steady)
    counts = (times[:, None] >= steady.time) & (times[:, None] < steady.until)
    later = jnp.where(counts, times[:, None] - steady.time, 0.0)
    since = later - lag + steady.interval  # of the last dose before the record

    def left(rate):
        if steady.endless:
            each = speed * jnp.exp(-rate * later) / rate
        else:
            # Geometric series over all earlier cycles: Σ exp(-r k τ) = 1 / (1 - exp(-r τ)).
            cycles = 1.0 / -jnp.expm1(-rate * steady.interval)
            each = amount * jnp.exp(-rate * since) * cycles
            if steady.infused:
                before = (
                    jnp.exp(-rate * (since + steady.interval - duration))
                    * -jnp.expm1(-rate * duration)
                    / rate
                )
                each = each + speed * (_infused(rate, since, duration) + before * cycles)
        return jnp.sum(jnp.where(counts, place * each, 0.0), axis=1)

    return left


def _difference_quotients(left: Callable[[Any], Any], rates: Any, other: Any) -> Any:
    """Difference quotients (L(kₐ) - L(λ)) / (λ - kₐ) of a function, also for coinciding rates.

    For close rates the quotient is the mean slope between them, by Gauss–Legendre quadrature.
    """
    other = jnp.asarray(other, float)
    slope = lambda rate: jax.jvp(left, (rate,), (jnp.ones(()),))[1]  # noqa: E731
    at = jax.vmap(left)(jnp.append(rates, other))
    slopes = jax.vmap(slope)((rates[:, None] + _NODES * (other - rates)[:, None]).ravel())
    mean = jnp.einsum(
        "n,rnt->rt", jnp.asarray(_WEIGHTS), slopes.reshape(len(rates), len(_NODES), -1)
    )
    near = (jnp.abs(rates - other) < _NEAR * (rates + other))[:, None]
    gap = jnp.where(near, 1.0, (rates - other)[:, None])
    return jnp.where(near, -mean, (at[-1] - at[:-1]) / gap)

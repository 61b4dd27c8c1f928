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

# Two rates closer than this, relative to their sum, use the mean slope (`_difference_quotients`).
_NEAR = 1e-3
# Gauss–Legendre nodes and weights on (0, 1).
_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(3)[i] + (1, 0)[i]) for i in (0, 1))


class Compartments(AbstractLayer):
    r"""Concentration in the central compartment of a linear model, in closed form.

    $\dot a = k_a\,d - (CL + Q)\,a / V + Q\,p / V_2, \quad \dot d = -k_a\,d, \quad
    \dot p = Q\,a / V - Q\,p / V_2$

    Here a, d and p are the amounts in the central compartment, the depot and the peripheral
    compartment. The prediction is the concentration a / V. A `bd.ODE` with the same equations and
    doses predicts the same, but is much slower. Here the response to each dose is a sum of
    exponentials. All compartments are empty before the first dose and after a reset. Two rate
    constants may be equal.

    Args:
        clearance: CL, a volume per time.
        volume: V, the volume of the central compartment.
        exchange: Q, the clearance between both compartments, a volume per time; given together with
            `peripheral` for a two-compartment model.
        peripheral: V₂, the volume of the peripheral compartment.
        absorption: kₐ, the rate at which a dose leaves the depot, per time; needed for doses into
            the depot.
        doses: doses from `bd.dosing.doses`, into compartments named "central" and "depot".
        output: the name of the predicted concentration.
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
        """Return the concentration at some times."""
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
        """Return the decay rates λ of the exponentials, and their weights in the bolus response."""
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
        """Return the amount in the central compartment from doses into one compartment.

        Args:
            into: the compartment of the doses, "central" or "depot".
            times: the times at which the amount is wanted.
            rates: the decay rates λ.
            shares: the weights w_λ.
        """
        # A bolus into the central compartment decays as Σ w_λ exp(-λ t).
        left = self._left(into, times)
        if into == "central":
            return shares @ jax.vmap(left)(rates)
        # From the depot: kₐ Σ w_λ (L(λ) - L(kₐ)) / (kₐ - λ). L(r) is the amount that is left of the
        # doses if they decay at rate r.
        absorption: Any = self.absorption
        return absorption * shares @ _difference_quotients(left, rates, absorption)

    def _left(self, into: str, times: Any) -> Callable[[Any], Any]:
        """Return a function from a loss rate to the amount left of all doses into a compartment.

        The function computes the amount at each of `times`, as if the compartment lost its content
        at this rate.
        """
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
        """Whether lags and infusions are no longer than the dosing intervals at steady state."""
        ok = jnp.asarray(True)
        for steady in self.doses.steady:
            lag, duration, _, _ = self.doses.lasting(steady)
            fits = (lag < steady.interval) & (duration <= steady.interval)
            ok = ok & (steady.endless | jnp.all(fits | (steady.time == NEVER)))
        return ok


def _infused(rate: Any, since: Any, lasting: Any) -> Any:
    """Return the amount left of an infusion with rate 1.

    Args:
        rate: the loss rate r.
        since: the time since the start of the infusion.
        lasting: the duration T of the infusion.
    """
    # (1 - exp(-r T)) / r at the end of the infusion, then exponential decay.
    done = jnp.clip(since, 0.0, lasting)
    return jnp.exp(-rate * (jnp.maximum(since, 0.0) - done)) * -jnp.expm1(-rate * done) / rate


def _arrived(pulses: Pulses, until: Any, times: Any) -> Callable[[Any], Any]:
    """Return a function from a loss rate to the amount left of doses at some times.

    Args:
        pulses: the doses.
        until: the time from which a dose no longer counts, since a later record cancels it.
        times: the times.
    """
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
    """Return a function from a loss rate to the amount left of the doses before steady states.

    Args:
        doses: all doses.
        steady: the records at a steady state.
        place: 1 for the records whose doses go into the compartment, else 0.
        times: the times at which the amount is wanted.
    """
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
    """Difference quotients (L(kₐ) - L(λ)) / (λ - kₐ) of a function L, also for equal rates.

    For close rates the quotient is minus the mean slope between them, by Gauss–Legendre quadrature.

    Args:
        left: the function L of a rate.
        rates: the rates λ.
        other: the rate kₐ.
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

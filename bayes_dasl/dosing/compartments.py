"""Linear one- and two-compartment models in closed form, under any doses."""

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

_NEAR = 1e-3  # rates as near as this, relative to their sum, are told apart by derivatives
_NODES, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(3)[i] + (1, 0)[i]) for i in (0, 1))


class Compartments(AbstractLayer):
    r"""The concentration in a central compartment, of which a linear model has a closed form.

    $\dot
    a = k_a\,d - (CL + Q)\,a / V + Q\,p / V_2, \quad \dot d = -k_a\,d, \quad \dot p = Q\,a / V -
    Q\,p / V_2$

    The same as the `bd.ODE` of these equations under the same doses, and much faster: each dose is
    a sum of exponentials. All are empty before the first dose and after a reset. Rates may
    coincide.

    Args:
        clearance: CL, a volume per time.
        volume: V, of the central compartment.
        exchange: Q, the clearance between both compartments, a volume per time; with `peripheral`,
            else there is one.
        peripheral: V₂, the volume of the peripheral compartment.
        absorption: kₐ, the rate at which a dose leaves the depot, per time; needed for doses into
            it.
        doses: what `bd.dosing.doses` reads from a table, with compartments named "central" and
            "depot".
        output: what the concentration is called.
        units: those of the concentration, by its name, and of time.

    Raises:
        ModelError: for doses into other compartments or a depot without `absorption`, one of
            `exchange` and `peripheral` without the other, or what are no doses.
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
        """The concentration at one time, for equations that the drug drives:
        `self.drug.concentration(t)` in a field.

        Args:
            t: the time, in the units of that of the doses.
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
        """The rates of decay, and the share of a dose into the central compartment that goes with
        each.
        """
        known: Any = self  # numbers in place of what is unknown
        out = known.clearance / known.volume
        if self.exchange is None:
            return jnp.stack([jnp.asarray(out, float)]), jnp.ones(1)
        there, back = known.exchange / known.volume, known.exchange / known.peripheral
        between = jnp.sqrt((out + there - back) ** 2 + 4 * there * back)
        fast = 0.5 * (out + there + back + between)
        slow = out * back / fast
        return jnp.stack([fast, slow]), jnp.stack([fast - back, back - slow]) / between

    def _seen(self, into: str, times: Any, rates: Any, shares: Any) -> Any:
        """What is in the central compartment at some times, of the doses into a compartment."""
        left = self._left(into, times)
        if into == "central":
            return shares @ jax.vmap(left)(rates)
        absorption: Any = self.absorption
        return absorption * shares @ _differences(left, rates, absorption)

    def _left(self, into: str, times: Any) -> Callable[[Any], Any]:
        """What would be left of the doses into a compartment that loses them at a rate, as a
        function of the rate.
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
        """Whether lags and infusions fit into the intervals of steady states."""
        ok = jnp.asarray(True)
        for steady in self.doses.steady:
            lag, duration, _, _ = self.doses.lasting(steady)
            fits = (lag < steady.interval) & (duration <= steady.interval)
            ok = ok & (steady.endless | jnp.all(fits | (steady.time == NEVER)))
        return ok


def _infused(rate: Any, since: Any, lasting: Any) -> Any:
    """What is left of an infusion of one per time that began `since` ago, in what loses it at a
    rate.
    """
    done = jnp.clip(since, 0.0, lasting)
    return jnp.exp(-rate * (jnp.maximum(since, 0.0) - done)) * -jnp.expm1(-rate * done) / rate


def _arrived(pulses: Pulses, until: Any, times: Any) -> Callable[[Any], Any]:
    """What is left of doses at some times, as a function of the rate at which it is lost."""
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
    """The same of the doses before records of a steady state."""
    lag, duration, speed, amount = doses.lasting(steady)
    counts = (times[:, None] >= steady.time) & (times[:, None] < steady.until)
    later = jnp.where(counts, times[:, None] - steady.time, 0.0)
    since = later - lag + steady.interval  # of the last dose before the record

    def left(rate):
        if steady.endless:
            each = speed * jnp.exp(-rate * later) / rate
        else:
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


def _differences(left: Callable[[Any], Any], rates: Any, other: Any) -> Any:
    """The difference of a function at each rate and at another, over that of the rates, also where
    they coincide.
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

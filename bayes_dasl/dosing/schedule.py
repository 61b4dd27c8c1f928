"""Doses into states of an ODE: boluses and infusions, with lags, steady states and resets."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from .._jax.tree import frozen
from ..data.layer_inputs import NEVER, Inputs
from ..errors import ModelError
from ..layers.layer import finite, with_adjoint
from ..layers.ode import rates_at, with_schedule
from ..layers.root import find_root
from ..layers.scheduled import AbstractSchedule, AbstractScheduled
from ..random import Module, Values

# Most Newton steps of the search for a steady state.
_CYCLES = 20


class Given(Module):
    """Doses into one state, as arrays `(dose,)`.

    Args:
        time: the time of each dose record.
        amount: the amount.
        rate: the rate of an infusion; 0 if it is not given.
        duration: the duration of an infusion; negative if it is a parameter of the state.
        until: the time of the next record that cancels the rest of the dose.
        into: the state.
        infused: whether any of the doses is an infusion.
    """

    time: Any
    amount: Any
    rate: Any
    duration: Any
    until: Any = eqx.field(metadata={"hidden": True})
    into: str = eqx.field(static=True)
    infused: bool = eqx.field(static=True)


class Steady(Module):
    """Records at a steady state, as arrays `(record,)`.

    Args:
        time: the time of each record.
        amount: the amount of each dose.
        rate: the rate of an infusion; 0 if it is not given.
        duration: the duration of an infusion; negative if it is a parameter of the state.
        interval: the time between doses.
        until: the time of the next record that cancels the rest of this one.
        replaces: 1 if the steady state replaces the states, 0 if it is added to the states.
        place: an array `(record, state)` that is 1 for the state of the record and else 0.
        into: the states, in the order of the last axis of `place`.
        infused: whether any of the doses is an infusion.
        endless: True for constant infusions, False for repeated doses.
    """

    time: Any
    amount: Any
    rate: Any
    duration: Any
    interval: Any
    until: Any = eqx.field(metadata={"hidden": True})
    replaces: Any
    place: Any = eqx.field(metadata={"hidden": True})
    into: tuple[str, ...] = eqx.field(static=True)
    infused: bool = eqx.field(static=True)
    endless: bool = eqx.field(static=True)

    def of(self, numbers: Mapping[str, Any], default: float) -> Any:
        """Return a parameter of the state of each record.

        Args:
            numbers: the parameter by state.
            default: the value for states that `numbers` does not name.
        """
        return sum(
            self.place[..., i] * numbers.get(name, default) for i, name in enumerate(self.into)
        )


class Doses(AbstractScheduled):
    """Doses of one subject, or of several, as `bd.dosing.doses` reads them from a table.

    Args:
        given: doses by state.
        steady: records at a steady state.
        resets: times at which all states return to their initial values.
        lag: delay of a dose after its record, by state.
        bioavailability: share of an amount that arrives, by state.
        duration: duration of infusions whose duration is not in the table, by state.
        members: the subjects, numbers or names; empty if the table does not distinguish subjects.
        start: the first time of the table, and the start of a solve unless its layer has another
            start.
    """

    given: tuple[Given, ...]
    steady: tuple[Steady, ...]
    resets: Any
    lag: dict[str, Any]
    bioavailability: dict[str, Any]
    duration: dict[str, Any]
    members: tuple[float | str, ...] = eqx.field(static=True, metadata={"hidden": True})
    start: float = eqx.field(static=True)
    has_a_time: ClassVar[str] = "doses"

    def __repr__(self) -> str:
        """Return the number of subjects, the states and the first time, but no arrays."""
        states = dict.fromkeys(
            [given.into for given in self.given] + [name for s in self.steady for name in s.into]
        )
        whose = f"{len(self.members)} subjects" if self.members else "one subject"
        return f"<doses of {whose} into {', '.join(states)}, from time {self.start:g} on>"

    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that doses go into scalar states.

        Args:
            shapes: the shape of each state, by name.

        Raises:
            ModelError: for an unknown state, or one that is an array.
        """
        for given in self.given:
            if given.into not in shapes:
                raise ModelError(
                    f"doses go into '{given.into}', but the states are {', '.join(shapes)}"
                )
            if shapes[given.into]:
                raise ModelError(
                    f"doses go into '{given.into}', which is an array of shape {shapes[given.into]}"
                )

    def refuse_before(self, start: Any) -> None:
        """Refuse a table that begins before the start of a solve, since early doses would be lost.

        Args:
            start: the start of the solve; a traced start is not checked.

        Raises:
            ModelError: if the table begins before the start.
        """
        if not isinstance(start, Tracer) and self.start < float(start):
            raise ModelError(
                f"the table of doses begins at {self.start:g}, before the solve does at "
                f"{float(start):g}, and what is "
                "given before would be lost. A forecast starts where the fit did: let that begin "
                "at the first time of "
                f"all tables, by start={self.start:g} in the layer, or a date"
            )

    def schedule(self, ode: Any, inputs: Inputs) -> "Schedule":
        """Return the schedule of one solve, in which all steady states are computed.

        Args:
            ode: the `ODE` layer with these doses.
            inputs: the start and the forcings.

        Returns:
            The schedule; its `ok` is false if a steady state was not found.
        """
        pulses, ok, states = [self.pulses(given) for given in self.given], jnp.asarray(True), []
        for steady in self.steady:
            found, fine = steady_states(ode, self, steady, inputs)
            ok = ok & jnp.all(fine | (steady.time == NEVER))
            states.append(found)
            if steady.infused and not steady.endless:
                pulses += self.going_on(steady)
        return Schedule(
            pulses=tuple(pulses),
            resets=self.resets,
            steady=self.steady,
            states=tuple(states),
            initial=ode.initial,
            ok=ok,
        )

    def pulses(self, given: Given) -> "Pulses":
        """Return begin, end, rate and amount of doses into one state.

        Args:
            given: the doses.

        Returns:
            The pulses; a dose that is cancelled before it arrives has rate and amount zero.
        """
        # Effective begin and end: the lag shifts both, and a later reset cuts the end.
        begin = given.time + self.lag.get(given.into, 0.0)
        share = self.bioavailability.get(given.into, 1.0)
        unknown = self.duration.get(given.into, 0.0)
        duration, rate, amount = _lasting(given, share, unknown)
        end, counts = jnp.minimum(begin + duration, given.until), begin < given.until
        none = lambda x: jnp.where(counts, x, 0.0)  # noqa: E731
        return Pulses(begin, end, none(rate), none(amount), given.into, given.infused)

    def lasting(self, steady: Steady) -> tuple[Any, Any, Any, Any]:
        """Return lag, duration, rate and bolus amount of records at a steady state.

        Args:
            steady: the records.

        Returns:
            Four arrays, `(record,)`, in this order.
        """
        share, unknown = steady.of(self.bioavailability, 1.0), steady.of(self.duration, 0.0)
        return (steady.of(self.lag, 0.0), *_lasting(steady, share, unknown))

    def going_on(self, steady: Steady) -> "list[Pulses]":
        """Return infusions that began before a steady-state record and end after it.

        Args:
            steady: the records.

        Returns:
            The pulses for each state.
        """
        lag, duration, rate, _ = self.lasting(steady)
        # The last dose of the cycle was given one interval before the record.
        end = jnp.minimum(steady.time + lag - steady.interval + duration, steady.until)
        end = jnp.maximum(end, steady.time)
        return [
            Pulses(steady.time, end, rate * steady.place[..., i], jnp.zeros_like(rate), name, True)
            for i, name in enumerate(steady.into)
        ]


def _lasting(doses: Given | Steady, share: Any, unknown: Any) -> tuple[Any, Any, Any]:
    """Return durations, rates and bolus amounts of doses.

    A bioavailability below 1 shortens an infusion of known rate, and lowers the rate of an infusion
    of known duration.

    Args:
        doses: the doses.
        share: the bioavailability of each dose.
        unknown: the duration of doses whose duration is a parameter.
    """
    amount, rated = doses.amount * share, doses.rate > 0
    # The duration is given, a parameter, or amount / rate. The rate is given, or amount / duration.
    # A dose of duration zero is a bolus.
    duration = jnp.where(doses.duration < 0, unknown, doses.duration)
    duration = jnp.where(rated, amount / jnp.where(rated, doses.rate, 1.0), duration)
    long = duration > 0
    rate = jnp.where(
        rated, doses.rate, jnp.where(long, amount / jnp.where(long, duration, 1.0), 0.0)
    )
    return duration, rate, jnp.where(long, 0.0, amount)


class Pulses(Module):
    """Input into one state: a rate from `begin` to `end`, and a bolus amount at `begin`.

    `into` is the name of the state, and `infused` whether any dose is an infusion.
    """

    begin: Float[Array, " dose"]
    end: Float[Array, " dose"]
    rate: Float[Array, " dose"]
    amount: Float[Array, " dose"]
    into: str = eqx.field(static=True)
    infused: bool = eqx.field(static=True)


class Schedule(AbstractSchedule):
    """All doses and resets of one solve, with the interface of a `Jump`.

    An infusion is a constant rate between two times. The solver treats these times as constants, so
    their derivatives are added here: an infusion that begins dτ later has given `rate · dτ` less.

    Args:
        pulses: doses into each state.
        resets: times at which all states return to their initial values.
        steady: records at a steady state.
        states: the steady states of these records, by state.
        initial: the initial states, to which a reset returns.
        ok: whether all steady states were found.
    """

    pulses: tuple[Pulses, ...]
    resets: Float[Array, " reset"]
    steady: tuple[Steady, ...]
    states: tuple[Values, ...]
    initial: dict[str, Any]
    ok: Bool[Array, ""]

    @classmethod
    def empty(cls, initial: dict[str, Any]) -> "Schedule":
        """A schedule without doses."""
        return cls(
            pulses=(),
            resets=jnp.zeros(0),
            steady=(),
            states=(),
            initial=initial,
            ok=jnp.asarray(True),
        )

    @property
    def times(self) -> Float[Array, " jumps"]:
        return jnp.concatenate(
            [jnp.atleast_1d(jnp.asarray(times, float)) for times in self._parts()]
        )

    def _parts(self) -> list[Any]:
        """Return the times of resets, steady states, and dose begins and ends, in this order."""
        of_pulses = [
            times for p in self.pulses for times in ((p.begin, p.end) if p.infused else (p.begin,))
        ]
        return [self.resets, *(steady.time for steady in self.steady), *of_pulses]

    def __call__(
        self, acting: Bool[Array, " jumps"], t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """Change the states at one time: first resets, then steady states, then doses.

        Args:
            acting: which of `times` act at this time.
            t: the time.
            y: the states before the changes, by name.
            u: the forcings, which are not used.

        Returns:
            The states after the changes, by name.
        """
        # 1. Resets to the initial states.
        sizes = [jnp.size(times) for times in self._parts()]
        back, *parts = jnp.split(acting, [*itertools.accumulate(sizes[:-1])])
        now, parts = parts[: len(self.steady)], iter(parts[len(self.steady) :])
        back = jnp.any(back)
        y = {
            name: jnp.where(back, jnp.asarray(self.initial[name], value.dtype), value)
            for name, value in y.items()
        }
        # 2. Steady states: those that replace the states come before those that are added.
        for replaces in (1.0, 0.0):
            for acts, steady, states in zip(now, self.steady, self.states, strict=True):
                here = acts & (steady.replaces == replaces)
                for k in range(here.size):
                    y = {
                        n: jnp.where(here[k], states[n][k] + (1 - replaces) * v, v)
                        for n, v in y.items()
                    }
        # 3. Boluses, and the derivative terms at both ends of infusions.
        for pulses in self.pulses:
            begun = next(parts).astype(float)
            added = jnp.sum(begun * (pulses.amount - _late(pulses.begin) * pulses.rate))
            if pulses.infused:
                added = added + jnp.sum(next(parts) * _late(pulses.end) * pulses.rate)
            y = y | {pulses.into: y[pulses.into] + added}
        return y

    def rates(self, t: Any, last: Any) -> dict[str, Any]:
        """Return the rates of infusions by state.

        Args:
            t: the time.
            last: the end of the current part of the solve. Begins and ends of infusions after this
                time are ignored.

        Returns:
            The rates that are added to the vector field.
        """
        rates: dict[str, Any] = {}
        for p in self.pulses:
            if p.infused:
                # Begins and ends after `last` lie outside the current part of the solve.
                on = (t >= jnp.where(p.begin > last, jnp.inf, p.begin)) & (
                    t < jnp.where(p.end > last, jnp.inf, p.end)
                )
                rates[p.into] = rates.get(p.into, 0.0) + jnp.sum(jnp.where(on, p.rate, 0.0))
        return rates


def _late(times: Any) -> Any:
    """Return zero, with derivative 1 by the times."""
    return times - jax.lax.stop_gradient(times)


def steady_states(
    ode: Any, doses: Doses, steady: Steady, inputs: Inputs
) -> tuple[dict[str, Any], Bool[Array, " record"]]:
    """Return the steady states of all records, and whether each was found.

    Args:
        ode: the `ODE` layer.
        doses: all doses.
        steady: the records.
        inputs: the start and the forcings.

    Returns:
        The states by name, `(record,)`, and a flag for each record.
    """
    lag, duration, rate, amount = doses.lasting(steady)

    def one(time, interval, place, lag, duration, rate, amount):
        into = dict(zip(steady.into, place, strict=True))
        if steady.endless:
            return _endless(ode, into, rate, time, inputs)
        return _periodic(
            ode, into, steady.infused, time, interval, lag, duration, rate, amount, inputs
        )

    # Padding records are computed at the start and never used.
    time = jnp.where(steady.time < NEVER, steady.time, inputs.start)
    return jax.vmap(one)(time, steady.interval, steady.place, lag, duration, rate, amount)


def _endless(
    ode: Any, into: Values, rate: Any, time: Any, inputs: Inputs
) -> tuple[dict[str, Any], Any]:
    """Steady state of a constant infusion: the states at which all rates vanish.

    Args:
        ode: the `ODE` layer.
        into: for each state, 1 if it receives the infusion, else 0.
        rate: the rate of the infusion.
        time: the time at which rates are evaluated.
        inputs: the start and the forcings.

    Returns:
        The states, and whether they were found.
    """
    field = rates_at(with_schedule(ode, Schedule.empty(ode.initial), ode.initial), inputs)

    def still(y):
        return {name: v + into.get(name, 0.0) * rate for name, v in field(time, y).items()}

    guess = jax.tree.map(lambda v: jnp.asarray(v, float), ode.initial)
    found = find_root(still, guess)
    ok = finite(found)
    return jax.tree.map(lambda v, g: jnp.where(ok, v, g), found, guess), ok


def _periodic(
    ode: Any,
    into: Values,
    infused: bool,
    time: Any,
    interval: Any,
    lag: Any,
    duration: Any,
    rate: Any,
    amount: Any,
    inputs: Inputs,
) -> tuple[dict[str, Any], Any]:
    """Steady state of repeated doses: the fixed point y = Φ(y) of one cycle.

    A cycle is the dosing interval that ends at the record, and Φ maps the states at its start to
    those at its end. Newton's method finds the fixed point without a gradient; one more step adds
    the derivatives.

    Args:
        ode: the `ODE` layer.
        into: for each state, 1 if it receives the doses, else 0.
        infused: whether doses are infusions.
        time: the time of the record.
        interval: the dosing interval.
        lag: the delay of a dose.
        duration: the duration of an infusion.
        rate: the rate of an infusion.
        amount: the amount of a bolus.
        inputs: the start and the forcings.

    Returns:
        The states, and whether they were found.
    """
    begin = time - interval
    # 1. The doses of a cycle: its own dose, and the rest of an infusion of the previous cycle.
    starts = begin + lag - jnp.stack([interval, jnp.zeros_like(interval)])
    once = jnp.stack([0.0 * amount, amount])
    pulses = tuple(
        Pulses(starts, starts + duration, jnp.full(2, rate * place), once * place, name, infused)
        for name, place in into.items()
    )
    initial, unravel = ravel_pytree(jax.tree.map(lambda v: jnp.asarray(v, float), ode.initial))
    at = Inputs(begin, jnp.reshape(time, 1), inputs.forcings)

    # 2. The map Φ of the states over one cycle.
    def cycle(y, adjoint=None):
        own = dataclasses.replace(Schedule.empty(unravel(y)), pulses=pulses)
        one = with_schedule(ode, own, unravel(y))
        one = one if adjoint is None else with_adjoint(one, adjoint)
        states, ok, _ = one.solve(at, one.begin(at))
        after = ravel_pytree(jax.tree.map(lambda v: v[-1], states))[0]
        return after, (after, ok)

    # 3. Newton steps y ← y - (Φ' - 1)⁻¹ (Φ(y) - y), or y ← Φ(y) where that is not finite.
    def search(y):
        def step(carry):
            y, _, number, _ = carry
            slopes, (after, ok) = jax.jacfwd(
                lambda y: cycle(y, diffrax.ForwardMode()), has_aux=True
            )(y)
            left = jnp.linalg.inv(slopes - jnp.eye(y.size))
            off = jnp.max(jnp.abs(after - y) / (ode.atol + ode.rtol * jnp.abs(y)))
            moved = y - left @ (after - y)
            good = ok & jnp.all(jnp.isfinite(moved))
            return jnp.where(good, moved, after), left, number + 1, jnp.where(good, off, jnp.inf)

        y, left, _, off = jax.lax.while_loop(
            lambda carry: (carry[2] < _CYCLES) & (carry[3] > 0.1),
            step,
            (y, jnp.eye(y.size), 0, jnp.asarray(jnp.inf)),
        )
        return y, left, off < 10.0

    closed = eqx.filter_closure_convert(search, initial)
    y, left, found = frozen(closed)(frozen(initial))
    found = found & jnp.all(jnp.isfinite(left)) & jnp.all(jnp.isfinite(y))
    y, left = jnp.where(found, y, initial), jnp.where(found, left, jnp.eye(initial.size))
    # 4. The derivative of the fixed point, by one Newton step with a fixed Jacobian.
    after, (_, ok) = cycle(jax.lax.stop_gradient(y))
    y = y - left @ (after - y)
    ok = ok & found & (lag < interval) & (duration <= interval)
    return unravel(jnp.where(ok, y, initial)), ok

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
    """Doses into one state, arrays `(dose,)`; a negative duration stands for the unknown one."""

    time: Any
    amount: Any
    rate: Any
    duration: Any
    until: Any = eqx.field(metadata={"hidden": True})
    into: str = eqx.field(static=True)
    infused: bool = eqx.field(static=True)


class Steady(Module):
    """Records at a steady state, `(record,)`; `place` `(record, state)` is 1 at their state."""

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
        """The parameter, by state in `numbers`, of the state of each record."""
        return sum(
            self.place[..., i] * numbers.get(name, default) for i, name in enumerate(self.into)
        )


class Doses(AbstractScheduled):
    """Doses of one subject, or of each member, as `bd.dosing.doses` reads them from a table.

    Args:
        given: doses by state.
        steady: records at a steady state.
        resets: times at which all states return to their initial values.
        lag: delay of a dose after its record, by state.
        bioavailability: share of an amount that arrives, by state.
        duration: duration of infusions whose duration is not in the table, by state.
        members: the subjects, numbers or names; empty if the doses are for any subject.
        start: the first time of the table, the start of a solve unless its layer has another.
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
        """Number of subjects, states and first time, since all arrays would fill pages."""
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
        """Refuse a table that begins before the start of a solve, which would lose doses.

        Args:
            start: the start of the solve; a traced one is not checked.

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
        """The schedule of one solve, with all steady states solved for.

        Args:
            ode: the equations, with these doses.
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
        """Begin, end, rate and amount of doses into one state.

        Args:
            given: these doses.

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
        """Lags, durations, rates and bolus amounts of records at a steady state.

        Args:
            steady: these records.

        Returns:
            Four arrays, `(record,)`.
        """
        share, unknown = steady.of(self.bioavailability, 1.0), steady.of(self.duration, 0.0)
        return (steady.of(self.lag, 0.0), *_lasting(steady, share, unknown))

    def going_on(self, steady: Steady) -> "list[Pulses]":
        """Infusions of the last cycle before a steady-state record that end after the record.

        Args:
            steady: these records.

        Returns:
            Pulses for each state.
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
    """Durations, rates and bolus amounts of doses.

    A bioavailability below 1 shortens an infusion of known rate, and lowers the rate of an infusion
    of known duration.
    """
    amount, rated = doses.amount * share, doses.rate > 0
    # Duration: as given, unknown (a parameter), or amount / rate. Rate: as given, or amount /
    # duration. A dose of duration zero is a bolus.
    duration = jnp.where(doses.duration < 0, unknown, doses.duration)
    duration = jnp.where(rated, amount / jnp.where(rated, doses.rate, 1.0), duration)
    long = duration > 0
    rate = jnp.where(
        rated, doses.rate, jnp.where(long, amount / jnp.where(long, duration, 1.0), 0.0)
    )
    return duration, rate, jnp.where(long, 0.0, amount)


class Pulses(Module):
    """Arrivals in one state: a rate from `begin` to `end`, and a bolus amount at `begin`."""

    begin: Float[Array, " dose"]
    end: Float[Array, " dose"]
    rate: Float[Array, " dose"]
    amount: Float[Array, " dose"]
    into: str = eqx.field(static=True)
    infused: bool = eqx.field(static=True)


class Schedule(AbstractSchedule):
    """All doses and resets of one solve, with the interface of a `Jump`.

    Infusions are rates between two times, which the solver holds fixed. The derivative by these
    times is added here: an infusion that begins dτ later has given `rate · dτ` less.
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
        of_pulses = [
            times for p in self.pulses for times in ((p.begin, p.end) if p.infused else (p.begin,))
        ]
        return [self.resets, *(steady.time for steady in self.steady), *of_pulses]

    def __call__(
        self, acting: Bool[Array, " jumps"], t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """States after the changes that are `acting`: resets, then steady states, then doses."""
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
        """Rates of infusions by state.

        Args:
            t: the time.
            last: the time after which no infusion begins or ends.

        Returns:
            The rates that are added to the vector field.
        """
        rates: dict[str, Any] = {}
        for p in self.pulses:
            if p.infused:
                # Begins and ends after `last` lie outside this solve.
                on = (t >= jnp.where(p.begin > last, jnp.inf, p.begin)) & (
                    t < jnp.where(p.end > last, jnp.inf, p.end)
                )
                rates[p.into] = rates.get(p.into, 0.0) + jnp.sum(jnp.where(on, p.rate, 0.0))
        return rates


def _late(times: Any) -> Any:
    """Zero, with derivative 1 in the times."""
    return times - jax.lax.stop_gradient(times)


def steady_states(
    ode: Any, doses: Doses, steady: Steady, inputs: Inputs
) -> tuple[dict[str, Any], Bool[Array, " record"]]:
    """Steady states of all records, and whether each was found."""
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
    """Steady state of an endless infusion: the states at which all rates vanish."""
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

    A cycle goes from one interval before the record to the record. Newton's method finds the fixed
    point without a gradient; one more step adds the derivatives.

    Returns:
        The states, and whether they were found.
    """
    begin = time - interval
    # 1. The doses of a cycle: its own, and the infusion that is left from the cycle before.
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

"""Doses into the states of an ODE: at once or as infusions, with lags, repeats, steady states and
resets.
"""

import dataclasses
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

_CYCLES = 20  # of the search for a steady state


class Given(Module):
    """Doses into one state, `(dose,)` each; of a negative duration is the unknown one."""

    time: Any
    amount: Any
    rate: Any
    duration: Any
    until: Any = eqx.field(metadata={"hidden": True})
    into: str = eqx.field(static=True)
    infused: bool = eqx.field(static=True)


class Steady(Module):
    """Records of doses that begin at a steady state, `(record,)` each; `place` `(record, state)` is
    1 where they go.
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
        """The number of the state that each record goes into."""
        return sum(
            self.place[..., i] * numbers.get(name, default) for i, name in enumerate(self.into)
        )


class Doses(AbstractScheduled):
    """Doses of one subject, or of each member of a population; `bd.dosing.doses` reads them from a
    table.

    Args:
        given: those of each state.
        steady: records that begin at a steady state.
        resets: the times at which all states become what they were at the start.
        lag: how much later than its record a dose arrives, by state.
        bioavailability: the share of an amount that arrives, by state.
        duration: how long infusions last whose duration is unknown, by state.
        members: the subjects, numbers or names; none where the doses are those of any.
        start: the first time of the table, at which a solve starts unless its layer says another.
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
        """Whose doses they are, into which states, and since when:
        arrays of them would fill pages.
        """
        states = dict.fromkeys(
            [given.into for given in self.given] + [name for s in self.steady for name in s.into]
        )
        whose = f"{len(self.members)} subjects" if self.members else "one subject"
        return f"<doses of {whose} into {', '.join(states)}, from time {self.start:g} on>"

    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse doses into a state that there is not, or that is no number.

        Args:
            shapes: the shape of each state, by name.

        Raises:
            ModelError: if so.
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
        """Refuse a table that is known to begin before the start of a solve: what is given before
        would be lost.

        Args:
            start: that of the solve.

        Raises:
            ModelError: if so.
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
        """What happens when, with the states of all steady states.

        Args:
            ode: the equations, with these doses.
            inputs: the start and the forcings.
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
        """When doses into one state arrive and end.

        Args:
            given: these doses.
        """
        begin = given.time + self.lag.get(given.into, 0.0)
        share, unknown = (
            self.bioavailability.get(given.into, 1.0),
            self.duration.get(given.into, 0.0),
        )
        duration, rate, amount = _lasting(given, share, unknown)
        end, counts = jnp.minimum(begin + duration, given.until), begin < given.until
        none = lambda x: jnp.where(counts, x, 0.0)  # noqa: E731
        return Pulses(begin, end, none(rate), none(amount), given.into, given.infused)

    def lasting(self, steady: Steady) -> tuple[Any, Any, Any, Any]:
        """Lags of records of a steady state, how long they last, at which rate, and what arrives at
        once.

        Args:
            steady: these records.
        """
        share, unknown = steady.of(self.bioavailability, 1.0), steady.of(self.duration, 0.0)
        return (steady.of(self.lag, 0.0), *_lasting(steady, share, unknown))

    def going_on(self, steady: Steady) -> "list[Pulses]":
        """The infusions before records of a steady state, as far as they go on after them.

        Args:
            steady: these records.
        """
        lag, duration, rate, _ = self.lasting(steady)
        end = jnp.minimum(steady.time + lag - steady.interval + duration, steady.until)
        end = jnp.maximum(end, steady.time)
        return [
            Pulses(steady.time, end, rate * steady.place[..., i], jnp.zeros_like(rate), name, True)
            for i, name in enumerate(steady.into)
        ]


def _lasting(doses: Given | Steady, share: Any, unknown: Any) -> tuple[Any, Any, Any]:
    """How long doses last, at which rate, and what arrives at once.

    Of a known rate the share that arrives makes the infusion shorter, of a known duration its rate
    lower.
    """
    amount, rated = doses.amount * share, doses.rate > 0
    duration = jnp.where(doses.duration < 0, unknown, doses.duration)
    duration = jnp.where(rated, amount / jnp.where(rated, doses.rate, 1.0), duration)
    long = duration > 0
    rate = jnp.where(
        rated, doses.rate, jnp.where(long, amount / jnp.where(long, duration, 1.0), 0.0)
    )
    return duration, rate, jnp.where(long, 0.0, amount)


class Pulses(Module):
    """What arrives in one state, from when until when, at which rate, and how much at once."""

    begin: Float[Array, " dose"]
    end: Float[Array, " dose"]
    rate: Float[Array, " dose"]
    amount: Float[Array, " dose"]
    into: str = eqx.field(static=True)
    infused: bool = eqx.field(static=True)


class Schedule(AbstractSchedule):
    """What happens to the states of one solve, as a `Jump` of all of it.

    Infusions are rates between two times. Whoever solves the ODE may hold these fixed: one that
    begins later by an amount too small to see has given that much less, which is taken away where
    it begins.
    """

    pulses: tuple[Pulses, ...]
    resets: Float[Array, " reset"]
    steady: tuple[Steady, ...]
    states: tuple[Values, ...]
    initial: dict[str, Any]
    ok: Bool[Array, ""]

    @classmethod
    def empty(cls, initial: dict[str, Any]) -> "Schedule":
        """Nothing happens."""
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
        """The states after what is `acting`: first resets, then steady states, then doses."""
        back, *parts = jnp.split(acting, _ends(self._parts()))
        now, parts = parts[: len(self.steady)], iter(parts[len(self.steady) :])
        back = jnp.any(back)
        y = {
            name: jnp.where(back, jnp.asarray(self.initial[name], value.dtype), value)
            for name, value in y.items()
        }
        for replaces in (1.0, 0.0):  # what is added comes after what replaces the states
            for acts, steady, states in zip(now, self.steady, self.states, strict=True):
                here = acts & (steady.replaces == replaces)
                for k in range(here.size):
                    y = {
                        n: jnp.where(here[k], states[n][k] + (1 - replaces) * v, v)
                        for n, v in y.items()
                    }
        for pulses in self.pulses:
            begun = next(parts).astype(float)
            added = jnp.sum(begun * (pulses.amount - _late(pulses.begin) * pulses.rate))
            if pulses.infused:
                added = added + jnp.sum(next(parts) * _late(pulses.end) * pulses.rate)
            y = y | {pulses.into: y[pulses.into] + added}
        return y

    def rates(self, t: Any, last: Any) -> dict[str, Any]:
        """What infusions add to the rates of states.

        Args:
            t: the time.
            last: from when on nothing changes any more.
        """
        rates: dict[str, Any] = {}
        for p in self.pulses:
            if p.infused:
                on = (t >= jnp.where(p.begin > last, jnp.inf, p.begin)) & (
                    t < jnp.where(p.end > last, jnp.inf, p.end)
                )
                rates[p.into] = rates.get(p.into, 0.0) + jnp.sum(jnp.where(on, p.rate, 0.0))
        return rates


def _ends(parts: list[Any]) -> list[int]:
    ends, total = [], 0
    for part in parts[:-1]:
        total += jnp.size(part)
        ends.append(total)
    return ends


def _late(times: Any) -> Any:
    """Zero but for its derivative."""
    return times - jax.lax.stop_gradient(times)


def steady_states(
    ode: Any, doses: Doses, steady: Steady, inputs: Inputs
) -> tuple[dict[str, Any], Bool[Array, " record"]]:
    """The states at each record of a steady state, and whether they were found."""
    lag, duration, rate, amount = doses.lasting(steady)

    def one(time, interval, place, lag, duration, rate, amount):
        into = dict(zip(steady.into, place, strict=True))
        if steady.endless:
            return _endless(ode, into, rate, time, inputs)
        return _periodic(
            ode, into, steady.infused, time, interval, lag, duration, rate, amount, inputs
        )

    # What only fills the array is worked out at the start, and not used.
    time = jnp.where(steady.time < NEVER, steady.time, inputs.start)
    return jax.vmap(one)(time, steady.interval, steady.place, lag, duration, rate, amount)


def _endless(
    ode: Any, into: Values, rate: Any, time: Any, inputs: Inputs
) -> tuple[dict[str, Any], Any]:
    """Where an infusion that never began holds the states."""
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
    """The states that a cycle of doses brings back, found by Newton's method without a gradient;
    one more step has it.

    A cycle goes from one interval before the record to the record.
    """
    begin = time - interval
    # The dose of this cycle, and what lasts into it of the one before.
    starts = begin + lag - jnp.stack([interval, jnp.zeros_like(interval)])
    once = jnp.stack([0.0 * amount, amount])
    pulses = tuple(
        Pulses(starts, starts + duration, jnp.full(2, rate * place), once * place, name, infused)
        for name, place in into.items()
    )
    initial, unravel = ravel_pytree(jax.tree.map(lambda v: jnp.asarray(v, float), ode.initial))
    at = Inputs(begin, jnp.reshape(time, 1), inputs.forcings)

    def cycle(y, adjoint=None):
        own = dataclasses.replace(Schedule.empty(unravel(y)), pulses=pulses)
        one = with_schedule(ode, own, unravel(y))
        one = one if adjoint is None else with_adjoint(one, adjoint)
        states, ok, _ = one.solve(at, one.begin(at))
        after = ravel_pytree(jax.tree.map(lambda v: v[-1], states))[0]
        return after, (after, ok)

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
    after, (_, ok) = cycle(jax.lax.stop_gradient(y))
    y = y - left @ (after - y)
    ok = ok & found & (lag < interval) & (duration <= interval)
    return unravel(jnp.where(ok, y, initial)), ok

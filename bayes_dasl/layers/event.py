"""`Event`: changes of the states of an ODE that the states trigger, such as a bounce."""

from collections.abc import Callable, Iterable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx

from ..errors import ModelError
from ..random import Module, is_function
from .jump import Jump

_DIRECTIONS = {"falling": False, "rising": True, "both": None}
# Shares of the whole solve. A part after the end repeats the last thousandth, since a solve of
# length zero has no gradient. At the start of a part, `when` is evaluated slightly later, since it
# may be zero there.
_AGAIN, _AHEAD = 1e-3, 1e-7


class Event(Module):
    """A sudden change of the states whenever a function of them crosses zero.

    The time is found by Newton's method on the solver's dense output, and is differentiable in the
    parameters. The solution is continuous from the right. A function that is zero at the start
    triggers nothing there; it must leave zero first.

    Args:
        when: a function `(t, y, u)` that returns one number, such as the height of a ball.
        change: amounts added to states, or a function `(t, y, u)` that returns new values of some
            states, as for `bd.Jump`:
            `lambda t, y, u: {"speed": -0.9 * y["speed"]}` bounces.
        direction: whether the number is "falling" or "rising" through zero, or "both".
        most: the largest number of occurrences in one solve; with more the solve fails with
            `ok=False`. Each costs a start of the solver.

    Raises:
        ModelError: if `when` is no function, `change` is invalid, `direction` is unknown, or `most`
            is not positive.
    """

    when: Any
    change: Any
    direction: str = eqx.field(default="falling", static=True)
    most: int = eqx.field(default=16, static=True)

    def __check_init__(self):
        if not is_function(self.when):
            raise ModelError(
                f"when must be a function (t, y, u) that returns one number, not {self.when!r}"
            )
        if self.direction not in _DIRECTIONS:
            raise ModelError(
                f"direction must be one of {', '.join(_DIRECTIONS)}, not {self.direction!r}"
            )
        if not isinstance(self.most, int) or self.most < 1:
            raise ModelError(f"most must be a whole number of at least 1, not {self.most!r}")
        _ = self.jump

    @property
    def jump(self) -> Jump:
        """The change as a `Jump`, whose time is not used."""
        return Jump(0.0, self.change)


def as_events(events: Any) -> tuple[Event, ...]:
    """Convert one event or several to a tuple.

    Raises:
        ModelError: if any of them is no `Event`.
    """
    events = tuple(events) if isinstance(events, Iterable) else (events,)
    for event in events:
        if not isinstance(event, Event):
            raise ModelError(f"events must be bd.Event(when, change), not {event!r}")
    return events


def _crossing_value(value: Any) -> Any:
    """Convert the value of `when`; a truth value cannot pass through zero and is refused."""
    if not eqx.is_array_like(value):
        said = type(value).__name__
    elif jnp.result_type(value).kind not in "iuf":
        said = "a truth value or a complex one"
    elif jnp.shape(value):
        said = f"an array of shape {jnp.shape(value)}"
    else:
        return jnp.asarray(value, float)
    raise ModelError(
        "when of an event must return one number that passes through zero, such as y['c'] - 3.0, "
        f"not {said}"
    )


def solve_with_events(
    events: tuple[Event, ...],
    solve: Callable[..., Any],
    rates: Callable,
    forced: Callable,
    times: Any,
    start: Any,
    initial: Any,
) -> tuple[dict[str, Any], Any, Any]:
    """Solve an ODE with events, as a scan over the parts between events.

    Args:
        events: the events.
        solve: `solve(t0, y0, saveat, event)`, one solve from `t0` to the last time.
        rates: the vector field `(t, y)`.
        forced: the forcings as a function of time.
        times: requested times.
        start: the start of the solve.
        initial: the initial states.

    Returns:
        The states `(time, …)` by name, whether the solve succeeded, and its number of steps.
    """
    end = times[-1]
    first, ahead = end - _AGAIN * (end - start), _AHEAD * (end - start)

    def looked_at(when, begin):
        def value(t, y, args, **_):
            late = jnp.where(t == begin, ahead, 0.0)
            later = jax.tree.map(lambda y, rate: y + late * rate, y, rates(t, y))
            return _crossing_value(when(t + late, later, forced(t)))

        return value

    def part(carry, _):
        t0, y0, done, ok = carry
        # 1. Solve from the last event until the next one, or to the end.
        begin = jnp.where(done, first, t0)
        event = diffrax.Event(
            [looked_at(e.when, begin) for e in events],
            optx.Newton(1e-10, 1e-10),
            [_DIRECTIONS[e.direction] for e in events],
        )
        at = jnp.clip(times, begin, end)
        saved = diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=at), diffrax.SubSaveAt(t1=True)])
        solution = solve(begin, y0, saved, event)
        # 2. Which event stopped the solve, and when.
        happened = jnp.stack(solution.event_mask) & ~done
        (_, stops), (found, ends) = solution.ts, solution.ys
        stop = jnp.where(jnp.any(happened), stops[0], end)
        # 3. Keep the states at the requested times of this part; the parts are added up below.
        inside = ~done & (times >= t0) & ((times < stop) | ~jnp.any(happened))
        masked = jax.tree.map(
            lambda y: jax.vmap(lambda i, y: jnp.where(i, y, 0.0))(inside, y), found
        )
        y = jax.tree.map(lambda y: y[0], ends)
        fine = (solution.result == diffrax.RESULTS.successful) | (
            solution.result == diffrax.RESULTS.event_occurred
        )
        ok = ok & (done | fine)
        # 4. Change the states, from which the next part starts.
        for number, e in enumerate(events):
            y = e.jump(happened[number][None], stop, y, forced(stop))
        y = jax.tree.map(lambda new, old: jnp.where(done, old, new), y, y0)
        return (stop, y, done | ~jnp.any(happened), ok), (masked, solution.stats["num_steps"])

    begun = (jnp.asarray(start, end.dtype), initial, jnp.asarray(False), jnp.asarray(True))
    parts = 1 + sum(event.most for event in events)
    (_, _, done, ok), (states, steps) = jax.lax.scan(part, begun, length=parts)
    return jax.tree.map(lambda y: jnp.sum(y, axis=0), states), ok & done, jnp.sum(steps)

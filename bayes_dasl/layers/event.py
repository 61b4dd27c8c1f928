"""`Event`: sudden changes of the states of an ODE at times that depend on the states."""

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
# Shares of the time from start to end. The scan has a fixed number of parts; those after the end
# repeat the last thousandth, since a solve of length zero has no gradient. At the start of a part
# `when` may be zero, so it is evaluated slightly later.
_AGAIN, _AHEAD = 1e-3, 1e-7


class Event(Module):
    """A sudden change of the states whenever the function `when` crosses zero.

    Newton's method finds the time of the crossing on the solver's dense output. This time is
    differentiable with respect to the parameters. At the time of the change the solution has its
    new value. If `when` is zero at the start, the event does not happen at the start.

    Args:
        when: a function `(t, y, u)` of time, states and forcings that returns one number, such as
            the height of a ball.
        change: amounts added to states, or a function `(t, y, u)` that returns new values of some
            states, as for `bd.Jump`:
            `lambda t, y, u: {"speed": -0.9 * y["speed"]}` bounces.
        direction: the crossings that count: "falling" (from above zero to below), "rising", or
            "both".
        most: the largest number of occurrences in one solve. With more, the prediction has
            `ok=False`. Computing time grows with `most`, since each occurrence starts the solver
            again.

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
        """The change of the states as a `Jump`; its time is a placeholder."""
        return Jump(0.0, self.change)


def as_events(events: Any) -> tuple[Event, ...]:
    """Convert one event or several events to a tuple.

    Raises:
        ModelError: if an element is no `Event`.
    """
    events = tuple(events) if isinstance(events, Iterable) else (events,)
    for event in events:
        if not isinstance(event, Event):
            raise ModelError(f"events must be bd.Event(when, change), not {event!r}")
    return events


def _crossing_value(value: Any) -> Any:
    """Convert the value that `when` of an event returned to a float.

    Raises:
        ModelError: if the value is not one real number. A boolean is refused too, since it does not
            cross zero continuously.
    """
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
    """Solve an ODE with events: one solve from each event to the next.

    Args:
        events: the events.
        solve: a function `solve(t0, y0, saveat, event)` that runs Diffrax once, from `t0` until
            `event` happens or the last time is reached. It returns Diffrax's solution.
        rates: the vector field as a function `(t, y)`.
        forced: the forcings as a function of time.
        times: the requested times, increasing.
        start: the start of the solve.
        initial: the initial states by name.

    Returns:
        The states `(time, …)` by name, whether all parts succeeded within the allowed number of
        events, and the total number of solver steps.
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
        # 3. Keep the states at the requested times inside this part, and zeros elsewhere. The sum
        # over all parts then holds each state once.
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

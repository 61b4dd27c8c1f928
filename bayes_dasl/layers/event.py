"""Changes of the states of an ODE that the states themselves trigger: bounces, thresholds,
doses.
"""

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
# Of the whole solve: what a solve that has ended goes over again, since one of no length has no
# gradient; and how far ahead a number is looked at where a solve begins, since there it may be
# zero.
_AGAIN, _AHEAD = 1e-3, 1e-7


class Event(Module):
    """A sudden change of the states whenever a function of them passes through zero.

    The time is found by Newton's method on the solver's own polynomial, and depends on parameters
    with a gradient. The solution is continuous from the right. At the start nothing happens: what
    is at zero there has to leave it first.

    Args:
        when: a function `(t, y, u)` that returns one number, such as the height of a ball.
        change: a dict that maps states to the amounts added to them, or a function `(t, y, u)` that
            returns the new values of some states, as of a `bd.Jump`:
            `lambda t, y, u: {"speed": -0.9 * y["speed"]}` bounces.
        direction: whether the number is "falling" or "rising" through zero, or "both".
        most: how often it may happen in one solve; a solve in which it does more often fails, and
            is reported as such. Each costs a start of the solver.

    Raises:
        ModelError: for what is no function, no change, an unknown direction, or a number that is
            not positive.
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
        """The change by itself, at a time that does not count."""
        return Jump(0.0, self.change)


def as_events(events: Any) -> tuple[Event, ...]:
    """One event or several as a tuple.

    Raises:
        ModelError: for anything else than events.
    """
    events = (
        (events,)
        if isinstance(events, Event)
        else tuple(events)
        if isinstance(events, Iterable)
        else (events,)
    )
    for event in events:
        if not isinstance(event, Event):
            raise ModelError(f"events must be bd.Event(when, change), not {event!r}")
    return events


def _number(value: Any) -> Any:
    """Refuse what cannot pass through zero: a truth value jumps from zero to one."""
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
    """The states at all times, whether the solve got through, and its steps.

    `solve(t0, y0, saveat, event)` is one solve from `t0` to the last of the times, `rates(t, y)`
    its vector field.
    """
    end = times[-1]
    first, ahead = end - _AGAIN * (end - start), _AHEAD * (end - start)

    def looked_at(when, begin):
        def value(t, y, args, **_):
            late = jnp.where(t == begin, ahead, 0.0)
            later = jax.tree.map(lambda y, rate: y + late * rate, y, rates(t, y))
            return _number(when(t + late, later, forced(t)))

        return value

    def part(carry, _):
        t0, y0, done, ok = carry
        begin = jnp.where(done, first, t0)
        event = diffrax.Event(
            [looked_at(e.when, begin) for e in events],
            optx.Newton(1e-10, 1e-10),
            [_DIRECTIONS[e.direction] for e in events],
        )
        at = jnp.clip(times, begin, end)
        saved = diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=at), diffrax.SubSaveAt(t1=True)])
        solution = solve(begin, y0, saved, event)
        happened = jnp.stack(solution.event_mask) & ~done
        (_, stops), (found, ends) = solution.ts, solution.ys
        stop = jnp.where(jnp.any(happened), stops[0], end)
        inside = ~done & (times >= t0) & ((times < stop) | ~jnp.any(happened))
        masked = jax.tree.map(
            lambda y: jax.vmap(lambda i, y: jnp.where(i, y, 0.0))(inside, y), found
        )
        y = jax.tree.map(lambda y: y[0], ends)
        fine = (solution.result == diffrax.RESULTS.successful) | (
            solution.result == diffrax.RESULTS.event_occurred
        )
        ok = ok & (done | fine)
        for number, e in enumerate(events):
            y = e.jump(happened[number][None], stop, y, forced(stop))
        y = jax.tree.map(lambda new, old: jnp.where(done, old, new), y, y0)
        return (stop, y, done | ~jnp.any(happened), ok), (masked, solution.stats["num_steps"])

    begun = (jnp.asarray(start, end.dtype), initial, jnp.asarray(False), jnp.asarray(True))
    parts = 1 + sum(event.most for event in events)
    (_, _, done, ok), (states, steps) = jax.lax.scan(part, begun, length=parts)
    return jax.tree.map(lambda y: jnp.sum(y, axis=0), states), ok & done, jnp.sum(steps)

"""Sudden changes of the states of an ODE: doses, harvests, interventions."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_any
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from ..errors import ModelError
from ..random import Module, Values, is_function, is_random, shape_of
from ._functions import named


def _plain(change: Any) -> Any:
    return (
        {name: _array(v) for name, v in change.items()} if isinstance(change, Mapping) else change
    )


def _array(value: Any) -> Any:
    """A list of numbers as an array; anything else as it is."""
    return (
        jnp.asarray(value, float)
        if isinstance(value, (list, tuple)) and _shape(value) is not None
        else value
    )


class Jump(Module):
    r"""A sudden change of the states, at one time or at several.

    $y(\tau) = y(\tau^-) + \Delta$, or $y(\tau) = g(\tau, y(\tau^-), u(\tau))$

    The solution is continuous from the right: its value at the time of a jump is the one after it.
    A jump at the start of the solve acts, one after the last time does not. One that is known to
    lie before the start is refused; one whose time is unknown does not act there. Jumps at one time
    act in their order, those of one `Jump` all at once: of amounts the sum, of a function a single
    call. First derivatives with respect to times and amounts follow from those of the solution;
    second ones by times do not.

    Args:
        time: when, in the units of time of the data: a number, an array of them or a random leaf.
        change: a dict that maps states to the amounts added to them, in their units, or a function
            `(t, y, u)` that returns the new values of some states:
            `lambda t, y, u: {"fish": 0.8 * y["fish"]}` harvests a fifth.

    Shapes: `time` `()` or `(jumps,)`; an amount is a number, or has the shape of `time`; for a
    state that is an array, the amount has its shape after that of `time`.

    Raises:
        ModelError: for a time of another shape, no change at all, or amounts of another number than
            times.
    """

    time: Any = eqx.field(converter=_array)
    change: dict[str, Any] | Callable[[Any, Values, Values], Values] = eqx.field(converter=_plain)
    has_a_time: ClassVar[str] = "a Jump"

    def __check_init__(self):
        shape = _shape(self.time)
        if shape is None or len(shape) > 1 or 0 in shape:
            raise ModelError(
                "the time of a jump must be a number, some in a row, or random: not "
                f"{self.time!r}; for data with "
                "dates it counts what the layer says, by units={'time': 'days since 2001-01-01'}"
            )
        if (
            not is_random(self.time)
            and not isinstance(self.time, Tracer)
            and not np.isfinite(self.time).all()
        ):
            raise ModelError(f"the time of a jump must be finite, not {self.time}")
        if not is_function(self.change) and not (isinstance(self.change, dict) and self.change):
            raise ModelError(
                "the change of a jump must be a dict of amounts by state, or a function (t, y, u) "
                "that returns new "
                f"values: not {self.change!r}"
            )
        for name, amount in self._amounts.items():
            held = _shape(amount)
            if held is None:
                raise ModelError(
                    f"the amount of '{name}' in a jump must be numbers or random, not {amount!r}"
                )
            if shape and held and held[0] != shape[0]:
                raise ModelError(f"a jump has {shape[0]} times but {held[0]} amounts of '{name}'")

    @property
    def _amounts(self) -> dict[str, Any]:
        return {} if callable(self.change) else self.change

    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse amounts for a state that there is not, or of another shape than the state.

        Args:
            shapes: the shape of each state, by name.

        Raises:
            ModelError: if so.
        """
        for name, amount in self._amounts.items():
            if name not in shapes:
                raise ModelError(f"a jump changes '{name}', but the states are {', '.join(shapes)}")
            times, held = _shape(self.time) or (), _shape(amount)
            if held not in ((), times, shapes[name], times + shapes[name]):
                raise ModelError(
                    f"an amount of '{name}' in a jump has the shape {held}, but the state has "
                    f"{shapes[name]}"
                )

    @property
    def times(self) -> Float[Array, " jumps"]:
        return jnp.atleast_1d(jnp.asarray(self.time, float))

    def __call__(
        self, acting: Bool[Array, " jumps"], t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """The states after those of the jumps that are `acting`."""
        if not callable(self.change):
            return {name: value + self._added(name, acting) for name, value in y.items()}
        some = jnp.any(acting)
        # Where nothing acts the states may be anything: the function must not be singular there.
        new = self.change(t, {name: jnp.where(some, value, 1.0) for name, value in y.items()}, u)
        for name, value in named(new, "the function of a jump").items():
            if name not in y:
                raise ModelError(f"a jump returns '{name}', but the states are {', '.join(y)}")
            if value.shape != jnp.shape(y[name]):
                raise ModelError(
                    f"a jump gives '{name}' the shape {value.shape}, but the state has "
                    f"{y[name].shape}"
                )
        return {name: jnp.where(some, new.get(name, value), value) for name, value in y.items()}

    def _added(self, name: str, acting: Bool[Array, " jumps"]) -> Any:
        if name not in self._amounts:
            return 0.0
        amount = jnp.asarray(self._amounts[name], float)
        each = (
            amount
            if jnp.ndim(self.time) and amount.ndim
            else jnp.broadcast_to(amount, acting.shape + amount.shape)
        )
        return jnp.tensordot(acting.astype(float), each, axes=1)


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of numbers or of a random leaf; none for anything else."""
    if is_random(value):
        return shape_of(value)
    try:
        return jnp.shape(jnp.asarray(value, float))
    except (TypeError, ValueError):
        return None


def as_jumps(jumps: Any) -> tuple[Jump, ...]:
    """One jump or several as a tuple.

    Raises:
        ModelError: for anything else than jumps.
    """
    jumps = (jumps,) if isinstance(jumps, Jump) else jumps
    if not isinstance(jumps, Iterable):
        raise ModelError(f"jumps must be bd.Jump(time, change), or several of them, not {jumps!r}")
    jumps = tuple(jumps)
    for jump in jumps:
        if not isinstance(jump, Jump):
            raise ModelError(f"jumps must be bd.Jump(time, change), not {jump!r}")
    return jumps


def refuse_before(jumps: tuple[Jump, ...], start: Any) -> None:
    """Refuse jumps that are known to lie before the start of a solve: a dose that is never given.

    Raises:
        ModelError: if so.
    """
    known = [jump.time for jump in jumps if not is_random(jump.time)]
    if isinstance(start, Tracer) or not known or any(isinstance(time, Tracer) for time in known):
        return
    first = min(float(np.asarray(time).min()) for time in known)
    if first < float(start):
        raise ModelError(
            f"a jump at {first:g} would never act, since the solve starts at {float(start):g}: the "
            "first time of the "
            f"data, unless the layer says another; give the layer start={first:g}, which is then "
            "the time of the "
            "initial states, or leave the jump out"
        )


def jumped(
    jumps: tuple[Any, ...],
    due: Callable[[Array], Array],
    t: Any,
    y: Values,
    forced: Callable,
    rates: Callable,
) -> dict[str, Any]:
    """The states at `t` after the jumps that are `due`, a function of their times.

    `forced(t)` are the forcings, and `rates(t, y)` the rates of the ODE.

    Whoever solves the ODE may hold all times fixed: a jump that comes later by an amount too small
    to see adds that much of the rates before it, and takes as much of the rates after it away. Both
    are zero but for their derivatives.
    """
    for jump in jumps:
        times = jump.times
        acting = due(times)
        # Those at one time move together: their mean, since their sum would count the move of each
        # for all.
        late = jnp.sum(jnp.where(acting, times - jax.lax.stop_gradient(times), 0.0)) / jnp.maximum(
            jnp.sum(acting), 1
        )
        y = jump(acting, t + late, _moved(y, late, rates(t, y)), forced(t + late))
        y = _moved(y, -late, rates(t, y))
    return dict(y)


def _moved(y: Values, for_time: Any, rates: Values) -> dict[str, Any]:
    return {name: value + for_time * rates[name] for name, value in y.items()}


class JumpingSolver(diffrax.AbstractAdaptiveSolver, diffrax.AbstractWrappedSolver):
    """A solver that begins a step with the jumps that are due, so that one solve runs through all
    of them.

    It takes `args` to be a function of time that returns the forcings, and the jumps. Its state
    remembers until when jumps have acted. The controller ends steps just before jumps and starts
    anew just after them.
    """

    solver: diffrax.AbstractSolver

    @property
    def term_structure(self):
        return self.solver.term_structure

    @property
    def interpolation_cls(self):  # pyright: ignore
        return self.solver.interpolation_cls

    @property
    def term_compatible_contr_kwargs(self):
        return self.solver.term_compatible_contr_kwargs

    # Diffrax looks for these in a solver of some kinds, and looks through the wrapping to see of
    # which kind one is.
    @property
    def root_finder(self):
        return self.solver.root_finder  # pyright: ignore

    @property
    def root_find_max_steps(self):
        return self.solver.root_find_max_steps  # pyright: ignore

    @property
    def scan_kind(self):
        return self.solver.scan_kind  # pyright: ignore

    def order(self, terms):
        return self.solver.order(terms)

    def error_order(self, terms):
        return self.solver.error_order(terms)

    def func(self, terms, t0, y0, args):
        return self.solver.func(terms, t0, y0, args)

    def init(self, terms, t0, t1, y0, args):
        return self.solver.init(terms, t0, t1, y0, args), t0

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        state, done = solver_state
        forced, jumps = args
        due = lambda times: (times > done) & (times <= t0)  # noqa: E731
        some = jnp.any(jnp.concatenate([due(jump.times) for jump in jumps]))

        def act(y):
            return jumped(jumps, due, t0, y, forced, lambda t, y: self.func(terms, t, y, args))

        # Of a batch, all solves look for jumps when one of them has one; most steps have none at
        # all.
        y0 = jax.lax.cond(unvmap_any(some), act, dict, y0)
        *step, state, result = self.solver.step(terms, t0, t1, y0, args, state, made_jump | some)
        return *step, (state, t0), result

"""`Jump`: sudden changes of the states of an ODE, such as harvests and interventions."""

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


def _with_arrays(change: Any) -> Any:
    """A dict of amounts with lists as arrays; a function as it is."""
    if not isinstance(change, Mapping):
        return change
    return {name: _list_as_array(amount) for name, amount in change.items()}


def _list_as_array(value: Any) -> Any:
    """A list of numbers as an array; anything else as it is."""
    numeric = isinstance(value, (list, tuple)) and _number_shape(value) is not None
    return jnp.asarray(value, float) if numeric else value


class Jump(Module):
    r"""A sudden change of the states, at one time or at several.

    $y(\tau) = y(\tau^-) + \Delta$, or $y(\tau) = g(\tau, y(\tau^-), u(\tau))$

    The solution is continuous from the right: its value at the time of a jump is the one after it.
    A jump at the start of the solve acts; one after the last time does not. A known time before the
    start is refused; a jump at a random time before the start does not act. Several `Jump` objects
    at one time act in their order. Coinciding times within one `Jump` act together: amounts are
    added, a function is called once. First derivatives by times and amounts are exact; second
    derivatives by times are not.

    Args:
        time: in the units of time of the data: a number, an array of numbers or a random leaf.
        change: amounts added to states, in their units, or a function `(t, y, u)` that returns new
            values of some states:
            `lambda t, y, u: {"fish": 0.8 * y["fish"]}` harvests a fifth.

    Shapes: `time` `()` or `(jumps,)`; an amount is a number, or has the shape of `time`; for a
    state that is an array, the amount has the shape of `time`, then the shape of the state.

    Raises:
        ModelError: if the time has another shape, the change is empty, or amounts and times differ
            in number.
    """

    time: Any = eqx.field(converter=_list_as_array)
    change: dict[str, Any] | Callable[[Any, Values, Values], Values] = eqx.field(
        converter=_with_arrays
    )
    has_a_time: ClassVar[str] = "a Jump"

    def __check_init__(self):
        shape = _number_shape(self.time)
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
        # One amount for each time, or one for all times.
        for name, amount in self._amounts.items():
            shape_of_amount = _number_shape(amount)
            if shape_of_amount is None:
                raise ModelError(
                    f"the amount of '{name}' in a jump must be numbers or random, not {amount!r}"
                )
            if shape and shape_of_amount and shape_of_amount[0] != shape[0]:
                raise ModelError(
                    f"a jump has {shape[0]} times but {shape_of_amount[0]} amounts of '{name}'"
                )

    @property
    def _amounts(self) -> dict[str, Any]:
        return {} if callable(self.change) else self.change

    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check the amounts against the states.

        Args:
            shapes: the shape of each state, by name.

        Raises:
            ModelError: for an unknown state, or an amount of another shape than its state.
        """
        for name, amount in self._amounts.items():
            if name not in shapes:
                raise ModelError(f"a jump changes '{name}', but the states are {', '.join(shapes)}")
            times = _number_shape(self.time) or ()
            shape = _number_shape(amount)
            if shape not in ((), times, shapes[name], times + shapes[name]):
                raise ModelError(
                    f"an amount of '{name}' in a jump has the shape {shape}, but the state has "
                    f"{shapes[name]}"
                )

    @property
    def times(self) -> Float[Array, " jumps"]:
        return jnp.atleast_1d(jnp.asarray(self.time, float))

    def __call__(
        self, acting: Bool[Array, " jumps"], t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """States after the jumps that are `acting`."""
        if not callable(self.change):
            return {name: value + self._added(name, acting) for name, value in y.items()}
        some = jnp.any(acting)
        # Where nothing acts the states are replaced by ones, so that the function is not singular.
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
        # Without one amount for each time, all times have the same amount.
        if not (jnp.ndim(self.time) and amount.ndim):
            amount = jnp.broadcast_to(amount, acting.shape + amount.shape)
        return jnp.tensordot(acting.astype(float), amount, axes=1)


def _number_shape(value: Any) -> tuple[int, ...] | None:
    """Shape of numbers or of a random leaf; none for anything else."""
    if is_random(value):
        return shape_of(value)
    try:
        return jnp.shape(jnp.asarray(value, float))
    except (TypeError, ValueError):
        return None


def as_jumps(jumps: Any) -> tuple[Jump, ...]:
    """Convert one jump or several to a tuple.

    Raises:
        ModelError: if any of them is no `Jump`.
    """
    jumps = tuple(jumps) if isinstance(jumps, Iterable) else (jumps,)
    for jump in jumps:
        if not isinstance(jump, Jump):
            raise ModelError(f"jumps must be bd.Jump(time, change), not {jump!r}")
    return jumps


def refuse_before(jumps: tuple[Jump, ...], start: Any) -> None:
    """Refuse jumps before the start of a solve, which would never act.

    Raises:
        ModelError: if a known time of a jump lies before the start.
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
    """States at a time after the jumps that are due.

    The solver holds the times of jumps fixed. The derivative by a time τ is added here: a jump that
    is later by dτ adds `dτ · rates` before it and subtracts `dτ · rates` after it. Both terms are
    zero except for their derivatives.

    Args:
        jumps: the jumps, or a schedule of doses.
        due: a function that says which times of a jump act now.
        t: the time.
        y: the states before the jumps.
        forced: the forcings as a function of time.
        rates: the rates of the ODE, `(t, y)`.

    Returns:
        The states after the jumps, by name.
    """
    for jump in jumps:
        times = jump.times
        acting = due(times)
        # Coinciding times move together, hence by their mean shift.
        shifts = jnp.where(acting, times - jax.lax.stop_gradient(times), 0.0)
        late = jnp.sum(shifts) / jnp.maximum(jnp.sum(acting), 1)
        y = jump(acting, t + late, _euler_step(y, late, rates(t, y)), forced(t + late))
        y = _euler_step(y, -late, rates(t, y))
    return dict(y)


def _euler_step(y: Values, for_time: Any, rates: Values) -> dict[str, Any]:
    return {name: value + for_time * rates[name] for name, value in y.items()}


class JumpingSolver(diffrax.AbstractAdaptiveSolver, diffrax.AbstractWrappedSolver):
    """A solver whose steps begin with the jumps that are due, so that one solve has all of them.

    `args` are the forcings as a function of time, and the jumps. The solver's state includes the
    time up to which jumps have acted. The controller ends a step just before each jump.
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

    # Diffrax asks implicit solvers for these, and sees through a wrapping which solver is implicit.
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

        # Most steps have no jump. In a batch, `unvmap_any` keeps this a real branch.
        y0 = jax.lax.cond(unvmap_any(some), act, dict, y0)
        *step, state, result = self.solver.step(terms, t0, t1, y0, args, state, made_jump | some)
        return *step, (state, t0), result

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
    """Convert the lists in a dict of amounts to arrays; return a function unchanged."""
    if not isinstance(change, Mapping):
        return change
    return {name: _list_as_array(amount) for name, amount in change.items()}


def _list_as_array(value: Any) -> Any:
    """Convert a list of numbers to an array; return anything else unchanged."""
    numeric = isinstance(value, (list, tuple)) and _number_shape(value) is not None
    return jnp.asarray(value, float) if numeric else value


class Jump(Module):
    r"""A sudden change of the states, at one time or at several.

    $y(\tau) = y(\tau^-) + \Delta$, or $y(\tau) = g(\tau, y(\tau^-), u(\tau))$

    $\tau$ is the time of the jump, $y(\tau^-)$ are the states just before it, $u$ the forcings,
    $\Delta$ the amounts and g the function `change`. At the time of a jump the prediction is the
    value after the jump.

    A jump at the start of the solve takes place; a jump after the last time does not. A known time
    before the start is refused; a jump at a random time before the start does not take place.
    Several `Jump` objects at the same time act in the order in which the layer lists them. If two
    times within one `Jump` coincide, their amounts are added, and a function is called once. First
    derivatives with respect to times and amounts are exact; second derivatives with respect to
    times are not.

    Args:
        time: one or several times, in the units of time of the data: a number, an array of numbers
            or a random leaf.
        change: the amounts that are added to states, by name, in the units of the state. Or a
            function `(t, y, u)` that returns new values of some states:
            `lambda t, y, u: {"fish": 0.8 * y["fish"]}` harvests a fifth.

    Shapes: `time` is `()` or `(jumps,)`. An amount is one number for all jumps, or has the shape of
    `time`. For a state that is an array, the shape may also be that of `time` followed by that of
    the state.

    Raises:
        ModelError: if `time` has another shape or is not finite, if `change` is empty, or if the
            numbers of amounts and times differ.
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
        """The amounts by state; empty if the change is a function."""
        return {} if callable(self.change) else self.change

    def check_states(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that the amounts fit the states of a layer.

        Args:
            shapes: the shape of each state, by name.

        Raises:
            ModelError: if an amount names an unknown state, or has a shape that does not fit.
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
        """Return the states after some of the jumps.

        Args:
            acting: for each time of this `Jump`, whether its jump takes place now.
            t: the present time.
            y: the states before the jumps, by name.
            u: the forcings by name.

        Returns:
            All states by name; unchanged if no jump takes place.

        Raises:
            ModelError: if the function `change` returns an unknown state or another shape.
        """
        if not callable(self.change):
            return {name: value + self._added(name, acting) for name, value in y.items()}
        some = jnp.any(acting)
        # If no jump takes place, call the function with ones: at the states it may be singular.
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
        """Return the sum of the amounts that the acting jumps add to a state."""
        if name not in self._amounts:
            return 0.0
        amount = jnp.asarray(self._amounts[name], float)
        # Without one amount for each time, all times have the same amount.
        if not (jnp.ndim(self.time) and amount.ndim):
            amount = jnp.broadcast_to(amount, acting.shape + amount.shape)
        return jnp.tensordot(acting.astype(float), amount, axes=1)


def _number_shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of numbers or of a random leaf; None for anything else."""
    if is_random(value):
        return shape_of(value)
    try:
        return jnp.shape(jnp.asarray(value, float))
    except (TypeError, ValueError):
        return None


def as_jumps(jumps: Any) -> tuple[Jump, ...]:
    """Convert one jump or several jumps to a tuple.

    Raises:
        ModelError: if an element is no `Jump`.
    """
    jumps = tuple(jumps) if isinstance(jumps, Iterable) else (jumps,)
    for jump in jumps:
        if not isinstance(jump, Jump):
            raise ModelError(f"jumps must be bd.Jump(time, change), not {jump!r}")
    return jumps


def refuse_before(jumps: tuple[Jump, ...], start: Any) -> None:
    """Refuse jumps before the start of a solve, since they would have no effect.

    Args:
        jumps: the jumps.
        start: the start of the solve. If JAX traces it, nothing is checked.

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
    """Return the states after the jumps that take place at one time.

    The solver treats the times of jumps as constants. So this function adds the derivative with
    respect to a time τ. If the jump is later by dτ, the states follow the old rates for dτ longer
    and the new rates for dτ less. The two corrections have the value zero, but not a zero
    derivative.

    Args:
        jumps: `Jump` objects, or a schedule of doses.
        due: a function that takes the times of one `Jump` and flags those that take place now.
        t: the present time.
        y: the states before the jumps, by name.
        forced: the forcings as a function of time.
        rates: the vector field of the ODE as a function `(t, y)`.

    Returns:
        The states after the jumps, by name.
    """
    for jump in jumps:
        times = jump.times
        acting = due(times)
        # `shifts` has the value zero and the derivative of the acting times. Coinciding times move
        # together, hence their mean.
        shifts = jnp.where(acting, times - jax.lax.stop_gradient(times), 0.0)
        late = jnp.sum(shifts) / jnp.maximum(jnp.sum(acting), 1)
        y = jump(acting, t + late, _euler_step(y, late, rates(t, y)), forced(t + late))
        y = _euler_step(y, -late, rates(t, y))
    return dict(y)


def _euler_step(y: Values, for_time: Any, rates: Values) -> dict[str, Any]:
    """Return the states after following constant rates for some time."""
    return {name: value + for_time * rates[name] for name, value in y.items()}


class JumpingSolver(diffrax.AbstractAdaptiveSolver, diffrax.AbstractWrappedSolver):
    """A Diffrax solver that applies jumps of the states at the beginning of its steps.

    One solve then contains all jumps. The step size controller ends a step just before each jump.
    `args` of the solver's methods is a pair: the forcings as a function of time, and the jumps. The
    state of the solver includes the time up to which jumps have taken place.

    Args:
        solver: the solver that makes the steps.
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

    # Diffrax reads these attributes of implicit solvers, also through a wrapper.
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

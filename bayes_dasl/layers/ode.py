"""Ordinary differential equations, solved by Diffrax."""

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._jax.tree import FrozenDict, prepared
from ..data.forcings import Linear, Step
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..random import Unknown, Values, VectorField, is_function, is_random
from ._assumed import refuse_assumed
from ._forced import Forced, last_part
from ._functions import (
    any_state,
    by_name,
    check_initial,
    check_interpolation,
    check_tolerances,
    checked_rates,
    method_of,
    output_names,
    several_names,
)
from ._intervals import check_intervals, over_intervals
from ._rosenbrock import Rodas5P
from ._start import start_time
from ._steps import RetryingController, safe_rates
from .event import Event, as_events, solve_with_events
from .jump import Jump, JumpingSolver, as_jumps, jumped, refuse_before
from .layer import AbstractTrajectory, Prediction, StatedFunction, finite, predict_rows, prediction
from .process_noise import ProcessNoise
from .root import find_root
from .scheduled import AbstractSchedule, AbstractScheduled


def find_solver(solver: str | diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """Return the Diffrax solver of a name such as `tsit5`, in upper or lower case.

    Args:
        solver: the name, or a solver, which is returned unchanged.

    Raises:
        ModelError: if Diffrax has no adaptive solver of that name, or if the solver has fixed steps
            or solves other equations.
    """
    if isinstance(solver, diffrax.AbstractSolver):
        # Other term structures are for equations in two parts: stochastic, or implicit–explicit.
        if (
            not isinstance(solver, diffrax.AbstractAdaptiveSolver)
            or solver.term_structure is not diffrax.AbstractTerm
        ):
            raise ModelError(
                f"{type(solver).__name__} does not choose its steps for one vector field: take "
                "tsit5"
            )
        return solver
    adaptive = {
        name.lower(): value
        for name, value in vars(diffrax).items()
        if isinstance(value, type)
        and issubclass(value, diffrax.AbstractAdaptiveSolver)
        and not name.startswith(("Abstract", "HalfSolver"))
        and value.term_structure is diffrax.AbstractTerm
    } | {"rodas5p": Rodas5P}
    if not isinstance(solver, str) or solver.lower() not in adaptive:
        raise ModelError(
            f"unknown solver {solver!r}: give a Diffrax solver, or one of the names "
            f"{', '.join(sorted(adaptive))} "
            "(rodas5p is for stiff equations)"
        )
    return adaptive[solver.lower()]()


class ODE(AbstractTrajectory):
    r"""An initial value problem of ordinary differential equations.

    $\dot y = f(t, y, u(t)), \quad y(t_0) = y_0$

    y are the states, u the forcings and f the `vector_field`; $y_0$ is `initial`, $t_0$ `start`.

    The solver ends a step at each data time of a linear forcing. It restarts at each data time of a
    forcing with "step" interpolation, and at each of the `jumps`. `max_steps` does not count these
    steps. A step whose rates are not finite is repeated with a fifth of its length. If a solve
    needs more than `max_steps` steps, the prediction has `ok=False`; there is no exception.

    Args:
        vector_field: a function `(t, y, u)` of time, a dict of states and a dict of forcings. It
            returns a dict with the rate of every state, in its units per unit of time.
        initial: a dict of the states at `start`, each a number, an array or a random leaf, in the
            units of the state.
        observe: a function `(t, y, u)` that returns a dict of predicted values. Without it the
            states are predicted. A method of the class of `vector_field`, such as `Bucket.flow`, is
            called on the object `vector_field`.
        events: a `bd.Event`, or several: sudden changes of states whenever a function of the states
            crosses zero.
        algebraic: the names of algebraic states (a differential–algebraic equation of index 1, for
            `solver="rodas5p"`). For an algebraic state the vector field returns a residual that
            must be zero, and `initial` is a guess. Its initial value solves the equations.
        solver: a Diffrax solver or its name: `tsit5` for non-stiff, `rodas5p` for stiff equations.
        start: the time of `initial`: a number in the units of time of the data, or a date such as
            "2001-06-30". By default the first time of the data that the model is fitted to.
        rtol: the relative tolerance of the error of a step.
        atol: the absolute tolerance of the error of a step, in the units of the states.
        max_steps: the largest number of steps of a solve.
        adjoint: the method by which Diffrax differentiates the solve.
        forcings: the data variables that drive the equation: one name, or a tuple of names. They
            are linear between their data unless `interpolation` names them, and constant before the
            first and after the last datum.
        interpolation: the kind of interpolation by forcing. "step" keeps the value of each datum
            until the next one, as in `{"rain": "step"}`; "cubic" is a smooth spline.
        jumps: a `bd.Jump`, or several: sudden changes of states at given times, such as a harvest.
        doses: the doses of a table, from `bd.dosing.doses`: boluses, infusions, steady states and
            resets. Without `start`, the solve starts at the first time of the table.
        process_noise: a `bd.layers.ProcessNoise` on states, for model errors that accumulate.
        units: the units of states, forcings and observed values, by name. Data in other units of
            the same dimension are converted; data of another dimension are refused. For data with
            dates, the entry `time` is the unit of time of the rates, as in `{"time": "h"}`. It may
            include an origin, `{"time": "days since 2001-01-01"}`. The default is days since 1970.
        sums: for predicted values whose data are integrals over an interval before their time, such
            as weekly cases from daily rates: the length of the interval by name, in the units of
            time. An interval never begins before the start; `None` is the whole time since the
            start.
        means: the same for predicted values whose data are means over the interval.

    Shapes: states are scalars, or arrays if `observe` reduces them to scalars; predictions are
    `(time,)`.

    Raises:
        ModelError: if an argument is invalid. When called, if names of rates and states differ, or
            if a known time of a jump lies before the start.
        ShapeError: when called, if a rate has another shape than its state.

    Example:
        ```python
        begin = {"y": dist.LogNormal(0.5, 0.3)}
        layer = bd.ODE(Decay(bd.between(0.1, 1.0)), begin, units={"y": "mg/L"})
        model = bd.Model(layer, bd.NormalNoise(bd.between(0.01, 0.3)))
        ```
    """

    vector_field: VectorField
    initial: dict[str, Any]
    observe: Callable[..., Values] | None = None
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    interpolation: Mapping[str, str] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )
    jumps: tuple[Jump, ...] = eqx.field(default=(), converter=as_jumps, kw_only=True)
    events: tuple[Event, ...] = eqx.field(default=(), converter=as_events, kw_only=True)
    doses: AbstractScheduled | AbstractSchedule | None = eqx.field(default=None, kw_only=True)
    process_noise: Any = eqx.field(default=None, kw_only=True)
    algebraic: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    sums: Mapping[str, float | None] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )
    means: Mapping[str, float | None] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )
    solver: diffrax.AbstractSolver = eqx.field(default="tsit5", converter=find_solver)
    start: float | datetime | None = eqx.field(default=None, static=True, converter=start_time)
    rtol: float = eqx.field(default=1e-6, static=True)
    atol: float = eqx.field(default=1e-6, static=True)
    max_steps: int = eqx.field(default=4096, static=True)
    # Few checkpoints make a gradient cheap whatever max_steps allows: 81 against 168 µs on
    # lynx–hare.
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=32)

    def __check_init__(self):
        if not is_function(self.vector_field):
            raise ModelError(
                f"vector_field must be callable as f(t, y, u), not {self.vector_field!r}"
            )
        check_tolerances(self)
        check_initial(self.initial, self.observe)
        check_interpolation(self.interpolation, self.forcings)
        shapes = {name: value.shape for name, value in any_state(self.initial).items()}
        for jump in (*self.jumps, *(event.jump for event in self.events)):
            jump.check_states(shapes)
        self._check_doses(shapes)
        self._check_algebraic()
        if self.process_noise is not None:
            self._check_process_noise(shapes)
        if self.sums or self.means:
            check_intervals(self.sums, self.means, self.outputs)

    @property
    def _smooth(self) -> bool:
        moved_otherwise = self.jumps, self.events, self.algebraic, self.sums, self.means
        return not any(moved_otherwise) and self.doses is None and self.process_noise is None

    def _check_doses(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raise ModelError for doses that do not fit the states, `sums`, `means` or `start`."""
        if self.doses is None or isinstance(self.doses, AbstractSchedule):
            return
        if not isinstance(self.doses, AbstractScheduled):
            raise ModelError(
                f"doses must be what bd.dosing.doses(table, …) returns, not {self.doses!r}"
            )
        self.doses.check_states(shapes)
        if self.sums or self.means:
            raise ModelError(
                "sums and means over intervals and doses do not go together yet: observe the "
                "states instead"
            )
        if isinstance(self.start, float) and self.start > self.doses.start:
            raise ModelError(
                f"the table of doses begins at {self.doses.start:g}, before the start at "
                f"{self.start:g}"
            )

    def _check_algebraic(self) -> None:
        """Raise ModelError if algebraic states are unknown, random, or not supported."""
        for name in self.algebraic:
            if name not in self.initial:
                raise ModelError(
                    f"algebraic names '{name}', but the states are {', '.join(self.initial)}"
                )
            value = self.initial[name]
            if is_random(value) and not isinstance(value, Unknown):
                raise ModelError(
                    f"initial of the algebraic state '{name}' is a guess, which the equations "
                    "correct: give a number"
                )
        if self.algebraic and not isinstance(self.solver, Rodas5P):
            raise ModelError(
                f"algebraic states need solver='rodas5p', not {type(self.solver).__name__}"
            )
        if self.algebraic and (self.jumps or self.events or self.doses is not None):
            raise ModelError(
                "algebraic states and jumps or doses do not go together yet: solve for them by "
                "bd.layers.find_root instead"
            )

    def _check_process_noise(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raise ModelError for invalid process noise, or noise on an algebraic state."""
        if not isinstance(self.process_noise, ProcessNoise):
            raise ModelError(
                f"process_noise must be a bd.layers.ProcessNoise, not {self.process_noise!r}"
            )
        self.process_noise.check_states(shapes)
        if both := {*self.algebraic} & {*self.process_noise.scale}:
            raise ModelError(
                f"process noise is on states with rates, but {', '.join(sorted(both))} is algebraic"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        return output_names(self.observe, self.vector_field, any_state(self.initial), self.forcings)

    @property
    def _stated_functions(self) -> list[StatedFunction]:
        return [("the rate of change", self.vector_field, self.initial)]

    @property
    def states(self) -> int:
        """The number of state variables; each element of an array counts."""
        return sum(value.size for value in any_state(self.initial).values())

    @property
    def pointwise(self) -> bool:
        return not (self.sums or self.means)

    @property
    def trajectories(self) -> list[AbstractTrajectory] | None:
        """A list of this layer alone; None if it predicts sums or means.

        Sums and means need the states also between the times of the data.
        """
        return None if self.sums or self.means else [self]

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Return the units of a random leaf.

        Args:
            path: the names of fields and keys from the layer to the leaf.

        Returns:
            The units of the state if the leaf is an initial value or the amount of a jump. An empty
            string for any other leaf.
        """
        if path[0] == "jumps" and path[2] == "change":
            return self.units.get(path[3], "")
        return self.units.get(path[1], "") if path[0] == "initial" else ""

    def __call__(self, inputs: Inputs) -> Prediction:
        if self.sums or self.means:
            return over_intervals(self, inputs)
        # Compute the schedule of doses only once, since a steady state takes several solves.
        ode = self._scheduled(inputs)
        return ode.predict(inputs, *ode.solve(inputs, ode.begin(inputs)))

    def _scheduled(self, inputs: Inputs) -> "ODE":
        """Return this ODE with its doses replaced by the schedule of one solve."""
        if not isinstance(self.doses, AbstractScheduled):
            return self
        self.doses.refuse_before(inputs.start)
        return self._with(doses=self.doses.schedule(self, inputs))

    def _with(self, **fields: Any) -> "ODE":
        """Return this ODE with some fields replaced, without checks, since JAX may trace them."""
        # `dataclasses.replace` would run `__check_init__`, which cannot look at traced values.
        where = lambda ode: [getattr(ode, name) for name in fields]  # noqa: E731
        return eqx.tree_at(
            where,
            self,
            [*fields.values()],
            is_leaf=lambda x: any(x is held for held in where(self)),
        )

    def begin(self, inputs: Inputs) -> dict[str, Any]:
        """Return the initial states by name, after jumps at the start.

        Args:
            inputs: the start, times and forcings.

        Raises:
            ModelError: if a known time of a jump lies before the start, or if the inputs were made
                without a layer and contradict this one.
        """
        refuse_assumed(self, inputs)
        if isinstance(self.doses, AbstractScheduled):
            return self._scheduled(inputs).begin(inputs)
        refuse_before(self.jumps, inputs.start)
        initial = {
            name: jnp.asarray(value, inputs.times.dtype) for name, value in self.initial.items()
        }
        if self.algebraic:
            return self._consistent(inputs, initial)
        return self._jumped(inputs, inputs.start, initial, lambda times: times == inputs.start)

    def _consistent(self, inputs: Inputs, initial: dict[str, Any]) -> dict[str, Any]:
        """Return initial states in which the algebraic states solve their equations.

        The search starts from the guesses in `initial`.
        """
        guess = {name: initial[name] for name in self.algebraic}
        found = find_root(self._laws(inputs, initial), guess)
        # If there is no root, keep the guess, so that gradients stay finite. `solve` then reports
        # the failure.
        keep = finite(found)
        return initial | {
            name: jnp.where(keep, value, guess[name]) for name, value in found.items()
        }

    def _laws(
        self, inputs: Inputs, states: dict[str, Any]
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return the algebraic equations at the start.

        Returns:
            A function of the algebraic states by name that returns their residuals by name.
        """
        rates = self._field(self._forced(inputs))

        def laws(found):
            at_start = rates(inputs.start, states | found)
            return {name: at_start[name] for name in self.algebraic}

        return laws

    def _hold(self, inputs: Inputs, states: dict[str, Any]) -> Any:
        """Whether the algebraic equations hold at the start, within the solver's tolerances."""
        # The scale of the equations is unknown, so use a correction in the units of the states.
        flat, unravel = ravel_pytree({name: states[name] for name in self.algebraic})
        laws = self._laws(inputs, states)
        away = lambda y: ravel_pytree(laws(unravel(y)))[0]  # noqa: E731
        # A Newton step J⁻¹ g estimates the error in the units of the states.
        step = jnp.linalg.solve(jax.jacfwd(away)(flat), away(flat))
        return jnp.all(jnp.abs(step) <= self.atol + self.rtol * jnp.abs(flat))

    def solve(self, inputs: Inputs, initial: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        """Solve the equations from the initial states.

        Args:
            inputs: the start, times and forcings.
            initial: the states at the start by name, from `begin`.

        Returns:
            The states `(time, …)` by name, whether the solve succeeded, and the number of steps.
        """
        if isinstance(self.doses, AbstractScheduled):
            return self._scheduled(inputs).solve(inputs, initial)
        # 1. Solve once, or from event to event.
        if self.events:
            solve = lambda *part: self._solved(inputs, *part)  # noqa: E731
            forced, span = self._forced(inputs), (inputs.times, inputs.start)
            found, ok, steps = solve_with_events(
                self.events, solve, self._field(forced), forced, *span, initial
            )
        else:
            solution = self._solved(
                inputs, inputs.start, initial, diffrax.SaveAt(ts=inputs.times), None
            )
            found, ok = solution.ys, solution.result == diffrax.RESULTS.successful
            steps = jnp.asarray(solution.stats["num_steps"])
        # 2. Success also needs finite states, a grid of process noise that covers all times, a
        # schedule of doses that could be computed, and algebraic equations that hold at the start.
        ok = ok & finite(found)
        if self.process_noise is not None:
            ok = ok & self.process_noise.covers(inputs.start, inputs.times)
        if isinstance(self.doses, AbstractSchedule):
            ok = ok & self.doses.ok
        if self.algebraic:
            ok = ok & self._hold(inputs, jax.lax.stop_gradient(initial))
        # 3. Replace failed states by ones before jumps and `observe`: these functions may be
        # singular at a failed state, and their gradients must stay finite.
        states: Any = jax.tree.map(lambda y: jnp.where(ok, y, 1.0), found)
        # 4. Jumps at the last time come after the last step, so they are applied here.
        if self._sudden:
            end = inputs.times[-1]
            last = jax.tree.map(lambda y: y[-1], states)
            # Jumps at the start were applied by `begin`, however short the solve is.
            begun = jnp.maximum(last_part(inputs), inputs.start)
            after = self._jumped(inputs, end, last, lambda times: (times > begun) & (times <= end))
            at_end = inputs.times == end
            states = jax.tree.map(
                lambda y, new: jax.vmap(lambda e, y: jnp.where(e, new, y))(at_end, y), states, after
            )
        return states, ok, steps

    def _solved(
        self, inputs: Inputs, start: Any, initial: dict[str, Any], saved: diffrax.SaveAt, event: Any
    ) -> Any:
        """Run Diffrax once, up to the last time.

        Args:
            inputs: the times and forcings.
            start: the start of this solve.
            initial: the states at that start.
            saved: the times at which Diffrax saves the states.
            event: a `diffrax.Event` that ends the solve, or None.

        Returns:
            Diffrax's solution.
        """
        # Kinks of linear forcings only end a step; at breaks the solver restarts.
        kinks, breaks = self._discontinuities(inputs)
        controller: Any = RetryingController(diffrax.PIDController(rtol=self.rtol, atol=self.atol))
        if kinks is not None or breaks is not None:
            controller = diffrax.ClipStepSizeController(controller, step_ts=kinks, jump_ts=breaks)
        return diffrax.diffeqsolve(
            diffrax.ODETerm(self._rates(inputs, initial)),
            JumpingSolver(self.solver) if self._sudden else self._solver,
            start,
            inputs.times[-1],
            None,
            initial,
            args=(self._forced(inputs), self._sudden),
            saveat=saved,
            stepsize_controller=controller,
            max_steps=self.max_steps
            + sum(len(times) for times in (kinks, breaks) if times is not None),
            adjoint=self.adjoint,
            event=event,
            throw=False,
        )

    @property
    def _sudden(self) -> tuple[Any, ...]:
        """All sudden changes at given times: the jumps and the schedule of doses."""
        return (*self.jumps, self.doses) if isinstance(self.doses, AbstractSchedule) else self.jumps

    @property
    def _solver(self) -> diffrax.AbstractSolver:
        """The solver, which is given the names of algebraic states if there are any."""
        return (
            dataclasses.replace(self.solver, algebraic=self.algebraic)
            if self.algebraic
            else self.solver
        )

    def predict(
        self, inputs: Inputs, states: dict[str, Any], ok: Any, steps: Any, **more: Any
    ) -> Prediction:
        """Return the prediction of this layer, given its states.

        Args:
            inputs: the start, times and forcings.
            states: the states at all times, `(time, …)` by name.
            ok: whether the solve succeeded.
            steps: the number of steps of the solve.
            more: other fields of the `Prediction`, such as `constraint_residuals`.

        Returns:
            The prediction.
        """
        more["end"] = jax.tree.map(lambda y: y[-1], states)
        if self.observe is None:
            return prediction(states, ok, {"steps": steps}, **more)
        observe, forced = method_of(self.vector_field, self.observe), self._forced(inputs)

        def rows(times):
            return jax.vmap(lambda t, y: dict(observe(t, y, forced(t))))(times, states)

        return predict_rows(rows, inputs.times, ok, {"steps": steps}, **more)

    @property
    def _goes_on(self) -> bool:
        # A jump at the end would act twice. Sums, process noise and splines need earlier values.
        reaching = self.sums, self.means, self.jumps, self.doses, self.events, self.process_noise
        return not any(reaching) and "cubic" not in self.interpolation.values()

    def _from_end(self, states: Values) -> "ODE":
        return self._with(initial=dict(states))

    def rates_along(self, inputs: Inputs, times: Any, states: Values) -> dict[str, Any]:
        """Evaluate the rates at given times and states.

        Args:
            inputs: the start and the forcings.
            times: the times, `(time,)`.
            states: the states at these times, `(time, …)` by name.

        Returns:
            The rates, `(time, …)` by name, with process noise and infusions.
        """
        return jax.vmap(rates_at(self._scheduled(inputs), inputs))(times, dict(states))

    def _jumped(self, inputs: Inputs, t: Any, y: dict[str, Any], due: Callable) -> dict[str, Any]:
        """Apply jumps at the start or the end of a solve.

        Args:
            inputs: the times and forcings.
            t: the start or the end.
            y: the states before the jumps.
            due: a function that takes times of jumps and flags those to apply.

        Returns:
            The states after the jumps.
        """
        if not self._sudden:
            return y
        rates = self._rates(inputs, y)
        return jumped(self._sudden, due, t, y, self._forced(inputs), lambda t, y: rates(t, y, None))

    def _forced(self, inputs: Inputs) -> Forced:
        """Return the forcings, with infusions, as a function of time."""
        given = self.doses if isinstance(self.doses, AbstractSchedule) else None
        return Forced({name: inputs.forcings[name] for name in self.forcings}, given)

    def _discontinuities(self, inputs: Inputs) -> tuple[Any, Any]:
        """Return the times at which a step must end, and the times at which the solver restarts.

        Each of the two is None if there are no such times.
        """
        # Forcings from one table share their array of times, so that `id` removes duplicates.
        used = [inputs.forcings[name] for name in self.forcings]
        kinks = {id(f.times): f.times for f in used if isinstance(f, Linear)}.values()
        breaks = {id(f.times): f.times for f in used if isinstance(f, Step)}.values()
        breaks = [*breaks, *(jax.lax.stop_gradient(jump.times) for jump in self._sudden)]
        breaks += [] if self.process_noise is None else [self.process_noise.edges]
        # Diffrax ignores infinite times, so that shapes do not depend on values.
        inside = lambda t: jnp.where((t > inputs.start) & (t <= last_part(inputs)), t, jnp.inf)  # noqa: E731
        return (
            jnp.concatenate([*kinks]) if kinks else None,
            inside(jnp.concatenate([*breaks])) if breaks else None,
        )

    def _field(self, forced: Forced) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
        """Return the rates as a function `(t, y)`: vector field, process noise and infusions."""
        field, noise = prepared(self.vector_field), self.process_noise

        def rates(t, y):
            found = checked_rates(field(t, y, forced(t)), y)
            if noise is not None:
                found |= {name: found[name] + added for name, added in noise.added(t, y).items()}
            return forced.infused(t, found)

        return rates

    def _rates(self, inputs: Inputs, initial: dict[str, Any]) -> Callable:
        """Return the rates as a function `(t, y, args)`, as Diffrax calls it.

        Args:
            inputs: the start, times and forcings.
            initial: states with finite rates at the start.
        """
        rates = self._field(self._forced(inputs).up_to(last_part(inputs)))
        # Forward mode through an explicit solver is safe: rejected steps are not multiplied by 0.
        if isinstance(self.adjoint, diffrax.ForwardMode) and not isinstance(
            self.solver, diffrax.AbstractImplicitSolver
        ):
            return lambda t, y, args: rates(t, y)
        # If rates are not finite, take their gradient at the start of the solve.
        known = _strong(jax.lax.stop_gradient((inputs.start, initial)))
        closed = eqx.filter_closure_convert(rates, *known)
        return lambda t, y, args: safe_rates(closed, *_strong((t, y)), known)


def with_schedule(ode: ODE, schedule: AbstractSchedule, initial: dict[str, Any]) -> ODE:
    """Return an ODE with other initial states and with a schedule as its only sudden changes.

    Args:
        ode: the ODE.
        schedule: doses with known times and amounts.
        initial: the states at the start, by name.

    Returns:
        The ODE without other doses, jumps, events or process noise.
    """
    bare = dataclasses.replace(ode, doses=None, jumps=(), events=(), process_noise=None)
    return bare._with(doses=schedule, initial=initial)


def rates_at(ode: ODE, inputs: Inputs) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    """Return the rates of an ODE as a function of time and states.

    The rates include process noise and infusions.

    Args:
        ode: the ODE.
        inputs: the start, times and forcings.

    Returns:
        A function `(t, y)` that returns the rates by state.
    """
    return ode._field(ode._forced(inputs))


def _strong(tree: Any) -> Any:
    """Convert numbers to arrays without JAX's weak types, which a converted closure refuses."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)

"""Ordinary differential equations, solved by Diffrax."""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .._errors import ModelError
from .._tree import FrozenDict
from .._types import Values, VectorField
from ..data import Inputs
from ..random import check_scalar, is_random, paths, realise
from ._prediction import AbstractLayer, Prediction
from ._rosenbrock import Rodas5P


def find_solver(solver: str | diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """A Diffrax solver from itself or from its name, in any case: `tsit5`, `dopri8`, `rodas5p`, …

    Raises: ModelError if Diffrax has no adaptive solver of that name.
    """
    if isinstance(solver, diffrax.AbstractSolver):
        return solver
    adaptive = {
        name.lower(): value
        for name, value in vars(diffrax).items()
        if isinstance(value, type)
        and issubclass(value, diffrax.AbstractAdaptiveSolver)
        and not name.startswith(("Abstract", "HalfSolver"))
        # Others are for equations in two parts: stochastic, or implicit and explicit.
        and value.term_structure is diffrax.AbstractTerm
    } | {"rodas5p": Rodas5P}
    if not isinstance(solver, str) or solver.lower() not in adaptive:
        raise ModelError(
            f"unknown solver {solver!r}: give a Diffrax solver, or one of the names {', '.join(sorted(adaptive))} "
            "(rodas5p is for stiff equations)"
        )
    return adaptive[solver.lower()]()


class ODE(AbstractLayer):
    r"""An initial value problem.

    $\dot y = f(t, y, u(t)), \quad y(t_0) = y_0$

    `vector_field(t, y, u)` takes time, a dict of states and a dict of forcings, and returns a dict with the
    rate of change of every state. `initial` holds the states at `start` (default: the first time of the data
    that the model is fitted to). `observe(t, y, u)`, if given, turns states into the values that are predicted;
    without it the states themselves are. `forcings` names the data variables that drive the equation, which
    are interpolated linearly; the solver ends a step at each of their times, and these do not count in `max_steps`.
    `units` are the units of states, forcings and observed values: data in other units are refused.

    The solver is a Diffrax solver or its name: `tsit5` (the default) for non-stiff, `rodas5p` for stiff
    equations. A solve that needs more than `max_steps` steps, or leaves the finite numbers, is reported by
    `ok=False`, never by an exception.

    Shapes: states are scalars, or arrays if `observe` reduces them to scalars; predictions are `(time,)`.
    Raises: ModelError if built with an unknown solver, a state of the wrong shape, or bad tolerances.
    """

    vector_field: VectorField
    initial: dict[str, Any]
    observe: Callable[[Any, Values, Values], Values] | None = None
    forcings: tuple[str, ...] = eqx.field(default=(), static=True, converter=tuple, kw_only=True)
    units: Mapping[str, str] = eqx.field(default_factory=dict, static=True, converter=FrozenDict, kw_only=True)
    solver: diffrax.AbstractSolver = eqx.field(default="tsit5", converter=find_solver)
    start: float | None = eqx.field(default=None, static=True)
    rtol: float = eqx.field(default=1e-6, static=True)
    atol: float = eqx.field(default=1e-6, static=True)
    max_steps: int = eqx.field(default=4096, static=True)
    # Few checkpoints make a gradient cheap whatever max_steps allows: 81 against 168 µs on lynx–hare.
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=32)

    def __check_init__(self):
        if not callable(self.vector_field):
            raise ModelError(f"vector_field must be callable as f(t, y, u), not {self.vector_field!r}")
        if not isinstance(self.initial, dict) or not self.initial:
            raise ModelError("initial must be a dict that names every state and gives its initial value")
        if min(self.rtol, self.atol) <= 0 or self.max_steps < 1:
            raise ModelError("rtol and atol must be positive and max_steps at least 1")
        if self.observe is None:
            for name, value in self.initial.items():
                check_scalar(value, f"initial['{name}']")

    @property
    def outputs(self) -> tuple[str, ...]:
        if self.observe is None:
            return tuple(self.initial)
        known = realise(self.observe, {path: jnp.ones(leaf.shape) for path, leaf in paths(self.observe).items()})
        observed = jax.eval_shape(known, 0.0, self._any_state(), dict.fromkeys(self.forcings, 0.0))
        return tuple(observed)

    @property
    def states(self) -> int:
        """How many numbers the solver carries along."""
        return sum(value.size for value in self._any_state().values())

    def leaf_units(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf of `initial`: those of its state."""
        return self.units.get(path[1], "") if path[0] == "initial" else ""

    def _any_state(self) -> dict[str, Any]:
        return {
            name: jnp.ones(v.batch_shape + v.event_shape) if is_random(v) else jnp.asarray(v, float)
            for name, v in self.initial.items()
        }

    def __call__(self, inputs: Inputs) -> Prediction:
        solution = self._solve(inputs)
        ok = (solution.result == diffrax.RESULTS.successful) & _finite(solution.ys)
        # Masked before `observe`, so that a singular function there still has a finite gradient.
        states = jax.tree.map(lambda y: jnp.where(ok, y, 1.0), solution.ys)
        values = states if self.observe is None else self._observed(self.observe, inputs, states)
        ok = ok & _finite(values)
        stats = {"steps": jnp.asarray(solution.stats["num_steps"])}
        return Prediction(jax.tree.map(lambda v: jnp.where(ok, v, 1.0), values), ok, stats)

    def _solve(self, inputs: Inputs) -> diffrax.Solution:
        def rates(t, y, forcings):
            rate = self.vector_field(t, y, {name: force(t) for name, force in forcings.items()})
            if set(rate) != set(y):
                raise ModelError(
                    f"the vector field returns rates for {', '.join(rate)} but the states are {', '.join(y)}"
                )
            return {name: jnp.asarray(rate[name], y[name].dtype) for name in y}

        initial = {name: jnp.asarray(value, inputs.times.dtype) for name, value in self.initial.items()}
        controller: Any = diffrax.PIDController(rtol=self.rtol, atol=self.atol)
        max_steps = self.max_steps
        if self.forcings:
            # A step over a kink of a forcing is far less exact than its error estimate says: end steps there.
            kinks = inputs.forcings[self.forcings[0]].times
            controller = diffrax.ClipStepSizeController(controller, step_ts=kinks)
            max_steps += len(kinks)
        return diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            self.solver,
            inputs.start,
            inputs.times[-1],
            None,
            initial,
            args={name: inputs.forcings[name] for name in self.forcings},
            saveat=diffrax.SaveAt(ts=inputs.times),
            stepsize_controller=controller,
            max_steps=max_steps,
            adjoint=self.adjoint,
            throw=False,
        )

    def _observed(self, observe: Callable, inputs: Inputs, states: Any) -> Values:
        def at(t, y):
            u = {name: inputs.forcings[name](t) for name in self.forcings}
            return dict(observe(t, y, u))

        return jax.vmap(at)(inputs.times, states)


def _finite(values: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(values)]))

"""`SteadyState`: the equilibrium of a dynamical system at each row of the data."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree

from .._jax.tree import frozen, prepared
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..random import Values, VectorField, is_function, is_random
from ._functions import by_name, check_tolerances, method_of, named, output_names, several_names
from ._rosenbrock import Rodas5P
from ._steps import RetryingController, limits
from .algebraic import at_rows, forced_rows
from .implicit import matching
from .layer import AbstractLayer, Prediction, predict_rows
from .root import differentiable, search

# Relative tolerance of the transient; Newton's method then makes the equilibrium exact.
_ON_THE_WAY = 1e-4
_NEWTON_STEPS = 32


class SteadyState(AbstractLayer):
    r"""The equilibrium of a dynamical system, where all rates are zero, for each row of the data.

    $f(t_i, y_i, u_i) = 0$, and the solution of $\dot y = f(t_i, y, u_i)$ tends to $y_i$ from
    `guess`

    At row i, $t_i$ is the index, $u_i$ are the forcings, and $y_i$ is the equilibrium; f is the
    `vector_field`. The ODE is solved from `guess` until Newton's correction is small. Newton's
    method then makes the equilibrium exact. The equilibrium is therefore an attracting one, unless
    the guess is nearly an equilibrium already. If there are several, the guess selects one.
    Derivatives follow from the implicit-function theorem.

    If the states at any row oscillate or grow without bound, they reach no equilibrium within
    `max_steps` steps. The prediction then has `ok=False`; there is no exception. The same holds if
    the rates do not determine all states, as in a closed system. In that case leave out a state
    that follows from a conserved total.

    Args:
        vector_field: a function `(t, y, u)` of the index at one row, a dict of states and a dict of
            the forcings at that row. The index and the forcings stay constant during the solve. It
            returns a dict with the rate of every state.
        guess: a dict with the start of the solve: one number for each state, in its units.
        observe: a function `(t, y, u)` of the equilibrium that returns a dict of predicted values.
            Without it the states are predicted.
        forcings: the data variables that the equation reads: one name, or a tuple of names.
        units: the units of states, forcings and observed values, by name. Data in other units of
            the same dimension are converted; data of another dimension are refused.
        index: the name of the coordinate along which the rows lie.
        rtol: the relative tolerance: the search ends when Newton's correction is below
            `atol + rtol * abs(y)`.
        atol: the absolute tolerance, in the units of the states, the same for all.
        max_steps: the largest number of solver steps towards the equilibrium, for each row.

    Shapes: states are numbers, or arrays if `observe` reduces them to numbers; predictions are
    `(row,)`.

    Raises:
        ModelError: if the guess is no dict of numbers, or a tolerance is invalid. When called, if
            names or shapes of the rates differ from those of the states.
    """

    in_a_function: ClassVar[str] = "; inside of a function call bd.layers.find_root(rates, guess)"

    vector_field: VectorField
    guess: dict[str, Any]
    observe: Callable[..., Values] | None = None
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )
    index: str = eqx.field(default="time", static=True, kw_only=True)
    rtol: float = eqx.field(default=1e-8, static=True, kw_only=True)
    atol: float = eqx.field(default=1e-12, static=True, kw_only=True)
    max_steps: int = eqx.field(default=1024, static=True, kw_only=True)

    def __check_init__(self):
        if not is_function(self.vector_field):
            raise ModelError(
                f"vector_field must be callable as f(t, y, u), not {self.vector_field!r}"
            )
        if not isinstance(self.guess, dict) or not self.guess:
            raise ModelError(
                "guess must be a dict that names every state and says where the system starts"
            )
        for name, value in self.guess.items():
            if not is_random(value) and not eqx.is_array_like(value):
                raise ModelError(f"guess['{name}'] must be a number, not {value!r}")
            if is_random(value):
                raise ModelError(
                    f"guess['{name}'] only says where the system starts, so it must be a number"
                )
            if self.observe is None and jnp.ndim(value):
                raise ModelError(f"guess['{name}'] must be a number, not an array, without observe")
        check_tolerances(self)

    @property
    def outputs(self) -> tuple[str, ...]:
        return output_names(self.observe, self.vector_field, self._begin, self.forcings)

    @property
    def states(self) -> int:
        """The number of state variables; each element of an array counts."""
        return sum(value.size for value in self._begin.values())

    @property
    def _begin(self) -> dict[str, Any]:
        """The guess as arrays by name."""
        return {name: jnp.asarray(value, float) for name, value in self.guess.items()}

    def __call__(self, inputs: Inputs) -> Prediction:
        u = forced_rows(inputs, self.forcings)
        start, unravel = ravel_pytree(self._begin)
        field, observe = prepared(self.vector_field), method_of(self.vector_field, self.observe)

        def rates(t, u):
            def flat(y):
                states = unravel(y)
                return ravel_pytree(
                    matching(
                        named(field(t, states, u), "the vector field"),
                        states,
                        "the vector field returns rates for",
                        "states",
                    )
                )[0]

            return flat

        # Solve for the equilibrium without a gradient, then attach derivatives.
        roots, ok, steps = jax.vmap(lambda t, u: self._follow(rates(t, u), start))(inputs.times, u)

        def values(times):
            y = jax.vmap(lambda t, u, root: unravel(differentiable(rates(t, u), root)))(
                times, u, roots
            )
            return y if observe is None else at_rows(observe, "observe", times, y, u)

        return predict_rows(values, inputs.times, jnp.all(ok), {"steps": jnp.max(steps)})

    def _follow(self, rates: Callable, start: Any) -> tuple[Any, Any, Any]:
        """Solve for the equilibrium of one row, without a gradient.

        Args:
            rates: the rates as a function of the vector of states.
            start: the guess as a vector.

        Returns:
            The equilibrium as a vector, whether it was found, and the number of steps.
        """
        # 1. Solve the transient until the Newton correction J⁻¹ f is small.
        closed = frozen(eqx.filter_closure_convert(rates, start))

        def at_rest(t, y, args, **_):
            correction = jnp.linalg.solve(jax.jacfwd(closed)(y), closed(y))
            return optx.max_norm(correction / (self.atol + self.rtol**0.5 * jnp.abs(y))) < 1

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: closed(y)),
            Rodas5P(),
            0.0,
            # Longer than any transient in any unit of time; its square is still finite.
            limits(start.dtype)[0],
            None,
            start,
            stepsize_controller=RetryingController(
                diffrax.PIDController(rtol=_ON_THE_WAY, atol=self.atol)
            ),
            event=diffrax.Event(at_rest),
            max_steps=self.max_steps,
            adjoint=diffrax.ForwardMode(),
            throw=False,
        )
        # 2. Newton's method makes the state exact.
        rested = solution.result == diffrax.RESULTS.event_occurred
        states: Any = solution.ys
        end = jnp.where(rested, states[0], start)
        root, found, more = search(closed, end, self.rtol, self.atol, _NEWTON_STEPS)
        return root, rested & found, solution.stats["num_steps"] + more

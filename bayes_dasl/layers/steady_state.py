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

# Tolerance of the transient, whose end Newton's method makes exact.
_ON_THE_WAY = 1e-4
_NEWTON_STEPS = 32


class SteadyState(AbstractLayer):
    r"""The equilibrium, where all rates vanish, for each row of the data.

    $f(t_i, y_i, u_i) = 0$, where $\dot y = f(t_i, y, u_i)$ leads from `guess`

    The system is solved from `guess` until Newton's correction is small, and Newton's method then
    makes the state exact. The equilibrium is therefore an attracting one (unless the guess is
    within `atol` of another). Where there are several, the guess selects one. Derivatives follow
    from the implicit-function theorem.

    A row that does not come to rest within `max_steps` steps, because it oscillates or grows
    without bound, gives `ok=False`, not an exception. So does a row whose rates do not determine
    all states, as in a closed system: leave out a state that follows from a conserved total.

    Args:
        vector_field: a function `(t, y, u)` of the value of the index at one row, a dict of states
            and a dict of the forcings at that row, both fixed. It returns a dict with the rate of
            every state.
        guess: a dict of numbers, one for each state, in its units: where the system is followed
            from.
        observe: a function `(t, y, u)` that turns states into a dict of the values that are
            predicted; without it the states themselves are.
        forcings: the data variables that the equation reads: a name, or several.
        units: the units of states, forcings and observed values, by name: data in others are
            converted, or refused.
        index: the coordinate that the data run along.
        rtol: the size of Newton's last correction, relative to the states.
        atol: the absolute tolerance, in the units of the states, the same for all.
        max_steps: the most steps of the way to rest, for each row.

    Shapes: states are numbers, or arrays if `observe` reduces them to numbers; predictions are
    `(row,)`.

    Raises:
        ModelError: for a guess that is no dict of numbers, or bad tolerances; when called, for
            rates of other names or shapes than those of the states.
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
        """Number of state variables."""
        return sum(value.size for value in self._begin.values())

    @property
    def _begin(self) -> dict[str, Any]:
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

        # Follow the system to rest without a gradient, then attach derivatives.
        roots, ok, steps = jax.vmap(lambda t, u: self._follow(rates(t, u), start))(inputs.times, u)

        def values(times):
            y = jax.vmap(lambda t, u, root: unravel(differentiable(rates(t, u), root)))(
                times, u, roots
            )
            return y if observe is None else at_rows(observe, "observe", times, y, u)

        return predict_rows(values, inputs.times, jnp.all(ok), {"steps": jnp.max(steps)})

    def _follow(self, rates: Callable, start: Any) -> tuple[Any, Any, Any]:
        """Equilibrium from a guess, whether it was found, and the steps; without a gradient."""
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

"""`Implicit`: unknowns that solve a system of equations at each row of the data."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..random import Values, VectorField, is_function, is_random, paths
from ._functions import (
    by_name,
    check_tolerances,
    method_of,
    named,
    output_names,
    several_names,
    shapes_of,
)
from .algebraic import at_rows, forced_rows
from .layer import AbstractLayer, Prediction, predict_rows
from .root import Flat, System, differentiable, iterate, search


class Implicit(AbstractLayer):
    """Unknowns that solve a system of equations at each row of the data.

    $f(t_i, y_i, u_i) = 0$, or $f(t_i, y_i, u_i) = y_i$ if `kind="fixed_point"`

    At row i, $t_i$ is the index, $y_i$ are the unknowns, $u_i$ the forcings, and f is `equations`.
    Write an unknown that must be positive as the exponential of its logarithm. Derivatives follow
    from the implicit-function theorem. If the search at any row fails, the prediction has
    `ok=False` and zero derivatives; there is no exception.

    Args:
        equations: a function `(t, y, u)` of the index, the unknowns and the forcings at one row. It
            returns a dict with a residual for each unknown, or with its next value for a fixed
            point.
        guess: the start of the search, in the units of the unknowns: numbers by name, or a function
            `(t, {}, u)` that returns them. If there are several roots, the guess selects one.
        observe: a function `(t, y, u)` of the unknowns that returns a dict of predicted values.
            Without it the unknowns are predicted.
        forcings: the data variables that the equations read: one name, or a tuple of names.
        units: the units of unknowns, forcings and observed values, by name. Data in other units of
            the same dimension are converted; data of another dimension are refused.
        index: the name of the coordinate along which the rows lie.
        kind: "root" or "fixed_point".
        method: "newton", a damped Newton method for both kinds. Or "iteration", a fixed-point
            iteration whose result Newton's method confirms; it finds only attracting fixed points.
        follow: whether the search at each row after the first starts from the root of the previous
            row.
        rtol: the relative tolerance: the search ends when Newton's correction is below
            `atol + rtol * abs(y)`.
        atol: the absolute tolerance, in the units of the unknowns.
        max_steps: the largest number of steps of the search at each row.

    Shapes: unknowns are numbers, or arrays if `observe` reduces them to numbers; predictions are
    `(row,)`.

    Raises:
        ModelError: for an unknown kind or method, a guess of the wrong shape, or bad tolerances;
            when called, if the returned names or shapes differ from those of the unknowns.
    """

    in_a_function: ClassVar[str] = (
        "; inside of a function call bd.layers.find_root(equations, guess)"
    )

    equations: VectorField
    guess: dict[str, Any] | Callable[[Any, Values, Values], Values]
    observe: Callable[..., Values] | None = None
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )
    index: str = eqx.field(default="time", static=True, kw_only=True)
    kind: str = eqx.field(default="root", static=True, kw_only=True)
    method: str = eqx.field(default="newton", static=True, kw_only=True)
    follow: bool = eqx.field(default=False, static=True, kw_only=True)
    rtol: float = eqx.field(default=1e-8, static=True, kw_only=True)
    atol: float = eqx.field(default=1e-12, static=True, kw_only=True)
    max_steps: int = eqx.field(default=64, static=True, kw_only=True)

    def __check_init__(self):
        if not is_function(self.equations):
            raise ModelError(f"equations must be callable as f(t, y, u), not {self.equations!r}")
        if self.kind not in ("root", "fixed_point"):
            raise ModelError(f"kind must be 'root' or 'fixed_point', not {self.kind!r}")
        if self.method not in ("newton", "iteration") or (
            self.method == "iteration" and self.kind == "root"
        ):
            raise ModelError(
                f"method must be 'newton', or 'iteration' for a fixed point, not {self.method!r} "
                f"for a {self.kind}"
            )
        check_tolerances(self)
        check_guess(self.guess, self.forcings, self.observe is None)

    @property
    def outputs(self) -> tuple[str, ...]:
        return output_names(self.observe, self.equations, self._unknowns, self.forcings)

    @property
    def states(self) -> int:
        """The number of unknowns that are solved for at each row of the data."""
        return sum(shape.size for shape in self._unknowns.values())

    @property
    def _unknowns(self) -> dict[str, Any]:
        """The shape of each unknown by name, taken from the guess."""
        return shapes_of(guess_function(self.guess), "the guess", {}, self.forcings)

    def __call__(self, inputs: Inputs) -> Prediction:
        # 1. A guess for each row.
        u = forced_rows(inputs, self.forcings)
        guesses = jax.vmap(lambda t, u: named(guess_function(self.guess)(t, {}, u), "the guess"))(
            inputs.times, u
        )
        unravel = ravel_pytree(jax.tree.map(lambda x: x[0], guesses))[1]
        # 2. Search without a gradient.
        roots, found, steps = self._search((inputs.times, u), guesses, unravel)

        # 3. Attach derivatives by the implicit-function theorem, then observe.
        def values(times):
            def unknowns(t, u, root):
                return unravel(differentiable(self._residuals(t, u, unravel), root))

            y = jax.vmap(unknowns)(times, u, roots)
            observe = method_of(self.equations, self.observe)
            return y if observe is None else at_rows(observe, "observe", times, y, u)

        return predict_rows(values, inputs.times, jnp.all(found), {"steps": jnp.max(steps)})

    def _equations(self, t: Any, u: Any, unravel: Callable) -> System:
        """Return the equations of one row as a function of the vector of all unknowns.

        Args:
            t: the index at the row.
            u: the forcings at the row.
            unravel: the function that turns the vector into a dict of unknowns.
        """

        def values(flat):
            y = unravel(flat)
            returned = named(self.equations(t, y, u), "the equations")
            return ravel_pytree(matching(returned, y, "the equations return"))[0]

        return values

    def _residuals(self, t: Any, u: Any, unravel: Callable) -> System:
        """Return the function that is zero at a solution; arguments as for `_equations`."""
        values = self._equations(t, u, unravel)
        return values if self.kind == "root" else lambda flat: values(flat) - flat

    def _search(
        self, rows: Any, guesses: Values, unravel: Callable
    ) -> tuple[Float[Array, "row unknown"], Array, Array]:
        """Search the solution at each row, without a gradient.

        Args:
            rows: the index and the forcings at all rows.
            guesses: the start of the search at all rows, by name.
            unravel: the function that turns a vector of unknowns into a dict.

        Returns:
            For each row its solution, whether the search succeeded, and the number of steps.
        """

        def near(guess, row):
            t, u = row
            return self._search_row(t, u, guess, unravel)

        def following(guess, row):
            found = near(guess, row)
            return found[0], found

        # With `follow`, a scan uses the root of each row as the guess of the next row.
        flat = lax.stop_gradient(jax.vmap(lambda y: ravel_pytree(y)[0])(guesses))
        return lax.scan(following, flat[0], rows)[1] if self.follow else jax.vmap(near)(flat, rows)

    def _search_row(
        self, t: Any, u: Any, guess: Flat, unravel: Callable
    ) -> tuple[Flat, Array, Array]:
        """Search the solution at one row: the solution, whether it was found, number of steps."""
        residuals, options = self._residuals(t, u, unravel), (self.rtol, self.atol, self.max_steps)
        if self.method == "newton":
            return search(residuals, guess, *options)
        # Iterate to the attracting fixed point, then let Newton's method confirm it.
        end, settled, iterations = iterate(self._equations(t, u, unravel), guess, *options)
        root, ok, steps = search(residuals, end, *options)
        return jnp.where(settled & ok, root, guess), settled & ok, iterations + steps


def guess_function(guess: Any) -> Callable[..., Any]:
    """Return a guess as a function `(t, y, u)`; a dict becomes a constant function."""
    return guess if callable(guess) else lambda t, y, u: guess


def check_guess(guess: Any, forcings: tuple[str, ...], scalar: bool) -> None:
    """Check the start of a search for unknowns.

    Args:
        guess: a dict of numbers, or a function that returns one.
        forcings: the names of the forcings that a function may read.
        scalar: whether each unknown must be one number.

    Raises:
        ModelError: if the guess is no such dict or function, if it holds random leaves, or if
            `scalar` and it holds an array.
    """
    if not callable(guess) and (not isinstance(guess, dict) or not guess):
        raise ModelError(
            "guess must be a dict that names every unknown and says where its search starts"
        )
    if paths(guess) or (isinstance(guess, dict) and any(map(is_random, guess.values()))):
        raise ModelError(
            "guess only says where the search starts, so nothing in it can be inferred: give "
            "numbers"
        )
    for name, value in shapes_of(guess_function(guess), "the guess", {}, forcings).items():
        if scalar and value.shape:
            raise ModelError(
                f"guess['{name}'] must be a number, not an array of shape {value.shape}, without "
                "observe"
            )


def matching(
    values: dict[str, Any], like: Values, what: str, unknowns: str = "unknowns"
) -> dict[str, Any]:
    """Check that returned values have the names and shapes of the unknowns.

    Args:
        values: the values that the user's equations returned, by name.
        like: the unknowns by name.
        what: the beginning of the error message, such as "the equations return".
        unknowns: the plural noun for the unknowns in the message.

    Returns:
        The same values.

    Raises:
        ModelError: if a name or shape differs.
    """
    if set(values) != set(like):
        raise ModelError(
            f"{what} {', '.join(values) or 'nothing'} but the {unknowns} are {', '.join(like)}"
        )
    for name, value in values.items():
        if value.shape != like[name].shape:
            raise ModelError(
                f"{what} '{name}' with shape {value.shape}, but its own shape is {like[name].shape}"
            )
    return values

"""Two-point boundary-value problems, solved by collocation on fixed nodes."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..data.layer_inputs import Inputs
from ..errors import DataError, ModelError
from ..layers._assumed import refuse_assumed
from ..layers._functions import (
    by_name,
    check_tolerances,
    method_of,
    named,
    output_names,
    several_names,
    shapes_of,
)
from ..layers.algebraic import at_rows, forced_rows
from ..layers.implicit import check_guess, guess_function, matching
from ..layers.layer import AbstractLayer, Prediction, predict_rows
from ..layers.root import differentiable, search
from ..random import Values, VectorField, is_function

type Boundary = Callable[[Values, Values, Values], Values]


def _domain(ends: Any) -> tuple[float, ...]:
    """Return the ends of the domain as floats, or raise a ModelError."""
    try:
        return tuple(map(float, ends))
    except (TypeError, ValueError):
        raise ModelError(
            f"domain must be two finite numbers (a, b) with a less than b, not {ends!r}"
        ) from None


class BoundaryValue(AbstractLayer):
    r"""A two-point boundary-value problem along a coordinate.

    $y' = f(x, y, u(x))$ for $a \le x \le b$, with $g(y(a), y(b), u) = 0$

    Here y are the states, u the forcings, f the vector field and g the boundary conditions.

    The method is Hermite–Simpson collocation on `nodes` equally spaced nodes, with cubic Hermite
    interpolation between nodes. Both are of order 4: doubling the nodes divides the error by 16.
    Each step of the damped Newton iteration uses dense linear algebra. So the cost grows as the
    cube of the number of unknowns, nodes times states. Up to a few hundred unknowns are fast.
    Derivatives follow from the implicit-function theorem. A failed solve gives `ok=False`, not an
    exception; so do traced coordinates outside the domain.

    Args:
        vector_field: a function `(x, y, u)` of the coordinate, a dict of states and a dict of
            forcings. It returns a dict with the derivative of every state. An equation of second
            order has the slope as another state.
        boundary: a function `(left, right, u)` of a dict of states at a, a dict of states at b, and
            a dict of forcings. Each forcing is an array of its two values at a and b. The function
            returns a dict of residuals that must be zero, as many numbers as there are states.
        guess: a rough profile in the units of the states, from which the iteration starts: numbers
            by state, or a function `(x, {}, u)`. It selects one of several solutions.
        observe: a function `(x, y, u)` that returns a dict of predicted values; without it the
            states are predicted.
        domain: (a, b), the two ends, in the units of the index.
        nodes: the number of equally spaced nodes, both ends included.
        forcings: the data variables that the equation uses: a name, or several. They are
            interpolated linearly between their data.
        units: the units of states, forcings and observed values, by name. Data in other units are
            converted. Data in incompatible units are refused.
        index: the name of the coordinate of the data along which the equation is solved.
        rtol: relative size of the last Newton correction. The error of the collocation does not
            depend on it.
        atol: absolute size of the last Newton correction, in the units of the states.
        max_steps: the largest number of Newton steps.

    Shapes: states are numbers, or arrays if `observe` reduces them to numbers; predictions are
    `(row,)`.

    Raises:
        ModelError: for an invalid domain, guess or tolerance, or fewer than 3 nodes. When called:
            if the vector field returns derivatives of other states or of wrong shapes, or for a
            wrong number of boundary conditions.
        DataError: for data outside the domain.

    Source: Kierzenka & Shampine (2001), A BVP solver based on residual control and the MATLAB PSE.
    """

    vector_field: VectorField
    boundary: Boundary
    guess: dict[str, Any] | Callable[[Any, Values, Values], Values]
    observe: Callable[..., Values] | None = None
    domain: tuple[float, ...] = eqx.field(static=True, converter=_domain, kw_only=True)
    nodes: int = eqx.field(default=50, static=True, kw_only=True)
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )
    index: str = eqx.field(default="x", static=True, kw_only=True)
    rtol: float = eqx.field(default=1e-8, static=True, kw_only=True)
    atol: float = eqx.field(default=1e-9, static=True, kw_only=True)
    max_steps: int = eqx.field(default=64, static=True, kw_only=True)

    def __check_init__(self):
        for name in ("vector_field", "boundary"):
            if not is_function(getattr(self, name)):
                raise ModelError(f"{name} must be a function, not {getattr(self, name)!r}")
        if len(self.domain) != 2 or not -np.inf < self.domain[0] < self.domain[1] < np.inf:
            raise ModelError(
                f"domain must be two finite numbers (a, b) with a less than b, not {self.domain}"
            )
        if not isinstance(self.nodes, int) or self.nodes < 3:
            raise ModelError(f"nodes must be a whole number of at least 3, not {self.nodes!r}")
        check_tolerances(self)
        check_guess(self.guess, self.forcings, self.observe is None)

    @property
    def outputs(self) -> tuple[str, ...]:
        return output_names(self.observe, self.vector_field, self._unknowns, self.forcings)

    @property
    def states(self) -> int:
        """Number of unknowns: all states at all nodes."""
        return self.nodes * sum(shape.size for shape in self._unknowns.values())

    @property
    def _unknowns(self) -> dict[str, Any]:
        """Shape and dtype of each state, by name, from the guess."""
        return shapes_of(guess_function(self.guess), "the guess", {}, self.forcings)

    def _refuse_outside(self, inputs: Inputs) -> None:
        """Raise an error for data outside the domain, unless their coordinates are traced.

        Raises:
            DataError: for the first row outside the domain.
        """
        if isinstance(inputs.times, Tracer):
            return
        a, b = self.domain
        for x in np.asarray(inputs.times)[~self._inside(np.asarray(inputs.times))][:1]:
            raise DataError(
                f"{self.index} {x:g} lies outside the domain of the model, which is from {a:g} to "
                f"{b:g}"
            )

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        self._refuse_outside(inputs)
        # 1. Nodes x_k. The guess at the nodes is the first value of the unknown states y_k.
        x = jnp.linspace(self.domain[0], self.domain[1], self.nodes)
        rates = jax.vmap(lambda at, y: self._rates(inputs, at, y))
        guesses, unravel = ravel_pytree(jax.vmap(lambda at: self._guess(inputs, at))(x))

        # 2. As many residuals as unknowns: g(y(a), y(b), u) and a defect for each interval.
        def residuals(flat):
            y = unravel(flat)
            return jnp.concatenate(
                [self._boundary_residuals(inputs, y), ravel_pytree(_defects(x, y, rates))[0]]
            )

        # 3. Damped Newton iteration; gradients come from the implicit-function theorem.
        root, ok, steps = search(residuals, guesses, self.rtol, self.atol, self.max_steps)

        # 4. States at the coordinates of the data, by cubic interpolation between nodes.
        def values(times):
            y = unravel(differentiable(residuals, root))
            states = jax.vmap(lambda at: _hermite(at, x, y, rates(x, y)))(times)
            if self.observe is None:
                return states
            return at_rows(
                method_of(self.vector_field, self.observe),
                "observe",
                times,
                states,
                forced_rows(inputs, self.forcings),
            )

        ok = ok & jnp.all(self._inside(inputs.times))
        return predict_rows(values, inputs.times, ok, {"steps": steps})

    def _inside(self, x: Any) -> Any:
        """Whether each coordinate lies in the domain."""
        return (x >= self.domain[0]) & (x <= self.domain[1])

    def _guess(self, inputs: Inputs, x: Any) -> dict[str, Any]:
        """Return the guess of every state at the coordinate x."""
        return named(guess_function(self.guess)(x, {}, inputs.forced(x)), "the guess")

    def _rates(self, inputs: Inputs, x: Any, y: Values) -> Values:
        """Return the derivative of every state at the coordinate x, checked against the states."""
        returned = named(self.vector_field(x, y, inputs.forced(x)), "the vector field")
        return matching(returned, y, "the vector field returns derivatives of", "states")

    def _boundary_residuals(self, inputs: Inputs, y: Values) -> Float[Array, " residual"]:
        """Return the residuals of the boundary conditions; in `y`, the first axis is the node."""
        left, right = jax.tree.map(lambda v: v[0], y), jax.tree.map(lambda v: v[-1], y)
        u = jax.vmap(inputs.forced)(jnp.asarray(self.domain))
        flat = ravel_pytree(named(self.boundary(left, right, u), "the boundary"))[0]
        wanted = ravel_pytree(left)[0].size
        if flat.size != wanted:
            raise ModelError(
                f"the boundary returns {flat.size} residuals but there are {wanted} states: as "
                "many are needed"
            )
        return flat


def _defects(x: Float[Array, " node"], y: Values, rates: Callable) -> Values:
    """Defects of the Hermite–Simpson rule, which are zero for a solution.

    Args:
        x: the nodes.
        y: the states at the nodes, `(node, …)` by name.
        rates: a function of arrays of coordinates and of states that returns the derivatives.

    Returns:
        One defect for each interval between nodes, `(node - 1, …)` by state.
    """
    h, f = jnp.diff(x), rates(x, y)
    # Hermite cubic at the middle: (y_k + y_{k+1}) / 2 - h (f_{k+1} - f_k) / 8.
    middle = {
        name: (v[1:] + v[:-1]) / 2 - _by_row(h, f[name][1:] - f[name][:-1]) / 8
        for name, v in y.items()
    }
    # Simpson's rule: y_{k+1} - y_k - h (f_k + 4 f_middle + f_{k+1}) / 6.
    between = rates((x[1:] + x[:-1]) / 2, middle)
    return {
        name: v[1:] - v[:-1] - _by_row(h, f[name][:-1] + 4 * between[name] + f[name][1:]) / 6
        for name, v in y.items()
    }


def _by_row(h: Float[Array, " row"], values: Float[Array, "row ..."]) -> Float[Array, "row ..."]:
    """Multiply each row of `values` by the element of `h` for this row."""
    return h.reshape(-1, *(1,) * (values.ndim - 1)) * values


def _hermite(at: Any, x: Float[Array, " node"], y: Values, f: Values) -> Values:
    """Cubic Hermite interpolation of the states to one coordinate.

    Args:
        at: the coordinate.
        x: the nodes.
        y: the states at the nodes, `(node, …)` by name.
        f: the derivatives of the states at the nodes, in the same form.
    """
    i = jnp.clip(jnp.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = x[i + 1] - x[i]
    s = (at - x[i]) / h

    def cubic(y, f):
        ends = (1 + 2 * s) * (1 - s) ** 2 * y[i] + s**2 * (3 - 2 * s) * y[i + 1]
        return ends + h * s * (1 - s) * ((1 - s) * f[i] - s * f[i + 1])

    return {name: cubic(y[name], f[name]) for name in y}

"""The layer that solves a partial differential equation by the method of lines."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from .._jax.tree import FrozenDict
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers._assumed import refuse_assumed
from ..layers._functions import (
    by_name,
    check_interpolation,
    check_tolerances,
    method_of,
    several_names,
)
from ..layers._start import start_time
from ..layers.jump import Jump, as_jumps
from ..layers.layer import AbstractLayer, Prediction
from ..layers.ode import ODE, find_solver
from ..random import Values, VectorField, with_possible
from .grid import Grid, check_value, evaluate

_OF_ODE = (
    "forcings",
    "interpolation",
    "jumps",
    "units",
    "solver",
    "start",
    "rtol",
    "atol",
    "max_steps",
    "adjoint",
)


class PDE(AbstractLayer):
    r"""A partial differential equation on a grid, by the method of lines.

    $\dot y_i = f(t, y, u)_i$ in every cell i, $y(t_0) = y_0$

    Here y are the fields, u the forcings and f the vector field. Every field is an array over the
    cells. Each predicted variable is a single number or an array over the cells at each time.
    Arrays are interpolated to the coordinates of the data, by a polynomial of `degree` between cell
    centres. Interpolation across the ends of a periodic axis is used only without `observe`.

    Choice of the solver: diffusion is stiff. With diffusion coefficient D and cell width h,
    stability limits steps of `tsit5` to about $0.8\,h^2/D$ in one dimension, and to half of that in
    two. `Chebyshev(stages)` suits any number of cells. `rodas5p` takes few steps, but its gradients
    are slow. Draws that make the equation too stiff exceed `max_steps` and are rejected. If
    plausible draws need few steps, a limit of some hundred makes such rejections cheap.

    Args:
        vector_field: a function `(t, y, u)` that returns the rate of change of every field, such as
            `FiniteVolume`, `Spectral` or `Vorticity`, alone or in a `Residual`. It holds the grid.
        initial: the initial value of each field at `start`, by name, in the units of the field: a
            number, a distribution, an array over the cells, or a function `(t, {}, u)`, such as a
            `Basis` in x. A function is called in every cell with the coordinates of the cell in
            `u`.
        observe: a function `(t, y, u)` that returns a dict of predicted values; without it the
            fields are predicted. Its `u` holds the forcings, the coordinates of the cells and, for
            a `FiniteVolume`, the outflow through each side (`heat_outflow_x_low`, …).
        degree: the degree of the interpolating polynomial between cell centres, 1 or 3.
        forcings: the data variables that drive the equation: a name, or several. They are
            interpolated linearly between their data unless `interpolation` names them.
        interpolation: "step" or "cubic" by name of the forcing, as for `ODE`.
        jumps: a `bd.Jump`, or several: sudden changes of the fields.
        units: the units of fields, forcings and observed values, by name. Data in other units are
            converted. Data in incompatible units are refused.
        solver: a Diffrax solver or its name: `tsit5`, `rodas5p` for stiff equations, or
            `Chebyshev(stages)` for diffusion.
        start: the time of `initial`, as a date or in the units of time of the data. The default is
            the first time of the data that the model is fitted to.
        rtol: relative tolerance of the error of a step.
        atol: absolute tolerance of the error of a step, in the units of the fields.
        max_steps: the largest number of steps of a solve.
        adjoint: the method by which Diffrax differentiates the solve.

    Shapes: predictions of single numbers are `(time,)`; those of fields are `(time, x)` or
    `(time, x, y)`.

    Raises:
        ModelError: for no grid or several, an initial state of the wrong shape, or bad tolerances.
        DataError: when called, if the data lie outside the grid.
    """

    vector_field: VectorField
    initial: dict[str, Any]
    observe: Callable[..., Values] | None = None
    degree: int = eqx.field(default=1, static=True, kw_only=True)
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    interpolation: Mapping[str, str] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )
    jumps: tuple[Jump, ...] = eqx.field(default=(), converter=as_jumps, kw_only=True)
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )
    solver: diffrax.AbstractSolver = eqx.field(default="tsit5", converter=find_solver, kw_only=True)
    start: float | datetime | None = eqx.field(
        default=None, static=True, converter=start_time, kw_only=True
    )
    rtol: float = eqx.field(default=1e-6, static=True, kw_only=True)
    atol: float = eqx.field(default=1e-6, static=True, kw_only=True)
    max_steps: int = eqx.field(default=4096, static=True, kw_only=True)
    adjoint: diffrax.AbstractAdjoint = eqx.field(
        default=diffrax.RecursiveCheckpointAdjoint(checkpoints=32), kw_only=True
    )

    def __check_init__(self):
        if not callable(self.vector_field):
            raise ModelError(
                f"vector_field must be callable as f(t, y, u), not {self.vector_field!r}"
            )
        if not isinstance(self.initial, dict) or not self.initial:
            raise ModelError(
                "initial must be a dict that names every field and gives its initial value"
            )
        check_tolerances(self)
        if self.degree not in (1, 3):
            raise ModelError(f"degree must be 1 or 3, not {self.degree!r}")
        for name, value in self.initial.items():
            check_value(value, ((), self.grid.shape), f"initial['{name}']")
        check_interpolation(self.interpolation, self.forcings)
        for jump in self.jumps:
            jump.check_states(dict.fromkeys(self.initial, self.grid.shape))
        for what, names in (("forcing", self.forcings), ("field", self.initial)):
            for name in names:
                if name in self.grid.names:
                    raise ModelError(
                        f"{what} '{name}' has the name of an axis of the grid: rename one of them"
                    )

    @property
    def grid(self) -> Grid:
        """The grid of the vector field."""
        # A `Residual` or `Coupling` may hold several laws, but all on one grid.
        is_grid = lambda node: isinstance(node, Grid)  # noqa: E731
        grids = [
            node for node in jax.tree.leaves(self.vector_field, is_leaf=is_grid) if is_grid(node)
        ]
        if not grids or any(grid != grids[0] for grid in grids):
            raise ModelError(
                "the vector field must hold one grid, as FiniteVolume(Grid(x=(0.0, 1.0, 64)), …) "
                "does"
            )
        return grids[0]

    @property
    def axes(self) -> tuple[str, ...]:
        return self.grid.names

    @property
    def periodic(self) -> tuple[str, ...]:
        """Names of the axes that are periodic for every equation in the vector field."""
        is_law = lambda node: hasattr(node, "periodic")  # noqa: E731
        laws = [node for node in jax.tree.leaves(self.vector_field, is_leaf=is_law) if is_law(node)]
        return tuple(
            name for name in self.grid.names if laws and all(name in law.periodic for law in laws)
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.initial) if self.observe is None else tuple(self._observed_shapes())

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Axis names of each output that is a field; outputs of single numbers are absent."""
        if self.observe is None:
            return dict.fromkeys(self.initial, self.grid.names)
        return {name: self.grid.names for name, shape in self._observed_shapes().items() if shape}

    @property
    def states(self) -> int:
        return math.prod(self.grid.shape) * len(self.initial)

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf: those of the field whose initial value or jump it is.

        Args:
            path: the names from the layer to the leaf.

        Returns:
            The units, or an empty string for any other leaf.
        """
        if path[0] == "jumps" and path[2] == "change":
            return self.units.get(path[3], "")
        return self.units.get(path[1], "") if path[0] == "initial" and len(path) == 2 else ""

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        grid = self.grid
        at = {name: inputs.coordinates[name] for name in grid.names if name in inputs.coordinates}

        # Only the fields are known to be periodic: `observe` may also depend on the place.
        periodic = self.periodic if self.observe is None else ()

        def observe(t, y, u):
            values = self._observed(t, y, u)
            return {
                k: grid.interpolate(v, self.degree, periodic, **at) if jnp.ndim(v) else v
                for k, v in values.items()
            }

        initial = {name: self._start(name, value, inputs) for name, value in self.initial.items()}
        # Method of lines: one ODE whose states are the fields.
        return ODE(
            self.vector_field, initial, observe, **{name: getattr(self, name) for name in _OF_ODE}
        )(inputs)

    def _start(self, name: str, value: Any, inputs: Inputs) -> jax.Array:
        """Return the initial values of the field `name`, as an array over the cells."""
        values = evaluate(
            value, inputs.start, {}, self.grid.places, self.grid.shape, name, f"initial['{name}']"
        )
        return jnp.broadcast_to(values, self.grid.shape)

    def _observed(self, t: Any, y: Values, u: Values) -> dict[str, Any]:
        """Return the predicted values at one time, each a number or an array over the cells.

        Args:
            t: the time.
            y: the fields, by name.
            u: the forcings, by name.

        Raises:
            ModelError: if `observe` returns an array of another shape.
        """
        observe = method_of(self.vector_field, self.observe)
        if observe is None:
            return dict(y)
        known: dict[str, Any] = {**u, **self.grid.places}
        # Only a finite-volume law has fluxes through its sides.
        outflow = getattr(self.vector_field, "outflow", None)
        if outflow is not None:
            known |= outflow(t, y, u)
        values = {name: jnp.asarray(value, float) for name, value in observe(t, y, known).items()}
        for name, value in values.items():
            if value.shape not in ((), self.grid.shape):
                raise ModelError(
                    f"observe gives '{name}' the shape {value.shape}: want one number, or a field "
                    f"of {self.grid.shape}"
                )
        return values

    def _observed_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each output at one time; it does not depend on the random leaves."""
        known = with_possible(self)
        fields = {name: jnp.ones(self.grid.shape) for name in self.initial}
        shapes = jax.eval_shape(known._observed, 0.0, fields, dict.fromkeys(self.forcings, 0.0))
        return {name: value.shape for name, value in shapes.items()}

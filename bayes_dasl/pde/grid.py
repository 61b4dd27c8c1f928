"""`Grid`, the uniform grid of a partial differential equation, and evaluation of values on it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .._jax.tree import FrozenDict
from ..errors import DataError, ModelError
from ..random import Module, Values, is_function, is_random, shape_of

_LEAST_CELLS = 4


class Grid(Module):
    r"""A uniform grid of cells in one or two dimensions, such as `Grid(x=(low, high, cells))`.

    $x_i = \text{low} + (i + \tfrac12)\,h, \quad h = (\text{high} - \text{low}) / \text{cells}$

    Here $x_i$ is the centre of cell i and h is the cell width. Each axis must have the name of a
    coordinate of the data. Arrays over the cells have one dimension per axis, in the order of the
    arguments.

    Args:
        axes: a triple (low, high, cells) for each of one or two axes, by name. `low` and `high` are
            the ends of the axis, in the units of the coordinate of the same name. `cells` is the
            number of cells.

    Shapes: arrays over the cells are `(cells of x,)` or `(cells of x, cells of y)`.

    Raises:
        ModelError: for no or more than two axes, an empty range, or fewer than four cells.
    """

    axes: FrozenDict = eqx.field(static=True)

    def __init__(self, **axes: tuple[float, float, int]):
        self.axes = FrozenDict({name: _axis(name, axis) for name, axis in axes.items()})
        if len(axes) not in (1, 2):
            raise ModelError(
                f"a grid has one or two axes, such as Grid(x=(0.0, 1.0, 64)), not {len(axes)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(cells for _, _, cells in self.axes.values())

    def length(self, name: str) -> float:
        """Length of the grid along one axis.

        Args:
            name: the name of the axis.

        Returns:
            high - low, in the units of the coordinate.
        """
        low, high, _ = self.axes[name]
        return high - low

    def width(self, name: str) -> float:
        """Width of a cell along one axis.

        Args:
            name: the name of the axis.

        Returns:
            The width h, in the units of the coordinate.
        """
        return self.length(name) / self.axes[name][2]

    @property
    def cell_volume(self) -> float:
        return float(np.prod([self.width(name) for name in self.names]))

    def centres(self, name: str) -> Float[np.ndarray, " cells"]:
        """Cell centres along one axis.

        Args:
            name: the name of the axis.

        Returns:
            Coordinates, `(cells,)`.
        """
        low, _, cells = self.axes[name]
        return low + (np.arange(cells) + 0.5) * self.width(name)

    def faces(self, name: str) -> Float[np.ndarray, " faces"]:
        """Cell faces along one axis, both ends included.

        Args:
            name: the name of the axis.

        Returns:
            Coordinates, `(cells + 1,)`.
        """
        low, high, cells = self.axes[name]
        return np.linspace(low, high, cells + 1)

    @property
    def places(self) -> dict[str, Float[Array, "..."]]:
        """Coordinates of the cell centres: a dict of one array over the cells per axis name."""
        mesh = np.meshgrid(*(self.centres(name) for name in self.names), indexing="ij")
        return dict(zip(self.names, map(jnp.asarray, mesh), strict=True))

    def integral(self, values: Float[Array, "..."]) -> Float[Array, ""]:
        """Integral over the grid.

        Args:
            values: an array over the cells.

        Returns:
            The sum over cells times their volume.
        """
        return jnp.sum(values) * self.cell_volume

    def mean(self, values: Float[Array, "..."]) -> Float[Array, ""]:
        """Mean over the grid.

        Args:
            values: an array over the cells.

        Returns:
            The mean over cells.
        """
        return jnp.mean(values)

    def interpolate(
        self,
        values: Float[Array, "..."],
        degree: int = 1,
        periodic: tuple[str, ...] = (),
        **at: Any,
    ) -> Float[Array, "..."]:
        """Interpolate values between cell centres: `interpolate(v, x=0.3)`.

        A polynomial through the nearest cell centres is used. It also extrapolates from the
        outermost cell centres to the ends of the grid.

        Args:
            values: an array over the cells.
            degree: the degree of the polynomial: 1 (second order) or 3 (fourth order).
            periodic: names of the periodic axes.
            at: the coordinates at which values are wanted, by axis name: a number or an array
                `(place,)`.

        Returns:
            The interpolated values. Along an axis with an array of coordinates, the dimension over
            cells becomes one over places. An axis without coordinates keeps its cells, and an axis
            with a single number is dropped.

        Raises:
            DataError: if a coordinate lies outside the grid or belongs to an unknown axis. The
                values of traced JAX arrays are not checked.
        """
        for name, coordinate in at.items():
            self.check_inside(name, coordinate)
        # From the last axis on, so that a dropped axis does not renumber the others.
        for axis, name in reversed(list(enumerate(self.names))):
            if name in at:
                beyond = degree if name in periodic else 0
                values = self._along(
                    values, axis, name, jnp.asarray(at[name], float), degree, beyond
                )
        return values

    def _along(
        self, values: Array, axis: int, name: str, at: Array, degree: int, beyond: int
    ) -> Array:
        """Interpolate along one axis.

        Args:
            values: an array over the cells.
            axis: number of the axis.
            name: name of the axis.
            at: coordinates on this axis.
            degree: degree of the polynomial.
            beyond: number of cells to copy from the opposite end to each end; 0 if not periodic.

        Returns:
            The values with the axis over `at`, or without the axis if `at` is a single number.
        """
        # 1. Move the axis to the front. If it is periodic, pad each end with cells of the other.
        moved = jnp.moveaxis(values, axis, 0)
        moved = jnp.pad(moved, [(beyond, beyond)] + [(0, 0)] * (moved.ndim - 1), mode="wrap")
        position = (at - self.centres(name)[0]) / self.width(name) + beyond
        # 2. Index of the first of the degree + 1 nearest cells, and the Lagrange weight of each.
        first = jnp.clip(jnp.floor(position).astype(int) - degree // 2, 0, len(moved) - 1 - degree)
        weights = _lagrange(position - first, degree)
        total = sum(
            w.reshape(w.shape + (1,) * (moved.ndim - 1)) * moved[first + k]
            for k, w in enumerate(weights)
        )
        return jnp.moveaxis(jnp.asarray(total), 0, axis) if at.ndim else jnp.asarray(total)

    def check_inside(self, name: str, coordinate: Any) -> None:
        """Raise an error for coordinates outside the grid.

        Args:
            name: the name of the axis.
            coordinate: a number or an array, in the units of the axis. The values of a traced JAX
                array are unknown and not checked.

        Raises:
            DataError: for an unknown axis, or a coordinate outside its range.
        """
        if name not in self.axes:
            raise DataError(f"'{name}' is no axis of the grid, which has {', '.join(self.names)}")
        if isinstance(coordinate, Tracer):
            return
        low, high, _ = self.axes[name]
        values = np.atleast_1d(np.asarray(coordinate, float))
        outside = values[(values < low) | (values > high)]
        if outside.size:
            raise DataError(
                f"{name}={outside[0]:g} lies outside the grid, which runs from {low:g} to {high:g}"
            )


def _axis(name: str, axis: Any) -> tuple[float, float, int]:
    """Check the triple (low, high, cells) of an axis, and return it as two floats and an int."""
    # Convert first, so that any wrong form has the same message.
    try:
        low, high, cells = axis
        low, high = float(low), float(high)
    except (TypeError, ValueError) as error:
        raise ModelError(f"axis '{name}' must be (low, high, cells), not {axis!r}") from error
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ModelError(
            f"axis '{name}' must run from a low to a higher number, not from {low:g} to {high:g}"
        )
    if int(cells) != cells or cells < _LEAST_CELLS:
        raise ModelError(
            f"axis '{name}' needs a whole number of cells, at least {_LEAST_CELLS}, not {cells!r}"
        )
    return low, high, int(cells)


def _lagrange(position: Float[Array, "..."], degree: int) -> list[Array]:
    """Lagrange weights Π_{m≠k} (x - m) / (k - m) of the nodes k = 0, 1, …, degree.

    Args:
        position: x, the coordinate relative to the first node, in cell widths.
        degree: the degree of the polynomial.

    Returns:
        One array per node, each with the shape of `position`.
    """
    nodes = range(degree + 1)
    return [
        jnp.asarray(np.prod([1.0 / (k - m) for m in nodes if m != k]))
        * jnp.prod(jnp.stack([position - m for m in nodes if m != k]), axis=0)
        for k in nodes
    ]


# Evaluation of coefficients, sources and boundary values. They are numbers, arrays, or functions
# that are called at every point.


def each(
    function: Callable, t: Any, y: Values, u: Mapping[str, Any], shape: tuple[int, ...]
) -> Any:
    """Call `function(t, y, u)` at each of many points, with single numbers in `y` and `u`.

    This lets a function of scalars, such as a `Network`, a `Basis` or a `Residual`, act on fields.

    Args:
        function: the function to call.
        t: the time.
        y: the fields at the points, by name.
        u: forcings and coordinates, by name. A single number in `y` or `u` serves all points.
        shape: the shape of the array of points.

    Returns:
        What the function returns, where every array has `shape` as its leading dimensions.
    """
    # One vmap over all points in a row, whatever the dimension of the grid.
    if not shape:
        return function(t, y, u)
    spread = lambda values: {k: jnp.broadcast_to(v, shape).reshape(-1) for k, v in values.items()}  # noqa: E731
    result = jax.vmap(lambda y, u: function(t, y, u), axis_size=math.prod(shape))(
        spread(y), spread(u)
    )
    return jax.tree.map(lambda v: v.reshape(shape + v.shape[1:]), result)


def entry(result: Any, name: str, where: str) -> Any:
    """Return one value of a result that may be a dict.

    Args:
        result: the return value of a user's function. If it is no dict, it is returned unchanged.
        name: the entry to take from a dict. If it is missing, the only entry is taken.
        where: the name of the function in error messages.

    Raises:
        ModelError: if `name` is missing and there is not exactly one entry.
    """
    if not isinstance(result, Mapping):
        return result
    if name not in result and len(result) != 1:
        raise ModelError(
            f"{where} returns {', '.join(result) or 'nothing'}: one entry or one named '{name}' is "
            "needed"
        )
    return result.get(name, next(iter(result.values())))


def by_field(result: Any, fields: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Check that a result is a dict whose keys are fields, and return it as a dict.

    Args:
        result: the return value of a user's function.
        fields: a mapping whose keys are the names of all fields.
        what: the name of the function in error messages.

    Raises:
        ModelError: if the result is no dict, or names an unknown field.
    """
    if not isinstance(result, Mapping):
        raise ModelError(
            f"{what} must return a dict by field, such as {{'{next(iter(fields))}': …}}, not a "
            "number"
        )
    for name in result:
        if name not in fields:
            raise ModelError(f"{what} has a rate for '{name}'; the fields are {', '.join(fields)}")
    return dict(result)


def of_field(value: Any, field: str, what: str) -> Any:
    """Return the coefficient of one field.

    Args:
        value: a dict of coefficients by field, or one coefficient that serves all fields.
        field: the name of the field.
        what: the name of the coefficient in error messages.

    Raises:
        ModelError: if the dict does not name this field.
    """
    if not isinstance(value, Mapping):
        return value
    if field not in value:
        raise ModelError(f"{what} is given for {', '.join(value)} but not for the field '{field}'")
    return value[field]


def evaluate(
    value: Any,
    t: Any,
    y: Values,
    u: Mapping[str, Any],
    shape: tuple[int, ...],
    name: str,
    where: str,
) -> Array:
    """Evaluate a coefficient that is a number, an array or a function of each point.

    Args:
        value: the coefficient. A number or an array is returned as it is, without broadcasting.
        t: the time.
        y: the fields at the points, by name.
        u: forcings and coordinates at the points, by name.
        shape: the shape of the array of points.
        name: the entry to use if the function returns a dict with several.
        where: the name of the coefficient in error messages.

    Returns:
        An array. If `value` is a function, its shape is `shape`.

    Raises:
        ModelError: if the function does not return one number at each point.
    """
    if not is_function(value):
        return jnp.asarray(value, float)
    result = jnp.asarray(entry(each(value, t, y, u, shape), name, where), float)
    if result.shape != shape:
        got = result.shape[len(shape) :]
        raise ModelError(
            f"{where} must give one number at each point, but gives an array of shape {got}"
        )
    return result


def check_value(value: Any, shapes: tuple[tuple[int, ...], ...], where: str) -> None:
    """Check that a coefficient is a function, or has finite values of an allowed shape.

    Args:
        value: a function, a number, an array or a distribution. The shape of a function is not
            checked.
        shapes: the allowed shapes.
        where: the name of the coefficient, with which the error message begins.

    Raises:
        ModelError: for any other value.
    """
    if is_function(value):
        return
    if not is_random(value) and not eqx.is_array_like(value):
        raise ModelError(
            f"{where} must be a number, an array, a distribution or a function (t, y, u), not "
            f"{value!r}"
        )
    shape = shape_of(value)
    if shape not in shapes:
        wanted = " or ".join(str(s) for s in dict.fromkeys(shapes))
        raise ModelError(f"{where} has the shape {shape}, but {wanted} is needed")
    if known(value) and not np.all(np.isfinite(np.asarray(value))):
        raise ModelError(f"{where} must be finite, not {value!r}")


def known(value: Any) -> bool:
    """Whether a value is a fixed number or array: not a function, distribution or traced array."""
    return not is_function(value) and not is_random(value) and not isinstance(value, Tracer)

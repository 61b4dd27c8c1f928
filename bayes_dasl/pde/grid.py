"""`Grid`, the uniform grid of a partial differential equation, and values at its points."""

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

    The axes have the names of the data's coordinates. Arrays over the cells have them in the order
    of the arguments.

    Args:
        axes: (low, high, cells) of one or two axes by name, in the units of that coordinate of the
            data.

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
        """Coordinates of the cell centres by axis, each an array over the cells."""
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

        A polynomial through the nearest cells is used, also beyond the outermost cell centres.

        Args:
            values: an array over the cells.
            degree: the degree of the polynomial: 1 (second order) or 3 (fourth order).
            periodic: names of the periodic axes.
            at: coordinates by axis, each a number or `(place,)`.

        Returns:
            An array over the places. An axis without coordinates keeps its cells, and an axis at a
            single number is dropped.

        Raises:
            DataError: for a known coordinate outside the grid or of an unknown axis.
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
        # 1. The axis in front, with some cells of the other end beyond each end if periodic.
        moved = jnp.moveaxis(values, axis, 0)
        moved = jnp.pad(moved, [(beyond, beyond)] + [(0, 0)] * (moved.ndim - 1), mode="wrap")
        position = (at - self.centres(name)[0]) / self.width(name) + beyond
        # 2. The first of the degree + 1 nearest cells, and Lagrange weights of all of them.
        first = jnp.clip(jnp.floor(position).astype(int) - degree // 2, 0, len(moved) - 1 - degree)
        weights = _lagrange(position - first, degree)
        total = sum(
            w.reshape(w.shape + (1,) * (moved.ndim - 1)) * moved[first + k]
            for k, w in enumerate(weights)
        )
        return jnp.moveaxis(jnp.asarray(total), 0, axis) if at.ndim else jnp.asarray(total)

    def check_inside(self, name: str, coordinate: Any) -> None:
        """Refuse known coordinates outside the grid.

        Args:
            name: the name of the axis.
            coordinate: a number or an array, in the units of the axis; a traced one is not checked.

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
    """Lagrange weights of the values at 0, 1, …, degree: Π_{m≠k} (x - m) / (k - m)."""
    nodes = range(degree + 1)
    return [
        jnp.asarray(np.prod([1.0 / (k - m) for m in nodes if m != k]))
        * jnp.prod(jnp.stack([position - m for m in nodes if m != k]), axis=0)
        for k in nodes
    ]


# Coefficients, sources and boundary values: numbers, arrays, or functions that are called at every
# point.


def each(
    function: Callable, t: Any, y: Values, u: Mapping[str, Any], shape: tuple[int, ...]
) -> Any:
    """`function(t, y, u)` at each of `shape` points, with single numbers in `y` and `u`.

    So a `Network`, a `Basis` or a `Residual` of scalars acts on fields.

    Returns:
        The values of the function, with the shape of the points in front.
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
    """Return the entry `name` of a dict, or its only one; return a value that is no dict unchanged.

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
    """Checked values of a function by field.

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
    """Coefficient of one field, from one value for all or a dict by field.

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
    """Coefficient at points: a number, an array, or the values of a function at each point.

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
    """Check a coefficient: a function, or finite numbers or a distribution of an allowed shape.

    Raises:
        ModelError: for any other value; the message begins with `where`.
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
    """Whether a value is a number or an array that is not traced."""
    return not is_function(value) and not is_random(value) and not isinstance(value, Tracer)

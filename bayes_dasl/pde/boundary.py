"""Boundary conditions at the sides of a grid."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ModelError
from ..random import Module, is_random
from .grid import Grid, check_value

ENDS = ("low", "high")


class AbstractCondition(Module):
    """A boundary condition of one field at one side of the grid.

    Each value of a condition is a number, an array along the side, a distribution over either, or a
    function `(t, y, u)`. A function is called at every point of the side. There `y` holds the
    fields of the adjacent cell, and `u` the forcings and the coordinates of the point. If the
    function returns a dict, the entry with the name of the field is used, or the only entry.
    """

    @property
    @abstractmethod
    def values(self) -> tuple[Any, ...]:
        """The values of the condition, such as its weights and its right-hand side."""


class AbstractLinear(AbstractCondition):
    r"""A condition $a\,u + b\,\partial u/\partial n = c$ on the field u; `values` is (a, b, c).

    $\partial u/\partial n$ is the derivative of u along the outward normal n.
    """


class Dirichlet(AbstractLinear):
    r"""A known value of the field at the side: $u = \text{value}$.

    Args:
        value: the value of the field u, in its units: a number, an array along the side, a
            distribution over either, or a function `(t, y, u)` that is called at every point of the
            side.
    """

    value: Any

    @property
    def values(self) -> tuple[Any, ...]:
        return 1.0, 0.0, self.value


class Neumann(AbstractLinear):
    r"""A known derivative along the outward normal: $\partial u/\partial n = \text{gradient}$.

    At the low end of x, $\partial u/\partial n$ is $-\partial u/\partial x$. The condition sets the
    diffusive flux only; advection through the side is free.

    Args:
        gradient: the outward derivative of the field u, in its units per length: a number, an array
            along the side, a distribution over either, or a function `(t, y, u)` called at every
            point of the side.
    """

    gradient: Any

    @property
    def values(self) -> tuple[Any, ...]:
        return 0.0, 1.0, self.gradient


class Robin(AbstractLinear):
    r"""A condition on the field and its outward derivative: $a\,u + b\,\partial u/\partial n = c$.

    Each of a, b and c may be a number, an array along the side, a distribution over either, or a
    function `(t, y, u)` called at every point of the side.

    Args:
        a: the weight of the field u.
        b: the weight of the outward derivative, in units of length if a has none.
        value: the right-hand side c, in the units of the field if a has none.

    Raises:
        ModelError: if both a and b are known to be zero.
    """

    a: Any
    b: Any
    value: Any

    def __check_init__(self):
        if all(
            not is_random(v) and isinstance(v, (int, float)) and v == 0 for v in (self.a, self.b)
        ):
            raise ModelError(
                "Robin(a, b, value) needs an a or a b other than zero: as it is, it says nothing "
                "of u"
            )

    @property
    def values(self) -> tuple[Any, ...]:
        return self.a, self.b, self.value


class Flux(AbstractCondition):
    r"""A known outward flux: $(v\,u - D\,\nabla u)\cdot n = \text{value}$; 0 is a closed wall.

    Here u is the field, v its velocity, D its diffusion coefficient and n the outward normal.

    Args:
        value: the flux, in the units of the field times length per time: a number, an array along
            the side, a distribution over either, or a function `(t, y, u)` called at every point of
            the side.
    """

    value: Any

    @property
    def values(self) -> tuple[Any, ...]:
        return (self.value,)


class Periodic(AbstractCondition):
    """Periodic ends of an axis: what leaves at one end enters at the other."""

    @property
    def values(self) -> tuple[Any, ...]:
        return ()


def condition(boundary: Any, field: str, name: str, end: str) -> AbstractCondition:
    """Return the boundary condition of a field at one end of an axis, or None if it is missing.

    Args:
        boundary: one condition for all sides, a dict by side or axis, or a dict of such dicts by
            field.
        field: the name of the field. It is used only if conditions are given by field.
        name: the name of the axis.
        end: "low" or "high".

    Raises:
        ModelError: if conditions are given by field, but not for this field.
    """
    if _by_field(boundary):
        if field not in boundary:
            raise ModelError(
                f"field '{field}' has no boundary conditions; those with some are "
                f"{', '.join(boundary)}"
            )
        boundary = boundary[field]
    # One condition serves all sides.
    if isinstance(boundary, AbstractCondition):
        return boundary
    return boundary.get(f"{name}_{end}", boundary.get(name))


def check_boundary(boundary: Any, grid: Grid) -> None:
    """Check that each side of the grid has exactly one condition for each field.

    Args:
        boundary: one condition for all sides, a dict by side or axis, or a dict of such dicts by
            field.
        grid: the grid.

    Raises:
        ModelError: if a side has no condition or two. Also if an axis is periodic at one end only,
            or for some fields only.
    """
    # 1. Check the conditions of each field, or the one group that serves all fields.
    groups = boundary.values() if _by_field(boundary) else (boundary,)
    for group in groups:
        _check_sides(group, grid)
    # 2. An axis is periodic for all fields or for none.
    for name in grid.names:
        kinds = {
            isinstance(condition(boundary, field, name, "low"), Periodic)
            for field in fields_of(boundary) or ("",)
        }
        if len(kinds) > 1:
            raise ModelError(f"{name} is periodic for one field but not for another")


def sides(grid: Grid) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield each side of the grid as (axis name, "low" or "high", shape of arrays on the side)."""
    for axis, name in enumerate(grid.names):
        for end in ENDS:
            yield name, end, grid.shape[:axis] + grid.shape[axis + 1 :]


def _by_field(boundary: Any) -> bool:
    """Whether `boundary` is a non-empty dict of dicts, so that its keys are fields."""
    return (
        isinstance(boundary, Mapping)
        and bool(boundary)
        and all(isinstance(v, Mapping) for v in boundary.values())
    )


def fields_of(boundary: Any) -> tuple[str, ...]:
    """Return the names of the fields if conditions are given by field, else an empty tuple."""
    return tuple(boundary) if _by_field(boundary) else ()


def _check_sides(group: Any, grid: Grid) -> None:
    """Check that every side has a valid condition, and that no axis is periodic at one end only.

    `group` is one condition for all sides, or a dict by side or axis.
    """
    if not isinstance(group, AbstractCondition):
        _check_names(group, grid)
    for name, end, shape in sides(grid):
        side, here = f"{name}_{end}", condition(group, "", name, end)
        if here is None:
            raise ModelError(f"the side {side} has no boundary condition")
        if not isinstance(here, AbstractCondition):
            raise ModelError(
                f"the side {side} needs a condition such as bd.pde.Dirichlet(0.0), not {here!r}"
            )
        for value in here.values:
            check_value(value, ((), shape), f"a value of {type(here).__name__} at {side}")
    for name in grid.names:
        periodic = [isinstance(condition(group, "", name, end), Periodic) for end in ENDS]
        if any(periodic) and not all(periodic):
            raise ModelError(f"{name} is periodic at one end only: both ends must be Periodic()")


def _check_names(group: Any, grid: Grid) -> None:
    """Check that the keys of `group` are sides or axes of the grid, and that none occurs twice."""
    if not isinstance(group, Mapping):
        raise ModelError(f"boundary must be a condition, or a dict of them by side, not {group!r}")
    # A side may be named by its end (`x_low`) or, for both ends, by its axis (`x`).
    ends = {f"{name}_{end}" for name in grid.names for end in ENDS}
    for key in group:
        if key not in ends and key not in grid.names:
            by_field = f"{{'{key}': {{'{grid.names[0]}': …}}}}"
            raise ModelError(
                f"'{key}' is no side of the grid; its sides are {', '.join(sorted(ends))}. If it "
                "is a field, its "
                f"conditions are a dict by side: {by_field}"
            )
    for name in grid.names:
        twice = [key for key in (f"{name}_low", f"{name}_high") if name in group and key in group]
        if twice:
            raise ModelError(
                f"boundary gives a condition for both '{name}' and '{twice[0]}': give one of them"
            )

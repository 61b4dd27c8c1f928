"""`FiniteVolume`: conservative transport and reaction on a grid of cells."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError
from ..random import Module, Values, is_function
from .boundary import (
    ENDS,
    AbstractCondition,
    AbstractLinear,
    Flux,
    Periodic,
    check_boundary,
    condition,
    fields_of,
)
from .grid import Grid, by_field, check_value, each, evaluate, known, of_field


class FiniteVolume(Module):
    r"""Diffusion, advection and reaction of fields by fluxes through the faces of cells.

    $\partial_t u = -\nabla\cdot(v\,u - D\,\nabla u) + R(t, y, u)$

    In this equation u is one field, D its diffusion coefficient, v its velocity and R its reaction
    rate.

    D and v are numbers, distributions, arrays over the cells or functions `(t, y, u)`, for all
    fields or in a dict by field. Functions are called at each point with single numbers. Their `y`
    holds the fields at that point. Their `u` holds the forcings, any fields that a `Coupling`
    links, and the coordinates of the point by axis name. On a face, functions get the mean of the
    fields in the two adjacent cells. If D or v is an array over the cells, a face takes the
    harmonic mean of D and the arithmetic mean of v.

    Limiters are not differentiable everywhere. At such points derivatives of a solve have relative
    errors of about 1e-4. With "upwind", derivatives are as exact as the solve. A Dirichlet side
    uses a difference over half a cell. There the field is accurate to second order, but the flux
    through the side to first order.

    Args:
        grid: the grid of cells.
        diffusion: D, in squared length per time; no diffusion unless given.
        velocity: v, in length per time; no advection unless given. In two dimensions it is a dict
            by axis, a dict of such dicts by field, or a function that returns a dict by axis. Along
            an axis without an entry the velocity is zero.
        reaction: R, in the units of the field per time. It is a function that returns a dict of
            rates by field, such as a `Network` or a `Residual` of scalars. Or it is a dict of
            sources by field, each a number, a distribution, an array over the cells or a function.
        boundary: one condition for all sides, a dict by side (`x_low`, `x_high`, …, or `x` for both
            ends), or a dict of such dicts by field.
        limiter: "van_leer" or "minmod" (second order where fields are smooth, no new extrema), or
            "upwind" (first order).

    Shapes: fields are arrays over the cells.

    Raises:
        ModelError: for missing or contradicting boundary conditions, coefficients of a wrong shape,
            a known negative diffusion, or an unknown limiter. When called: for a field without a
            coefficient, or a coefficient or rate of an unknown field.

    Source: LeVeque (2002), Finite Volume Methods for Hyperbolic Problems.
    """

    grid: Grid
    diffusion: Any = None
    velocity: Any = None
    reaction: Any = None
    boundary: Any = eqx.field(kw_only=True)
    limiter: str = eqx.field(default="van_leer", static=True, kw_only=True)

    def __check_init__(self):
        if self.limiter not in LIMITERS:
            raise ModelError(f"limiter must be one of {', '.join(LIMITERS)}, not {self.limiter!r}")
        check_boundary(self.boundary, self.grid)
        shapes = ((), self.grid.shape)
        for what in ("diffusion", "velocity", "reaction"):
            for where, value in _leaves(getattr(self, what), what):
                check_value(value, shapes, where)
        for where, value in _leaves(self.diffusion, "diffusion"):
            if known(value) and np.any(np.asarray(value) < 0):
                raise ModelError(f"{where} must not be negative: such an equation has no solution")
        for where, value in _leaves(self.velocity, "velocity"):
            by_axis = where.rsplit(".", 1)[-1] in self.grid.names
            if len(self.grid.names) > 1 and not by_axis and not is_function(value):
                raise ModelError(
                    f"{where} must say which axis it follows, as {{'{self.grid.names[0]}': …}}"
                )
        if (
            self.reaction is not None
            and not isinstance(self.reaction, Mapping)
            and not is_function(self.reaction)
        ):
            raise ModelError(
                f"reaction must be a function (t, y, u) or a dict by field, not {self.reaction!r}"
            )

    @property
    def periodic(self) -> tuple[str, ...]:
        """Names of the periodic axes."""
        field = next(iter(fields_of(self.boundary)), "")
        return tuple(
            n
            for n in self.grid.names
            if isinstance(condition(self.boundary, field, n, "low"), Periodic)
        )

    def __call__(self, t: Any, y: Values, u: Values) -> dict[str, Array]:
        # 1. du/dt = -(F_right - F_left) / h along each axis. Neighbours share the flux F.
        fluxes = self.fluxes(t, y, u)
        rates = {field: jnp.zeros(self.grid.shape) for field in y}
        for axis, name in enumerate(self.grid.names):
            for field in y:
                rates[field] -= jnp.diff(fluxes[field][name], axis=axis) / self.grid.width(name)
        # 2. Reactions within each cell.
        for field, rate in self._reactions(t, y, u).items():
            if jnp.shape(rate) not in ((), self.grid.shape):
                raise ModelError(
                    f"the reaction must give one number for '{field}' in each cell, not an array"
                )
            rates[field] += rate
        return rates

    def fluxes(self, t: Any, y: Values, u: Values) -> dict[str, dict[str, Array]]:
        """Flux per area of each field along each axis, at all faces of that axis.

        Args:
            t: the time.
            y: the fields, arrays over the cells by name.
            u: the forcings at time t, by name.

        Returns:
            A dict by field of dicts by axis. Each array has one more entry along its axis than the
            grid has cells.

        Raises:
            ModelError: if a field does not have the shape of the grid, or a coefficient names an
                unknown field.
        """
        for field, values in y.items():
            if jnp.shape(values) != self.grid.shape:
                raise ModelError(
                    f"field '{field}' has the shape {jnp.shape(values)}, not the grid's "
                    f"{self.grid.shape}"
                )
        by_axis = {
            name: _Axis(self, axis, name, t, y, u).fluxes()
            for axis, name in enumerate(self.grid.names)
        }
        self._check_fields(y)
        return {field: {name: by_axis[name][field] for name in self.grid.names} for field in y}

    def _check_fields(self, y: Values) -> None:
        """Raise a ModelError if a coefficient or boundary condition names a field not in `y`."""
        axes = self.grid.names
        velocity = (
            self.velocity
            if isinstance(self.velocity, Mapping) and not set(self.velocity) <= set(axes)
            else {}
        )
        diffusion = self.diffusion if isinstance(self.diffusion, Mapping) else {}
        functions = {
            "diffusion": diffusion,
            "velocity": velocity,
            "boundary": dict.fromkeys(fields_of(self.boundary)),
        }
        for what, named in functions.items():
            for field in named:
                if field not in y:
                    raise ModelError(
                        f"{what} is given for '{field}'; the fields are {', '.join(y)}"
                    )

    def outflow(self, t: Any, y: Values, u: Values) -> dict[str, Array]:
        """Outflow of each field through each side, such as `heat_outflow_x_low`.

        Args:
            t: the time.
            y: the fields, arrays over the cells by name.
            u: the forcings at time t, by name.

        Returns:
            A dict of numbers with keys `{field}_outflow_{axis}_{end}`: the flux integrated over the
            side, positive outward. In one dimension it is the flux per area.
        """
        flows = {}
        for field, by_axis in self.fluxes(t, y, u).items():
            for axis, (name, flux) in enumerate(by_axis.items()):
                area = self.grid.cell_volume / self.grid.width(name)
                for end, sign in zip(ENDS, (-1.0, 1.0), strict=True):
                    side = jnp.take(flux, 0 if end == "low" else -1, axis=axis)
                    flows[f"{field}_outflow_{name}_{end}"] = sign * area * jnp.sum(side)
        return flows

    def _reactions(self, t: Any, y: Values, u: Values) -> dict[str, Array]:
        """Return the reaction rates by field, each a number or an array over the cells."""
        here, shape = {**u, **self.grid.places}, self.grid.shape
        if self.reaction is None:
            return {}
        if isinstance(self.reaction, Mapping):
            sources = by_field(self.reaction, y, "the reaction")
            return {
                f: evaluate(r, t, y, here, shape, f, f"reaction['{f}']") for f, r in sources.items()
            }
        return by_field(each(self.reaction, t, y, here, shape), y, "the reaction")


class _Axis:
    """Computes the fluxes along one axis, which is moved to the front of every array in this class.

    Args:
        law: the equation.
        axis: the number of the axis.
        name: the name of the axis.
        t: the time.
        y: the fields, arrays over the cells by name.
        u: forcings and linked fields, by name.
    """

    def __init__(self, law: FiniteVolume, axis: int, name: str, t: Any, y: Values, u: Values):
        self.law = law
        self.axis = axis
        self.name = name
        self.t = t
        self.width = law.grid.width(name)
        self.cells = {field: jnp.moveaxis(values, axis, 0) for field, values in y.items()}
        across = law.grid.shape[:axis] + law.grid.shape[axis + 1 :]
        self.side = across
        self.shape = (law.grid.axes[name][2] + 1, *across)
        self.linked = {
            k: jnp.moveaxis(v, axis, 0) for k, v in u.items() if jnp.shape(v) == law.grid.shape
        }
        self.place = self._places(u)
        self.padded = {field: self._padded(field) for field in y}
        self.faces = {field: (v[1:] + v[:-1]) / 2 for field, v in self.padded.items()}

    def fluxes(self) -> dict[str, Array]:
        """Return the flux of each field on all faces, with the axes in the order of the grid."""
        found = {
            field: self._closed(field, self._advected(field) - self._diffused(field))
            for field in self.cells
        }
        return {field: jnp.moveaxis(flux, 0, self.axis) for field, flux in found.items()}

    def _places(self, u: Values) -> dict[str, Any]:
        """Return forcings and coordinates at every face; linked fields are means of two cells."""
        grid, along = self.law.grid, jnp.asarray(self.law.grid.faces(self.name))
        others = {
            name: jnp.broadcast_to(grid.centres(name), self.shape)
            for name in grid.names
            if name != self.name
        }
        padded = {name: self._extended(values) for name, values in self.linked.items()}
        linked = {name: (v[1:] + v[:-1]) / 2 for name, v in padded.items()}
        here = jnp.broadcast_to(along.reshape((-1,) + (1,) * len(self.side)), self.shape)
        return {**u, **linked, **others, self.name: here}

    def _condition(self, field: str, end: str) -> AbstractCondition:
        return condition(self.law.boundary, field, self.name, end)

    def _at_side(self, value: Any, field: str, end: str) -> Array:
        """Evaluate one value of the boundary condition of a field at all points of a side."""
        at = 0 if end == "low" else -1
        here = {k: v[at] if jnp.shape(v) == self.shape else v for k, v in self.place.items()}
        here |= {k: v[at] for k, v in self.linked.items()}
        cell = {k: v[at] for k, v in self.cells.items()}
        where = f"the boundary value of {field} at {self.name}_{end}"
        return evaluate(value, self.t, cell, here, self.side, field, where)

    def _padded(self, field: str) -> Array:
        """Return the field with one ghost cell at each end, from its boundary conditions."""
        # With ghost cells, the boundary faces need no special difference formula.
        ends = [self._ghost(field, end) for end in ENDS]
        return jnp.concatenate([ends[0][None], self.cells[field], ends[1][None]])

    def _ghost(self, field: str, end: str) -> Array:
        """Return the values of the ghost cells at one end that satisfy the boundary condition."""
        cells, here = self.cells[field], self._condition(field, end)
        cell = cells[0 if end == "low" else -1]
        if isinstance(here, Periodic):
            return cells[-1 if end == "low" else 0]
        if not isinstance(here, AbstractLinear):
            return cell
        a, b, value = (self._at_side(v, field, end) for v in here.values)
        # a u + b ∂u/∂n = c at the face: with u = (cell + ghost) / 2 and ∂u/∂n = (ghost - cell) / h.
        return cell + self.width * (value - a * cell) / (a * self.width / 2 + b)

    def _coefficient(self, value: Any, field: str, name: str, where: str, mean: Any) -> Array:
        """Return a coefficient on the faces.

        Args:
            value: a number, an array over the cells or a function.
            field: the name of the field.
            name: the entry to use if the function returns a dict with several.
            where: the name of the coefficient in error messages.
            mean: the function that averages an array over the two cells of a face.
        """
        if is_function(value) or jnp.ndim(value) == 0:
            return evaluate(value, self.t, self.faces, self.place, self.shape, name, where)
        padded = self._extended(jnp.moveaxis(value, self.axis, 0))
        return mean(padded[1:], padded[:-1])

    def _extended(self, values: Array) -> Array:
        """Pad an array over the cells by one cell at each end: wrapped if periodic, or repeated."""
        mode = "wrap" if self.name in self.law.periodic else "edge"
        return jnp.pad(values, [(1, 1)] + [(0, 0)] * len(self.side), mode=mode)

    def _diffused(self, field: str) -> Array | float:
        """Return D times the gradient of the field on each face, the negative diffusive flux."""
        value = of_field(self.law.diffusion, field, "diffusion")
        if value is None:
            return 0.0
        # D ∂u/∂x on each face.
        gradient = jnp.diff(self.padded[field], axis=0) / self.width
        return self._coefficient(value, field, field, "diffusion", _harmonic) * gradient

    def _advected(self, field: str) -> Array:
        """Return the advective flux of the field on each face."""
        value = self.law.velocity
        # The velocity may be given by field, by axis, or as a function of all axes.
        if isinstance(value, Mapping) and not set(value) <= set(self.law.grid.names):
            value = of_field(value, field, "velocity")
        along = isinstance(value, Mapping)
        if along:
            value = value.get(self.name)
        if value is None:
            return jnp.zeros(self.shape)
        if is_function(value) and not along:
            value = self._of_axis(value)
        velocity = self._coefficient(value, field, self.name, "velocity", lambda a, b: (a + b) / 2)
        # Upwind: the state on the side that the flow comes from.
        below, above = self._states(field)
        return velocity * jnp.where(velocity > 0, below, above)

    def _of_axis(self, velocity: Any) -> Any:
        """Return a function that gives only the component of `velocity` along this axis."""
        names, name = self.law.grid.names, self.name
        if len(names) == 1:
            return velocity

        def part(t, y, u):
            found = velocity(t, y, u)
            if not isinstance(found, Mapping) or not set(found) <= set(names):
                got = (
                    ", ".join(map(str, found))
                    if isinstance(found, Mapping)
                    else type(found).__name__
                )
                raise ModelError(
                    f"velocity must return a dict by axis ({', '.join(names)}), not {got}"
                )
            return jnp.asarray(found.get(name, 0.0), float)

        return part

    def _states(self, field: str) -> tuple[Array, Array]:
        """Reconstruct the field on both sides of every face, with limited slopes in the cells.

        Returns:
            Two arrays over the faces: the value from the cell below, and from the cell above.
        """
        # MUSCL (van Leer 1979): the field is linear in each cell; limited slopes add no extrema.
        differences = jnp.diff(self.padded[field], axis=0)
        half = LIMITERS[self.law.limiter](differences[:-1], differences[1:]) / 2
        low = self.cells[field] - half
        high = self.cells[field] + half
        before = self.faces[field][:1]
        after = self.faces[field][-1:]
        if isinstance(self._condition(field, "low"), Periodic):
            before, after = high[-1:], low[:1]
        return jnp.concatenate([before, high]), jnp.concatenate([low, after])

    def _closed(self, field: str, flux: Array) -> Array:
        """Set the flux at the ends of the axis where the boundary condition prescribes it.

        The first and last face of a periodic axis are the same face and get the same flux.
        """
        for end, at, sign in zip(ENDS, (0, -1), (-1.0, 1.0), strict=True):
            here = self._condition(field, end)
            if isinstance(here, Flux):
                flux = flux.at[at].set(sign * self._at_side(here.value, field, end))
        return (
            flux.at[-1].set(flux[0])
            if isinstance(self._condition(field, "low"), Periodic)
            else flux
        )


def _harmonic(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the harmonic mean of two arrays, which is 0 if their sum is 0."""
    # With a harmonic mean, the flux is correct if a coefficient is discontinuous (Patankar 1980).
    total = a + b
    return jnp.where(total == 0, 0.0, 2 * a * b / jnp.where(total == 0, 1.0, total))


# Each limiter gets the differences a and b to the two neighbouring cells, and returns the limited
# difference over a cell. It is zero at an extremum.
def _minmod(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(a * b > 0, jnp.where(jnp.abs(a) < jnp.abs(b), a, b), 0.0)


def _van_leer(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    alike = a * b > 0
    return jnp.where(alike, 2 * a * b / jnp.where(alike, a + b, 1.0), 0.0)


LIMITERS = {"van_leer": _van_leer, "minmod": _minmod, "upwind": lambda a, b: jnp.zeros_like(a)}


def _leaves(value: Any, where: str) -> list[tuple[str, Any]]:
    """List the values in nested dicts, each as (dotted name, value); None is skipped.

    `where` is the name of `value`, with which the dotted names begin.
    """
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{where}.{key}")]
    return [] if value is None else [(where, value)]

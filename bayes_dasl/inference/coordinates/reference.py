"""Reference paths: where several positions, taken together, say that the ODEs of a model run."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.tree import prepared
from ..._runs.journal import Arrays
from ..._types import Values
from ...data.datasets import Inputs
from ...layers import ODE
from ...prediction.given_states import can_be_given, odes
from ...random import Module
from ..problem import Problem, reversible
from .frame import Conditional, LinearModel, Path, from_rows, in_rows, positions
from .last_layer import last_layer

COORDINATES = ("auto", "plain")
"""In what an engine may be asked to move: conditional coordinates where there are any, or the plain ones."""

POSITIONS = 32
"""How many positions a reference is made of."""
_FEWEST, _MOST = 31, 121  # times of a grid
_BATCH = 64
# Numbers in the derivatives of the states by the rates of an ODE, at most.
_LARGEST = 4_000_000
_FINER = 4  # how much finer the grid is between whose times a change of rates runs linearly
# A datum counts with so much more spread, as a share of its noise: for what is not linear.
_SLACK = 1.5


class _MeanField(Module):
    """The mean of several vector fields, and rates of its own that run linearly between the times of a grid."""

    fields: Any
    grid: Float[Array, " grid"]
    added: Values

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        several = eqx.filter_vmap(lambda field: field(t, y, u), in_axes=(eqx.if_array(0),))(self.fields)
        return {name: jnp.mean(rates, axis=0) + self._added(t, name) for name, rates in several.items()}

    def _added(self, t: Any, name: str) -> Array:
        value = self.added[name]
        column = lambda v: jnp.interp(t, self.grid, v)  # noqa: E731
        return jax.vmap(column, in_axes=1)(value.reshape(len(value), -1)).reshape(value.shape[1:])


def has_reference(problem: Problem) -> bool:
    """Whether all that is solved are ODEs, over more than two times, and not too many of them."""
    times = problem.inputs.times.size
    if not can_be_given(problem.model.layer) or times < 3:
        return False
    columns = int(np.clip(times, _FEWEST, _MOST))
    return all(times * ode.states * columns * ode.states <= _LARGEST for ode in odes(problem.model.layer))


def references_of(problem: Problem) -> "References | None":
    """What makes frames for the networks of a problem; none where there is no network whose last layer is linear."""
    problem = reversible(problem)
    last = last_layer(problem) if has_reference(problem) else None
    return References(LinearModel(problem, last)) if last is not None and last.coordinates else None


def is_sound(frame: Arrays) -> bool:
    """Whether the arrays of a frame are finite: they are not where the reference could not be solved."""
    return all(np.isfinite(leaf).all() for leaf in frame.values())


class References:
    """Makes frames from positions; one compiled program, whatever the positions."""

    def __init__(self, linear: LinearModel):
        self.linear = linear
        self._program = jax.jit(self._frame)
        linear.trace(self.like)

    def frame(self, positions: Float[np.ndarray, "n dimension"]) -> Arrays:
        """The arrays of the frame around the mean of some positions, evenly chosen; see `restored`."""
        number = POSITIONS if len(positions) > 1 else 1
        chosen = positions[np.linspace(0, len(positions) - 1, number).astype(int)]
        leaves = jax.tree.leaves(self._program(jnp.asarray(chosen)))
        return {f"leaf {i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}

    def widths(self) -> Float[np.ndarray, " dimension"]:
        """By how much a coordinate varies: as its prior, or by one where frames make it a unit normal."""
        widths = self.linear.problem.prior_spread()
        widths[self.linear.weights] = 1.0
        return widths

    def most_likely(self, frame: Conditional, x: Float[np.ndarray, "n dimension"]) -> np.ndarray:
        """Positions whose last layers have the weights that are most likely to first order, given all else."""
        xi = np.array(x)
        xi[:, self.linear.weights] = 0.0
        return positions(frame, xi)[0]

    def drawn(self, frame: Conditional, x: Float[np.ndarray, "n dimension"], *, key: Array) -> np.ndarray:
        """The same positions with weights of the last layers drawn anew, to first order, given all else."""
        xi = np.array(x)
        at = self.linear.weights
        xi[:, at] = jax.random.normal(key, (len(x), len(at)))
        return positions(frame, xi)[0]

    def restored(self, arrays: Mapping[str, Any]) -> Conditional:
        """The frame of such arrays."""
        structure = jax.tree.structure(self.like)
        return jax.tree.unflatten(structure, [jnp.asarray(arrays[f"leaf {i}"]) for i in range(structure.num_leaves)])

    @functools.cached_property
    def like(self) -> Conditional:
        """The shapes of a frame."""
        return eqx.filter_eval_shape(self._frame, jnp.zeros((POSITIONS, self.linear.problem.dimension)))

    def _frame(self, chosen: Float[Array, "n dimension"]) -> Conditional:
        linear, model = self.linear, self.linear.problem.model
        number = len(odes(model.layer))
        paths = tuple(self._path(chosen, i) for i in range(number))

        def at(x):
            realised = linear.realised(x)
            centre = linear.predicted(realised, paths)[0]
            given = linear.problem.inputs
            return centre, {n: realised.noise_at(n, centre, given).spread(centre[n]) for n in model.observables}

        centre, spread = jax.tree.map(lambda v: v.mean(0), jax.vmap(at)(chosen))
        return Conditional(paths, centre, {name: _SLACK * value for name, value in spread.items()}, linear)

    def _path(self, chosen: Array, number: int) -> Path:
        """The path of one of the ODEs under the mean of its vector fields and starts."""
        inputs = self.linear.problem.inputs
        ode = lambda x: odes(self.linear.realised(x).layer)[number]  # noqa: E731
        fields = eqx.filter_vmap(lambda x: prepared(ode(x).vector_field), out_axes=eqx.if_array(0))(chosen)
        start = jax.tree.map(lambda y: y.mean(0), jax.vmap(lambda x: ode(x).begin(inputs))(chosen))
        first = ode(chosen[0])
        grid, fine, spline = self._grids(inputs)
        no_rates = jax.tree.map(lambda y: jnp.zeros((fine.size, *y.shape)), start)

        def pushed(rates: Array) -> ODE:
            return eqx.tree_at(lambda o: o.vector_field, first, _MeanField(fields, fine, from_rows(rates, no_rates)))

        def solved(times: Inputs, rates: Array, at_start: Array) -> tuple[Any, Any]:
            begun = {name: value[0] for name, value in from_rows(at_start[None], _as_row(start)).items()}
            states, ok, _ = pushed(rates).solve(times, begun)
            return states, ok

        still, at_start = in_rows(no_rates), in_rows(_as_row(start))[0]
        along, _ = solved(dataclasses.replace(inputs, times=grid), still, at_start)
        states, ok = solved(inputs, still, at_start)
        flat, pull = jax.vjp(lambda r, s: in_rows(solved(inputs, r, s)[0]).ravel(), still, at_start)
        each = lambda i: pull(jnp.zeros(flat.size).at[i].set(1.0))  # noqa: E731
        by_rates, by_start = jax.lax.map(each, jnp.arange(flat.size), batch_size=_BATCH)
        by_rates = jnp.einsum("ifs,fg->igs", by_rates, spline).reshape(len(by_rates), -1)
        rates = in_rows(pushed(still).rates_along(inputs, grid, along))
        # Where the mean cannot be solved nothing is known of the weights but their prior.
        by_rates, by_start = (jnp.where(ok & jnp.isfinite(v), v, 0.0) for v in (by_rates, by_start))
        return Path(grid, along, rates, at_start, states, by_rates, by_start)

    def _grids(self, inputs: Inputs) -> tuple[Array, Array, Array]:
        """A grid, a finer one, and the cubic spline from values on the one to values on the other."""
        from scipy.interpolate import CubicSpline

        times = np.asarray(inputs.times)
        size = int(np.clip(times.size, _FEWEST, _MOST))
        grid = np.linspace(float(inputs.start), times[-1], size)
        fine = np.linspace(grid[0], grid[-1], _FINER * (size - 1) + 1)
        return jnp.asarray(grid), jnp.asarray(fine), jnp.asarray(CubicSpline(grid, np.eye(size))(fine))


def _as_row(values: Any) -> Any:
    return jax.tree.map(lambda y: y[None], values)

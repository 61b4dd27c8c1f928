"""Orthogonal corrections: remove from a correction what scientific parameters can explain."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._jax.tree import FrozenDict
from .._statistics.least_squares import least_squares
from ..data.datasets import checked_times, index_of, inputs
from ..data.dates import as_numbers, start_in_numbers
from ..data.layer_inputs import Inputs
from ..errors import DataError, ModelError
from ..layers.layer import start_of
from ..random import Module, Values, paths
from ._sensitivity import parameters, standing, tangents

_SMALLEST = 1e-12


def scientific(science: Any) -> FrozenDict:
    """Return the coordinates of the scientific parameters of a model.

    Args:
        science: a vector field or a layer.

    Returns:
        `Coordinates` by path, for the random leaves of the group science.

    Raises:
        ModelError: if the science has no random leaf of this group.
    """
    leaves = {path: leaf for path, leaf in paths(science).items() if leaf.group == "science"}
    if not leaves:
        raise ModelError(
            "nothing in the science is random: there is nothing that a closure could be orthogonal "
            "to"
        )
    return standing(leaves)


def check_corrected(added: Values, values: Values) -> None:
    """Raise ModelError if a correction has a name that the values of the science lack.

    Args:
        added: the corrections by name.
        values: the values of the science by name.
    """
    for name in added:
        if name not in values:
            raise ModelError(f"the closure corrects '{name}'; the science has {', '.join(values)}")


def _of(values: Values, added: Values) -> dict[str, Any]:
    """Select those values of the science for which there is a correction in `added`."""
    check_corrected(added, values)
    return {name: values[name] for name in added}


def _weighted(
    moved: Mapping[str, Float[Array, "row k"]],
    added: Values,
    weight: Mapping[str, Float[Array, " row"]],
) -> Float[Array, " k"]:
    r"""Fit the sensitivities S to the corrections g: $\min_c \sum_j w_j^2 (g_j - S_j c)^2$.

    The sum is over all rows j of all corrected values.

    Args:
        moved: S, the derivatives of each value with respect to k parameters, by name.
        added: g, the corrections at the rows, by name.
        weight: w, the weight of each row, by name.

    Returns:
        The coefficients c.
    """
    rows = jnp.concatenate([moved[name] * weight[name][:, None] for name in added])
    return least_squares(rows, jnp.concatenate([added[name] * weight[name] for name in added]))


class Projection(Module):
    """The projection of the correction of a vector field on its scientific parameters.

    It removes from the correction, by least squares at the rows of the data, what a shift of the
    parameters can explain. See `Residual`.

    Args:
        science: the vector field.
        data: the dataset with the rows; it holds every state and forcing that is read.

    Other fields: `shift` holds the coefficients of the parameters if they were computed already for
    the present draw, else None.
    """

    points: dict[str, Float[Array, " point"]]
    index: str = eqx.field(static=True)
    leaves: FrozenDict = eqx.field(static=True)
    shift: Float[Array, " k"] | None = None

    def __init__(self, science: Any, data: xr.Dataset):
        self.index = index_of(data)
        self.leaves = scientific(science)
        self.shift = None
        data = as_numbers(data, self.index)
        columns = {self.index: checked_times(data, self.index)}
        columns |= {str(name): np.asarray(v.values, float) for name, v in data.data_vars.items()}
        # A vector field is evaluated row by row, so all variables must be series along the index.
        odd = [name for name, v in columns.items() if v.shape != columns[self.index].shape]
        if odd:
            raise DataError(
                f"orthogonal needs series over {self.index}; {', '.join(odd)} have other dimensions"
            )
        whole = np.all([np.isfinite(v) for v in columns.values()], axis=0)
        if not whole.any():
            raise DataError("orthogonal needs data with at least one row without a gap")
        self.points = {name: jnp.asarray(v[whole]) for name, v in columns.items()}

    def coefficients(
        self, science: Any, correction: Callable[..., Values], relative: bool
    ) -> Float[Array, " k"]:
        """Fit the sensitivities of the science to its correction.

        Args:
            science: the vector field, with numbers in place of random leaves.
            correction: the correction as a function `(t, y, u)`.
            relative: whether the correction is relative to the state.

        Returns:
            The shift of each parameter that best explains the correction, in its units.

        Raises:
            ModelError: if the data lack a variable.
        """
        flat, rebuild = parameters(science, self.leaves)

        def at(point):
            t = point[self.index]
            values = {n: v for n, v in point.items() if n != self.index}
            try:
                added = correction(t, values, values)
                moved = jax.jacfwd(lambda p: _of(rebuild(p)(t, values, values), added))(flat)
            except KeyError as error:
                raise ModelError(self._lack(str(error))) from error
            return added, moved

        added, moved = jax.vmap(at)(self.points)
        return _weighted(moved, added, {name: self._weight(name, relative) for name in added})

    def refuse_zeros(self, correction: Callable[..., Values]) -> None:
        """Refuse zeros in the data of a state whose correction is relative.

        Args:
            correction: the correction as a function `(t, y, u)`.

        Raises:
            DataError: if a corrected variable is zero; the message names it.
        """
        point = {name: values[0] for name, values in self.points.items()}
        try:
            added = jax.eval_shape(lambda p: dict(correction(p[self.index], p, p)), point)
        except (KeyError, ModelError):  # missing variables are reported when the field is called
            return
        for name in added:
            at = np.flatnonzero(np.asarray(self.points.get(name, 1.0)) == 0)
            if at.size:
                where = f"{self.index} {float(self.points[self.index][at[0]]):g}"
                raise DataError(
                    f"'{name}' is 0 at {where}: a relative correction needs data other than 0"
                )

    def _weight(self, name: str, relative: bool) -> Float[Array, " point"]:
        """Return the weight w of each row for a state.

        Args:
            name: the state.
            relative: whether the weight is one over the state itself. Else it is one over the
                standard deviation of the state.
        """
        if name not in self.points:
            raise ModelError(self._lack(f"'{name}'"))
        values = self.points[name]
        if relative:
            return 1 / values
        spread = jnp.std(values)
        return jnp.ones_like(values) / jnp.where(spread > 0, spread, 1.0)

    def _lack(self, what: str) -> str:
        """Return the message that the data lack the variable `what`."""
        held = ", ".join([self.index, *sorted(set(self.points) - {self.index})])
        return f"orthogonal needs {what} at every point, but its data hold {held}"

    def removed(
        self, science: Any, added: Values, shift: Array, t: Any, y: Values, u: Values
    ) -> dict[str, Any]:
        """Subtract from a correction what a shift of the parameters explains.

        Args:
            science: the vector field, with numbers in place of random leaves.
            added: the corrections at the point, by name.
            shift: the coefficients from `coefficients`.
            t: the time of the point.
            y: the states at the point.
            u: the forcings at the point.

        Returns:
            The remaining corrections by name.
        """
        flat, rebuild = parameters(science, self.leaves)
        along = jax.jvp(lambda p: _of(rebuild(p)(t, y, u), added), (flat,), (shift,))[1]
        return {name: value - along[name] for name, value in added.items()}


class LayerProjection(Module):
    """The projection of the correction of a layer on its scientific parameters.

    As for `Projection`, but with the sensitivities of the predictions of a layer.

    Args:
        science: the layer.
        data: the dataset with times, forcings and other coordinates.
        extra: the variables of the data that only the correction reads.
    """

    inputs: Inputs
    leaves: FrozenDict = eqx.field(static=True)

    def __init__(self, science: Any, data: xr.Dataset, extra: tuple[str, ...]):
        self.leaves = scientific(science)
        units = science.units.get(science.index, "")
        self.inputs = inputs(
            as_numbers(data, science.index, units),
            start=start_in_numbers(start_of(science), data, science.index, units),
            forcings=dict.fromkeys([*science.forcings, *extra]),
            interpolation=science.interpolation,
            index=science.index,
            places=dict.fromkeys(place for places in science.dims.values() for place in places),
        )

    def shift(self, layer: Any, correct: Callable[[Inputs, Values], Values]) -> Float[Array, " k"]:
        """Fit the sensitivities of the layer to its correction.

        Args:
            layer: the layer, with numbers in place of random leaves.
            correct: a function of the inputs and of the layer's values that returns corrections.

        Returns:
            The shift of each parameter that best explains the correction, in its units.
        """
        # 1. Sensitivities to each parameter, and the correction at the same rows.
        each = jnp.eye(parameters(layer, self.leaves)[0].size)
        values, moved = tangents(layer, self.leaves, each, self.inputs)
        added = correct(self.inputs, values)
        # 2. Weighted least squares, with each output in units of its standard deviation.
        spread = {name: jnp.maximum(jnp.std(values[name]), _SMALLEST) for name in added}
        weight = {name: jnp.ones(values[name].size) / spread[name] for name in added}
        rows = {name: moved[name].reshape(len(each), -1).T for name in added}
        return _weighted(rows, {name: jnp.ravel(value) for name, value in added.items()}, weight)

    def along(self, layer: Any, inputs: Inputs, shift: Array) -> Values:
        """Return the change of the layer's values that a shift of the parameters causes.

        The change is linearised. It is `(time, …)` by name.
        """
        moved = tangents(layer, self.leaves, shift[None], inputs)[1]
        return {name: value[0] for name, value in moved.items()}

"""`corrected`: add a small learned correction to a scientific model."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jaxtyping import Array, Float

from .._jax.keys import as_key
from ..data.datasets import (
    checked_times,
    in_units,
    inputs as layer_inputs,
    series_index,
    standardise,
)
from ..data.dates import as_numbers, start_in_numbers, unit_of
from ..errors import DataError, ModelError
from ..layers import AbstractTrajectory
from ..layers._parts import check_function
from ..layers.layer import start_of
from ..networks import Network
from ..priors import draw_prior
from ..random import VectorField, realise
from .residual import Residual

_DRAWS = 200
# The 95 % quantile of |a g| at the data, for a standard half-Cauchy scale a and a draw of the
# unknown function g.
_SELDOM = 15.0


def corrected(
    science: VectorField | AbstractTrajectory,
    data: xr.Dataset,
    *outputs: str,
    inputs: tuple[str, ...] = (),
    relative: bool = False,
    share: float = 0.1,
    size: int = 20,
) -> Residual | AbstractTrajectory:
    r"""Add to a vector field a correction that stays near zero unless the data support it.

    $s(t, y, u) + a\,r \odot g(y)$

    s is the science, y the states and u the forcings. g is a smooth unknown function of all states,
    `Network.fourier`. r is the typical size of each rate of the science: its root mean square over
    the rows of the data, and the median of this number over prior draws. The scale a has a
    half-Cauchy prior. Under this prior the correction exceeds `share` of r with a probability of
    about 5 %. The prior favours small corrections, and its heavy tail allows large ones. Outside
    the data the uncertainty of g grows with the distance.

    Parts of the returned `Residual` can be changed by `eqx.tree_at`.

    Source: Gelman (2006), Prior distributions for variance parameters, for the half-Cauchy scale.

    Args:
        science: an `ODE` whose vector field `(t, y, u)` has priors, or the vector field alone. Give
            the `ODE` if it has units of its own, states that are not observed, or dates.
        data: the training data, with every state and forcing that the science reads. For an `ODE`,
            missing states are computed by a solve at the prior medians. Rows with gaps are left
            out. The index is the time `t`. Dates become numbers in the units of the `ODE`; for a
            vector field alone, days since 1970.
        outputs: the names of the states whose rates are corrected.
        inputs: the names of the arguments of g: states, forcings, or `"t"`. By default all states
            of the science that vary in the data.
        relative: whether the correction is multiplied by the state, as in `Residual`. It then
            corrects the rate per unit of state.
        share: the share of the science's rates that the correction seldom exceeds.
        size: the number of Fourier features of the unknown function.

    Units: the units of the rates.

    Returns:
        A `Residual` of the vector field and a `Network`; for an `ODE`, a copy of the `ODE` with
        this `Residual` as vector field.

    Raises:
        ModelError: if there are no outputs, or the science has no rate of that name. Also if the
            share is not positive, or a rate is zero or not finite under the prior.
        DataError: if the data lack a variable or have no complete row, or if a state with a
            `relative` correction is zero in the data.

    Example:
        ```python
        layer = bd.ODE(Decay(bd.between(0.1, 1.0)), {"y": 2.0})
        hybrid = bd.Model(bd.corrected(layer, train, "y"), bd.NormalNoise(0.1))
        ```
    """
    _refuse(science, outputs, inputs, share)
    # 1. For an ODE, correct its vector field on data in its units, with all of its states.
    if isinstance(science, AbstractTrajectory):
        options: Any = {"inputs": inputs, "relative": relative, "share": share, "size": size}
        units = dict(science.units) | {science.index: unit_of(science.units.get(science.index, ""))}
        whole = _with_states(science, in_units(data, units))
        field = corrected(science.vector_field, whole, *outputs, **options)
        return eqx.tree_at(lambda layer: layer.vector_field, science, field)
    check_function(science, "science")
    # 2. The typical size r of the rates, and the inputs of g that vary.
    data = as_numbers(data, series_index(data))
    units, states = _rates(science, data, outputs, relative)
    named = inputs or tuple(name for name in states if _changes(data, name)) or outputs
    # 3. The unknown function, with the half-Cauchy scale a = share / 15.
    network = Network.fourier(
        standardise(data, *named), units, dist.HalfCauchy(share / _SELDOM), size=size
    )
    return Residual(science, network, relative)


def _refuse(science: Any, outputs: tuple[str, ...], inputs: Any, share: Any) -> None:
    """Raise ModelError for invalid arguments of `corrected`."""
    if not isinstance(science, AbstractTrajectory) and isinstance(
        getattr(science, "layer", None), AbstractTrajectory
    ):
        raise ModelError(
            f"corrected takes a vector field or an ODE, not a {type(science).__name__}: give its "
            "layer"
        )
    if not outputs or not all(isinstance(name, str) for name in outputs):
        raise ModelError(
            "name the states whose rates are corrected, as in corrected(science, data, 'hare', "
            "'lynx')"
        )
    if isinstance(inputs, str):
        raise ModelError(f"inputs must be a tuple of names, such as ('{inputs}',)")
    if isinstance(share, (str, bytes)) or not 0 < share < np.inf:
        raise ModelError(f"share must be a positive number, such as 0.1, not {share!r}")


def _with_states(layer: AbstractTrajectory, data: xr.Dataset) -> xr.Dataset:
    """Complete data by the states that they lack, from a solve at the prior medians.

    Returns:
        The data with the additional states, and with dates as numbers in the units of the layer.

    Raises:
        ModelError: if the solver fails at the prior medians.
    """
    drawn = draw_prior(layer, _DRAWS, key=as_key(0))
    middle = realise(layer, {path: jnp.median(values, axis=0) for path, values in drawn.items()})
    units = layer.units.get(layer.index, "")
    start = start_in_numbers(start_of(layer), data, layer.index, units)
    data = as_numbers(data, layer.index, units)
    given = layer_inputs(
        data,
        start=start,
        forcings=layer.forcings,
        interpolation=layer.interpolation,
        index=layer.index,
    )
    states, ok, _ = middle.solve(
        given, {name: jnp.asarray(v, float) for name, v in middle.initial.items()}
    )
    if not bool(ok):
        raise ModelError(
            "the solver does not get through the prior medians: give data that hold all states"
        )
    lacking = {
        name: (layer.index, np.asarray(v))
        for name, v in states.items()
        if name not in data and v.ndim == 1
    }
    return data.assign(lacking)


def _changes(data: xr.Dataset, name: str) -> bool:
    """Whether a variable is in the data and has at least two different values."""
    values = np.asarray(data[name].values, float) if name in data else np.zeros(0)
    values = values[np.isfinite(values)]
    return values.size > 1 and bool(values.min() < values.max())


def _rates(
    science: VectorField, data: xr.Dataset, outputs: tuple[str, ...], relative: bool
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the typical size of the rates of a science, and the names of its states.

    The size of a rate is the median over prior draws of its root mean square over the rows.

    Args:
        science: the vector field.
        data: the training data.
        outputs: the states whose rates are corrected.
        relative: whether rates are divided by their state.

    Returns:
        The size of the rate of each output, by name, and the names of all states.

    Raises:
        DataError: if the data lack a variable or have no complete row.
        ModelError: if an output has no rate, or its rate is zero or not finite.
    """
    # 1. The complete rows of all numeric series.
    index = series_index(data)
    points = {index: np.asarray(checked_times(data, index), float)}
    numbers = {
        str(n): v.values
        for n, v in data.data_vars.items()
        if v.dims == (index,) and v.dtype.kind in "iuf"
    }
    # Ignore empty columns: they would leave no complete row.
    points |= {
        name: values.astype(float) for name, values in numbers.items() if np.isfinite(values).any()
    }
    whole = np.all([np.isfinite(v) for v in points.values()], axis=0)
    if not whole.any():
        raise DataError("corrected needs data with at least one row without a gap")
    points = {name: values[whole] for name, values in points.items()}
    if relative:
        _refuse_zeros(points, outputs)

    # 2. The rates at one row; the names of the states are collected on the way.
    states: list[str] = []

    def at(field: Any, point: Mapping[str, Array]) -> Float[Array, " output"]:
        given = {name: value for name, value in point.items() if name != index}
        try:
            rates = field(point[index], given, given)
        except KeyError as error:
            raise DataError(
                f"the science reads {error}, which the data lack: they hold {', '.join(points)}"
            ) from error
        states[:] = rates
        for name in outputs:
            if name not in rates:
                raise ModelError(
                    f"'{name}' is to be corrected; the science has rates of {', '.join(rates)}"
                )
        found = jnp.stack([jnp.asarray(rates[name], float) for name in outputs])
        return found / jnp.stack([point[name] for name in outputs]) if relative else found

    def size(drawn: Mapping[str, Array]) -> Float[Array, " output"]:
        field = realise(science, drawn)
        each = jax.vmap(lambda point: at(field, point))(points)
        return jnp.sqrt(jnp.mean(each**2, axis=0))

    # 3. The median over prior draws.
    drawn = draw_prior(science, _DRAWS, key=as_key(0))
    sizes = np.asarray(jax.jit(jax.vmap(size))(drawn) if drawn else size({})[None])
    found = np.median(sizes, axis=0)
    for name, value in zip(outputs, found, strict=True):
        if not 0 < value < np.inf:
            raise ModelError(
                f"the rate of '{name}' is {value:g} under the prior: there is nothing to measure "
                "it by"
            )
    return dict(zip(outputs, map(float, found), strict=True)), tuple(states)


def _refuse_zeros(points: Mapping[str, np.ndarray], outputs: tuple[str, ...]) -> None:
    """Raise DataError if a state with a relative correction is missing in the data, or zero."""
    for name in outputs:
        if name not in points:
            raise DataError(
                f"a relative correction of '{name}' needs it in the data, which hold "
                f"{', '.join(points)}"
            )
        if not np.all(points[name]):
            raise DataError(
                f"'{name}' is 0 in the data: a relative correction needs data other than 0"
            )

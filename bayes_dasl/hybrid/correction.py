"""`corrected`: a science with a small learned correction, in units of the science's own rates."""

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
# The 95 % quantile of the product of a standard half-Cauchy variable and a draw of the features at
# the data.
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

    The correction g is a smooth unknown function of all states, `Network.fourier`. Its units r are
    the science's own rates: the root mean square over the rows of the data, as a median over prior
    draws. Its scale a has a half-Cauchy prior. Under this prior the correction exceeds `share` of
    these rates with a probability of about 5 %. The prior favours small corrections, and its heavy
    tail allows large ones. Beyond the data the uncertainty of g grows with the distance.

    The result is a `Residual` with a `Network`. Change parts of it by `eqx.tree_at`.

    Source: Gelman (2006), Prior distributions for variance parameters, for the half-Cauchy scale.

    Args:
        science: the vector field `(t, y, u)`, with priors; or an `ODE` of it, which is then
            returned with the correction. States that the data lack come from a solve of the `ODE`
            at the prior medians.
        data: the training data, with every state and forcing that the science reads. Rows with gaps
            are left out, and the index is `t`. Dates become numbers as in the layer; without a
            layer they become days since 1970.
        outputs: the states whose rates are corrected.
        inputs: the arguments of the correction: states, forcings, or `"t"`; by default all states
            of the science that vary in the data.
        relative: whether the rate per unit of state is corrected, as in `Residual`.
        share: the share of the science's rates that the correction seldom exceeds.
        size: the number of features of the unknown function.

    Units: the units of the rates.

    Returns:
        The corrected vector field, or the `ODE` with it.

    Raises:
        ModelError: if there are no outputs, if the science has no such rate, if a rate is zero or
            not finite under the prior, or if the share is not positive.
        DataError: if the data lack a variable or have no complete row, or if a state with a
            `relative` correction is zero in them.

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
    # 2. The units of the correction, and the inputs that vary.
    data = as_numbers(data, series_index(data))
    units, states = _rates(science, data, outputs, relative)
    named = inputs or tuple(name for name in states if _changes(data, name)) or outputs
    # 3. The unknown function, with the half-Cauchy scale a = share / 15.
    network = Network.fourier(
        standardise(data, *named), units, dist.HalfCauchy(share / _SELDOM), size=size
    )
    return Residual(science, network, relative)


def _refuse(science: Any, outputs: tuple[str, ...], inputs: Any, share: Any) -> None:
    """Raise ModelError for wrong arguments of `corrected`."""
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
    """Return data with times as in the layer, and missing states from a solve at the prior medians.

    Raises:
        ModelError: if the solver fails there.
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
    """Whether the data hold a variable that varies."""
    values = np.asarray(data[name].values, float) if name in data else np.zeros(0)
    values = values[np.isfinite(values)]
    return values.size > 1 and bool(values.min() < values.max())


def _rates(
    science: VectorField, data: xr.Dataset, outputs: tuple[str, ...], relative: bool
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the size of each rate over data and prior, and the names of all states.

    The size is the root mean square over rows, as a median over prior draws; with `relative` per
    unit of state.
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
    """Raise DataError if a state with a relative correction is absent or zero."""
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

"""Data are an xarray.Dataset with a coordinate `time`; NaN means missing. Here they are checked and split."""

import hashlib
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..errors import DataError
from .layer_inputs import Inputs, interpolated


def inputs(
    data: xr.Dataset,
    *,
    start: float | None = None,
    forcings: Iterable[str] | None = None,
    interpolation: Mapping[str, str] | None = None,
    index: str = "time",
    places: Iterable[str] = (),
) -> Inputs:
    """Times and forcings of a dataset, without any observation.

    Args:
        data: a dataset; its index increases.
        start: the time of the initial state, in the units of the index; the first time of the data unless given.
        forcings: the variables that drive the model; unless given, every variable of numbers along the index alone of
            which none is missing.
        interpolation: which forcings are not "linear" between their data, but "step" or "cubic".
        index: the coordinate that the data run along.
        places: the other coordinates that the model looks at.

    Raises: DataError if times do not increase, or a forcing is unknown or has gaps.
    """
    times = checked_times(data, index)
    start = float(times[0]) if start is None else float(start)
    if start > times[0]:
        raise DataError(f"{index}[0]={times[0]:g} lies before the start of the model at {start:g}")
    if forcings is None:
        forcings = [str(name) for name, v in data.data_vars.items() if _complete_series(v, index)]
    kinds = interpolation or {}
    named = {name: interpolated(times, _forcing(data, name, index), kinds.get(name, "linear")) for name in forcings}
    coordinates = {name: jnp.asarray(checked_coordinate(data, name)) for name in places}
    return Inputs(jnp.asarray(start), jnp.asarray(times), named, coordinates)


def _complete_series(variable: xr.DataArray, index: str) -> bool:
    return variable.dims == (index,) and variable.dtype.kind in "iuf" and bool(np.isfinite(variable).all())


def _forcing(data: xr.Dataset, name: str, index: str) -> np.ndarray:
    if name not in data:
        raise DataError(f"forcing '{name}' is not in the data; they hold {_names(data)}")
    values = series(data, name, "forcing", (index,))
    missing = ~np.isfinite(values)
    if missing.any():
        places = data[index].values
        at, last = float(places[missing][0]), places[~missing].max(initial=-np.inf)
        ends = f"; it ends at {last:g}, before the solve does at {places[-1]:g}" if at > last > -np.inf else ""
        raise DataError(f"forcing '{name}' is missing or not finite at {index} {at:g}: fill the gap first{ends}")
    return values


def index_of(data: xr.Dataset | xr.DataArray) -> str:
    """The coordinate that draws or data run along: the first dimension that is not the chain's or the draw's."""
    variables = data.data_vars.values() if isinstance(data, xr.Dataset) else (data,)
    dims = [str(d) for v in variables for d in v.dims if d not in ("chain", "draw")]
    return dims[0] if dims else next((str(d) for d in data.dims), "time")


def checked_times(data: xr.Dataset, index: str = "time") -> np.ndarray:
    """The coordinate that the data run along, as float64.

    Raises: DataError unless it is a 1-D coordinate of finite numbers that strictly increase.
    """
    if not isinstance(data, xr.Dataset):
        raise DataError(f"data must be an xarray.Dataset with a coordinate '{index}', not {type(data).__name__}")
    return checked_coordinate(data, index)


def checked_coordinate(data: xr.Dataset, name: str) -> np.ndarray:
    """A 1-D coordinate as float64.

    Raises: DataError unless it holds finite numbers that strictly increase.
    """
    if name not in data.coords or data[name].dims != (name,):
        raise DataError(f"data need a 1-D coordinate '{name}'; their coordinates are {_names(data.coords)}")
    if data[name].dtype.kind not in "iuf":
        raise DataError(
            f"{name} must be numbers (years, days, …), not {data[name].dtype}: convert dates first, for example "
            f"({name} - {name}[0]) / np.timedelta64(1, 'D'), with {name}.attrs['units'] = 'day'"
        )
    values = np.asarray(data[name].values, dtype=np.float64)
    if values.size == 0:
        raise DataError(f"data hold no {name} at all")
    if not np.isfinite(values).all():
        raise DataError(f"{name}[{int(np.argmin(np.isfinite(values)))}] is not finite")
    for i in np.flatnonzero(np.diff(values) <= 0)[:1]:
        raise DataError(f"{name} must increase: {name}[{i + 1}]={values[i + 1]} is not after {name}[{i}]={values[i]}")
    return values


def observations(data: xr.Dataset, name: str, *, dims: tuple[str, ...] = ("time",)) -> np.ndarray:
    """One observable as float64, over `dims`, NaN where it is missing.

    Raises: DataError if it is unknown, has other dimensions, is infinite or wholly missing.
    """
    if name not in data:
        raise DataError(f"observable '{name}' is not in the data; they hold {_names(data)}")
    values = series(data, name, "observable", dims)
    if np.isinf(values).any():
        at = float(data[dims[0]].values[np.nonzero(np.isinf(values))[0][0]])
        raise DataError(f"observable '{name}' is infinite at {dims[0]} {at:g}; a missing value is NaN")
    seen = values[~np.isnan(values)]
    if seen.size == 0:
        raise DataError(f"observable '{name}' has no value at all: leave it out of the model's noise")
    return values


def series(data: xr.Dataset, name: str, role: str, dims: tuple[str, ...] = ("time",)) -> np.ndarray:
    """The numbers of a variable over `dims`, NaN where missing.

    Raises: DataError for other dimensions or for what is no number.
    """
    variable = data[name]
    if set(variable.dims) != set(dims):
        want = f"the one dimension {dims[0]}" if len(dims) == 1 else f"the dimensions {', '.join(dims)}"
        raise DataError(f"{role} '{name}' must have {want}, not {variable.dims}")
    if variable.dtype.kind not in "iuf":
        raise DataError(f"{role} '{name}' must hold numbers, not {variable.dtype}")
    return np.asarray(variable.transpose(*dims).values, dtype=np.float64)


def check_units(data: xr.Dataset, name: str, expected: str) -> None:
    """Refuse data whose units differ from what the model says; data or models without units pass."""
    if name not in data.variables or "units" not in data[name].attrs:
        return
    units = data[name].attrs["units"]
    if not isinstance(units, str):
        raise DataError(f"the units of '{name}' must be text such as 'mg/L', not {units!r}")
    if expected and " ".join(units.split()) != " ".join(expected.split()):
        raise DataError(f"'{name}' is in '{units}' but the model works in '{expected}': convert the data first")


def split(data: xr.Dataset, **at: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Training data up to and including a value of the index, and test data after it: `split(data, time=1912)`.

    Args:
        data: a dataset; its index increases.
        at: the last value of the index that is training data, in its units, by the name of the index.

    Raises: DataError if one side would be empty, or not exactly one coordinate is named.
    """
    if len(at) != 1:
        raise DataError("split needs one coordinate and where to split it, such as split(data, time=1912)")
    ((index, value),) = at.items()
    values = checked_times(data, index)
    train, test = data.isel({index: values <= value}), data.isel({index: values > value})
    if train.sizes[index] == 0 or test.sizes[index] == 0:
        raise DataError(
            f"a split at {value:g} leaves one side empty: the data run from {values[0]:g} to {values[-1]:g}"
        )
    return train, test


def standardise(data: xr.Dataset, *names: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each named variable, for `Network(inputs=…)`.

    Args:
        data: a dataset.
        names: the variables, whose missing values (NaN) are left out.
    """
    scales = {}
    for name in names:
        values = observations(data, name, dims=tuple(map(str, data[name].dims)) if name in data else ())
        scales[name] = (float(np.nanmean(values)), float(np.nanstd(values)) or 1.0)
    return scales


def fingerprint(data: xr.Dataset) -> str:
    """SHA-256 of coordinates, variable names and values: the same data give the same text on every machine."""
    index = index_of(data)
    digest = hashlib.sha256(checked_times(data, index).astype("<f8").tobytes())
    others = sorted({str(d) for v in data.data_vars.values() for d in v.dims} - {index})
    for name in (*others, *sorted(map(str, data.data_vars))):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(data[name].values).astype("<f8").tobytes())
    return digest.hexdigest()


def _names(collection: Iterable) -> str:
    return ", ".join(sorted(map(str, collection))) or "nothing"

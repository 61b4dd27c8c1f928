"""Data are an xarray.Dataset with a coordinate `time`; NaN means missing. Here they are checked and split.

Rows that have the same time are replicates.
"""

import hashlib
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from .._statistics.distributions import describe_support
from ..errors import DataError
from .layer_inputs import Inputs, interpolated
from .units import agree, convert

_UNSEEN = 1.0  # stands where there is no datum: a number that harms no gradient

JOINT, DATUM = "joint", "datum"
"""In results: all data as one variable, and the dimension of data."""


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
        data: a dataset; its index never falls, and rows with the same value of it are replicates.
        start: the time of the initial state, in the units of the index; the first time of the data unless given.
        forcings: the variables that drive the model; unless given, every variable of numbers along the index alone of
            which none is missing and that is the same in replicates.
        interpolation: which forcings are not "linear" between their data, but "step" or "cubic".
        index: the coordinate that the data run along.
        places: the other coordinates that the model looks at.

    Raises: DataError if times fall, or a forcing is unknown, has gaps or differs between replicates.
    """
    times = checked_times(data, index)
    start = float(times[0]) if start is None else float(start)
    if start > times[0]:
        raise DataError(f"{index}[0]={times[0]:g} lies before the start of the model at {start:g}")
    if forcings is None:
        forcings = [str(name) for name, v in data.data_vars.items() if _complete_series(v, index)]
    kinds = interpolation or {}
    first = occurrence(times) == 0
    named = {
        name: interpolated(times[first], _forcing(data, name, index)[first], kinds.get(name, "linear"))
        for name in forcings
    }
    coordinates = {name: jnp.asarray(checked_coordinate(data, name)) for name in places}
    return Inputs(jnp.asarray(start), jnp.asarray(times), named, coordinates)


def occurrence(times: Shaped[np.ndarray, " time"]) -> Int[np.ndarray, " time"]:
    """Of sorted times, how many rows before each one have the same time: 0 but for replicates."""
    return np.arange(times.size) - np.searchsorted(times, times)


def averaged(
    times: Float[np.ndarray, " time"], values: Float[np.ndarray, " time"]
) -> tuple[Float[np.ndarray, " knot"], Float[np.ndarray, " knot"]]:
    """Each time once, with the mean of its replicates."""
    once, row, number = np.unique(times, return_inverse=True, return_counts=True)
    return once, np.bincount(row, values) / number


def _complete_series(variable: xr.DataArray, index: str) -> bool:
    complete = variable.dims == (index,) and variable.dtype.kind in "iuf" and bool(np.isfinite(variable).all())
    return complete and _differing(variable[index].values, variable.values).size == 0


def _differing(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows whose value is not that of the first replicate of their time."""
    return np.flatnonzero(values != values[np.searchsorted(times, times)])


def _forcing(data: xr.Dataset, name: str, index: str) -> np.ndarray:
    if name not in data:
        raise DataError(f"forcing '{name}' is not in the data; they hold {_names(data)}")
    values = series(data, name, "forcing", (index,))
    places = data[index].values
    missing = ~np.isfinite(values)
    if missing.any():
        at, last = float(places[missing][0]), places[~missing].max(initial=-np.inf)
        ends = f"; it ends at {last:g}, before the solve does at {places[-1]:g}" if at > last > -np.inf else ""
        raise DataError(f"forcing '{name}' is missing or not finite at {index} {at:g}: fill the gap first{ends}")
    for row in _differing(places, values)[:1]:
        raise DataError(
            f"forcing '{name}' has two values at {index} {places[row]:g}: rows of one {index} are replicates under "
            "one forcing; give rows under others an index of their own, such as the number of the sample"
        )
    return values


def index_of(data: xr.Dataset | xr.DataArray) -> str:
    """The coordinate that draws or data run along: the first dimension that is not the chain's or the draw's."""
    variables = data.data_vars.values() if isinstance(data, xr.Dataset) else (data,)
    dims = [str(d) for v in variables for d in v.dims if d not in ("chain", "draw")]
    return dims[0] if dims else next((str(d) for d in data.dims), "time")


def checked_times(data: xr.Dataset, index: str = "time") -> np.ndarray:
    """The coordinate that the data run along, as float64; replicates have the same.

    Raises: DataError unless it is a 1-D coordinate of finite numbers that never fall.
    """
    if not isinstance(data, xr.Dataset):
        raise DataError(f"data must be an xarray.Dataset with a coordinate '{index}', not {type(data).__name__}")
    return checked_coordinate(data, index, repeated=True)


def checked_coordinate(data: xr.Dataset, name: str, *, repeated: bool = False) -> np.ndarray:
    """A 1-D coordinate as float64.

    Raises: DataError unless it holds finite numbers that strictly increase; if some may be `repeated`, that never fall.
    """
    if name not in data.coords or data[name].dims != (name,):
        raise DataError(f"data need a 1-D coordinate '{name}'; {_in_its_place(data, name)}")
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
    steps = np.diff(values)
    for i in np.flatnonzero(steps < 0 if repeated else steps <= 0)[:1]:
        remedy = f"; sort the rows by data.sortby('{name}')" if steps[i] < 0 else ""
        said = f"{name}[{i + 1}]={values[i + 1]} is not after {name}[{i}]={values[i]}"
        raise DataError(f"{name} must increase: {said}{remedy}")
    return values


def _in_its_place(data: xr.Dataset, name: str) -> str:
    """What data have in place of a coordinate, and how to make it one where it is there under another dimension."""
    if name in data.variables and data[name].ndim == 1:
        (dim,) = data[name].dims
        return f"theirs lies along '{dim}': make it the dimension by data.swap_dims({{'{dim}': '{name}'}})"
    return f"their coordinates are {_names(data.coords)}"


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


def per_datum(
    data: xr.Dataset,
    variable: str,
    observable: str,
    dims: tuple[str, ...],
    support: Any,
    otherwise: float | None,
    needed: bool,
) -> Float[np.ndarray, "time ..."]:
    """The numbers of a variable for each datum of an observable, over `dims`.

    `support` says which numbers there may be; `otherwise` is that of a datum of which nothing says it: one that is
    forecast, where there is no observable, or any where it is not `needed`.
    Where an observation is missing (NaN) nothing is needed.
    Raises: DataError that names the row where a number is missing or cannot be, or for other dimensions.
    """
    who = f"the noise of '{observable}' reads '{variable}' of each datum"
    fitted = observable in data
    lenient = otherwise is not None and not (fitted and needed)
    if variable not in data:
        if lenient:
            return np.full([data.sizes[dim] for dim in dims], otherwise)
        known = ", ".join(sorted(map(str, data.data_vars))) or "nothing"
        raise DataError(f"{who}, which is not in the data; they hold {known}{'' if fitted else _ahead(variable)}")
    values = series(data, variable, f"for the noise of '{observable}', variable", dims)
    seen = data[observable].notnull().transpose(*dims).values if fitted else np.ones(values.shape, bool)
    missing = np.isnan(values)
    if (missing & seen).any() and not lenient:
        at = _where(data, dims, missing & seen)
        why = f"where '{observable}' was observed" if fitted else f"but {who}{_ahead(variable)}"
        raise DataError(f"'{variable}' is missing at {at}, {why}")
    wrong = seen & ~missing & ~(np.isfinite(values) & np.asarray(support(values)))
    if wrong.any():
        value = values[tuple(np.argwhere(wrong)[0])]
        raise DataError(
            f"'{variable}' is {value:g} at {_where(data, dims, wrong)}, but what the noise of '{observable}' reads "
            f"there must be finite: {describe_support(support)}"
        )
    return np.where(missing | ~seen, _UNSEEN if otherwise is None else otherwise, values)


def _ahead(variable: str) -> str:
    return (
        f": of data that are forecast it must be known too. Ask for a dataset of times that has it, or say "
        f"bd.PerDatum('{variable}', otherwise=…)"
    )


def _where(data: xr.Dataset, dims: tuple[str, ...], at: np.ndarray) -> str:
    """The first of some data, by the coordinates of its row and place."""
    first = np.argwhere(at)[0]
    return (
        ", ".join(f"{dim} {data[dim].values[i]:g}" for dim, i in zip(dims, first, strict=True)) + f" (row {first[0]})"
    )


def in_units(data: xr.Dataset, units: Mapping[str, str], *, doubtful: bool = False) -> xr.Dataset:
    """The data in given units: variables that are in other units of the same dimension are converted.

    Coordinates are not, since the times that are asked for later would then mean others. Where one side states no units
    nothing is said. Those that cannot be compared pass if they may be `doubtful`.

    Raises: DataError for units of another dimension, or of a coordinate.
    """
    if not isinstance(data, xr.Dataset):  # which is told where it is read
        return data
    for name, expected in units.items():
        if name not in data.variables or "units" not in data[name].attrs:
            continue
        held = data[name].attrs["units"]
        if not isinstance(held, str):
            raise DataError(f"the units of '{name}' must be text such as 'mg/L', not {held!r}")
        if not expected or (doubtful and not held):
            continue
        same = agree(held, expected)
        variable = data[name]
        if same or (same is None and doubtful) or variable.dtype.kind not in "iuf":
            continue
        values = None if name in data.coords else convert(np.asarray(variable.values, dtype=np.float64), held, expected)
        if values is None:
            raise DataError(f"'{name}' is in '{held}' but the model works in '{expected}': convert the data first")
        attributes = variable.attrs | {"units": expected}
        data = data.assign({name: (variable.dims, values, attributes)})
    return data


def units_of(data: xr.Dataset) -> dict[str, str]:
    """The units that variables and coordinates state, as far as they are text."""
    stated = {str(name): variable.attrs.get("units", "") for name, variable in data.variables.items()}
    return {name: units for name, units in stated.items() if isinstance(units, str)}


def split(data: xr.Dataset, **at: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Training data up to and including a value of the index, and test data after it: `split(data, time=1912)`.

    Args:
        data: a dataset; its index never falls, and replicates stay together.
        at: the last value of the index that is training data, in its units, by the name of the index.

    Raises: DataError if one side would be empty, it is no number, or not exactly one coordinate is named.
    """
    if len(at) != 1:
        raise DataError("split needs one coordinate and where to split it, such as split(data, time=1912)")
    ((index, value),) = at.items()
    if not isinstance(value, Real):
        raise DataError(f"the data are split at a number of '{index}', not at {value!r}")
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

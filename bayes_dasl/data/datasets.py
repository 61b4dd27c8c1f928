"""Data are an xarray.Dataset with a coordinate `time`; NaN means missing. Here they are checked and
split.

Rows that have the same time are replicates.
"""

import datetime
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from .._statistics.describe_distributions import describe_support
from ..errors import DataError
from .dates import (
    SINCE,
    are_dates,
    as_date,
    as_numbers,
    has_dates,
    no_index,
    numbers,
    place_of,
    told,
    told_of,
)
from .forcings import KINDS, AbstractForcing, interpolated
from .layer_inputs import Inputs
from .units import agree, convert, same_text

_UNSEEN = 1.0  # stands where there is no datum: a number that harms no gradient

JOINT, DATUM = "joint", "datum"
"""In results: all data as one variable, and the dimension of data."""
FILLED, FILLED_BETWEEN = "filled", "filled_between"
"""Attributes of a variable: how much of it `fill_gaps` filled and by which rule, and between which
places.
"""


def inputs(
    data: xr.Dataset,
    *,
    start: Any = None,
    forcings: Iterable[str] | None = None,
    interpolation: Mapping[str, str] | None = None,
    index: str = "time",
    places: Iterable[str] = (),
    members: str | None = None,
    units: str = "",
) -> Inputs:
    """Times and forcings of a dataset, without any observation.

    Args:
        data: a dataset; its index never falls, and rows with the same value of it are replicates.
        start: the time of the initial state, in the units of the index, or a date; the first time
            of the data unless given.
        forcings: the variables that drive the model; unless given, every variable of numbers along
            the index alone of which none is missing and that is the same in replicates.
        interpolation: which forcings are not "linear" between their data, but "step" or "cubic".
        index: the coordinate that the data run along.
        places: the other coordinates that the model looks at.
        members: the dimension of a population, along which forcings may differ.
        units: what dates are counted in, as the layer says by its `units`: `h`, or
            `day since 2001-01-01`. Days since 1970 unless given, as in a layer that says nothing.

    Raises:
        DataError: if times fall, a forcing is unknown, has gaps or differs between replicates, or
            it is not plain in which unit dates are to be counted.
    """
    dated = has_dates(data, index)
    data = as_numbers(data, index, units)
    times = checked_times(data, index)
    if dated and isinstance(start, (str, datetime.date, np.datetime64)):
        start = numbers(as_date(start), units)
    start = float(times[0]) if start is None else float(start)
    if start > times[0]:
        first, begin = (told_of(data[index], time) for time in (times[0], start))
        raise DataError(f"{index}[0]={first} lies before the start of the model at {begin}")
    if forcings is None:
        forcings = [str(name) for name, v in data.data_vars.items() if _complete_series(v, index)]
    kinds = interpolation or {}
    first = occurrence(times) == 0

    def forcing(data: xr.Dataset, name: str) -> AbstractForcing:
        kind, knots = kinds.get(name, "linear"), times[first]
        if kind not in KINDS:
            raise DataError(
                f"forcing '{name}' is interpolated by one of {', '.join(KINDS)}, not {kind!r}"
            )
        if kind == "cubic" and len(knots) < 2:
            raise DataError(f"forcing '{name}' needs at least two values for a cubic spline")
        return interpolated(knots, _forcing(data, name, index)[first], kind)

    own = [name for name in forcings if name in data and members in data[name].dims]
    named = {name: forcing(data, name) for name in forcings if name not in own}
    of_members = {name: _of_each(data, name, str(members), forcing) for name in own}
    coordinates = {
        name: jnp.asarray(checked_coordinate(data, name)) for name in places if name != members
    }
    return Inputs(
        jnp.asarray(start), jnp.asarray(times), named, coordinates, own_forcings=of_members
    )


def _of_each(
    data: xr.Dataset, name: str, members: str, forcing: Callable[[xr.Dataset, str], AbstractForcing]
) -> AbstractForcing:
    """The forcing of each member, as one with arrays whose first dimension is the member."""
    found = []
    for i, member in enumerate(data[members].values):
        try:
            found.append(forcing(data.isel({members: i}), name))
        except DataError as error:
            raise DataError(f"{members} {member}: {error}") from error
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *found)


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
    complete = (
        variable.dims == (index,)
        and variable.dtype.kind in "iuf"
        and bool(np.isfinite(variable).all())
    )
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
        when, then, end = (
            told_of(data[index], place) if np.isfinite(place) else ""
            for place in (at, last, places[-1])
        )
        ends = f"; it ends at {then}, before the solve does at {end}" if at > last > -np.inf else ""
        way = f"fill the gap first, as by bd.data.fill_gaps(data, {name}='interpolate')"
        raise DataError(f"forcing '{name}' is missing or not finite at {index} {when}: {way}{ends}")
    for row in _differing(places, values)[:1]:
        when = told_of(data[index], float(places[row]))
        raise DataError(
            f"forcing '{name}' has two values at {index} {when}: rows of one {index} are "
            "replicates under one forcing; "
            "give rows under others an index of their own, such as the number of the sample"
        )
    return values


def index_of(data: xr.Dataset | xr.DataArray) -> str:
    """The coordinate that draws or data run along: the first dimension that is not the chain's or
    the draw's.
    """
    variables = data.data_vars.values() if isinstance(data, xr.Dataset) else (data,)
    dims = [str(d) for v in variables for d in v.dims if d not in ("chain", "draw")]
    return dims[0] if dims else next((str(d) for d in data.dims), "time")


def series_index(data: xr.Dataset) -> str:
    """The coordinate along which rows lie: `time` where data have it, else the first one of most
    variables.
    """
    if not isinstance(data, xr.Dataset) or "time" in data.dims:
        return "time"
    dims = [str(v.dims[0]) for v in data.data_vars.values() if v.dims]
    return max(dict.fromkeys(dims), key=dims.count) if dims else "time"


def checked_times(data: xr.Dataset, index: str = "time") -> np.ndarray:
    """The coordinate that the data run along, as float64; replicates have the same.

    Raises:
        DataError: unless it is a 1-D coordinate of finite numbers that never fall.
    """
    if not isinstance(data, xr.Dataset):
        raise DataError(
            f"data must be an xarray.Dataset with a coordinate '{index}', not {type(data).__name__}"
        )
    return checked_coordinate(data, index, repeated=True)


def checked_coordinate(data: xr.Dataset, name: str, *, repeated: bool = False) -> np.ndarray:
    """A 1-D coordinate as float64.

    Raises:
        DataError: unless it holds finite numbers that strictly increase; if some may be `repeated`,
            that never fall.
    """
    if name not in data.coords or data[name].dims != (name,):
        raise DataError(f"data need a 1-D coordinate '{name}'; {_in_its_place(data, name)}")
    if are_dates(data[name]):
        raise DataError(
            f"{name} holds dates, where numbers are needed: model.in_numbers(data) makes them, or "
            "convert dates first, "
            f"by ({name} - np.datetime64('1970-01-01')) / np.timedelta64(1, 'D')"
        )
    if data[name].dtype.kind not in "iuf":
        raise DataError(
            f"{name} must be numbers (years, days, …) or dates (datetime64), not "
            f"{no_index(data[name], name)}"
        )
    values = np.asarray(data[name].values, dtype=np.float64)
    if values.size == 0:
        raise DataError(f"data hold no {name} at all")
    if not np.isfinite(values).all():
        raise DataError(f"{name}[{int(np.argmin(np.isfinite(values)))}] is not finite")
    _refuse_disorder(values, name, repeated)
    return values


def _refuse_disorder(values: np.ndarray, name: str, repeated: bool) -> None:
    later, same = values[1:] > values[:-1], values[1:] == values[:-1]
    for i in np.flatnonzero(~(later | (same & repeated)))[:1]:
        remedy = "" if same[i] else f"; sort the rows by data.sortby('{name}')"
        said = f"{name}[{i + 1}]={values[i + 1]} is not after {name}[{i}]={values[i]}"
        raise DataError(f"{name} must increase: {said}{remedy}")


def _in_its_place(data: xr.Dataset, name: str) -> str:
    """What data have in place of a coordinate, and how to make it one where it is there under
    another dimension.
    """
    if name in data.variables and data[name].ndim == 1:
        (dim,) = data[name].dims
        return (
            f"theirs lies along '{dim}': make it the dimension by data.swap_dims({{'{dim}': "
            f"'{name}'}})"
        )
    return f"their coordinates are {_names(data.coords)}"


def observations(data: xr.Dataset, name: str, *, dims: tuple[str, ...] = ("time",)) -> np.ndarray:
    """One observable as float64, over `dims`, NaN where it is missing.

    Raises:
        DataError: if it is unknown, has other dimensions, is infinite or wholly missing.
    """
    if name not in data:
        raise DataError(f"observable '{name}' is not in the data; they hold {_names(data)}")
    values = series(data, name, "observable", dims)
    if np.isinf(values).any():
        at = told(data[dims[0]].values[np.nonzero(np.isinf(values))[0][0]])
        raise DataError(
            f"observable '{name}' is infinite at {dims[0]} {at}; a missing value is NaN"
        )
    seen = values[~np.isnan(values)]
    if seen.size == 0:
        raise DataError(
            f"observable '{name}' has no value at all: leave it out of the model's noise"
        )
    return values


def series(data: xr.Dataset, name: str, role: str, dims: tuple[str, ...] = ("time",)) -> np.ndarray:
    """The numbers of a variable over `dims`, NaN where missing.

    Raises:
        DataError: for other dimensions or for what is no number.
    """
    variable = data[name]
    if set(variable.dims) != set(dims):
        want = (
            f"the one dimension {dims[0]}"
            if len(dims) == 1
            else f"the dimensions {', '.join(dims)}"
        )
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

    `support` says which numbers there may be; `otherwise` is that of a datum of which nothing says
    it: one that is forecast, where there is no observable, or any where it is not `needed`.
    Where an observation is missing (NaN) nothing is needed.

    Raises:
        DataError: that names the row where a number is missing or cannot be, or for other
            dimensions.
    """
    who = f"the noise of '{observable}' reads '{variable}' of each datum"
    fitted = observable in data
    lenient = otherwise is not None and not (fitted and needed)
    if variable not in data:
        if lenient:
            return np.full([data.sizes[dim] for dim in dims], otherwise)
        known = ", ".join(sorted(map(str, data.data_vars))) or "nothing"
        raise DataError(
            f"{who}, which is not in the data; they hold "
            f"{known}{'' if fitted else _ahead(variable)}"
        )
    values = series(data, variable, f"for the noise of '{observable}', variable", dims)
    seen = (
        data[observable].notnull().transpose(*dims).values
        if fitted
        else np.ones(values.shape, bool)
    )
    missing = np.isnan(values)
    if (missing & seen).any() and not lenient:
        at = _where(data, dims, missing & seen)
        why = f"where '{observable}' was observed" if fitted else f"but {who}{_ahead(variable)}"
        raise DataError(f"'{variable}' is missing at {at}, {why}")
    wrong = seen & ~missing & ~(np.isfinite(values) & np.asarray(support(values)))
    if wrong.any():
        value = values[tuple(np.argwhere(wrong)[0])]
        raise DataError(
            f"'{variable}' is {value:g} at {_where(data, dims, wrong)}, but what the noise of "
            f"'{observable}' reads "
            f"there must be finite: {describe_support(support)}"
        )
    return np.where(missing | ~seen, _UNSEEN if otherwise is None else otherwise, values)


def _ahead(variable: str) -> str:
    return (
        ": of data that are forecast it must be known too. Ask for a dataset of times that has "
        "it, or say "
        f"bd.noise.PerDatum('{variable}', otherwise=…)"
    )


def _where(data: xr.Dataset, dims: tuple[str, ...], at: np.ndarray) -> str:
    """The first of some data, by the coordinates of its row and place."""
    first = np.argwhere(at)[0]
    return (
        ", ".join(f"{dim} {told(data[dim].values[i])}" for dim, i in zip(dims, first, strict=True))
        + f" (row {first[0]})"
    )


def in_units(data: xr.Dataset, units: Mapping[str, str], *, doubtful: bool = False) -> xr.Dataset:
    """The data in given units: variables that are in other units of the same dimension are
    converted.

    Coordinates are not, since the times that are asked for later would then mean others. Where one
    side states no units nothing is said. Those that cannot be compared pass if they may be
    `doubtful`.

    Raises:
        DataError: for units of another dimension, or of a coordinate.
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
        if (
            name in data.coords
            and (SINCE in held or SINCE in expected)
            and not same_text(held, expected)
        ):
            raise DataError(
                f"'{name}' is in '{held}' but was in '{expected}': give it dates, by "
                "xarray.decode_cf"
            )
        same = agree(held, expected)
        variable = data[name]
        if same or (same is None and doubtful) or variable.dtype.kind not in "iuf":
            continue
        values = (
            None
            if name in data.coords
            else convert(np.asarray(variable.values, dtype=np.float64), held, expected)
        )
        if values is None:
            raise DataError(
                f"'{name}' is in '{held}' but the model works in '{expected}': convert the data "
                "first"
            )
        attributes = variable.attrs | {"units": expected}
        data = data.assign({name: (variable.dims, values, attributes)})
    return data


def units_of(data: xr.Dataset) -> dict[str, str]:
    """The units that variables and coordinates state, as far as they are text."""
    stated = {
        str(name): variable.attrs.get("units", "") for name, variable in data.variables.items()
    }
    return {name: units for name, units in stated.items() if isinstance(units, str)}


def split(data: xr.Dataset, **at: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Training data up to and including a value of the index, and test data after it:
    `split(data, time=1912)`.

    Args:
        data: a dataset; its index never falls, and replicates stay together.
        at: the last value of the index that is training data, by the name of the index: a number in
            its units or, where it holds dates, a date, such as "2001-06-30".

    Raises:
        DataError: if one side would be empty, it is neither number nor date as the index is, or not
            exactly one coordinate is named.

    Example:
        ```python
        train, test = bd.split(data, time=6.0)
        assert train["time"].max() < test["time"].min()
        ```
    """
    if len(at) != 1:
        raise DataError(
            "split needs one coordinate and where to split it, such as split(data, time=1912)"
        )
    ((index, value),) = at.items()
    values, value = checked_index(data, index), place_of(data, index, value)
    train, test = data.isel({index: values <= value}), data.isel({index: values > value})
    if train.sizes[index] == 0 or test.sizes[index] == 0:
        raise DataError(
            f"a split at {told(value)} leaves one side empty: the data run from {told(values[0])} "
            f"to {told(values[-1])}"
        )
    return train, test


def split_members(
    data: xr.Dataset, members: Mapping[str, Sequence[Any]], observables: Sequence[str]
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training data without the observations of some members, and test data with these alone: all
    else stays in both.

    Args:
        data: a dataset.
        members: those of the test data, by the name of their dimension.
        observables: the variables that are observations.

    Raises:
        DataError: if these are no members of the data, or one side would be empty.
    """
    if len(members) != 1:
        raise DataError("members are held out along one dimension, such as {'subject': [6, 11]}")
    ((dim, names),) = members.items()
    if dim not in data.indexes:
        raise DataError(
            f"members are held out of '{dim}', but the data have "
            f"{', '.join(map(str, data.indexes))}"
        )
    for name in np.asarray(names).tolist():
        if name not in data.indexes[dim]:
            raise DataError(f"{dim} {name} is held out, but the data have none of it")
    out = data[dim].isin(names)
    whole = [name for name in observables if name in data and dim in data[name].dims]
    train, test = (
        data.assign({name: data[name].where(there) for name in whole}) for there in (~out, out)
    )
    if not whole or any(all(part[name].isnull().all() for name in whole) for part in (train, test)):
        raise DataError(
            f"holding out {dim} {', '.join(map(str, np.asarray(names).tolist()))} leaves one side "
            "empty"
        )
    return train, test


def checked_index(data: xr.Dataset, index: str) -> np.ndarray:
    """The numbers or dates that the data run along.

    Raises:
        DataError: unless it is a 1-D coordinate of finite ones that never fall.
    """
    if not has_dates(data, index) or data[index].dims != (index,) or not data[index].size:
        return checked_times(data, index)
    values = data[index].values
    if np.isnat(values).any():
        raise DataError(f"{index}[{int(np.argmax(np.isnat(values)))}] is no date")
    _refuse_disorder(values, index, repeated=True)
    return values


def standardise(data: xr.Dataset, *names: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each named variable, for `Network(inputs=…)`.

    Args:
        data: a dataset.
        names: the variables, whose missing values (NaN) are left out. `"t"` is the index, unless
            the data have a variable of that name. Dates count as days since 1970, as in a layer
            that states no unit of time; for others give `model.in_numbers(data)`.

    Raises:
        DataError: for a variable that is not there or holds no numbers, or for dates that leave
            open whether days are meant.

    Example:
        ```python
        network = bd.Network.mlp(bd.standardise(train, "y"), ("y",), 0.1, width=4, depth=1)
        ```
    """
    index = series_index(data)
    scales = {}
    for name in names:
        if name in (index, "t") and name not in data.data_vars:
            values = checked_times(as_numbers(data, index), index)
        else:
            values = observations(
                data, name, dims=tuple(map(str, data[name].dims)) if name in data else ()
            )
        scales[name] = (float(np.nanmean(values)), float(np.nanstd(values)) or 1.0)
    return scales


def fingerprint(data: xr.Dataset) -> str:
    """SHA-256 of coordinates, variable names and values: the same data give the same text on every
    machine.
    """
    index = index_of(data)
    times = checked_index(data, index)
    times = times.astype("M8[us]").astype("<i8") if are_dates(times) else times.astype("<f8")
    digest = hashlib.sha256(times.tobytes())
    others = sorted({str(d) for v in data.data_vars.values() for d in v.dims} - {index})
    for name in (*others, *sorted(map(str, data.data_vars))):
        digest.update(name.encode())
        values = data[name].values
        text = values.dtype.kind not in "iufb"
        digest.update(
            repr(values.tolist()).encode()
            if text
            else np.ascontiguousarray(values).astype("<f8").tobytes()
        )
    return digest.hexdigest()


def _names(collection: Iterable) -> str:
    return ", ".join(sorted(map(str, collection))) or "nothing"

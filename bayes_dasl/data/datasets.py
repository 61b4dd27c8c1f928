"""Checks of an xarray.Dataset, its split into training and test data, and the inputs of a layer.

Data have one index, such as `time`. NaN means missing; rows with the same time are replicates.
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
    in_words,
    index_in_words,
    no_index,
    numbers,
    place_of,
)
from .forcings import KINDS, AbstractForcing, interpolated
from .layer_inputs import Inputs
from .units import agree, convert, same_text

# Placeholder for a missing datum: any finite number keeps gradients finite.
_UNSEEN = 1.0

JOINT = "joint"
DATUM = "datum"
"""Names in posteriors: the variable that joins all observables, and its dimension."""
FILLED = "filled"
FILLED_BETWEEN = "filled_between"
"""Attributes written by `fill_gaps`: the rule with the number of filled values, and the gaps."""


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
    """Return times and forcings of a dataset, without any observation.

    Args:
        data: a dataset whose index does not decrease; rows with the same index are replicates.
        start: the time of the initial state, a number or a date; by default the first time.
        forcings: the variables that drive the model. By default these are all complete numeric
            variables whose only dimension is the index and which are equal in replicates.
        interpolation: "step" or "cubic" by forcing; the default is "linear".
        index: the coordinate along which rows lie.
        places: the other coordinates that the model reads.
        members: the dimension of a population, along which forcings may differ.
        units: the unit in which dates are counted, such as `h` or `day since 2001-01-01`. The
            default is days since 1970, as for a layer without `units`.

    Returns:
        Inputs with the start, times, forcings and coordinates.

    Raises:
        DataError: if times decrease, if a forcing is unknown, has gaps or differs between
            replicates, or if the unit in which dates are counted is ambiguous.
    """
    # 1. Dates become numbers in the unit of the layer, and the solve starts at or before them.
    dated = has_dates(data, index)
    data = as_numbers(data, index, units)
    times = checked_times(data, index)
    if dated and isinstance(start, (str, datetime.date, np.datetime64)):
        start = numbers(as_date(start), units)
    start = float(times[0]) if start is None else float(start)
    if start > times[0]:
        first, begin = (index_in_words(data[index], time) for time in (times[0], start))
        raise DataError(f"{index}[0]={first} lies before the start of the model at {begin}")
    # 2. Each forcing is interpolated through one value per time: replicates share it.
    if forcings is None:
        forcings = [str(name) for name, v in data.data_vars.items() if _complete_series(v, index)]
    kinds = interpolation or {}
    first = occurrence(times) == 0

    def forcing(data: xr.Dataset, name: str) -> AbstractForcing:
        kind = kinds.get(name, "linear")
        knots = times[first]
        if kind not in KINDS:
            raise DataError(
                f"forcing '{name}' is interpolated by one of {', '.join(KINDS)}, not {kind!r}"
            )
        if kind == "cubic" and len(knots) < 2:
            raise DataError(f"forcing '{name}' needs at least two values for a cubic spline")
        return interpolated(knots, _forcing_values(data, name, index)[first], kind)

    own = [name for name in forcings if name in data and members in data[name].dims]
    named = {name: forcing(data, name) for name in forcings if name not in own}
    of_members = {name: _subject_forcings(data, name, str(members), forcing) for name in own}
    # 3. The remaining coordinates are places at which a field was observed.
    coordinates = {
        name: jnp.asarray(checked_coordinate(data, name)) for name in places if name != members
    }
    return Inputs(
        jnp.asarray(start), jnp.asarray(times), named, coordinates, own_forcings=of_members
    )


def _subject_forcings(
    data: xr.Dataset, name: str, members: str, forcing: Callable[[xr.Dataset, str], AbstractForcing]
) -> AbstractForcing:
    """Stack one forcing of all subjects: the first dimension of each of its arrays is the subject.

    Args:
        data: a dataset.
        name: the forcing.
        members: the dimension of the subjects.
        forcing: a function that makes the forcing from the data of one subject and its name.
    """
    found = []
    for i, member in enumerate(data[members].values):
        try:
            found.append(forcing(data.isel({members: i}), name))
        except DataError as error:
            raise DataError(f"{members} {member}: {error}") from error
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *found)


def occurrence(times: Shaped[np.ndarray, " time"]) -> Int[np.ndarray, " time"]:
    """Count, for each row of sorted times, the earlier rows with the same time."""
    return np.arange(times.size) - np.searchsorted(times, times)


def averaged(
    times: Float[np.ndarray, " time"], values: Float[np.ndarray, " time"]
) -> tuple[Float[np.ndarray, " knot"], Float[np.ndarray, " knot"]]:
    """Average replicates: return the distinct times, and the mean value at each of them."""
    once, row, number = np.unique(times, return_inverse=True, return_counts=True)
    return once, np.bincount(row, values) / number


def _complete_series(variable: xr.DataArray, index: str) -> bool:
    """Whether a variable can be a forcing: numeric, complete, and equal in replicates."""
    if variable.dims != (index,) or variable.dtype.kind not in "iuf":
        return False
    values = variable.values
    return bool(np.isfinite(values).all()) and not _differing(variable[index].values, values).size


def _differing(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the rows whose value differs from the first value at the same time."""
    return np.flatnonzero(values != values[np.searchsorted(times, times)])


def _forcing_values(data: xr.Dataset, name: str, index: str) -> np.ndarray:
    """Return the values of a forcing, or raise DataError if it has gaps or two values at a time."""
    if name not in data:
        raise DataError(f"forcing '{name}' is not in the data; they hold {_listing(data)}")
    values = series(data, name, "forcing", (index,))
    places = data[index].values
    missing = ~np.isfinite(values)
    if missing.any():
        at = float(places[missing][0])
        last = places[~missing].max(initial=-np.inf)
        when = index_in_words(data[index], at) if np.isfinite(at) else ""
        ends = ""
        # A forcing that only stops early is a common mistake, so the message says where it stops.
        if at > last > -np.inf:
            then, end = (index_in_words(data[index], place) for place in (last, places[-1]))
            ends = f"; it ends at {then}, before the solve does at {end}"
        way = f"fill the gap first, as by bd.data.fill_gaps(data, {name}='interpolate')"
        raise DataError(f"forcing '{name}' is missing or not finite at {index} {when}: {way}{ends}")
    for row in _differing(places, values)[:1]:
        when = index_in_words(data[index], float(places[row]))
        raise DataError(
            f"forcing '{name}' has two values at {index} {when}: rows of one {index} are "
            "replicates under one forcing; give rows under others an index of their own, such as "
            "the number of the sample"
        )
    return values


def index_of(data: xr.Dataset | xr.DataArray) -> str:
    """Name the index of draws or data: the first dimension other than `chain` and `draw`."""
    variables = data.data_vars.values() if isinstance(data, xr.Dataset) else (data,)
    dims = [str(d) for v in variables for d in v.dims if d not in ("chain", "draw")]
    if dims:
        return dims[0]
    return next((str(d) for d in data.dims), "time")


def series_index(data: xr.Dataset) -> str:
    """Name the index of data: `time` if it exists, else the most frequent first dimension."""
    if not isinstance(data, xr.Dataset) or "time" in data.dims:
        return "time"
    dims = [str(v.dims[0]) for v in data.data_vars.values() if v.dims]
    if dims:
        return max(dict.fromkeys(dims), key=dims.count)
    return "time"


def checked_times(data: xr.Dataset, index: str = "time") -> np.ndarray:
    """Return the index of the data as float64.

    Args:
        data: a dataset.
        index: the name of the coordinate; replicates may repeat a value.

    Returns:
        Its values.

    Raises:
        DataError: if `data` is no dataset, or the coordinate is not 1-D, finite and sorted.
    """
    if not isinstance(data, xr.Dataset):
        raise DataError(
            f"data must be an xarray.Dataset with a coordinate '{index}', not {type(data).__name__}"
        )
    return checked_coordinate(data, index, repeated=True)


def checked_coordinate(data: xr.Dataset, name: str, *, repeated: bool = False) -> np.ndarray:
    """Return a 1-D coordinate as float64.

    Args:
        data: a dataset.
        name: the coordinate.
        repeated: whether a value may repeat, as in replicates.

    Returns:
        Its values.

    Raises:
        DataError: if values are not finite or decrease, or repeat although `repeated` is false.
    """
    if name not in data.coords or data[name].dims != (name,):
        raise DataError(f"data need a 1-D coordinate '{name}'; {_in_its_place(data, name)}")
    if are_dates(data[name]):
        raise DataError(
            f"{name} holds dates, where numbers are needed: model.in_numbers(data) makes them, or "
            f"convert dates first, by ({name} - np.datetime64('1970-01-01')) / "
            "np.timedelta64(1, 'D')"
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
    """Raise DataError at the first value that decreases, or equals the one before it.

    Equal values are allowed if `repeated` is true.
    """
    wrong = values[1:] < values[:-1] if repeated else values[1:] <= values[:-1]
    for i in np.flatnonzero(wrong)[:1]:
        same = values[i + 1] == values[i]
        remedy = "" if same else f"; sort the rows by data.sortby('{name}')"
        said = f"{name}[{i + 1}]={values[i + 1]} is not after {name}[{i}]={values[i]}"
        raise DataError(f"{name} must increase: {said}{remedy}")


def _in_its_place(data: xr.Dataset, name: str) -> str:
    """Say, for an error, which coordinates the data have and how to make this one an index."""
    if name in data.variables and data[name].ndim == 1:
        (dim,) = data[name].dims
        return (
            f"theirs lies along '{dim}': make it the dimension by data.swap_dims({{'{dim}': "
            f"'{name}'}})"
        )
    return f"their coordinates are {_listing(data.coords)}"


def observations(data: xr.Dataset, name: str, *, dims: tuple[str, ...] = ("time",)) -> np.ndarray:
    """Return an observable as float64, NaN where it is missing.

    Args:
        data: a dataset.
        name: the observable.
        dims: the dimensions that it must have, in the order of the returned array.

    Returns:
        Its values.

    Raises:
        DataError: if the observable is unknown, has other dimensions, is infinite or has no value
            at all.
    """
    if name not in data:
        raise DataError(f"observable '{name}' is not in the data; they hold {_listing(data)}")
    values = series(data, name, "observable", dims)
    if np.isinf(values).any():
        at = in_words(data[dims[0]].values[np.nonzero(np.isinf(values))[0][0]])
        raise DataError(
            f"observable '{name}' is infinite at {dims[0]} {at}; a missing value is NaN"
        )
    if np.isnan(values).all():
        raise DataError(
            f"observable '{name}' has no value at all: leave it out of the model's noise"
        )
    return values


def series(data: xr.Dataset, name: str, role: str, dims: tuple[str, ...] = ("time",)) -> np.ndarray:
    """Return a numeric variable as float64, NaN where it is missing.

    Args:
        data: a dataset with the variable.
        name: the variable.
        role: its role, for error messages.
        dims: the dimensions that it must have, in the order of the returned array.

    Returns:
        Its values.

    Raises:
        DataError: if the variable has other dimensions or does not hold numbers.
    """
    variable = data[name]
    if set(variable.dims) != set(dims):
        several = f"the dimensions {', '.join(dims)}"
        want = f"the one dimension {dims[0]}" if len(dims) == 1 else several
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
    """Return a variable that the noise reads for each datum of an observable, such as its error.

    A value is needed for each observed datum. There are two exceptions, in which a missing value
    takes the default: data without the observable, as in a forecast, and `needed=False`.

    Args:
        data: a dataset.
        variable: the variable.
        observable: the observable whose noise reads the variable.
        dims: the dimensions of the observable.
        support: the NumPyro constraint on the values of the variable.
        otherwise: the default value; None if there is no default.
        needed: whether each observed datum needs a value.

    Returns:
        The values of the variable. Where the observation or the value is missing, they hold the
        default, or 1 without a default.

    Raises:
        DataError: if the variable has other dimensions, or a value is missing or outside the
            support; the message names the row.
    """
    who = f"the noise of '{observable}' reads '{variable}' of each datum"
    fitted = observable in data
    lenient = otherwise is not None and not (fitted and needed)
    if variable not in data:
        if lenient:
            return np.full([data.sizes[dim] for dim in dims], otherwise)
        ahead = "" if fitted else _ahead(variable)
        raise DataError(f"{who}, which is not in the data; they hold {_listing(data)}{ahead}")
    values = series(data, variable, f"for the noise of '{observable}', variable", dims)
    seen = np.ones(values.shape, bool)
    if fitted:
        seen = data[observable].notnull().transpose(*dims).values
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
            f"'{observable}' reads there must be finite: {describe_support(support)}"
        )
    return np.where(missing | ~seen, _UNSEEN if otherwise is None else otherwise, values)


def _ahead(variable: str) -> str:
    """Say, for an error, how to forecast with a variable that the noise reads."""
    return (
        ": of data that are forecast it must be known too. Ask for a dataset of times that has "
        f"it, or say bd.noise.PerDatum('{variable}', otherwise=…)"
    )


def _where(data: xr.Dataset, dims: tuple[str, ...], at: np.ndarray) -> str:
    """Name the first flagged datum by its coordinates and its row."""
    first = np.argwhere(at)[0]
    found = (f"{dim} {in_words(data[dim].values[i])}" for dim, i in zip(dims, first, strict=True))
    return f"{', '.join(found)} (row {first[0]})"


def in_units(data: xr.Dataset, units: Mapping[str, str], *, doubtful: bool = False) -> xr.Dataset:
    """Convert variables to given units.

    Coordinates are never converted: later forecasts would have to ask for times in the new units. A
    variable keeps its values if it states no units or has no given units.

    Args:
        data: a dataset.
        units: the wanted units by variable or coordinate.
        doubtful: whether units that cannot be compared are accepted.

    Returns:
        The dataset with converted variables.

    Raises:
        DataError: if units have another dimension, or a coordinate has other units.
    """
    if not isinstance(data, xr.Dataset):  # refused later, where it is read
        return data
    for name, expected in units.items():
        if name not in data.variables or "units" not in data[name].attrs:
            continue
        held = data[name].attrs["units"]
        if not isinstance(held, str):
            raise DataError(f"the units of '{name}' must be text such as 'mg/L', not {held!r}")
        if not expected or (doubtful and not held):
            continue
        dated = SINCE in held or SINCE in expected
        if name in data.coords and dated and not same_text(held, expected):
            raise DataError(
                f"'{name}' is in '{held}' but was in '{expected}': give it dates, by "
                "xarray.decode_cf"
            )
        same = agree(held, expected)
        variable = data[name]
        if same or (same is None and doubtful) or variable.dtype.kind not in "iuf":
            continue
        values = None
        if name not in data.coords:
            values = convert(variable.values.astype(np.float64), held, expected)
        if values is None:
            raise DataError(
                f"'{name}' is in '{held}' but the model works in '{expected}': convert the data "
                "first"
            )
        data = data.assign({name: variable.copy(data=values).assign_attrs(units=expected)})
    return data


def units_of(data: xr.Dataset) -> dict[str, str]:
    """Return the units of all variables and coordinates that state them as text."""
    stated = {str(name): v.attrs.get("units", "") for name, v in data.variables.items()}
    return {name: units for name, units in stated.items() if isinstance(units, str)}


def split(data: xr.Dataset, **at: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Split data in time: `split(data, time=1912)` trains up to and including 1912.

    Replicates of one time are never separated.

    Args:
        data: a dataset whose index does not decrease.
        at: the last index of the training data, by the name of the index. It is a number in the
            units of the index, or a date such as "2001-06-30" if the index holds dates.

    Returns:
        Training data up to and including that index, and test data after it.

    Raises:
        DataError: if one side would be empty, if the value is not of the type of the index, or if
            there is not exactly one coordinate.

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
    values = checked_index(data, index)
    value = place_of(data, index, value)
    train, test = data.isel({index: values <= value}), data.isel({index: values > value})
    if train.sizes[index] == 0 or test.sizes[index] == 0:
        raise DataError(
            f"a split at {in_words(value)} leaves one side empty: the data run from "
            f"{in_words(values[0])} "
            f"to {in_words(values[-1])}"
        )
    return train, test


def split_members(
    data: xr.Dataset, members: Mapping[str, Sequence[Any]], observables: Sequence[str]
) -> tuple[xr.Dataset, xr.Dataset]:
    """Split data by subject: hide the observations of some subjects from training.

    Both parts have all forcings and covariates.

    Args:
        data: a dataset.
        members: the subjects of the test data, by the name of their dimension.
        observables: the variables that are observations.

    Returns:
        Training data in which these subjects have no observations, and test data in which only they
        have observations.

    Raises:
        DataError: if a subject is unknown, or one side would be empty.
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
    observed = data[whole]
    train, test = (data.assign(observed.where(there)) for there in (~out, out))
    if not whole or any(part[whole].isnull().all().to_array().all() for part in (train, test)):
        raise DataError(
            f"holding out {dim} {', '.join(map(str, np.asarray(names).tolist()))} leaves one side "
            "empty"
        )
    return train, test


def checked_index(data: xr.Dataset, index: str) -> np.ndarray:
    """Return the index of the data as numbers or dates.

    Args:
        data: a dataset.
        index: the name of the coordinate.

    Returns:
        Its values, as float64 or datetime64.

    Raises:
        DataError: if the coordinate is not 1-D, finite and sorted.
    """
    if not has_dates(data, index) or data[index].dims != (index,) or not data[index].size:
        return checked_times(data, index)
    values = data[index].values
    if np.isnat(values).any():
        raise DataError(f"{index}[{int(np.argmax(np.isnat(values)))}] is no date")
    _refuse_disorder(values, index, repeated=True)
    return values


def standardise(data: xr.Dataset, *names: str) -> dict[str, tuple[float, float]]:
    """Return the mean and standard deviation of each variable, for `Network(inputs=…)`.

    Args:
        data: a dataset; missing values are left out.
        names: the variables. `"t"` is the index, unless data have a variable of that name. Dates
            count as days since 1970, as in a layer without `units`; for another unit give
            `model.in_numbers(data)`.

    Returns:
        `(mean, standard deviation)` by variable; a constant variable has the deviation 1.

    Raises:
        DataError: if a variable is unknown or not numeric, or the unit of dates is ambiguous.

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
            dims = map(str, data[name].dims) if name in data else ()
            values = observations(data, name, dims=tuple(dims))
        scales[name] = (float(np.nanmean(values)), float(np.nanstd(values)) or 1.0)
    return scales


def fingerprint(data: xr.Dataset) -> str:
    """Return the SHA-256 hash of coordinates, names and values; it is the same on every machine."""
    index = index_of(data)
    times = checked_index(data, index)
    # Fixed byte order and width, so that the text does not depend on the machine.
    times = times.astype("M8[us]").astype("<i8") if are_dates(times) else times.astype("<f8")
    digest = hashlib.sha256(times.tobytes())
    others = sorted({str(d) for v in data.data_vars.values() for d in v.dims} - {index})
    for name in (*others, *sorted(map(str, data.data_vars))):
        digest.update(name.encode())
        values = data[name].values
        if values.dtype.kind in "iufb":
            digest.update(np.ascontiguousarray(values).astype("<f8").tobytes())
        else:
            digest.update(repr(values.tolist()).encode())
    return digest.hexdigest()


def _listing(collection: Iterable) -> str:
    return ", ".join(sorted(map(str, collection))) or "nothing"

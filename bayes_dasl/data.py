"""Data are an xarray.Dataset with a coordinate `time`; NaN means missing. Here they are checked and split."""

import hashlib
from collections.abc import Iterable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from ._errors import DataError


class Forcing(eqx.Module):
    """A known input that varies in time, interpolated linearly between its data."""

    times: Float[Array, " knots"]
    values: Float[Array, " knots"]

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.interp(t, self.times, self.values)


class Inputs(eqx.Module):
    """What a layer is driven by: the start, the times at which it is asked, and the forcings."""

    start: Float[Array, ""]
    times: Float[Array, " time"]
    forcings: dict[str, Forcing]


def inputs(data: xr.Dataset, *, start: float | None = None, forcings: Iterable[str] | None = None) -> Inputs:
    """Times and forcings of a dataset, without any observation.

    `start` is the time of the initial state, by default the first time of the data. `forcings` names the
    variables that drive the model, by default every variable that has no missing value.

    Raises: DataError if times do not increase, or a forcing is unknown or has gaps.
    """
    times = checked_times(data)
    start = float(times[0]) if start is None else float(start)
    if start > times[0]:
        raise DataError(f"time[0]={times[0]:g} lies before the start of the model at {start:g}")
    if forcings is None:
        forcings = [str(name) for name, v in data.data_vars.items() if _complete_series(v)]
    named = {name: Forcing(jnp.asarray(times), jnp.asarray(_forcing(data, name))) for name in forcings}
    return Inputs(jnp.asarray(start), jnp.asarray(times), named)


def _complete_series(variable: xr.DataArray) -> bool:
    return variable.dims == ("time",) and variable.dtype.kind in "iuf" and bool(np.isfinite(variable).all())


def _forcing(data: xr.Dataset, name: str) -> np.ndarray:
    if name not in data:
        raise DataError(f"forcing '{name}' is not in the data; they hold {_names(data)}")
    values = series(data, name, "forcing")
    if not np.isfinite(values).all():
        at = float(data["time"].values[~np.isfinite(values)][0])
        raise DataError(f"forcing '{name}' is missing or not finite at time {at:g}: fill the gap first")
    return values


def checked_times(data: xr.Dataset) -> np.ndarray:
    """The time coordinate as float64.

    Raises: DataError unless `time` is a 1-D coordinate of finite numbers that strictly increase.
    """
    if not isinstance(data, xr.Dataset):
        raise DataError(f"data must be an xarray.Dataset with a coordinate 'time', not {type(data).__name__}")
    if "time" not in data.coords or data["time"].dims != ("time",):
        raise DataError(f"data need a 1-D coordinate 'time'; their coordinates are {_names(data.coords)}")
    if data["time"].dtype.kind not in "iuf":
        raise DataError(
            f"time must be numbers (years, days, …), not {data['time'].dtype}: convert dates first, for example "
            "(time - time[0]) / np.timedelta64(1, 'D')"
        )
    times = np.asarray(data["time"].values, dtype=np.float64)
    if times.size == 0:
        raise DataError("data hold no time at all")
    if not np.isfinite(times).all():
        raise DataError(f"time[{int(np.argmin(np.isfinite(times)))}] is not finite")
    for i in np.flatnonzero(np.diff(times) <= 0)[:1]:
        raise DataError(f"time must increase: time[{i + 1}]={times[i + 1]} is not after time[{i}]={times[i]}")
    return times


def observations(data: xr.Dataset, name: str, *, integer: bool = False) -> np.ndarray:
    """One observable as float64, NaN where it is missing.

    Raises: DataError if it is unknown, not a series over time, infinite, wholly missing, or not whole
    non-negative numbers where counts are asked for (`integer`).
    """
    if name not in data:
        raise DataError(f"observable '{name}' is not in the data; they hold {_names(data)}")
    values = series(data, name, "observable")
    if np.isinf(values).any():
        at = float(data["time"].values[np.isinf(values)][0])
        raise DataError(f"observable '{name}' is infinite at time {at:g}; a missing value is NaN")
    seen = values[~np.isnan(values)]
    if seen.size == 0:
        raise DataError(f"observable '{name}' has no value at all: leave it out of the model's noise")
    if integer and ((seen < 0).any() or (seen != np.round(seen)).any()):
        raise DataError(f"observable '{name}' must be counts (0, 1, 2, …) for its noise model")
    return values


def series(data: xr.Dataset, name: str, role: str) -> np.ndarray:
    """The numbers of a series over time, NaN where missing.

    Raises: DataError for another dimension or for what is no number.
    """
    variable = data[name]
    if variable.dims != ("time",):
        raise DataError(f"{role} '{name}' must have the one dimension time, not {variable.dims}")
    if variable.dtype.kind not in "iuf":
        raise DataError(f"{role} '{name}' must hold numbers, not {variable.dtype}")
    return np.asarray(variable.values, dtype=np.float64)


def check_units(data: xr.Dataset, name: str, expected: str) -> None:
    """Refuse data whose units differ from what the model says; data or models without units pass."""
    if name not in data.variables or "units" not in data[name].attrs:
        return
    units = data[name].attrs["units"]
    if not isinstance(units, str):
        raise DataError(f"the units of '{name}' must be text such as 'mg/L', not {units!r}")
    if expected and " ".join(units.split()) != " ".join(expected.split()):
        raise DataError(f"'{name}' is in '{units}' but the model works in '{expected}': convert the data first")


def split(data: xr.Dataset, *, time: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Training data up to and including `time`, and test data after it.

    Raises: DataError if one side would be empty.
    """
    times = checked_times(data)
    train, test = data.isel(time=times <= time), data.isel(time=times > time)
    if train.sizes["time"] == 0 or test.sizes["time"] == 0:
        raise DataError(f"a split at {time:g} leaves one side empty: the data run from {times[0]:g} to {times[-1]:g}")
    return train, test


def standardise(data: xr.Dataset, *names: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each named variable, for `Network(inputs=…)`."""
    scales = {}
    for name in names:
        values = observations(data, name)
        scales[name] = (float(np.nanmean(values)), float(np.nanstd(values)) or 1.0)
    return scales


def fingerprint(data: xr.Dataset) -> str:
    """SHA-256 of times, variable names and values: the same data give the same text on every machine."""
    digest = hashlib.sha256(checked_times(data).astype("<f8").tobytes())
    for name in sorted(map(str, data.data_vars)):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(data[name].values).astype("<f8").tobytes())
    return digest.hexdigest()


def _names(collection: Iterable) -> str:
    return ", ".join(sorted(map(str, collection))) or "nothing"

"""Forcings from a file: a CSV table with a column for the index, or netCDF."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from .._jax.memory import on_host
from .._runs.hdf5 import check_contained
from ..errors import DataError, ReadError


def read_series(
    path: str | os.PathLike, index: str, names: tuple[str, ...], optional: tuple[str, ...] = ()
) -> xr.Dataset:
    """Some variables of a file along its index: numbers, or dates as in `2001-06-30`.

    Args:
        path: a file `.csv`, with a column for each variable, or `.nc`.
        index: what the variables run along.
        names: those that are read.
        optional: others that are read where the file holds them.

    Raises: ReadError if there is no such file or it cannot be read; DataError if it lacks the index or a variable.
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"there is no file {path}")
    try:
        data = _table(path, index) if path.suffix.lower() == ".csv" else _netcdf(path)
    except (OSError, ValueError, KeyError, MemoryError) as error:  # pandas has its own errors below ValueError
        if isinstance(error, DataError):
            raise
        raise ReadError(f"{path} can be read neither as CSV nor as netCDF, by its name: {error}") from error
    held = ", ".join(map(str, (*data.coords, *data.data_vars))) or "nothing"
    for name in (index, *names):
        if name not in data.variables:
            raise DataError(f"{path} has no '{name}'; it holds {held}")
    return data[[*names, *(name for name in optional if name in data)]].sortby(index)


def _netcdf(path: Path) -> xr.Dataset:
    check_contained(path, on_host())
    return xr.load_dataset(path, engine="h5netcdf")


def _table(path: Path, index: str) -> xr.Dataset:
    """A table as a dataset; a column of dates becomes dates."""
    table = pd.read_csv(path)
    if index not in table:
        raise DataError(f"{path} has no '{index}'; it holds {', '.join(map(str, table))}")
    if not pd.api.types.is_numeric_dtype(table[index]):
        held = table[index].astype(str)
        read = pd.to_datetime(held, format="ISO8601", errors="coerce")
        for row in np.flatnonzero(read.isna().to_numpy())[:1]:
            what = f"'{held.iloc[row]}' in row {row + 1}"
            raise DataError(f"{path}: '{index}' holds neither numbers nor dates such as 2001-06-30: {what}")
        table[index] = read
    return table.set_index(index).to_xarray()

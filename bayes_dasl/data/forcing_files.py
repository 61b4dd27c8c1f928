"""Forcings from a file: a CSV table with a column for the index, or netCDF."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from .._jax.memory import on_host
from .._runs.hdf5 import check_contained
from ..errors import DataError, ReadError
from .frames import bare, units_in_header


def read_series(
    path: str | os.PathLike,
    index: str,
    names: tuple[str, ...],
    *,
    also: tuple[str, ...] = (),
    columns: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """Some variables of a file along its index: numbers, or dates as in `2001-06-30`.

    Args:
        path: a file `.csv`, with a column for each variable, or `.nc`.
        index: what the variables run along.
        names: those that are read.
        also: others that are read if they are there.
        columns: what a table calls some of these, by name. A table that lacks such a column may have their own names.
            Their case does not matter, and units may follow in brackets.

    Raises: ReadError if there is no such file or it cannot be read; DataError if it lacks the index or a variable.
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"there is no file {path}")
    called = {name: (columns or {}).get(name, name) for name in (index, *names, *also)}
    is_table = path.suffix.lower() == ".csv"
    try:
        data = _table(path, index, called) if is_table else _netcdf(path)
    except (OSError, ValueError, KeyError, MemoryError) as error:  # pandas has its own errors below ValueError
        if isinstance(error, DataError):
            raise
        raise ReadError(f"{path} can be read neither as CSV nor as netCDF, by its name: {error}") from error
    held = ", ".join(map(str, (*data.coords, *data.data_vars))) or "nothing"
    for name in (index, *names):
        if name not in data.variables:
            raise DataError(f"{path} has no '{name}'; it holds {held}")
    return data[[index, *names, *(name for name in also if name in data)]].sortby(index)


def _netcdf(path: Path) -> xr.Dataset:
    check_contained(path, on_host())
    return xr.load_dataset(path, engine="h5netcdf")


def _table(path: Path, index: str, called: Mapping[str, str]) -> xr.Dataset:
    """A table as a dataset; a column of dates becomes dates.

    Args:
        path: that of the table.
        index: what its rows run along.
        called: what the table calls the variables, by name.

    Raises: DataError if it lacks the index, or holds neither numbers nor dates there.
    """
    table = pd.read_csv(path)
    held = ", ".join(map(str, table))
    labels = {name: _label(table, column) or _label(table, name) for name, column in called.items()}
    chosen = {label: name for name, label in labels.items() if label is not None}
    others = [name for name in chosen.values() if name in table and name not in chosen]
    table = table.drop(columns=others).rename(columns=chosen)
    if index not in table:
        other = f" (or '{called[index]}')" if called[index] != index else ""
        raise DataError(f"{path} has no '{index}'{other}; it holds {held}")
    if not pd.api.types.is_numeric_dtype(table[index]):
        held = table[index].astype(str)
        read = pd.to_datetime(held, format="ISO8601", errors="coerce")
        for row in np.flatnonzero(read.isna().to_numpy())[:1]:
            what = f"'{held.iloc[row]}' in row {row + 1}"
            raise DataError(f"{path}: '{index}' holds neither numbers nor dates such as 2001-06-30: {what}")
        table[index] = read
    found = table.set_index(index).to_xarray()
    for label, name in chosen.items():
        if name != index and (units := units_in_header(label)):
            found[name].attrs["units"] = units
    return found


def _label(table: pd.DataFrame, name: str) -> str | None:
    """The one column of a name, whatever its case and the units in brackets after it."""
    alike = [label for label in map(str, table) if name.lower() in (label.strip().lower(), bare(label.strip()).lower())]
    return alike[0] if len(alike) == 1 else None

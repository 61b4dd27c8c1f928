"""Forcings from a file: a CSV table with a column for the index, or netCDF."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from .._jax.memory import on_host
from .._runs.hdf5 import check_contained
from ..errors import DataError, ReadError
from .columns import times
from .input_table import InputTable, bare, units_in_header


def read_series(
    path: str | os.PathLike,
    index: str,
    names: tuple[str, ...],
    *,
    also: tuple[str, ...] = (),
    columns: Mapping[str, str] | None = None,
    date_format: str | None = None,
    missing: Sequence[float | str] = (),
) -> xr.Dataset:
    """Some variables of a file along its index: numbers, or dates.

    Dates of a table are read as by `bd.from_table`: in ISO 8601, as in `2001-06-30`, or as
    `date_format` says.

    Args:
        path: a file `.csv`, with a column for each variable, or `.nc`.
        index: what the variables run along.
        names: those that are read.
        also: others that are read if they are there.
        columns: what a table calls some of these, by name. A table that lacks such a column may
            have their own names. Their case does not matter, and units may follow in brackets.
        date_format: how a table may write dates beside ISO 8601, as in `"%d.%m.%Y"`.
        missing: numbers or texts that stand for a missing value in a table.

    Raises:
        ReadError: if there is no such file or it cannot be read.
        DataError: if it lacks the index or a variable.
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"there is no file {path}")
    called = {name: (columns or {}).get(name, name) for name in (index, *names, *also)}
    is_table = path.suffix.lower() == ".csv"
    try:
        data = _table(path, index, called, date_format, missing) if is_table else _netcdf(path)
    except (
        OSError,
        ValueError,
        KeyError,
        MemoryError,
    ) as error:  # pandas has its own errors below ValueError
        if isinstance(error, DataError):
            raise
        raise ReadError(
            f"{path} can be read neither as CSV nor as netCDF, by its name: {error}"
        ) from error
    held = ", ".join(map(str, (*data.coords, *data.data_vars))) or "nothing"
    for name in (index, *names):
        if name not in data.variables:
            raise DataError(f"{path} has no '{name}'; it holds {held}")
    return data[[index, *names, *(name for name in also if name in data)]].sortby(index)


def _netcdf(path: Path) -> xr.Dataset:
    check_contained(path, on_host())
    return xr.load_dataset(path, engine="h5netcdf")


def _table(
    path: Path,
    index: str,
    called: Mapping[str, str],
    date_format: str | None,
    missing: Sequence[float | str],
) -> xr.Dataset:
    """A table as a dataset; a column of dates becomes dates.

    Args:
        path: that of the table.
        index: what its rows run along.
        called: what the table calls the variables, by name.
        date_format: as for `read_series`.
        missing: as for `read_series`.

    Raises:
        DataError: if it lacks the index, or holds neither numbers nor dates there.
    """
    try:
        frame = InputTable(path)
    except DataError as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    held = ", ".join(map(str, frame.frame))
    labels = {
        name: _label(frame.frame, column) or _label(frame.frame, name)
        for name, column in called.items()
    }
    chosen = {label: name for name, label in labels.items() if label is not None}
    if (place := labels[index]) is None:
        other = f" (or '{called[index]}')" if called[index] != index else ""
        raise DataError(f"{path} has no '{index}'{other}; it holds {held}")
    frame.blank(missing, [label for label, name in chosen.items() if name != index])
    places = _places(path, frame, place, date_format)
    others = [name for name in chosen.values() if name in frame.frame and name not in chosen]
    table = frame.frame.drop(columns=others).rename(columns=chosen).assign(**{index: places})
    found = table.set_index(index).to_xarray()
    for label, name in chosen.items():
        if name != index and (units := units_in_header(label)):
            found[name].attrs["units"] = units
    return found


def _places(path: Path, frame: InputTable, label: str, date_format: str | None) -> np.ndarray:
    """The index of each row: numbers, or dates in ISO 8601 or in the way of the table that the data
    come from.

    Raises:
        DataError: that names the file and the row.
    """
    try:
        return times(frame, label, date_format)
    except DataError as error:
        if date_format is not None:
            with contextlib.suppress(DataError):
                return times(frame, label)
        also = (
            f", or in date_format='{date_format}' as the data of the study"
            if date_format
            else "; other dates can be read if the data of the study come from bd.from_table(…, "
            "date_format=…)"
        )
        raise DataError(
            f"{path}: {error} (a file holds numbers, or dates such as 2001-06-30{also})"
        ) from error


def _label(table: pd.DataFrame, name: str) -> str | None:
    """The one column of a name, whatever its case and the units in brackets after it."""
    alike = [
        label
        for label in map(str, table)
        if name.lower() in (label.strip().lower(), bare(label.strip()).lower())
    ]
    return alike[0] if len(alike) == 1 else None

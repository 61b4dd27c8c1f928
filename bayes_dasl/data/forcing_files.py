"""Read forcings from a file: a CSV table with a column for the index, or netCDF."""

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
    """Read some variables of a file along its index.

    Args:
        path: a file `.csv`, with a column for each variable, or `.nc`.
        index: the coordinate of the variables.
        names: the variables to read.
        also: further variables, which may be absent.
        columns: the columns of a table by variable. A table may also use the name itself. Case is
            ignored, and units may follow in brackets.
        date_format: a format of dates that a table may use beside ISO 8601, as in `"%d.%m.%Y"`.
        missing: codes for a missing value in a table.

    Returns:
        The variables, sorted by the index, which holds numbers or dates.

    Raises:
        ReadError: if the file does not exist or cannot be read.
        DataError: if it lacks the index or a variable.
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"there is no file {path}")
    called = {name: (columns or {}).get(name, name) for name in (index, *names, *also)}
    is_table = path.suffix.lower() == ".csv"
    try:
        data = _table(path, index, called, date_format, missing) if is_table else _netcdf(path)
    except DataError:
        raise
    # The errors of pandas are ValueErrors.
    except (OSError, ValueError, KeyError, MemoryError) as error:
        raise ReadError(
            f"{path} can be read neither as CSV nor as netCDF, by its name: {error}"
        ) from error
    held = ", ".join(map(str, (*data.coords, *data.data_vars))) or "nothing"
    for name in (index, *names):
        if name not in data.variables:
            raise DataError(f"{path} has no '{name}'; it holds {held}")
    return data[[index, *names, *(name for name in also if name in data)]].sortby(index)


def _netcdf(path: Path) -> xr.Dataset:
    """Read a netCDF file, after a check that it does not refer to other files."""
    check_contained(path, on_host())
    return xr.load_dataset(path, engine="h5netcdf")


def _table(
    path: Path,
    index: str,
    called: Mapping[str, str],
    date_format: str | None,
    missing: Sequence[float | str],
) -> xr.Dataset:
    """Read a table as a dataset, with its index as numbers or dates.

    Args:
        path: the file.
        index: the name of the index.
        called: the column of each variable, by the name of the variable.
        date_format: as for `read_series`.
        missing: as for `read_series`.

    Raises:
        DataError: if the index is absent, or holds neither numbers nor dates.
    """
    try:
        frame = InputTable(path)
    except DataError as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    held = ", ".join(map(str, frame.frame))
    # 1. Find the column of each variable, by the given name or by its own.
    labels = {}
    for name, column in called.items():
        labels[name] = _label(frame.frame, column) or _label(frame.frame, name)
    chosen = {label: name for name, label in labels.items() if label is not None}
    if (place := labels[index]) is None:
        other = f" (or '{called[index]}')" if called[index] != index else ""
        raise DataError(f"{path} has no '{index}'{other}; it holds {held}")
    # 2. Read numbers and dates.
    frame.blank(missing, [label for label, name in chosen.items() if name != index])
    places = _places(path, frame, place, date_format)
    # 3. A column that is not wanted must not clash with the new name of a wanted one.
    others = [name for name in chosen.values() if name in frame.frame and name not in chosen]
    table = frame.frame.drop(columns=others).rename(columns=chosen).assign(**{index: places})
    found = table.set_index(index).to_xarray()
    for label, name in chosen.items():
        if name != index and (units := units_in_header(label)):
            found[name].attrs["units"] = units
    return found


def _places(path: Path, frame: InputTable, label: str, date_format: str | None) -> np.ndarray:
    """Return the index of each row, as numbers or as dates in ISO 8601 or in the given format.

    Raises:
        DataError: if a row holds neither; the message names the file and the row.
    """
    try:
        return times(frame, label, date_format)
    except DataError as error:
        if date_format is not None:
            with contextlib.suppress(DataError):
                return times(frame, label)
        also = (
            "; other dates can be read if the data of the study come from bd.from_table(…, "
            "date_format=…)"
        )
        if date_format:
            also = f", or in date_format='{date_format}' as the data of the study"
        raise DataError(
            f"{path}: {error} (a file holds numbers, or dates such as 2001-06-30{also})"
        ) from error


def _label(table: pd.DataFrame, name: str) -> str | None:
    """Return the column that matches a name, ignoring case and units.

    The result is None if no column or several columns match.
    """
    alike = [
        label
        for label in map(str, table)
        if name.lower() in (label.strip().lower(), bare(label.strip()).lower())
    ]
    if len(alike) == 1:
        return alike[0]
    return None

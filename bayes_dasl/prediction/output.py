"""Where the draws of a forecast go as they are made: into memory, or into a file."""

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr

from .._runs.files import replacing
from .._statistics.blocks import blocks
from .save_and_load import seal

type Rows = Mapping[str, Mapping[str, Any]]
"""Arrays `(draw, …)` by group and observable, to be written by rows."""

_DRAWS_OF_A_CHUNK, _DATA_OF_A_CHUNK = 64, 256
"""Written by draws, read by times: a chunk of the file has some of both, 128 KiB."""
_MARGIN = 1.02


def blank(shape: tuple[int, ...], dtype: Any = float, *, in_memory: bool) -> np.ndarray:
    """An array to be filled, or one that only says its shape and takes no memory."""
    return np.empty(shape, dtype) if in_memory else np.broadcast_to(np.zeros((), dtype), shape)


class File:
    """A netCDF file of a forecast while its draws are made.

    Args:
        path: the file.
        groups: those that are written by rows; their arrays only say shapes.
    """

    def __init__(self, path: Path, groups: Mapping[str, xr.Dataset]):
        self._path, self._groups = path, groups

    @contextlib.contextmanager
    def rows(self) -> Iterator[Rows]:
        """What takes rows of draws, all chains one after the other."""
        for name, group in self._groups.items():
            self.append(name, group.drop_vars(list(group.data_vars)))
        with h5netcdf.File(self._path, "r+") as file:
            yield {
                name: {str(v.name): _Variable(file[name], v) for v in group.data_vars.values()}
                for name, group in self._groups.items()
            }

    def append(self, name: str, group: xr.Dataset) -> None:
        """Write a whole group."""
        mode = "a" if self._path.stat().st_size else "w"
        group.to_netcdf(self._path, mode=mode, group=name, engine="h5netcdf")


@contextlib.contextmanager
def new_file(path: str | os.PathLike, groups: Mapping[str, xr.Dataset]) -> Iterator[File]:
    """A file that takes its place once all is written.

    Raises:
        WriteError: if the folder cannot be written or the disk has too little room.
    """
    with replacing(path) as temporary:
        # On a full disk HDF5 would not raise but crash Python.
        needed = _MARGIN * sum(group.nbytes for group in groups.values())
        if shutil.disk_usage(temporary.parent).free < needed:
            raise OSError(
                errno.ENOSPC, f"{needed / 2**30:.1f} GiB are needed, {os.strerror(errno.ENOSPC)}"
            )
        yield File(temporary, groups)
        seal(temporary)


class _Variable:
    """A variable `(chain, draw, …)` of a file, written by rows of all chains."""

    def __init__(self, group: Any, like: xr.DataArray):
        self._draws = like.shape[1]
        sizes = {str(dim): like.sizes[dim] for dim in like.dims[2:]}
        part = next(blocks(sizes, _DATA_OF_A_CHUNK))
        chunks = (
            1,
            min(self._draws, _DRAWS_OF_A_CHUNK),
            *(at.stop - at.start for at in part.values()),
        )
        dims = tuple(map(str, like.dims))
        fill = (
            np.nan if like.dtype.kind == "f" else None
        )  # whole numbers, such as one of trials, have none
        self._variable = group.create_variable(
            like.name, dims, like.dtype, fillvalue=fill, chunks=chunks
        )
        for name, value in like.attrs.items():
            self._variable.attrs[name] = value

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        for chain in range(rows.start // self._draws, math.ceil(rows.stop / self._draws)):
            first = chain * self._draws
            begin, end = max(rows.start, first), min(rows.stop, first + self._draws)
            some = values[begin - rows.start : end - rows.start]
            # A parameter of the noise has axes of size one where it does not change.
            self._variable[chain, begin - first : end - first] = some.reshape(
                len(some), *self._variable.shape[2:]
            )

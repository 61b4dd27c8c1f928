"""Output of a forecast while its draws are computed: to memory, or to a netCDF file."""

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
"""Arrays `(draw, …)` by group and observable, which are written by rows of draws."""

# Files are written by draws and read by times: a chunk has some of both, 128 KiB.
_DRAWS_OF_A_CHUNK, _DATA_OF_A_CHUNK = 64, 256
# The room on disk that is needed, relative to the size of the arrays.
_MARGIN = 1.02


def blank(shape: tuple[int, ...], dtype: Any = float, *, in_memory: bool) -> np.ndarray:
    """Return an array to fill, or one that only has a shape and takes no memory.

    Args:
        shape: the shape.
        dtype: the type of its elements.
        in_memory: whether the array can be filled.

    Returns:
        The array; read-only unless `in_memory` is true.
    """
    return np.empty(shape, dtype) if in_memory else np.broadcast_to(np.zeros((), dtype), shape)


class File:
    """A netCDF file of a forecast while its draws are computed.

    Args:
        path: the file.
        groups: the groups that are written by rows. Their arrays only define shapes.
    """

    def __init__(self, path: Path, groups: Mapping[str, xr.Dataset]):
        self._path, self._groups = path, groups

    @contextlib.contextmanager
    def rows(self) -> Iterator[Rows]:
        """Open the file to write rows of draws, all chains one after the other.

        Yields:
            Variables of the file, by group and observable; `variable[slice] = values` writes rows.
        """
        for name, group in self._groups.items():
            self.append(name, group.drop_vars(list(group.data_vars)))
        with h5netcdf.File(self._path, "r+") as file:
            yield {
                name: {str(v.name): _Variable(file[name], v) for v in group.data_vars.values()}
                for name, group in self._groups.items()
            }

    def append(self, name: str, group: xr.Dataset) -> None:
        """Write a whole group with its values."""
        mode = "a" if self._path.stat().st_size else "w"
        group.to_netcdf(self._path, mode=mode, group=name, engine="h5netcdf")


@contextlib.contextmanager
def new_file(path: str | os.PathLike, groups: Mapping[str, xr.Dataset]) -> Iterator[File]:
    """Open a new file, which replaces an older one only when it is complete.

    Args:
        path: the file.
        groups: the groups that are written by rows. Their arrays only define shapes.

    Yields:
        The file.

    Raises:
        WriteError: if the folder cannot be written or the disk has too little room.
    """
    with replacing(path) as temporary:
        # On a full disk HDF5 would not raise but crash Python.
        needed = _MARGIN * sum(group.nbytes for group in groups.values())
        if shutil.disk_usage(temporary.parent).free < needed:
            lacking = f"{needed / 2**30:.1f} GiB are needed, {os.strerror(errno.ENOSPC)}"
            raise OSError(errno.ENOSPC, lacking)
        yield File(temporary, groups)
        seal(temporary)


class _Variable:
    """A variable `(chain, draw, …)` of a file, written by rows of draws of all chains."""

    def __init__(self, group: Any, like: xr.DataArray):
        self._draws = like.shape[1]
        sizes = {str(dim): like.sizes[dim] for dim in like.dims[2:]}
        part = next(blocks(sizes, _DATA_OF_A_CHUNK))
        sides = (at.stop - at.start for at in part.values())
        chunks = (1, min(self._draws, _DRAWS_OF_A_CHUNK), *sides)
        dims = tuple(map(str, like.dims))
        # Integers, such as numbers of trials, cannot be NaN.
        fill = np.nan if like.dtype.kind == "f" else None
        self._variable = group.create_variable(
            like.name, dims, like.dtype, fillvalue=fill, chunks=chunks
        )
        for name, value in like.attrs.items():
            self._variable.attrs[name] = value

    def __setitem__(self, rows: slice, values: np.ndarray) -> None:
        for chain in range(rows.start // self._draws, math.ceil(rows.stop / self._draws)):
            # The part of these rows that belongs to one chain.
            first = chain * self._draws
            begin = max(rows.start, first)
            end = min(rows.stop, first + self._draws)
            some = values[begin - rows.start : end - rows.start]
            # Parameters of the noise have axes of size one along which they are constant.
            shape = len(some), *self._variable.shape[2:]
            self._variable[chain, begin - first : end - first] = some.reshape(shape)

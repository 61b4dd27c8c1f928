"""Posteriors and forecasts as netCDF files with a checksum."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import xarray as xr

from .._jax.memory import on_host
from .._runs.files import replacing
from .._runs.hdf5 import check_contained
from ..errors import MismatchError, ReadError

# Marks the checksum, which follows the end of the HDF5 file, where readers ignore it. NetCDF itself
# has no checksum of a whole file.
_SEAL = b"\nbayes_dasl sha256 "


def seal(path: Path) -> None:
    """Append the checksum of a file to it, reading it block by block."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256")
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + _printed_digest(digest))


def _printed_digest(digest: Any) -> bytes:
    """Return a checksum as the bytes that follow the mark `_SEAL`."""
    return digest.hexdigest().encode() + b"\n"


def _unsealed(written: bytes) -> bytes:
    """Return the content of a file without its checksum.

    Files of other programs have no checksum, and are returned unchanged.

    Raises:
        ValueError: if the content has changed since the checksum was written.
    """
    content, seal, digest = written.rpartition(_SEAL)
    if seal and digest != _printed_digest(hashlib.sha256(content)):
        raise ValueError("its checksum is another than when it was written")
    return content if seal else written


def to_bytes(tree: xr.DataTree) -> bytes:
    """Return a posterior or a forecast as the content of a netCDF file.

    Returns:
        The content of the file, without a checksum.
    """
    whole = io.BytesIO()
    tree.to_netcdf(whole, engine="h5netcdf")
    return whole.getvalue()


def from_bytes(content: bytes) -> xr.DataTree:
    """Read a posterior or a forecast from the content of a netCDF file.

    Returns:
        The posterior or forecast, in memory.

    Raises:
        ValueError: for a file that refers to other files or claims more memory than there is.
    """
    check_contained(io.BytesIO(content), on_host())
    with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as tree:
        return tree.load()


def save(tree: xr.DataTree, path: str | os.PathLike) -> Path:
    """Write a posterior or a forecast to netCDF: to a temporary file first, then renamed.

    Args:
        tree: the result of `fit`, `forecast` or another function.
        path: the file; an older one is replaced.

    Returns:
        The path.

    Raises:
        MismatchError: for anything but a DataTree.
        WriteError: if the file cannot be written; an older file is then unchanged.

    Example:
        ```python
        bd.save(post, folder / "posterior.nc")
        same = bd.load(folder / "posterior.nc")
        ```
    """
    if not isinstance(tree, xr.DataTree):
        raise MismatchError(
            "save takes what fit or forecast returned, an xarray.DataTree, not "
            f"{type(tree).__name__}"
        )
    path = Path(path)
    with replacing(path) as temporary:
        # Through memory, since on a full disk HDF5 would crash Python, and the draws would be lost.
        temporary.write_bytes(to_bytes(tree))
        seal(temporary)
    return path


def load(path: str | os.PathLike) -> xr.DataTree:
    """Read a posterior or a forecast into memory, and check that no bit has changed.

    The checksum is not part of netCDF. Another program that rewrites the file, as h5py does if it
    opens the file for writing, removes it. Such a file is read without a check.

    Args:
        path: a file that `save` wrote.

    Returns:
        The posterior or forecast.

    Raises:
        ReadError: if the file is missing, damaged, or not netCDF; also if it refers to another
            file, or claims more memory than there is.

    Example:
        ```python
        bd.save(fc, folder / "forecast.nc")
        assert bd.load(folder / "forecast.nc").equals(fc)
        ```
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"there is no file {path}")
    try:
        return from_bytes(_unsealed(path.read_bytes()))
    except (OSError, ValueError, KeyError, MemoryError) as error:
        raise ReadError(f"{path} is torn or not a netCDF file: {error}") from error

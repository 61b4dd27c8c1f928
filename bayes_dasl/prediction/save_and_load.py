"""Posteriors and forecasts as netCDF files with a checksum."""

import hashlib
import io
import os
from pathlib import Path

import xarray as xr

from .._jax.memory import on_host
from .._runs.files import replacing
from .._runs.hdf5 import check_contained
from ..errors import MismatchError, ReadError

# Behind the end of an HDF5 file, where those who read it do not look; netCDF has no checksum that
# holds for all of it.
_SEAL = b"\nbayes_dasl sha256 "


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def seal(path: Path) -> None:
    """Put a checksum behind the end of a file; what it holds is read block by block."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256")
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + digest.hexdigest().encode() + b"\n")


def _unsealed(written: bytes) -> bytes:
    """What was sealed; files of other programs, which have no seal, are as they are.

    Raises:
        ValueError: if it has changed since.
    """
    content, seal, digest = written.rpartition(_SEAL)
    if seal and digest != _digest(content):
        raise ValueError("its checksum is another than when it was written")
    return content if seal else written


def to_bytes(tree: xr.DataTree) -> bytes:
    """A posterior or a forecast as netCDF."""
    whole = io.BytesIO()
    tree.to_netcdf(whole, engine="h5netcdf")
    return whole.getvalue()


def from_bytes(content: bytes) -> xr.DataTree:
    """What `to_bytes` made bytes of.

    Raises:
        ValueError: for a file that reaches beyond itself or claims more memory than there is.
    """
    check_contained(io.BytesIO(content), on_host())
    with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as tree:
        return tree.load()


def save(tree: xr.DataTree, path: str | os.PathLike) -> Path:
    """Write a posterior or a forecast to netCDF: to a temporary file first, then renamed.

    Args:
        tree: what `fit`, `forecast` or another verb returned.
        path: the file; one that is there already is replaced.

    Raises:
        MismatchError: for what is no such tree.
        WriteError: if it cannot be written: a file that was there before is then untouched.

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
        # By way of memory: on a full disk HDF5 would not raise but crash Python, and the draws
        # would be lost.
        temporary.write_bytes(to_bytes(tree))
        seal(temporary)
    return path


def load(path: str | os.PathLike) -> xr.DataTree:
    """Read a posterior or a forecast into memory. A bit that has changed since `save` wrote the
    file is seen.

    The checksum is no part of netCDF: a file that another program has written anew, as h5py does
    with one that it opens to write, has none any more, and is read as it is.

    Args:
        path: a file that `save` wrote.

    Raises:
        ReadError: if the file is missing, torn, or not netCDF; also if it reaches for another file,
            or claims more memory than there is.

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

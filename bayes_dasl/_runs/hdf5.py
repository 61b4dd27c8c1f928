"""A check that HDF5 files of unknown origin read no other files and no excessive memory."""

import io
import os

import h5py


def check_contained(file: str | os.PathLike | io.BytesIO, most: int) -> None:
    """Check that all variables of an HDF5 file lie in it and fit into memory.

    HDF5 reads external storage, external links and virtual datasets from any path that the file
    names. A dataset that was never written takes no space in the file, whatever shape it claims.

    Args:
        file: the path, or the open file.
        most: the largest number of bytes that all variables together may take.

    Raises:
        ValueError: if a variable lies elsewhere or they are too large; the message names it.
        OSError: if the file is not HDF5.
    """
    claimed = 0

    # h5py stops when a visitor returns a value. An exception would leave the lock of h5py broken.
    def wrong_link(
        name: str, link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink
    ) -> str | None:
        if isinstance(link, h5py.HardLink):
            return None
        return f"'{name}' is a link to another place or file, which no file of ours has"

    def wrong_values(name: str, item: h5py.Group | h5py.Dataset) -> str | None:
        nonlocal claimed
        if not isinstance(item, h5py.Dataset):
            return None
        if item.external or item.is_virtual:
            return f"'{name}' has its values in another file, which no file of ours has"
        claimed += item.nbytes
        if claimed > most:
            return (
                f"with '{name}' it claims {claimed / 2**30:.3g} GiB of memory, of "
                f"{most / 2**30:.3g} GiB free"
            )
        return None

    with h5py.File(file, "r") as opened:
        wrong = opened.visititems_links(wrong_link) or opened.visititems(wrong_values)
    if wrong:
        raise ValueError(wrong)

"""Refuse HDF5 files that read other files, so that files of unknown origin are safe."""

import io
import os

import h5py


def check_contained(file: str | os.PathLike | io.BytesIO, most: int) -> None:
    """Refuse a file whose variables lie in other files, or claim more memory than is free.

    HDF5 reads external storage, external links and virtual datasets from any path that the file
    names. A dataset that was never written takes no space in the file, whatever shape it claims.

    Args:
        file: the path, or the open file.
        most: the bytes that all variables together may take.

    Raises:
        ValueError: if a variable lies elsewhere or is too large; the message names it.
        OSError: if it is not HDF5.
    """
    claimed = 0

    # h5py stops at the first answer of a visitor; an exception in one would leave its lock broken.
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

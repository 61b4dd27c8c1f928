"""Files are written whole or not at all, and where that fails the path is named."""

import errno
import os

import h5py
import pytest

import bayes_dasl as bd
from bayes_dasl._runs import replacing, write_text
from bayes_dasl.data.forcing_files import read_series
from bayes_dasl.errors import ReadError, WriteError


def test_replacing_takes_the_place_of_the_file_at_the_end(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    ("error", "seen"),
    [(OSError(errno.ENOSPC, "No space left on device"), WriteError), (OSError("no more"), WriteError),
     (KeyboardInterrupt(), KeyboardInterrupt), (ZeroDivisionError(), ZeroDivisionError)],
    ids=["full", "without a number", "stopped", "our fault"],
)  # fmt: skip
def test_replacing_leaves_the_older_file_where_writing_fails(tmp_path, error, seen):
    path = write_text(tmp_path / "file", "old")
    with pytest.raises(seen), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(
        WriteError, match=r"cannot write .*taken/file: .*taken is a file, not a folder"
    ):
        write_text(tmp_path / "taken" / "file", "text")
    with pytest.raises(WriteError, match="Not a directory"):
        write_text(tmp_path / "taken" / "deeper" / "file", "text")
    assert (tmp_path / "taken").read_text() == "mine"


def in_external_storage(file, secret):
    file.create_dataset("posterior/rate", (6,), "u1", external=[(str(secret), 0, 6)])


def behind_an_external_link(file, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["rate"] = [1.0]
    file["posterior/rate"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/rate")


def in_a_virtual_dataset(file, secret):
    layout = h5py.VirtualLayout((1,), "f8")
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "rate", (1,))
    file.create_virtual_dataset("posterior/rate", layout)


def larger_than_memory(file, secret):
    file.create_dataset("posterior/rate", (10**6, 10**6), "f8", chunks=True)


@pytest.mark.parametrize(
    ("made", "said"),
    [(in_external_storage, "in another file"), (behind_an_external_link, "link to another place"),
     (in_a_virtual_dataset, "in another file"), (larger_than_memory, r"claims 7\.45e\+03 GiB of "
         r"memory")],
)  # fmt: skip
def test_a_file_that_reaches_beyond_itself_is_refused(tmp_path, made, said):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    path = tmp_path / "strange.nc"
    with h5py.File(path, "w") as file:
        made(file, secret)
    with pytest.raises(ReadError, match=said):
        bd.load(path)
    with pytest.raises(ReadError, match=said):
        read_series(path, "time", ("rain",))

"""Files are written whole or not at all, and where that fails the path is named."""

import errno
import os

import pytest

from bayes_dasl._runs.files import replacing, write_text
from bayes_dasl.errors import WriteError


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
    with pytest.raises(WriteError, match=r"cannot write .*taken/file: .*taken is a file, not a folder"):
        write_text(tmp_path / "taken" / "file", "text")
    with pytest.raises(WriteError, match="Not a directory"):
        write_text(tmp_path / "taken" / "deeper" / "file", "text")
    assert (tmp_path / "taken").read_text() == "mine"

"""Files are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import WriteError

_UNFINISHED = ".partial"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it takes the place of `path` once all is written.

    Raises:
        WriteError: if the folder cannot be written or the disk is full; what was at `path` is
            untouched.
    """
    path, temporary = Path(path), None
    if path.parent.is_file():
        raise WriteError(f"cannot write {path}: {path.parent} is a file, not a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _reach_the_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"cannot write {path}: {reason}; nothing was left half-written") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def forget_unfinished(folder: Path) -> None:
    """Delete what killed processes had not written to its end; only for who is `alone_in` the
    folder.

    Raises:
        WriteError: if so.
    """
    try:
        for path in folder.glob(f".*{_UNFINISHED}"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error


def _reach_the_disk(path: Path) -> None:
    """Some file systems say only now that they are full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file, whole or not at all.

    Raises:
        WriteError: if so.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)

"""Files that are written completely or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import WriteError

_UNFINISHED = ".partial"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary file, which replaces `path` when the `with` block ends without an error.

    Args:
        path: the file to write; its folder is made if needed.

    Yields:
        The temporary file in the same folder.

    Raises:
        WriteError: if the folder cannot be written or the disk is full; an existing file at `path`
            then stays unchanged.
    """
    path = Path(path)
    temporary = None
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
        # `mkstemp` makes private files; give this one the usual permissions.
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
    """Delete the temporary files of killed processes; the caller must have locked the folder.

    Raises:
        WriteError: if a file cannot be deleted.
    """
    try:
        for path in folder.glob(f".*{_UNFINISHED}"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error


def _reach_the_disk(path: Path) -> None:
    """Flush a file to disk, since some file systems report only then that they are full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    """Return the umask of the process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file, completely or not at all.

    Args:
        path: the file; an existing one is replaced.
        text: its content.

    Returns:
        The path.

    Raises:
        WriteError: if the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)

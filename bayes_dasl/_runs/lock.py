"""One process at a time writes to a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import WriteError

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike | None) -> Iterator[None]:
    """While this block runs no other process, and no other thread, can enter one for the same
    folder.

    The system lets go of the lock when a process ends, however it ends. Blocks of one thread may
    lie in each other.

    Args:
        folder: it is made if there is none; without one there is nothing to share.

    Raises:
        WriteError: if another process is at work there, or the folder cannot be written.
    """
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    path = Path(folder).absolute()
    if path.is_file():
        raise WriteError(f"cannot write {folder}: it is a file, not a folder")
    lock = FileLock(path / LOCK, timeout=0, is_singleton=True)
    outermost = not lock.is_locked
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise WriteError(
            f"another process is at work in {folder}: wait until it has ended, or choose another "
            "folder"
        ) from None
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        if outermost:
            # Still locked, so that nobody can have taken the file that goes; who waits for it makes
            # another.
            with contextlib.suppress(OSError):
                (path / LOCK).unlink()
        lock.release()

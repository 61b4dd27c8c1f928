"""`alone_in` locks a folder, so that only one process at a time writes to it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import WriteError

LOCK = ".lock"


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike | None) -> Iterator[None]:
    """Lock a folder during a `with` block against other processes and threads.

    The operating system releases the lock when the process ends, even if it is killed. Blocks of
    one thread may be nested.

    Args:
        folder: the folder, which is made if needed; None locks nothing.

    Raises:
        WriteError: if another process holds the lock, or the folder cannot be written.
    """
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    path = Path(folder).absolute()
    if path.is_file():
        raise WriteError(f"cannot write {folder}: it is a file, not a folder")
    lock = FileLock(path / LOCK, timeout=0, is_singleton=True)
    # A singleton lock counts its nested blocks; only the outermost one deletes the file.
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
            # Delete the file while it is locked, when no other process can hold it. The next
            # process makes another file.
            with contextlib.suppress(OSError):
                (path / LOCK).unlink()
        lock.release()

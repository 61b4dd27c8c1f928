"""Signals that ask a process to end."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

# Sent by schedulers and systems that end a process, and by a terminal that is closed; Windows has
# no SIGHUP.
_ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_ONE_CLOSING = 1.0  # seconds: of a terminal that is closed both the shell and the system may tell


@contextlib.contextmanager
def heard_like_ctrl_c() -> Iterator[list[int]]:
    """In this block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; yields those that
    came, in order.

    A signal that somebody else handles, or ignores as `nohup` does, stays as it is.
    """
    came: list[int] = []
    latest = float("-inf")

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal latest
        came.append(number)
        if time.monotonic() - latest > _ONE_CLOSING:
            latest = time.monotonic()
            raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    ours = [s for s in _ASKING if in_main and signal.getsignal(s) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)

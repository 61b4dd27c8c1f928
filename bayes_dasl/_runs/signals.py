"""Signals that ask a process to end, handled like Ctrl-C."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

# Sent by schedulers and systems that end a process, and by a terminal that is closed; Windows has
# no SIGHUP.
_ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Seconds within which signals count as one: both shell and system signal a closed terminal.
_ONE_CLOSING = 1.0


@contextlib.contextmanager
def heard_like_ctrl_c() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP during a `with` block, as on Ctrl-C.

    A signal that already has another handler or is ignored, as with `nohup`, is left alone.

    Yields:
        A list of the numbers of the signals received so far, to which later signals are added.
    """
    came: list[int] = []
    latest = float("-inf")

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal latest
        came.append(number)
        if time.monotonic() - latest > _ONE_CLOSING:
            latest = time.monotonic()
            raise KeyboardInterrupt

    # Python lets only the main thread set handlers.
    in_main = threading.current_thread() is threading.main_thread()
    ours = [s for s in _ASKING if in_main and signal.getsignal(s) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)

"""Tasks for tests of many: light, so that a worker starts quickly."""

import os
import signal
import time
from pathlib import Path


def square(number: int, folder: str = "") -> dict:
    """Notes that it ran, and sleeps a little."""
    if folder:
        with (Path(folder) / f"ran {number}").open("a") as file:
            file.write("x")
    time.sleep(0.05)
    return {"square": number**2}


def killed_once(number: int, folder: str) -> dict:
    """The first who takes number 3 dies of it."""
    marker = Path(folder) / "died"
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return {"square": number**2, "cores": len(os.sched_getaffinity(0)), "process": os.getpid()}


HELD = []


def hoards_once(number: int, folder: str, size: int, rest: float) -> dict:
    """The first who takes number 1 takes so much memory, for as long as the process lives."""
    marker = Path(folder) / "hoarded"
    if number == 1 and not marker.exists():
        marker.touch()
        HELD.append(bytearray(os.urandom(1)) * size)
        time.sleep(rest)
    return {"square": number**2, "process": os.getpid()}


def fails(number: int) -> dict:
    if number == 1:
        raise ValueError("one is odd")
    return {"square": number**2, "none": float("nan")}


def odd(number: int) -> dict:
    return [{"what": Path("here")}, {"failed": 0}, {"square": number**2}][number]

"""Tasks for tests of many: light, so that a worker starts quickly."""

import os
import signal
import time
from pathlib import Path
from typing import Any


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
KEPT: dict[str, Any] = {}


def hoards(number: int) -> dict:
    """Takes 970 MB with number 1, for as long as the process lives."""
    if number == 1:
        HELD.append(bytearray(b"x") * 970_000_000)
        time.sleep(1.0)
    return {"square": number**2, "process": os.getpid()}


def compiles(number: int) -> dict:
    """A square by a compiled program, and how many such programs there were before."""
    import jax
    import jax.numpy as jnp

    if "program" not in KEPT:
        KEPT["program"] = jax.jit(jnp.square)
    before = KEPT["program"]._cache_size()
    return {
        "square": float(KEPT["program"](float(number))),
        "programs": before,
        "process": os.getpid(),
    }


def fails(number: int) -> dict:
    if number == 1:
        raise ValueError("one is odd")
    return {"square": number**2, "none": float("nan")}


def odd(number: int) -> dict:
    return [{"what": Path("here")}, {"failed": 0}, {"square": number**2}][number]


def stopped(number: int) -> dict:
    """As a fit that Ctrl-C ended: an exception and an interrupt in one."""
    from bayes_dasl.errors import Interrupted

    raise Interrupted("what was kept")


def arrays(number: int) -> dict:
    import numpy as np

    return {
        "square": np.asarray(number**2),
        "log_score": np.array([np.inf, 1.0, np.nan]),
        "least": -np.inf,
    }


def says_its_argument(number: int) -> dict:
    return {"number": number + 1}


def slowly(number: int) -> dict:
    time.sleep(0.2)
    return {"square": number**2}

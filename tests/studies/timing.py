"""Seconds that a program takes, again and again, and processes side by side."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from . import ROOT
from .pages import table


def lap_times(program: Callable[[Any], Any], given: Any, laps: int) -> list[float]:
    """The times of several runs, after one that compiles."""
    jax.block_until_ready(program(given))
    taken = []
    for _ in range(laps):
        began = time.perf_counter()
        jax.block_until_ready(program(given))
        taken.append(time.perf_counter() - began)
    return taken


def printed(job: str, *, root: Path = ROOT, **environment: str) -> str:
    """The last line that a job prints in a process of its own, in the checkout at `root`.

    Programs that are compiled stay in no cache but the one that `environment` names.
    """
    known = {
        name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
    }
    known |= {"PYTHONPATH": str(root)} | environment
    command = [sys.executable, "-W", "ignore", "-c", job]
    done = subprocess.run(
        command, cwd=root, env=known, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip().splitlines()[-1]


def by_turns(ways: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """What each way measures, one after the other, so that a change of the machine's load meets
    all.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, measure in ways.items():
            found[name].append(measure())
        print({name: round(values[-1], 2) for name, values in found.items()}, flush=True)
    return found


def medians(of: str, unit: str, found: Mapping[str, list[float]], digits: int = 1) -> str:
    """A table of the median of each way, with the lowest and the highest."""
    kinds = (statistics.median, min, max)
    lines = [
        [name, *(f"{kind(values):.{digits}f}" for kind in kinds)] for name, values in found.items()
    ]
    return table([[of, f"median, {unit}", "lowest", "highest"], *lines])

"""Seconds that a program takes, again and again."""

import time
from collections.abc import Callable
from typing import Any

import jax


def lap_times(program: Callable[[Any], Any], given: Any, laps: int) -> list[float]:
    """The times of several runs, after one that compiles."""
    jax.block_until_ready(program(given))
    taken = []
    for _ in range(laps):
        began = time.perf_counter()
        jax.block_until_ready(program(given))
        taken.append(time.perf_counter() - began)
    return taken

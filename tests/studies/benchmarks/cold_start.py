"""Seconds from a fresh process to a verdict on lynx–hare, without and with a cache of compiled programs.

Run: `uv run python -m tests.studies.benchmarks.cold_start`

Each is a process of its own, imports included: one without a cache, one that fills an empty cache, one that reads it.
Medians over the repetitions go into docs/benchmarks.md.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from .. import ROOT
from ..pages import rows, write_section

REPETITIONS = 5
JOB = """
import bayes_dasl as bd
from tests.problems import posteriordb_lynx_hare
model, data = posteriordb_lynx_hare()
print(bd.diagnose(bd.fit(model, data, progress=False)).verdict)
"""


def seconds(cache: str) -> float:
    """Wall time of the job in a process that keeps its programs in this folder, or nowhere (`off`)."""
    environment = {name: v for name, v in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", JOB], env=environment | {"BAYES_DASL_CACHE": cache}, cwd=ROOT, check=True)
    return time.perf_counter() - began


def main() -> None:
    times: dict[str, list[float]] = {"no cache": [], "empty cache": [], "warm cache": []}
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory() as folder:
            for name, cache in zip(times, ("off", folder, folder), strict=True):
                times[name].append(seconds(cache))
                print(name, times[name][-1], flush=True)
    lines = [["process", "median, s", "lowest", "highest"]]
    lines += [[n, *(f"{f(v):.1f}" for f in (statistics.median, min, max))] for n, v in times.items()]
    write_section(ROOT / "docs" / "benchmarks.md", "cold start", rows(lines))


if __name__ == "__main__":
    main()

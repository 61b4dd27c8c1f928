"""Seconds from a fresh process to a verdict on lynx–hare, without and with a cache of compiled programs.

Run: `uv run python tests/benchmarks/cold_start.py [another checkout]`

Each is a process of its own, imports included: one without a cache, one that fills an empty cache, one that reads it.
Medians over the repetitions go into docs/benchmarks.md. With another checkout, of an earlier commit say, the two take
turns; wall and processor times and the ratios of this one to the other are printed and nothing is written.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent)]

from docs_section import rows, write_section  # noqa: E402

REPETITIONS = 5
JOB = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import bayes_dasl as bd
from problems import posteriordb_lynx_hare
model, data = posteriordb_lynx_hare()
print(bd.diagnose(bd.fit(model, data, progress=False)).verdict)
"""


def seconds(cache: str, root: Path = ROOT) -> tuple[float, float]:
    """Wall and processor time of the job in a process that keeps its programs in this folder, or nowhere (`off`)."""
    environment = {name: v for name, v in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    job = JOB.format(root=str(root), tests=str(root / "tests"))
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", job], env=environment | {"BAYES_DASL_CACHE": cache}, cwd=root, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(other: Path) -> None:
    """The job of this checkout and of another one by turns."""
    kinds = ("no cache", "empty cache", "warm cache")
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
            for name in kinds:
                here, there = ("off", "off") if name == "no cache" else (ours, theirs)
                mine, yours = seconds(here), seconds(there, other)
                ratios[name].append((mine[0] / yours[0], mine[1] / yours[1]))
                said = ("{:.1f} s against {:.1f}".format(*pair) for pair in zip(mine, yours, strict=True))
                print(f"{name}: wall {{}}, processor {{}}".format(*said), flush=True)
    for name, seen in ratios.items():
        wall, processor = (statistics.median(each) for each in zip(*seen, strict=True))
        print(f"{name}: median ratio of wall times {wall:.2f}, of processor times {processor:.2f}")


def main() -> None:
    if len(sys.argv) > 1:
        return compare(Path(sys.argv[1]).resolve())
    times: dict[str, list[float]] = {"no cache": [], "empty cache": [], "warm cache": []}
    for _ in range(REPETITIONS):
        with tempfile.TemporaryDirectory() as folder:
            for name, cache in zip(times, ("off", folder, folder), strict=True):
                times[name].append(seconds(cache)[0])
                print(name, times[name][-1], flush=True)
    lines = [["process", "median, s", "lowest", "highest"]]
    lines += [[n, *(f"{f(v):.1f}" for f in (statistics.median, min, max))] for n, v in times.items()]
    write_section(ROOT / "docs" / "benchmarks.md", "cold start", rows(lines))


if __name__ == "__main__":
    main()

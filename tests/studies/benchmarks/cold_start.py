"""Seconds from a fresh process to a verdict on lynx–hare, without and with a cache of compiled
programs.

Run: `uv run python -m tests.studies.benchmarks.cold_start`

Each is a process of its own, imports included: one without a cache, one that fills an empty cache,
one that reads it. Medians over the repetitions go into docs/measurements/benchmarks.md. With `--beside FOLDER`,
a checkout of another commit, both are measured by turns and the table is printed instead.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

from .. import ROOT
from ..pages import write_section
from ..timing import by_turns, medians, printed

REPETITIONS = 5
JOB = """
import bayes_dasl as bd
from tests.problems import posteriordb_lynx_hare
model, data = posteriordb_lynx_hare()
print(bd.diagnose(bd.fit(model, data, progress=False)).verdict)
"""


def seconds(cache: str, root: Path = ROOT) -> float:
    """Wall time of the job in a process that keeps its programs in this folder,
    or nowhere (`off`).
    """
    began = time.perf_counter()
    printed(JOB, root=root, BAYES_DASL_CACHE=cache)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.cold_start", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--beside", type=Path, help="a checkout of another commit")
    asked = parser.parse_args()
    roots = {"": ROOT} | (
        {f", {asked.beside.name}": asked.beside.resolve()} if asked.beside else {}
    )
    found: dict[str, list[float]] = {}
    for _ in range(asked.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            ways = {}
            for index, (label, root) in enumerate(roots.items()):
                for name, cache in zip(
                    ("no", "empty", "warm"), ("off", *[f"{folder}/{index}"] * 2), strict=True
                ):
                    ways[f"{name} cache{label}"] = partial(seconds, cache, root)
            for name, taken in by_turns(ways, 1).items():
                found.setdefault(name, []).extend(taken)
    content = medians("process", "s", found)
    print(content)
    if not asked.beside:
        write_section(ROOT / "docs" / "measurements" / "benchmarks.md", "cold start", content)


if __name__ == "__main__":
    main()

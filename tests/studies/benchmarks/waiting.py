"""CPU seconds that a user waits: import, check, fit, forecast and report of six models.

    uv run python -m tests.studies.benchmarks.waiting                   # prints this commit's
    uv run python -m tests.studies.benchmarks.waiting --beside FOLDER   # also writes the page

Each run is a process of its own. The first one begins with an empty cache of compiled programs, and
the second one finds the first one's. With `--beside`, a checkout of another commit, both are
measured by turns, and the table goes into docs/measurements/benchmarks.md. `--main` adds the
command `bayes-dasl run lynx-hare`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from .. import ROOT
from ..pages import table, write_section
from .waiting_jobs import JOBS

REPETITIONS = 5
MAIN = "main job"
SHOWN = ("import and model", "check", "fit", "forecast", "report", "total")


def measured(name: str, root: Path, cache: str) -> dict[str, float]:
    """Run one job in the checkout at `root` with a cache folder, and return what it printed."""
    known = os.environ | {
        "PYTHONPATH": str(root),
        "BAYES_DASL_CACHE": cache,
        "PYTHONWARNINGS": "ignore",
    }
    python = [sys.executable, "-P"]
    if name == MAIN:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as folder:
            start = "from bayes_dasl.cli import app; app()"
            command = [*python, "-c", start, "run", "lynx-hare"]
            subprocess.run(command, cwd=folder, env=known, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"total": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    # The jobs are this checkout's, whatever the package.
    job = Path(__file__).with_name("waiting_jobs.py")
    done = subprocess.run(
        [*python, str(job), name], env=known, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.waiting", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=[*JOBS, MAIN], default=[*JOBS])
    parser.add_argument("--main", action="store_true", help="the README's former main job, too")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--beside", type=Path, help="a checkout of another commit")
    asked = parser.parse_args()
    roots = {"this": ROOT} | ({asked.beside.name: asked.beside.resolve()} if asked.beside else {})
    lines = [["model", "commit", *SHOWN, "lowest–highest", "second process", "programs", "R-hat"]]
    for name in [*asked.only, *([MAIN] if asked.main else [])]:
        cold = {label: [] for label in roots}
        warm = {label: [] for label in roots}
        for _ in range(asked.repetitions):
            for label, root in roots.items():
                with tempfile.TemporaryDirectory() as cache:
                    cold[label].append(measured(name, root, cache))
                    warm[label].append(measured(name, root, cache)["total"])
                print(name, label, cold[label][-1], warm[label][-1], flush=True)
        for label in roots:
            lines.append([name, label, *_cells(cold[label], warm[label])])
    content = table(lines)
    print(content)
    if asked.beside:
        write_section(ROOT / "docs" / "measurements" / "benchmarks.md", "waiting", content)


def _cells(cold: list[dict[str, float]], warm: list[float]) -> list[str]:
    """The medians of several runs as the cells of a line."""
    middle = lambda phase: statistics.median(run[phase] for run in cold)  # noqa: E731
    totals = [run["total"] for run in cold]
    seconds = [f"{middle(phase):.1f}" if phase in cold[0] else "" for phase in SHOWN]
    spread = f"{min(totals):.0f}–{max(totals):.0f}"
    counted = ["", ""]
    if "programs" in cold[0]:
        counted = [f"{middle('programs'):.0f}", f"{max(run['R-hat'] for run in cold):.3f}"]
    return [*seconds, spread, f"{statistics.median(warm):.1f}", *counted]


if __name__ == "__main__":
    main()

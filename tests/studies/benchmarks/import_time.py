"""Processor seconds of `import bayes_dasl`, beside those of what it cannot do without, by turns.

Run: `uv run python -m tests.studies.benchmarks.import_time`

Each import is a process of its own, user and system time; the first of each is not counted.
"""

import resource
import statistics
import subprocess
import sys

NEEDED, OURS = "import numpyro, diffrax, xarray", "import bayes_dasl"
REPETITIONS = 7


def seconds(code: str) -> float:
    """Processor time of a process that runs this code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    times: dict[str, list[float]] = {NEEDED: [], OURS: []}
    for repetition in range(1 + repetitions):
        for code, seen in times.items():
            took = seconds(code)
            if repetition:
                seen.append(took)
    for code, seen in times.items():
        print(f"{code}: median {statistics.median(seen):.2f} s ({min(seen):.2f}–{max(seen):.2f})")
    ratios = [ours / needed for needed, ours in zip(*times.values(), strict=True)]
    print(f"ratio: median {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")


if __name__ == "__main__":
    main()

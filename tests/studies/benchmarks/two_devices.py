"""Gradients a second of lynx–hare while NUTS draws, on one CPU device and on two, by turns.

Run: `uv run python -m tests.studies.benchmarks.two_devices`

The draws are the same to rounding; compilation and warm-up do not count. Medians go into docs/benchmarks.md.
"""

import json
import os
import statistics
import subprocess
import sys

from .. import ROOT
from ..pages import rows, write_section

REPETITIONS = 7
JOB = """
import json
import bayes_dasl as bd
from tests.problems import posteriordb_lynx_hare
model, data = posteriordb_lynx_hare()
post = bd.fit(model, data, bd.NUTS(draws=4000), progress=False)
steps = int(post["sample_stats"]["n_steps"].sum())
print(json.dumps([steps / post.attrs["draws_time_s"], steps]))
"""


def rate(devices: int) -> float:
    """Gradients a second while drawing, on so many CPU devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(
        [sys.executable, "-c", JOB], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])[0]


def main() -> None:
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPETITIONS):
        for devices, seen in rates.items():
            seen.append(rate(devices))
        print({devices: round(seen[-1]) for devices, seen in rates.items()}, flush=True)
    one, two = (statistics.median(seen) for seen in rates.values())
    lines = [["devices", "gradients a second, median", "lowest", "highest"]]
    lines += [[str(n), *(f"{f(v):.0f}" for f in (statistics.median, min, max))] for n, v in rates.items()]
    content = f"{rows(lines)}\n\nTwo devices give **{two / one:.2f} times** the gradients of one."
    write_section(ROOT / "docs" / "benchmarks.md", "two devices", content)


if __name__ == "__main__":
    main()

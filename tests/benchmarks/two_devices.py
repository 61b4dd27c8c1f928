"""Gradients a second of lynx–hare while NUTS draws, on one core and on two, by turns.

Run: `uv run python tests/benchmarks/two_devices.py`

The draws are the same; compilation and warm-up do not count. Medians go into docs/benchmarks.md.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent)]

from docs_section import rows, write_section  # noqa: E402

REPETITIONS = 7
JOB = """
import json, sys
sys.path[:0] = [{root!r}, {tests!r}]
import bayes_dasl as bd
from problems import posteriordb_lynx_hare
bd.configure(cores={cores})
model, data = posteriordb_lynx_hare()
post = bd.fit(model, data, bd.NUTS(draws=4000), progress=False)
steps = int(post["sample_stats"]["n_steps"].sum())
print(json.dumps([steps / post.attrs["draws_time_s"], steps]))
"""


def rate(cores: int) -> float:
    """Gradients a second while drawing, on so many cores."""
    job = JOB.format(root=str(ROOT), tests=str(ROOT / "tests"), cores=cores)
    done = subprocess.run([sys.executable, "-c", job], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])[0]


def main() -> None:
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPETITIONS):
        for cores, seen in rates.items():
            seen.append(rate(cores))
        print({cores: round(seen[-1]) for cores, seen in rates.items()}, flush=True)
    one, two = (statistics.median(seen) for seen in rates.values())
    lines = [["cores", "gradients a second, median", "lowest", "highest"]]
    lines += [[str(n), *(f"{f(v):.0f}" for f in (statistics.median, min, max))] for n, v in rates.items()]
    content = f"{rows(lines)}\n\nTwo cores give **{two / one:.2f} times** the gradients of one."
    write_section(ROOT / "docs" / "benchmarks.md", "two devices", content)


if __name__ == "__main__":
    main()

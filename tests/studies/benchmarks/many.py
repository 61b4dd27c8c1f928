"""Seconds of eight fits of lynx–hare over one Dask worker and over two, by turns.

Run: `uv run python -m tests.studies.benchmarks.many`

A worker has one core, but for the last way, in which the one worker has both, and its chains run
beside each other. Starting the workers and what each of them compiles count. Medians go into
docs/measurements/benchmarks.md.
"""

import json
import statistics
from functools import partial

import bayes_dasl as bd
from tests.problems import posteriordb_lynx_hare

from .. import ROOT
from ..pages import write_section
from ..timing import by_turns, medians, printed

REPETITIONS, FITS = 3, 8
WAYS = {
    "one worker, one core": (1, 1),
    "two workers, a core each": (2, 2),
    "one worker, two cores": (1, 2),
}
JOB = """
import json, os, tempfile, time
from pathlib import Path
import bayes_dasl as bd
from tests.studies.benchmarks.many import fitted
os.sched_setaffinity(0, range({cores}))
with tempfile.TemporaryDirectory() as folder:
    began = time.perf_counter()
    rows = bd.many.run_many(fitted, bd.many.combinations(seed=range({fits})), Path(folder) / "rows.jsonl", workers={workers})
    print(json.dumps([time.perf_counter() - began, len(rows)]))
"""


def fitted(seed: int) -> dict:
    """One fit."""
    model, data = posteriordb_lynx_hare()
    post = bd.fit(model, data, bd.NUTS(draws=4000), key=seed, progress=False)
    return {"gradients": int(post["sample_stats"]["n_steps"].sum())}


def seconds(workers: int, cores: int) -> float:
    """Of all fits, over so many workers that share so many cores."""
    taken, rows = json.loads(printed(JOB.format(workers=workers, cores=cores, fits=FITS)))
    assert rows == FITS
    return taken


def main() -> None:
    found = by_turns(
        {way: partial(seconds, *numbers) for way, numbers in WAYS.items()}, REPETITIONS
    )
    one, two, both = (statistics.median(seen) for seen in found.values())
    lines = medians("workers", "s", found)
    said = (
        f"Two workers are **{one / two:.2f} times** as fast as one of one core, {both / two:.2f} "
        "times as one of two."
    )
    write_section(ROOT / "docs" / "measurements" / "benchmarks.md", "many", f"{lines}\n\n{said}")


if __name__ == "__main__":
    main()

"""Gradients a second of lynx–hare while NUTS draws, on one core and on two, by turns.

Run: `uv run python -m tests.studies.benchmarks.two_devices`

The draws are the same; compilation and warm-up do not count. Medians go into docs/measurements/benchmarks.md.
"""

import json
import statistics
from functools import partial

from .. import ROOT
from ..pages import write_section
from ..timing import by_turns, medians, printed

REPETITIONS = 7
JOB = """
import json
import bayes_dasl as bd
from tests.problems import posteriordb_lynx_hare
bd.configure(cores={cores})
model, data = posteriordb_lynx_hare()
post = bd.fit(model, data, bd.NUTS(draws=4000), progress=False)
steps = int(post["sample_stats"]["n_steps"].sum())
print(json.dumps([steps / post.attrs["draws_time_s"], steps]))
"""


def rate(cores: int) -> float:
    """Gradients a second while drawing, on so many cores."""
    return json.loads(printed(JOB.replace("{cores}", str(cores))))[0]


def main() -> None:
    rates = by_turns({str(cores): partial(rate, cores) for cores in (1, 2)}, REPETITIONS)
    one, two = (statistics.median(seen) for seen in rates.values())
    lines = medians("cores", "gradients a second", rates, digits=0)
    content = f"{lines}\n\nTwo cores give **{two / one:.2f} times** the gradients of one."
    write_section(ROOT / "docs" / "measurements" / "benchmarks.md", "two devices", content)


if __name__ == "__main__":
    main()

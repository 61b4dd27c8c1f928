"""Does each layer, mechanism and architecture recover a known truth, as often as its intervals say?

Run: `uv run python -m tests.studies.recovery.coverage`; 50 data sets of every case, each in turn.
What is done is kept, and `--table` prints it.
"""

import argparse
from functools import cache
from pathlib import Path

import jax
import numpy as np

from ..pages import table
from ..rows import age, held, keep, lacking, latest
from .case import REPLICATES, code, fit
from .cases import CASES

RESULTS = Path(__file__).with_suffix(".jsonl")
TASK = ("case", "replicate")
BY_NAME = {case.name: case for case in CASES}


@cache
def code_of(name: str) -> str:
    return code(BY_NAME[name])


def tables() -> str:
    rows = [row for row in latest(held(RESULTS), TASK) if row["case"] in BY_NAME]
    shares = ("covered by 90 % intervals", "lowest of a parameter")
    lines: list[list] = [["kind", "case", "parameters", "replicates", *shares, "R-hat ≥ 1.02"]]
    for case in CASES:
        of = [row for row in rows if row["case"] == case.name]
        if of:
            each = {path: np.mean([row["covered"][path] for row in of]) for path in case.judged}
            worst = min(each, key=lambda path: each[path])
            late = sum(row["rhat"] >= 1.02 for row in of)
            lowest = f"{each[worst]:.0%} ({worst.rsplit('.', 1)[-1]})"
            lines.append(
                [
                    case.kind,
                    case.name,
                    len(each),
                    len(of),
                    f"{np.mean([*each.values()]):.0%}",
                    lowest,
                    late,
                ]
            )
    return f"{table(lines)}\n\n{age(rows, TASK[:1], code_of)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--table", action="store_true", help="print what is held, and fit nothing")
    parser.add_argument("--part", default="0/1", help="the k-th of n shares of the cases, as k/n")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    chosen = [case for i, case in enumerate(CASES) if asked.only in case.name and i % parts == part]
    for case in [] if asked.table else chosen:
        tasks = [(case.name, replicate) for replicate in range(asked.replicates)]
        for name, replicate in lacking(held(RESULTS), TASK, tasks, lambda name, _: code_of(name)):
            print(keep(RESULTS, fit(case, replicate), code_of(name)), flush=True)
        jax.clear_caches()  # compiled programs of a case are of no use to the next, and large
    print(tables())


if __name__ == "__main__":
    main()

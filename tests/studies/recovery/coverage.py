"""Does each layer, mechanism and architecture recover a known truth, as often as its intervals say?

Run: `uv run python -m tests.studies.recovery.coverage`; 50 data sets of every case, each in turn. What is done is
kept, and `--table` prints it.
"""

import argparse
import collections
from pathlib import Path

import jax
import numpy as np

from ..rows import held, keep
from .case import REPLICATES, fit
from .cases import CASES

RESULTS = Path(__file__).with_suffix(".jsonl")


def table(cases) -> str:
    by_case = collections.defaultdict(list)
    for row in held(RESULTS):
        by_case[row["case"]].append(row)
    lines = [
        "| kind | case | parameters | replicates | covered by 90 % intervals | lowest of a parameter | R-hat ≥ 1.02 |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        rows = by_case[case.name]
        if not rows:
            continue
        each = {path: np.mean([row["covered"][path] for row in rows]) for path in case.judged}
        worst = min(each, key=lambda path: each[path])
        late = sum(row["rhat"] >= 1.02 for row in rows)
        lines.append(
            f"| {case.kind} | {case.name} | {len(each)} | {len(rows)} | {np.mean([*each.values()]):.0%} | "
            f"{each[worst]:.0%} ({worst.rsplit('.', 1)[-1]}) | {late} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--table", action="store_true", help="print what is held, and fit nothing")
    parser.add_argument("--part", default="0/1", help="the k-th of n shares of the cases, as k/n")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    chosen = [case for i, case in enumerate(CASES) if asked.only in case.name and i % parts == part]
    done = {(row["case"], row["replicate"]) for row in held(RESULTS)}
    for case in [] if asked.table else chosen:
        for replicate in range(asked.replicates):
            if (case.name, replicate) in done:
                continue
            keep(RESULTS, fit(case, replicate))
        jax.clear_caches()  # compiled programs of a case are of no use to the next, and large
    print(table(CASES))


if __name__ == "__main__":
    main()

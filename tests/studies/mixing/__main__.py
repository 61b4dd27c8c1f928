"""Fits every problem to its data sets and tables what came of it; goes on where it was stopped.

Run: `python -m tests.studies.mixing [--only NAME ...] [--data-sets N]`; `--table` writes what is
held into docs/measurements/benchmarks.md, `--quick` makes two short chains, prints the row and keeps nothing.

Each fit is that of `bd.NUTS()` with its defaults, in a process of its own, and is stopped after
`--limit` seconds. The data sets of a problem share compiled programs; seconds are told of those
that found none, so that they hold all compilation, unless something else ran beside them: with
`--fresh` no fit finds any. A probe is a value of an unknown function, near the data or up to a
tenth of their range beyond, or a scientific number. It is good if its R-hat is below 1.01 and its
bulk ESS at least 400.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .. import ROOT
from ..pages import table, write_section
from ..rows import Row, age, held, keep, lacking, latest
from .measure import QUICK, code, fit
from .problems import PROBLEMS

NAME = "tests.studies.mixing"
RESULTS = Path(__file__).with_name("mixing.jsonl")
PAGE = ROOT / "docs" / "measurements" / "benchmarks.md"
TASK = ("problem", "seed")
WANTED = 0.95
_ALONE = 2.5  # load of the machine, of five minutes, above which something else ran beside a fit


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=NAME, description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[*PROBLEMS], choices=[*PROBLEMS], metavar="NAME"
    )
    parser.add_argument("--data-sets", type=int, default=20, help="seeds 0, 1, …")
    parser.add_argument("--seeds", type=int, nargs="+", help="these data sets instead")
    parser.add_argument(
        "--limit", type=float, default=1800.0, help="seconds after which a fit is stopped"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="every fit without programs of an earlier one"
    )
    parser.add_argument("--quick", action="store_true", help="two short chains, not kept")
    parser.add_argument("--table", action="store_true", help="fit nothing, write the table")
    parser.add_argument(
        "--here", action="store_true", help="one fit in this process, its row on standard output"
    )
    asked = parser.parse_args()
    asked.seeds = asked.seeds or list(range(1 if asked.quick else asked.data_sets))
    return asked


def code_of(problem: str, seed: int) -> str:
    return code(problem)


def apart(problem: str, seed: int, limit: float, quick: bool, programs: str = "off") -> Row:
    """The row of a fit in a process of its own, with compiled programs in a folder, if any."""
    command = [sys.executable, "-m", NAME, "--here", "--only", problem, "--seeds", str(seed)]
    environment = os.environ | {"BAYES_DASL_CACHE": programs}
    fresh = programs == "off" or not any(Path(programs).iterdir())
    try:
        done = subprocess.run(
            command + ["--quick"] * quick,
            cwd=ROOT,
            env=environment,
            timeout=limit,
            stdout=subprocess.PIPE,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return {
            "problem": problem,
            "seed": seed,
            "failed": f"stopped after {limit:.0f} s",
            "seconds": round(limit),
        }
    if done.returncode:
        return {"problem": problem, "seed": seed, "failed": f"ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1]) | {"fresh": fresh}


HEADER = (
    *("problem", "data sets", "with ≥ 95 % of probes good", "good probes, median (lowest)"),
    *(
        "highest R-hat, median (worst)",
        "lowest ESS, median (worst)",
        "leapfrogs a draw",
        "divergences, most",
    ),
    *(
        "seconds, median (most)",
        "near the data: in 90 %",
        "in 95 %",
        "a tenth beyond: in 90 %",
        "in 95 %",
    ),
    *("verdicts good", "else"),
)


def tables() -> str:
    rows = [row for row in latest(held(RESULTS), TASK) if row["problem"] in PROBLEMS]
    lines: list[tuple] = [HEADER]
    for name in PROBLEMS:
        of = [row for row in rows if row["problem"] == name]
        if of:
            lines.append(_line(name, of))
    return f"{table(lines)}\n\n{_over_all(rows)}\n\n{age(rows, TASK, code_of)}"


def _over_all(rows: list[Row]) -> str:
    """How many fits mix, and how often intervals hold the truth over all problems."""
    done = [row for row in rows if "failed" not in row]
    passed, known = (
        sum(row["good"] >= WANTED for row in done),
        [row for row in done if "near_90" in row],
    )
    near, far = (
        " and ".join(_share(known, f"{where}_{level}") for level in (90, 95))
        for where in ("near", "beyond")
    )
    return (
        f"{passed} of {len(rows)} fits have 95 % of their probes good. Of {len(known)} simulated "
        "data sets intervals "
        f"of 90 and 95 % hold the true function at {near} of the places near the data, and at "
        f"{far} a tenth beyond."
    )


def _line(name: str, rows: list[Row]) -> tuple:
    done = [row for row in rows if "failed" not in row]
    passed = sum(row["good"] >= WANTED for row in done)
    if not done:
        return (f"`{name}`", len(rows), 0, *["–"] * (len(HEADER) - 4), rows[0]["failed"])
    ess = [row["ess"][0] for row in done]
    alone = [row for row in rows if row.get("fresh", True) and row.get("load", np.inf) < _ALONE]
    seconds = [row["seconds"] for row in alone if "seconds" in row]
    return (
        *(f"`{name}`", len(rows), passed),
        f"{np.median([row['good'] for row in done]):.1%} ({min(row['good'] for row in done):.1%})",
        f"{np.median([row['rhat'] for row in done]):.3f} ({max(row['rhat'] for row in done):.3f})",
        f"{np.median(ess):.0f} ({min(ess)})",
        f"{np.median([row['leapfrogs'] for row in done]):.0f}",
        max(row["divergences"] for row in done),
        f"{np.median(seconds):.0f} ({max(seconds)})" if seconds else "–",
        *(_share(done, f"{where}_{level}") for where in ("near", "beyond") for level in (90, 95)),
        sum(row["verdict"] == "good" for row in done),
        _reasons(rows),
    )


def _share(rows: list[Row], name: str) -> str:
    """Over all places, with the standard error over data sets:
    the places of one go wrong together.
    """
    known = [row[name] for row in rows if name in row]
    if not known:
        return "–"
    error = f" ± {100 * np.std(known, ddof=1) / np.sqrt(len(known)):.1f}" if len(known) > 1 else ""
    return f"{100 * np.mean(known):.1f}{error} %"


def _reasons(rows: list[Row]) -> str:
    """What fits were not good for, the most frequent first."""
    said = [row["failed"] for row in rows if "failed" in row]
    said += [finding.partition(":")[0] for row in rows for finding in row.get("findings", ())]
    counts = {what: said.count(what) for what in said}
    return "; ".join(
        f"{what} ({counts[what]})" for what in sorted(counts, key=lambda what: -counts[what])
    )


def main() -> None:
    asked = arguments()
    if asked.here:
        import bayes_dasl as bd

        for problem in asked.only:
            for seed in asked.seeds:
                print(json.dumps(fit(problem, seed, QUICK if asked.quick else bd.NUTS())))
        return
    if asked.table:
        print(tables())
        write_section(PAGE, "mixing", tables())
        return
    if asked.quick:
        for problem in asked.only:
            for seed in asked.seeds:
                print(apart(problem, seed, asked.limit, quick=True), flush=True)
        return
    for problem in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            programs = "off" if asked.fresh else folder
            for task in lacking(
                held(RESULTS), TASK, [(problem, seed) for seed in asked.seeds], code_of
            ):
                print(
                    keep(RESULTS, apart(*task, asked.limit, False, programs), code_of(*task)),
                    flush=True,
                )
    print(tables())


if __name__ == "__main__":
    main()

"""Fits each system with a right and a wrong science, forecasts beyond its training data, and tables
how good that was.

Run: `python -m tests.studies.new_systems [--only NAME ...] [--seeds N ...]`; it goes on where it
was stopped. `--table` writes the rows that are there into docs/measurements/robustness.md.
"""

import argparse

import numpy as np

from .. import ROOT
from ..pages import table, write_section
from ..rows import Row, age, held, keep, lacking, latest
from .measure import RESULTS, SYSTEMS, code, measured

PAGE = ROOT / "docs" / "measurements" / "robustness.md"
TASK = ("system", "science", "seed")
SEEDS = (0, 1, 2)
_ALLOWED, _WANTED, _COVERED = 1.03, 0.8, 0.8
_FAILS = (
    0.8,
    1.5,
)  # coverage of 90 % intervals below, or CRPS in that of the true model above, which a science fails


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.studies.new_systems", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--only", nargs="+", default=[*SYSTEMS], choices=[*SYSTEMS], metavar="NAME")
    parser.add_argument(
        "--sciences", nargs="+", default=["wrong", "right"], choices=["wrong", "right"]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    parser.add_argument("--table", action="store_true", help="fit nothing, write the table")
    return parser.parse_args()


def code_of(system: str, science: str, seed: int) -> str:
    return code(system, science)


def ratio(row: Row, member: str, other: str) -> float:
    """The CRPS of a member in that of another, the geometric mean over observables."""
    ours, theirs = (row["members"][name]["crps"] for name in (member, other))
    return float(np.exp(np.mean([np.log(ours[name] / theirs[name]) for name in theirs])))


def fails(rows: list[Row]) -> bool:
    """Whether a science visibly fails: its intervals hold too little, or the true model is much
    better.
    """
    covered, worse = _FAILS
    return _cover(rows, "science") < covered or _mean(rows, "science", "truth") > worse


def _mean(rows: list[Row], member: str, other: str) -> float:
    return float(np.exp(np.mean([np.log(ratio(row, member, other)) for row in rows])))


def _cover(rows: list[Row], member: str) -> float:
    return float(np.mean([row["members"][member]["cover_90"] for row in rows]))


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    groups = {
        (science, name): mine
        for science in ("wrong", "right") for name in SYSTEMS
        if (mine := [row for row in rows if (row["science"], row["system"]) == (science, name)])
    }  # fmt: skip
    lines: list[tuple] = [
        ("science", "system", "data sets", "science / true model", "hybrid / science", "mixture / "
            "science",
         "90 % intervals of science, hybrid, mixture hold", "outside the training range said")
    ]  # fmt: skip
    for (science, name), mine in groups.items():
        covers = ", ".join(
            f"{_cover(mine, member):.0%}" for member in ("science", "hybrid", "mixture")
        )
        said = sum(
            any("extrapolation" in f for f in row["verdict"]["without_test"]["findings"])
            for row in mine
        )
        each = (("science", "truth"), ("hybrid", "science"), ("mixture", "science"))
        lines.append(
            (
                science,
                f"`{name}`",
                len(mine),
                *(f"{_mean(mine, *pair):.2f}" for pair in each),
                covers,
                said,
            )
        )
    right = [
        _mean(mine, "mixture", "science")
        for (science, _), mine in groups.items()
        if science == "right"
    ]
    failing = {
        name: mine for (science, name), mine in groups.items() if science == "wrong" and fails(mine)
    }
    gained = [
        name for name, mine in failing.items() if _mean(mine, "mixture", "science") <= _WANTED
    ]
    covered = [name for name, mine in failing.items() if _cover(mine, "mixture") >= _COVERED]
    said = (
        "Where the science is right, the mixture's CRPS is at most "
        f"{max(right, default=np.nan):.2f} times that of the "
        f"science (wanted: {_ALLOWED}). The wrong science visibly fails in {len(failing)} systems: "
        "its intervals hold "
        "less than 80 %, or its CRPS is more than 1.5 times that of the true model. There the "
        "mixture's CRPS is at "
        f"most 0.8 times that of the science in {len(gained)}, and its 90 % intervals hold at "
        "least 80 % in "
        f"{len(covered)}."
    )
    return f"{table(lines)}\n\n{said}\n{age(rows, TASK, code_of)}"


def main() -> None:
    asked = arguments()
    tasks = [
        (name, science, seed)
        for seed in asked.seeds
        for science in asked.sciences
        for name in asked.only
    ]
    if not asked.table:
        for task in [*lacking(held(RESULTS), TASK, tasks, code_of)]:
            keep(RESULTS, measured(*task), code_of(*task))
            print(*task, flush=True)
    write_section(PAGE, "new systems", tables())


if __name__ == "__main__":
    main()

"""Forecasts each series in each way and tables how good that was; goes on where it was stopped.

Run: `python -m tests.studies.forecasting [--only NAME ...] [--methods NAME ...] [--seeds N ...]`;
`--table` writes what is held into docs/measurements/benchmarks.md.

Each task runs in a process of its own and is stopped after `--limit` seconds. A CRPS is told as its
share of that of the science, the geometric mean over observables.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from .. import ROOT
from ..pages import table, write_section
from ..rows import Row, age, held, keep, lacking, latest
from .attainable import WITHIN, expected
from .measure import METHODS, OURS, SERIES, code, measured
from .series import REAL, RIGHT, WRONG

NAME = "tests.studies.forecasting"
RESULTS = Path(__file__).with_name("forecasting.jsonl")
PAGE = ROOT / "docs" / "measurements" / "benchmarks.md"
TASK = ("series", "seed", "method")
SEEDS = (0, 1, 2)
_ALLOWED, _WANTED = 1.03, 0.8


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=NAME, description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", default=[*SERIES], choices=[*SERIES], metavar="NAME")
    parser.add_argument(
        "--methods", nargs="+", default=[*METHODS], choices=[*METHODS], metavar="NAME"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    parser.add_argument(
        "--limit", type=float, default=3600.0, help="seconds after which a task is stopped"
    )
    parser.add_argument("--table", action="store_true", help="forecast nothing, write the table")
    parser.add_argument(
        "--here", action="store_true", help="one task in this process, its row on standard output"
    )
    return parser.parse_args()


def code_of(name: str, seed: int, method: str) -> str:
    return code(name, method)


def apart(name: str, seed: int, method: str, limit: float) -> Row:
    """The row of a task in a process of its own."""
    command = [
        sys.executable,
        "-m",
        NAME,
        "--here",
        "--only",
        name,
        "--seeds",
        str(seed),
        "--methods",
        method,
    ]
    found = dict(zip(TASK, (name, seed, method), strict=True))
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=limit, stdout=subprocess.PIPE, text=True)
    except subprocess.TimeoutExpired:
        return found | {"failed": f"stopped after {limit:.0f} s"}
    if done.returncode:
        return found | {"failed": f"ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def seeds_of(name: str, asked: list[int]) -> list[int]:
    """Lynx and hare, and the boarding school, there is one of."""
    return [seed for seed in asked if seed == 0 or name not in ("lynx_and_hare", "influenza")]


def ratio(crps: dict[str, float], science: dict[str, float]) -> float:
    """The CRPS in that of the science, the geometric mean over observables."""
    return float(np.exp(np.mean([np.log(crps[name] / science[name]) for name in science])))


def tables() -> str:
    rows = [row for row in latest(held(RESULTS), TASK) if row["series"] in SERIES]
    ours = {(r["series"], r["seed"]): r for r in rows if r["method"] == OURS and "failed" not in r}
    others = [method for method in METHODS if method != OURS]
    header = (
        *(
            "series",
            "data sets",
            "CRPS of the science (90 % covers)",
            "weights: science, hybrid, noisy",
        ),
        *("**mixture**", "hybrid", "noisy", *(f"`{method}`" for method in others)),
    )
    text, lines = [], [header]
    for title, of in (("right", RIGHT), ("wrong", WRONG)):
        passed, covers, attained = [], [], []
        for name in of:
            mine = [row for (series, _), row in ours.items() if series == name]
            if not mine:
                continue
            lines.append(_line(name, mine, rows, others))
            passed.append(_mean([_ratio(row, "mixture") for row in mine]))
            covers.append(np.mean([row["members"]["mixture"]["cover_90"] for row in mine]))
            own = [row["members"]["mixture"].get("cover_90_by_itself") for row in mine]
            attained.append(expected(own) if all(own) else np.nan)
        if passed:
            text.append(_said(title, np.asarray(passed), np.asarray(covers), np.asarray(attained)))
    failed = [
        f"{r['series']} {r['seed']} {r['method']}: {r['failed']}" for r in rows if "failed" in r
    ]
    notes = [
        *text,
        *(["Not there: " + "; ".join(failed) + "."] if failed else []),
        age(rows, TASK, code_of),
    ]
    return f"{table(lines)}\n\n" + "\n".join(notes)


def _ratio(row: Row, member: str) -> float:
    return ratio(row["members"][member]["crps"], row["members"]["science"]["crps"])


def _line(name: str, mine: list[Row], rows: list[Row], others: list[str]) -> tuple:
    def cell(ratios: list[float], covers: list[float]) -> str:
        return f"{_mean(ratios):.2f} ({np.mean(covers):.0%})" if ratios else "–"

    def of_member(member: str) -> str:
        return cell(
            [_ratio(row, member) for row in mine],
            [row["members"][member]["cover_90"] for row in mine],
        )

    def of_other(method: str) -> str:
        science = {row["seed"]: row["members"]["science"]["crps"] for row in mine}
        found = [
            row["members"]["it"] | {"seed": row["seed"]} for row in rows
            if (row["series"], row["method"]) == (name, method) and "failed" not in row and row["seed"] in science
        ]  # fmt: skip
        return cell(
            [ratio(f["crps"], science[f["seed"]]) for f in found], [f["cover_90"] for f in found]
        )

    weights = np.mean(
        [[row["weights"][member] for member in ("science", "hybrid", "noisy")] for row in mine],
        axis=0,
    )
    own = [np.exp(np.mean(np.log([*row["members"]["science"]["crps"].values()]))) for row in mine]
    cover = np.mean([row["members"]["science"]["cover_90"] for row in mine])
    return (
        f"{'right' if name in RIGHT else 'wrong'}: `{name}`{', real' if name in REAL else ''}", len(mine),
        f"{_mean(own):.3g} ({cover:.0%})", ", ".join(f"{w:.2f}" for w in weights), f"**{of_member('mixture')}**",
        of_member("hybrid"), of_member("noisy"), *map(of_other, others),
    )  # fmt: skip


def _mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _said(title: str, ratios: np.ndarray, covers: np.ndarray, attained: np.ndarray) -> str:
    good, what = (
        (ratios <= _ALLOWED, "at most 1.03")
        if title == "right"
        else (ratios <= _WANTED, "at most 0.8")
    )
    held_by = (covers >= WITHIN[0]) & (covers <= WITHIN[1])
    known = np.isfinite(attained)
    of = "" if known.all() else f" of the {known.sum()} of which that is known"
    at_best = (
        f"; were forecasts just what they say, it would be so in {attained[known].sum():.1f}{of}"
    )
    return (
        f"Where the science is {title}, the CRPS of the mixture is {what} of that of the science "
        f"in {good.sum()} of "
        f"{good.size} series (geometric mean {_mean(list(ratios)):.2f}, most {ratios.max():.2f}), "
        "and its 90 % "
        f"intervals hold 85 to 95 % in {held_by.sum()}{at_best if known.any() else ''}."
    )


def main() -> None:
    asked = arguments()
    tasks = [
        (name, seed, method)
        for seed in asked.seeds for name in asked.only for method in asked.methods if seed in seeds_of(name, [seed])
    ]  # fmt: skip
    if asked.here:
        for task in tasks:
            print(json.dumps(measured(*task)))
        return
    if not asked.table:
        for task in lacking(held(RESULTS), TASK, tasks, code_of):
            print(keep(RESULTS, apart(*task, asked.limit), code_of(*task)), flush=True)
    print(tables())
    if asked.table:
        write_section(PAGE, "forecasting", tables())


if __name__ == "__main__":
    main()

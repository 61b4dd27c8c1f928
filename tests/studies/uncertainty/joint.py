"""Whether rates of their own, adapted to each group's convergence, save steps of a descent.

Run: `uv run python -m tests.studies.uncertainty.joint`; what is done is kept, `--table` prints it.

Three hybrids, several data sets each. The loss to be reached is the lowest that any way finds, plus
a nat; for ways in the weights themselves also the lowest of these, plus a nat, to tell what rates
save from what coordinates do. One shared rate is tried at several values, of which the best for
each hybrid counts. Scientific parameters are set beside those of NUTS in the rows of `mixing.py`
and `compare.py`.
"""

import time
from pathlib import Path

import numpy as np

import bayes_dasl as bd

from ..pages import table
from ..rows import age, go_on, held, latest
from .compare import everything
from .problems import PROBLEMS, code

RESULTS = Path(__file__).with_suffix(".jsonl")
SEEDS, STEPS, STARTS = (
    range(11, 14),
    2000,
    4,
)  # of those of which there is NUTS; on 10 rates were tried
NEAR = 1.0  # nats
EVERY = 10
SEPARATE, RATES = "separate, adapted", (0.003, 0.01, 0.03, 0.1, 0.3)
SHARED = {
    f"one rate of {r}": {"adaptive": False, "science_rate": r, "network_rate": r} for r in RATES
}
WAYS = {(way, "auto"): settings for way, settings in ({SEPARATE: {}} | SHARED).items()}
WAYS |= {(way, "plain"): WAYS[way, "auto"] for way in (SEPARATE, *list(SHARED)[:3])}


TASK = ("problem", "seed", "way", "coordinates")


def code_of(name: str, seed: int, way: str, coordinates: str) -> str:
    return code(name, bd.Joint())


def run(name: str, seed: int, way: str, coordinates: str) -> dict:
    problem = PROBLEMS[name](seed)
    began = time.perf_counter()
    engine = bd.Joint(
        STEPS,
        STARTS,
        **WAYS[way, coordinates],
        descent=bd.Descent(patience=STEPS, reparametrisation=coordinates.replace("plain", "none")),
    )
    post = bd.fit(problem.model, problem.data, engine, key=seed, progress=False)
    lowest = np.minimum.accumulate(np.nan_to_num(post["training"]["loss"].values[0], nan=np.inf))
    science = {n: float(v.values.squeeze()) for n, v in bd.plots.science_parameters(post).items()}
    return {
        "problem": name,
        "seed": seed,
        "way": way,
        "coordinates": coordinates,
        "seconds": round(time.perf_counter() - began),
        "lowest": [round(float(v), 3) for v in lowest[EVERY - 1 :: EVERY]],
        "science": science,
    }


def steps_to(goal: float, row: dict) -> float:
    reached = np.flatnonzero(np.asarray(row["lowest"]) <= goal)
    return float(EVERY * (reached[0] + 1)) if reached.size else np.inf


def steps_table(rows: list[dict]) -> str:
    """Medians over data sets, to a loss that some way reaches, or some way in the weights."""
    every = (SEPARATE, *SHARED)
    lines: list[tuple] = [
        ("hybrid", "moves in", "to", "data sets", "lowest loss", *every, "best shared ÷ separate"),
    ]
    for name in PROBLEMS:
        of_seeds = [
            {
                (r["way"], r["coordinates"]): r
                for r in rows
                if (r["problem"], r["seed"]) == (name, seed)
            }
            for seed in SEEDS
        ]
        whole = [found for found in of_seeds if found.keys() == WAYS.keys()]
        if not whole:
            continue
        for coordinates, within in (("auto", "auto"), ("plain", "auto"), ("plain", "plain")):
            among = WAYS if within == "auto" else [way for way in WAYS if way[1] == within]
            goals = [NEAR + min(found[way]["lowest"][-1] for way in among) for found in whole]
            each = list(zip(goals, whole, strict=True))
            of = {
                way: np.median([steps_to(goal, found[way, coordinates]) for goal, found in each])
                for way in every
                if (way, coordinates) in WAYS
            }
            said = [
                (f"{of[w]:.0f}" if np.isfinite(of[w]) else f"> {STEPS}") if w in of else "–"
                for w in every
            ]
            shared, separate = (
                min(steps for way, steps in of.items() if way != SEPARATE),
                of[SEPARATE],
            )
            more = "> " if np.isinf(shared) else ""
            ratio = f"{more}{min(shared, STEPS) / separate:.1f}" if np.isfinite(separate) else "–"
            words = {"auto": "conditional coordinates", "plain": "weights"}
            goal = {"auto": "the lowest", "plain": "the lowest there"}[within]
            lowest = f"{np.median(goals) - NEAR:.1f}"
            lines.append((name, words[coordinates], goal, len(whole), lowest, *said, ratio))
    return table(lines)


def science_table(rows: list[dict]) -> str:
    """How far parameters end from the mean of NUTS, in its standard deviations."""
    lines: list[tuple] = [
        (
            "hybrid",
            "parameter",
            "data sets",
            "away from the mean of NUTS, in its sd, median",
            "most",
        )
    ]
    nuts = {
        (r["problem"], r["seed"]): r["science"]
        for r in everything()
        if r["engine"] == "NUTS" and "science" in r
    }
    for name in PROBLEMS:
        away: dict[str, list[float]] = {}
        for row in rows:
            known = nuts.get((row["problem"], row["seed"])) if row["problem"] == name else None
            if known and (row["way"], row["coordinates"]) == (SEPARATE, "auto"):
                for parameter, value in row["science"].items():
                    mean, sd = known[parameter]
                    away.setdefault(parameter, []).append(abs(value - mean) / sd)
        for parameter, found in away.items():
            lines.append(
                (name, parameter, len(found), f"{np.median(found):.1f}", f"{max(found):.1f}")
            )
    return table(lines)


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    return f"{steps_table(rows)}\n\n{science_table(rows)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    every = lambda seed: [(name, seed, *way) for name in PROBLEMS for way in WAYS]  # noqa: E731
    go_on(__doc__, RESULTS, SEEDS, TASK, every, run, code_of, tables)

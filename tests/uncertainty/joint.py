"""Whether rates of their own, adapted to each group's convergence, save steps of a descent.

Run: `uv run python tests/uncertainty/joint.py`; what is done is kept, `--table` prints it.

Three hybrids, several data sets each. The loss to be reached is the lowest that any way finds, plus a nat. One shared
rate is tried at several values, of which the best for each hybrid counts.
"""

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]

import numpy as np  # noqa: E402
from recovery.rows import go_on, held  # noqa: E402

import bayes_dasl as bd  # noqa: E402
from uncertainty.problems import PROBLEMS  # noqa: E402

RESULTS = Path(__file__).parent / "joint.jsonl"
SEEDS, STEPS, STARTS = 3, 3000, 4
NEAR = 1.0  # nats
EVERY = 10
WAYS = {"separate, adapted": {"adaptive": True}} | {
    f"one rate of {rate}": {"adaptive": False, "science_rate": rate, "network_rate": rate}
    for rate in (0.001, 0.003, 0.01, 0.03)
}


def run(name: str, seed: int, way: str) -> dict:
    problem = PROBLEMS[name](seed)
    began = time.perf_counter()
    engine = bd.Joint(steps=STEPS, starts=STARTS, patience=STEPS, **WAYS[way])
    post = bd.fit(problem.model, problem.data, engine, key=seed, progress=False)
    lowest = np.minimum.accumulate(np.nan_to_num(post["training"]["loss"].values[0], nan=np.inf))
    row = {"problem": name, "seed": seed, "way": way, "seconds": round(time.perf_counter() - began)}
    science = {n: float(v.values.squeeze()) for n, v in bd.plots.science_parameters(post).items()}
    return row | {"lowest": [round(float(v), 3) for v in lowest[EVERY - 1 :: EVERY]], "science": science}


def steps_to(rows: list[dict]) -> dict[str, int]:
    """Steps of each way to a nat above the lowest loss of all, for one data set."""
    goal = min(row["lowest"][-1] for row in rows) + NEAR
    found = {}
    for row in rows:
        reached = np.flatnonzero(np.asarray(row["lowest"]) <= goal)
        found[row["way"]] = int(EVERY * (reached[0] + 1)) if reached.size else 10**6
    return found


def table() -> str:
    lines = [
        "| hybrid | data sets | " + " | ".join(WAYS) + " | best shared ÷ separate |",
        "|---" * (len(WAYS) + 3) + "|",
    ]
    everything = held(RESULTS)
    for name in PROBLEMS:
        seeds = [
            rows
            for seed in range(SEEDS)
            if len(rows := [r for r in everything if (r["problem"], r["seed"]) == (name, seed)]) == len(WAYS)
        ]
        if not seeds:
            continue
        of = {way: np.median([steps_to(rows)[way] for rows in seeds]) for way in WAYS}
        separate, *shared = of.values()
        said = [f"{v:.0f}" if v < 10**6 else f"> {STEPS}" for v in of.values()]
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(said)} | {min(shared) / separate:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    every = lambda seed: [(name, seed, way) for name in PROBLEMS for way in WAYS]  # noqa: E731
    go_on(__doc__, RESULTS, SEEDS, ("problem", "seed", "way"), every, run, table)

"""Engines side by side: how well they know the vector field of which a part is unknown.

Run: `uv run python -m tests.studies.uncertainty.compare`; what is done is kept, `--table` prints
it.

NUTS of Lotka–Volterra and of the oscillator is that of `mixing.py`.
"""

import time
from pathlib import Path

import numpy as np

import bayes_dasl as bd

from ..pages import table
from ..rows import age, go_on, held, latest
from . import mixing
from .judged import judged
from .problems import PROBLEMS, code

RESULTS = Path(__file__).with_suffix(".jsonl")
SEEDS, MEMBERS, STEPS = range(10, 20), 10, 1500
ENGINES = {
    "NUTS": bd.NUTS(draws=500),  # of Lorenz, of which 1000 take 23 minutes beside another run
    "anchored, bootstrapped ensemble": bd.DeepEnsemble(MEMBERS, descent=bd.Descent(STEPS)),
    "anchored ensemble": bd.DeepEnsemble(MEMBERS, bootstrap=False, descent=bd.Descent(STEPS)),
    "plain ensemble": bd.DeepEnsemble(
        MEMBERS, anchored=False, bootstrap=False, descent=bd.Descent(STEPS)
    ),
    "MC dropout": bd.engines.MCDropout(descent=bd.Descent(steps=STEPS, patience=None)),
    "SWAG + unscented": bd.engines.SWAG(descent=bd.Descent(steps=STEPS, patience=None)),
    "Laplace, all weights": bd.engines.Laplace("all", descent=bd.Descent(steps=STEPS, patience=20)),
    "Laplace, last layer": bd.engines.Laplace("last", descent=bd.Descent(steps=STEPS, patience=20)),
}
TASK = ("problem", "engine", "seed")
JUDGED = ("near", "box", "wide", "wider", "crps", "energy", "width", "rmse", "seconds")


def code_of(name: str, engine: str, seed: int) -> str:
    return code(
        name,
        ENGINES[engine],
        *([bd.filtering.Unscented, bd.filtering.VarianceHead] if "unscented" in engine else []),
    )


def run(name: str, engine: str, seed: int) -> dict:
    problem = PROBLEMS[name](seed)
    if engine == "SWAG + unscented":
        problem = problem.with_variance_heads()
    began = time.perf_counter()
    post = bd.fit(problem.model, problem.data, ENGINES[engine], key=seed, progress=False)
    row = {
        "problem": name,
        "engine": engine,
        "seed": seed,
        "seconds": round(time.perf_counter() - began),
    }
    sizes = post["posterior"].sizes
    kept = {"draws": sizes["chain"] * sizes["draw"], "verdict": bd.diagnose(post).level}
    return row | judged(problem, post) | kept


def tasks(seed: int) -> list[tuple[str, str, int]]:
    """All but what `mixing.py` does."""
    every = ((name, engine, seed) for name in PROBLEMS for engine in ENGINES)
    return [task for task in every if not (task[1] == "NUTS" and task[0] in mixing.PROBLEMS)]


def everything() -> list[dict]:
    """Rows of this study, and those of NUTS that `mixing.py` holds."""
    of_nuts = (row for row in latest(held(mixing.RESULTS), mixing.TASK) if row["seed"] in SEEDS)
    borrowed = [row | {"engine": "NUTS", "draws": 4 * row["draws"]} for row in of_nuts]
    return latest(held(RESULTS) + borrowed, TASK)


HEADER = (
    *(
        "system",
        "engine",
        "data sets",
        "draws in all",
        "covered near the data",
        "in their box",
        "a tenth beyond",
    ),
    *("a quarter beyond", "CRPS", "energy score", "width of 95 %", "RMSE", "seconds"),
)


def tables() -> str:
    lines: list[tuple] = [HEADER]
    rows = everything()
    for name in PROBLEMS:
        for engine in ENGINES:
            of = [row for row in rows if (row["problem"], row["engine"]) == (name, engine)]
            if of:
                *shares, crps, energy, width, rmse, seconds = (
                    np.array([row[key] for row in of]) for key in JUDGED
                )
                said = [f"{np.mean(share):.1%}" for share in shares]
                said += [f"{np.median(score):.3g}" for score in (crps, energy, width, rmse)]
                said.append(f"{np.median(seconds):.0f}")
                draws = [row["draws"] for row in of]
                number = f"{min(draws)}" + (f"–{max(draws)}" if min(draws) < max(draws) else "")
                lines.append((name, engine, len(of), number, *said))
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    go_on(__doc__, RESULTS, SEEDS, TASK, tasks, run, code_of, tables)

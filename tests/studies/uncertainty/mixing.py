"""How well chains mix, in the space of functions, where a network stands for a wholly unknown part
of an ODE.

Run: `uv run python -m tests.studies.uncertainty.mixing`; what is done is kept, `--table` prints it.

A probe is a point of a trajectory, or a rate of the vector field at a place near the data. It is
good if its R-hat is below 1.01 and its bulk ESS at least 400.
"""

import time
from pathlib import Path

import numpy as np
from arviz_stats.base.array import array_stats

import bayes_dasl as bd

from ..pages import table
from ..rows import age, go_on, held, latest
from .judged import judged
from .problems import code, lotka_volterra, oscillator

RESULTS = Path(__file__).with_suffix(".jsonl")
PROBLEMS = {"lotka_volterra": lotka_volterra, "oscillator": oscillator}
DRAWS = {
    "lotka_volterra": 1500,
    "oscillator": 1000,
}  # for each of four chains; ten data sets were given 2000
SEEDS = range(20)
TASK = ("problem", "seed")
_ALONE = 2.5  # load of the machine, of five minutes, above which something else ran beside a fit


def code_of(name: str, seed: int) -> str:
    return code(name, bd.NUTS())


def fit(name: str, seed: int) -> dict:
    draws = DRAWS[name]
    problem = PROBLEMS[name](seed)
    began = time.perf_counter()
    post = bd.fit(problem.model, problem.data, bd.NUTS(draws=draws), key=seed, progress=False)
    seconds = time.perf_counter() - began
    points, near = problem.points()
    places = {n: values[near] for n, values in points.items()}
    rates = problem.drawn_rates(post, places)
    trajectories = np.concatenate(
        [v.values for v in post["conditional_mean"].data_vars.values()], axis=-1
    )
    probes = np.concatenate([trajectories, rates], axis=-1)
    rhat = np.asarray(array_stats.rhat(probes, chain_axis=0, draw_axis=1))
    ess = np.asarray(array_stats.ess(probes, chain_axis=0, draw_axis=1))
    steps = post["sample_stats"]["n_steps"].values
    return {
        "problem": name,
        "seed": seed,
        "draws": draws,
        "seconds": round(seconds),
        "good": round(float(np.mean((rhat < 1.01) & (ess >= 400))), 4),
        "rhat": round(float(rhat.max()), 4),
        "ess": [round(float(ess.min())), round(float(np.median(ess)))],
        **judged(problem, post),
        "warmup": [int(post.attrs["warmup_draws"]), round(float(post.attrs["warmup_time_s"]))],
        "draws_s": round(float(post.attrs["draws_time_s"])),
        "steps": round(float(steps.mean())),
        "divergences": int(post["sample_stats"]["diverging"].values.sum()),
        "verdict": bd.diagnose(post).level,
    }


HEADER = (
    *(
        "problem",
        "draws a chain",
        "data sets",
        "of them with ≥ 95 % of probes good",
        "good probes, median (lowest)",
    ),
    *(
        "highest R-hat, median (worst)",
        "ESS of a probe, median",
        "with nothing beside it: fits, seconds (most)",
    ),
)


def tables() -> str:
    lines: list[tuple] = [HEADER]
    everything = latest(held(RESULTS), TASK)
    for name, draws in sorted({(row["problem"], row["draws"]) for row in everything}):
        rows = [row for row in everything if (row["problem"], row["draws"]) == (name, draws)]
        good, rhat = (np.array([row[key] for row in rows]) for key in ("good", "rhat"))
        quiet = np.array([row["seconds"] for row in rows if row.get("load", np.inf) < _ALONE])
        cells = (
            f"{np.median(good):.1%} ({good.min():.1%})",
            f"{np.median(rhat):.3f} ({rhat.max():.3f})",
            f"{np.median([row['ess'][1] for row in rows]):.0f}",
            f"{quiet.size}: {np.median(quiet):.0f} ({quiet.max()})" if quiet.size else "–",
        )
        lines.append((name, draws, len(rows), np.sum(good >= 0.95), *cells))
    return f"{table(lines)}\n\n{age(everything, TASK, code_of)}"


if __name__ == "__main__":
    go_on(
        __doc__,
        RESULTS,
        SEEDS,
        TASK,
        lambda seed: [(name, seed) for name in PROBLEMS],
        fit,
        code_of,
        tables,
    )

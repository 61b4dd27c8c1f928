"""How often the intervals of theophylline hold what was left out: people whom the fit has not seen,
and last times.

Run: `uv run python -m tests.studies.theophylline`; what is done is kept, `--table` prints it,
`--figure` draws both.

Each of the twelve people is left out in turn, and forecast as a new member of the population, by
the dose alone; and the last one, two, three or four samples of all of them are left out, and
forecast from their earlier ones.
"""

import argparse
import time
from functools import cache
from pathlib import Path

import arviz as az
import numpy as np
import xarray as xr

import bayes_dasl as bd
from case_studies.theophylline import ENGINE, additive, combined, load, model

from . import ROOT
from .pages import table
from .provenance import fingerprint
from .rows import age, held, keep, lacking, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
FIGURE = ROOT / "docs" / "assets" / "theophylline.png"
NOISES = {"additive": additive, "combined": combined}
LAST = {"4 samples": 6.0, "3 samples": 8.0, "2 samples": 10.5, "1 sample": 13.0}
"""The last time that is fitted, in h, where so many later samples of each person are left out."""
SUBJECTS = tuple(f"subject {i}" for i in range(1, 13))
PEOPLE, SHOWN = "each person in turn", (1.0, 9.0, 12.0)
TASK = ("noise", "left_out")
LEVELS = (50, 90)


def fitted(noise: str, data: xr.Dataset) -> xr.DataTree:
    own = model(NOISES[noise](), data["subject"].values)
    return bd.fit(own, data, ENGINE, progress=False)


def forecast_of(noise: str, left_out: str) -> tuple[xr.Dataset, xr.DataTree, xr.DataTree]:
    """What was left out, the posterior of the rest, and the forecast of what was left out."""
    data = load()
    if left_out in LAST:
        train, test = bd.split(data, time=LAST[left_out])
    else:
        person = [float(left_out.removeprefix("subject "))]
        train, test = data.drop_sel(subject=person), data.sel(subject=person).dropna("time")
    post = fitted(noise, train)
    asked = model(NOISES[noise](), test["subject"].values)
    return test, post, bd.forecast(asked, post, test[["time", "subject"]])


def run(noise: str, left_out: str) -> dict:
    began = time.process_time()
    test, post, fc = forecast_of(noise, left_out)
    scores = bd.score(fc, test).loc["conc"]
    people = test["subject"].values
    each = [
        bd.score(fc.sel(subject=[person]), test).loc["conc", "coverage_90"] for person in people
    ]
    return {
        "noise": noise,
        "left_out": left_out,
        "draws": ENGINE.draws,
        "n": int(scores["n"]),
        "covered": {
            str(level): round(scores["n"] * scores[f"coverage_{level}"]) for level in LEVELS
        },
        "lowest": round(float(min(each)), 4),
        "crps": round(float(scores["crps"]), 4),
        "log_score": round(float(scores["log_score"]), 4),
        "rhat": round(
            float(max(v.max() for v in az.rhat(post["posterior"]).data_vars.values())), 4
        ),
        "divergences": int(post["sample_stats"]["diverging"].sum()),
        "processor": round(time.process_time() - began),
    }


@cache
def code_of(noise: str, left_out: str) -> str:
    return (
        f"{fingerprint(bd.fit, bd.forecast, bd.score, ENGINE, model(NOISES[noise]()))}, "
        f"{ENGINE.draws} draws"
    )


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    shares = [f"in {level} % intervals" for level in LEVELS]
    lines: list[list] = [
        [
            "left out",
            "noise",
            "values",
            *shares,
            "lowest of a person",
            "CRPS, mg/L",
            "log score, nats",
            "highest R-hat",
        ]
    ]
    for name in (PEOPLE, *LAST):
        for noise in NOISES:
            kind = lambda row: row["left_out"] if row["left_out"] in LAST else PEOPLE  # noqa: E731
            of = [row for row in rows if (row["noise"], kind(row)) == (noise, name)]
            if of:
                lines.append([name, noise, *summary(of)])
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


def summary(rows: list[dict]) -> list:
    """Sums and means over rows, by their numbers of values."""
    n = np.array([row["n"] for row in rows])
    inside = [
        f"{sum(row['covered'][str(level)] for row in rows) / n.sum():.0%}" for level in LEVELS
    ]
    lowest = min(row["lowest"] for row in rows)
    crps, logs = (
        np.average([row[score] for row in rows], weights=n) for score in ("crps", "log_score")
    )
    return [
        n.sum(),
        *inside,
        f"{lowest:.0%}",
        f"{crps:.3f}",
        f"{logs:.2f}",
        f"{max(row['rhat'] for row in rows):.3f}",
    ]


def figure() -> None:
    import matplotlib.pyplot as plt

    data, later = load(), np.linspace(0.0, 25.0, 101)
    drawn, axes = plt.subplots(
        2, len(SHOWN), figsize=(9, 5), sharex=True, sharey=True, layout="constrained"
    )
    known = fitted("additive", data.sel(time=slice(None, LAST["3 samples"])))
    for person, (above, below) in zip(SHOWN, axes.T, strict=True):
        post = fitted("additive", data.drop_sel(subject=[person]))
        for axis, draws in ((above, post), (below, known)):
            asked = xr.Dataset(coords={"time": later, "subject": [person]})
            fc = bd.forecast(model(subjects=[person]), draws, asked)
            values = fc["predictions"]["conc"].values.reshape(-1, later.size)
            for level, alpha in ((0.9, 0.2), (0.5, 0.35)):
                low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
                axis.fill_between(
                    later, low, high, color="C0", alpha=alpha, lw=0, label=f"{level:.0%} interval"
                )
            seen = data["conc"].sel(subject=person).dropna("time")
            fit = (seen["time"] <= LAST["3 samples"]) & (axis is below)
            axis.plot(seen["time"][~fit], seen[~fit], "o", color="C3", ms=4, label="left out")
            axis.plot(seen["time"][fit], seen[fit], "o", color="k", ms=4, label="fitted")
        above.set_title(f"person {person:g}")
        below.set_xlabel("time [h]")
    axes[0, 0].set_ylabel("by the dose alone\nconcentration [mg/L]")
    axes[1, 0].set_ylabel("by eight hours\nconcentration [mg/L]")
    axes[1, -1].legend(frameon=False, fontsize=8)
    drawn.savefig(FIGURE, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noises", default=",".join(NOISES), help="names, separated by commas")
    parser.add_argument("--table", action="store_true", help="print what is held, and fit nothing")
    parser.add_argument("--figure", action="store_true", help="draw the figure")
    asked = parser.parse_args()
    if asked.figure:
        figure()
        return
    tasks = [
        (noise, left_out) for noise in asked.noises.split(",") for left_out in (*LAST, *SUBJECTS)
    ]
    for task in [] if asked.table else lacking(held(RESULTS), TASK, tasks, code_of):
        print(keep(RESULTS, run(*task), code_of(*task)), flush=True)
    print(tables())


if __name__ == "__main__":
    main()

"""Forecasts of measles in towns that the fit has not seen, from the numbers of the others and their
own reports.

Run: `uv run python -m tests.studies.measles_unseen`; what is done is kept, `--table` prints it.

The twenty towns are ordered by their people and left out by fours: five towns in each fold, large
and small. The other fifteen are fitted over the six years before an origin. What is known of a town
that is left out are its births, people and reports up to there, from which the susceptibles of each
draw follow. Its rate of contacts and its over-dispersion are drawn from what they are among the
others, seasons and import are those of all; its reported share, the drift of that and its
susceptibles at the start are not of a population and drawn from their priors. Competitors are those of
`tests.studies.measles`, which know all cases of the town itself since 1944.
"""

from functools import cache
from pathlib import Path

import numpy as np

import bayes_dasl as bd
from case_studies import measles

from .measles import AHEAD, ENGINE, climatologies, code_of, data, first_rows, people
from .pages import table
from .rows import Row, age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
FOLDS, ORIGINS = 4, 5
TASK = ("origin", "town")


@cache
def fold_of(town: str) -> int:
    ordered = sorted(map(str, data()["town"].values), key=people)
    return ordered.index(town) % FOLDS


@cache
def forecast_of(row: int, fold: int):
    """What came after an origin in the towns of a fold, and its forecast."""
    unseen = np.array([fold_of(str(town)) == fold for town in data()["town"].values])
    others, known = (
        measles.as_known_at(data().isel(town=of), row, ahead=AHEAD) for of in (~unseen, unseen)
    )
    post = bd.fit(
        measles.reconstructed(others), measles.known(others), ENGINE, key=row, progress=False
    )
    ahead = known.isel(time=known["known"].values < 0.5)
    # Of towns that the fit has not seen all rows are asked for, from which their state follows.
    return ahead, bd.forecast(measles.model(known), post, known, what_if=True, key=row)


def run(origin: str, town: str) -> Row:
    row = int(np.searchsorted(data()["time"].values, np.datetime64(origin)))
    ahead, fc = forecast_of(row, fold_of(town))
    scores = bd.score(fc.sel(town=town), ahead.sel(town=town)).loc["cases"]
    own = {"crps": "crps", "covered_50": "coverage_50", "covered_90": "coverage_90"}
    found = {name: round(float(scores[column]), 4) for name, column in own.items()}
    return {"origin": origin, "town": town, **found, **climatologies(row, town)}


def tasks(number: int) -> list[tuple[str, str]]:
    """All towns at one origin, fold by fold."""
    origin = str(data()["time"].values[first_rows()[2 * number]])[:10]
    return [
        (origin, str(town))
        for town in sorted(data()["town"].values, key=lambda town: fold_of(str(town)))
    ]


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    competitors, widths = ("seasonal", "biennial", "persistence"), ("covered_50", "covered_90")
    lines: list[tuple] = [
        (
            "origin",
            "towns",
            *(f"CRPS / {name}, lower in" for name in competitors),
            "in 50 %",
            "in 90 %",
        )
    ]
    for origin in sorted({r["origin"] for r in rows}):
        of = [r for r in rows if r["origin"] == origin]
        beside = []
        for name in competitors:
            ratios = [r["crps"] / r[name] for r in of]
            beside.append(f"{np.exp(np.mean(np.log(ratios))):.2f}, {np.less(ratios, 1).sum()}")
        lines.append(
            (
                origin,
                len(of),
                *beside,
                *(f"{np.mean([r[name] for r in of]):.0%}" for name in widths),
            )
        )
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    go_on(__doc__, RESULTS, range(ORIGINS), TASK, tasks, run, code_of, tables)

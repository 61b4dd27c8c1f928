"""Warfarin: how much of later times, and of people whom the fit has not seen, lies in the intervals
of the forecast.

Run: `uv run python -m tests.studies.populations.warfarin`; what is done is kept, `--table` prints
it.

One fit is of all people up to 72 hours; the later times are held out. Each of four others leaves
out a quarter of the people, every fourth one, who are then forecast as new members, from their
weights and doses alone.
"""

from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

import bayes_dasl as bd
from case_studies import warfarin

from ..pages import table
from ..provenance import fingerprint_with
from ..rows import Row, age, go_on, held, latest
from .members import judged, sampled, summary

RESULTS = Path(__file__).with_suffix(".jsonl")
FOLDS = 4
LATER, NEW = "later times", "new people"
MODELS = ("population", "pooled")
TASK = ("model", "held_out", "fold")
ENGINE = bd.NUTS(chains=2, warmup=300, draws=300, map_starts=4)


def parts(held_out: str, fold: int) -> tuple[xr.Dataset, xr.Dataset]:
    """What is fitted and what is held out."""
    data = warfarin.load()
    if held_out == LATER:
        return bd.split(data, time=warfarin.SPLIT)
    new = np.arange(data.sizes["subject"]) % FOLDS == fold
    return data.isel(subject=~new), data.isel(subject=new)


def forecast_of(
    model: str, held_out: str, fold: int
) -> tuple[xr.DataTree, xr.DataTree, xr.Dataset]:
    train, test = parts(held_out, fold)
    pooled = model == "pooled"
    fitted = warfarin.model_of(train, pooled=pooled)
    post = bd.fit(fitted, train, ENGINE, key=fold, progress=False)
    asked = fitted if held_out == LATER else warfarin.model_of(test, pooled=pooled)
    return post, bd.forecast(asked, post, test[["time", "subject"]], key=fold), test


def run(model: str, held_out: str, fold: int) -> Row:
    post, fc, test = forecast_of(model, held_out, fold)
    return {"model": model, "held_out": held_out, "fold": fold, **judged(fc, test), **sampled(post)}


def tasks(fold: int) -> list[tuple]:
    """Later times are held out once, with the first fold."""
    held_out = [NEW] if fold else [LATER, NEW]
    return [(model, of, fold) for model in MODELS for of in held_out]


@cache
def code_of(model: str, held_out: str, fold: int) -> str:
    return fingerprint_with(
        warfarin, ENGINE, warfarin.model_of(parts(held_out, fold)[0], pooled=model == "pooled")
    )


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    header = (
        "model",
        "held out",
        "fits",
        "observable",
        "data",
        "in 50 % intervals",
        "in 90 % intervals",
        "CRPS",
    )
    lines: list[tuple] = [(*header, "people with half of their data or fewer in it")]
    for model in MODELS:
        for held_out in (LATER, NEW):
            of = [r for r in rows if (r["model"], r["held_out"]) == (model, held_out)]
            for names in (("cp",), ("pca",), ("cp", "pca")) if of else ():
                lines.append((model, held_out, len(of), " and ".join(names), *summary(of, names)))
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    go_on(__doc__, RESULTS, range(FOLDS), TASK, tasks, run, code_of, tables)

"""Erlotinib: how much of what tumours do at a dose beyond those of the fit lies in the intervals of
the forecast.

Run: `uv run python -m tests.studies.populations.erlotinib`; what is done is kept, `--table` prints
it.

Fitted are the control, the low and the medium dose, and the mice at the high dose are forecast as
new members, from their doses alone. The same is done one dose lower: control and low dose are
fitted, and the medium one is forecast.
"""

from functools import cache
from pathlib import Path

import xarray as xr

import bayes_dasl as bd
from case_studies import erlotinib

from ..pages import table
from ..provenance import fingerprint_with
from ..rows import Row, age, go_on, held, latest
from .members import judged, sampled, summary

RESULTS = Path(__file__).with_suffix(".jsonl")
ARMS = ("control", "low", "medium", "high")
MODELS = ("population", "alike")
TASK = ("model", "arm")
ENGINE = bd.NUTS(chains=2, warmup=300, draws=300, map_starts=4)


def parts(arm: str) -> tuple[xr.Dataset, xr.Dataset]:
    """What is fitted and what is held out: the mice at lower doses, and those of an arm."""
    data, place = erlotinib.load(), ARMS.index(arm)
    lower, own = (data["subject"].isin(erlotinib.mice_of(*arms)) for arms in (ARMS[:place], (arm,)))
    return data.isel(subject=lower), data.isel(subject=own)


def forecast_of(model: str, arm: str) -> tuple[xr.DataTree, xr.DataTree, xr.Dataset]:
    (train, test), alike = parts(arm), model == "alike"
    fitted = erlotinib.model_of(train["subject"].values, alike=alike)
    post = bd.fit(fitted, train, ENGINE, key=0, progress=False)
    fc = bd.forecast(
        erlotinib.model_of(test["subject"].values, alike=alike),
        post,
        test[["time", "subject"]],
        key=0,
    )
    return post, fc, test


def run(model: str, arm: str) -> Row:
    post, fc, test = forecast_of(model, arm)
    return {"model": model, "arm": arm, **judged(fc, test), **sampled(post)}


@cache
def code_of(model: str, arm: str) -> str:
    return fingerprint_with(
        erlotinib,
        ENGINE,
        erlotinib.model_of(parts(arm)[0]["subject"].values, alike=model == "alike"),
    )


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    header = (
        "model",
        "arm",
        "observable",
        "data",
        "in 50 % intervals",
        "in 90 % intervals",
        "CRPS",
    )
    lines: list[tuple] = [(*header, "mice with half of their data or fewer in it")]
    for row in sorted(rows, key=lambda row: (row["arm"], MODELS.index(row["model"]))):
        for names in (("volume",), ("concentration",), ("volume", "concentration")):
            lines.append((row["model"], row["arm"], " and ".join(names), *summary([row], names)))
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    every = lambda seed: [(model, arm) for model in MODELS for arm in ("high", "medium")]  # noqa: E731
    go_on(__doc__, RESULTS, range(1), TASK, every, run, code_of, tables)

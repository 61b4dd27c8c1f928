"""Forecasts of measles over half a year, in twenty towns and from ten origins, beside
climatologies.

Run: `uv run python -m tests.studies.measles`; what is done is kept, `--table` prints it, `--figure`
draws some towns. A fit of the 20 towns compiles nothing anew after the first one with the
environment variables JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS=1 and JAX_EMBEDDED_CONSTANTS_MAX_BYTES=0, by
which programs take the data as arguments.

At each origin, every 13 fortnights from the beginning of 1955 on, the model is fitted to the six
years before it, all towns at once, and forecasts the next 13 fortnights; births, people and reports
are known up to there. Competitors, from all cases of the town since 1944 up to the origin: the seasonal
climatology of the package (cases within 15 days of the day of the year, of all years), the same of
years of the same parity alone, since measles had a cycle of two years, and persistence.
"""

import argparse
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.scores.baselines import SEASONAL
from bayes_dasl.scores.scores import score_baselines
from case_studies import measles

from . import ROOT
from .pages import table
from .provenance import fingerprint_with
from .rows import age, held, keep, lacking, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
FIGURE = ROOT / "docs" / "assets" / "measles-forecasts.png"
DRAWN, LEVELS = ("London", "Leeds", "Cardiff", "Hastings"), (0.05, 0.25, 0.5, 0.75, 0.95)
AHEAD, ORIGINS, FROM = 13, 10, np.datetime64("1955-01-01")
TASK = ("origin", "town")
YEAR = np.timedelta64(365, "D")
ENGINE = bd.NUTS(chains=2, warmup=200, draws=200, map_starts=2, target_acceptance=0.8)


@cache
def data() -> xr.Dataset:
    return measles.load()


def first_rows() -> list[int]:
    """The rows of the first fortnights that are to be forecast."""
    first = int(np.searchsorted(data()["time"].values, FROM))
    return [first + AHEAD * number for number in range(ORIGINS)]


@cache
def forecast_from(row: int):
    """What came after an origin, the posterior and the forecast of all towns."""
    known = measles.as_known_at(data(), row, ahead=AHEAD)
    post = bd.fit(
        measles.reconstructed(known), measles.known(known), ENGINE, key=row, progress=False
    )
    ahead = known.isel(time=known["known"].values < 0.5)
    return ahead, post, bd.forecast(measles.model(known), post, ahead, what_if=True, key=row)


def climatologies(row: int, town: str) -> dict[str, float]:
    """The CRPS of what knows no science."""
    cases = data()[["cases"]].sel(town=town)
    before, test = cases.isel(time=slice(row)), cases.isel(time=slice(row, row + AHEAD))
    scores = score_baselines(before, test)
    # Half a year lies within one half of a cycle: a quarter on either side tells the two apart.
    since = (before["time"] - cases["time"][row]).values / YEAR
    alike = score_baselines(before.isel(time=(since + 0.25) % 2 < 1), test)[SEASONAL]
    found = {"seasonal": scores[SEASONAL], "biennial": alike, "persistence": scores["persistence"]}
    return {name: round(float(of.loc["cases", "crps"]), 4) for name, of in found.items()}


def run(origin: str, town: str) -> dict:
    row = int(np.searchsorted(data()["time"].values, np.datetime64(origin)))
    ahead, post, fc = forecast_from(row)
    scores = bd.score(fc.sel(town=town), ahead.sel(town=town)).loc["cases"]
    verdict = bd.diagnose(post)
    own = {
        "crps": "crps",
        "log_score": "log_score",
        "covered_50": "coverage_50",
        "covered_90": "coverage_90",
    }
    return {
        "origin": origin,
        "town": town,
        **{name: round(float(scores[column]), 4) for name, column in own.items()},
        **climatologies(row, town),
        "quantiles": [[round(float(q), 1) for q in level] for level in quantiles_of(fc, town)],
        "seconds": round(post.attrs["wall_time_s"]),
        "engine": repr(ENGINE),
        "sampling": [f"{f.subject}: {f.message}" for f in verdict.findings if f.level != "good"],
    }


def quantiles_of(fc: xr.DataTree, town: str) -> np.ndarray:
    draws = fc["predictions"]["cases"].sel(town=town)
    return draws.quantile(LEVELS, ("chain", "draw")).transpose("quantile", "time").values


@cache
def code_of(origin: str, town: str) -> str:
    models = measles.model(example()), measles.reconstructed(example())
    return fingerprint_with(measles, score_baselines, models, ENGINE)


@cache
def example() -> xr.Dataset:
    return measles.as_known_at(data(), first_rows()[0], ahead=AHEAD)


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    header = (
        "town",
        "people, 1955",
        "origins",
        "CRPS, cases",
        "/ seasonal",
        "/ biennial",
        "/ persistence",
    )
    lines: list[tuple] = [(*header, "in 50 %", "in 90 %")]
    wins = dict.fromkeys(("seasonal", "biennial", "persistence"), 0)
    for town in sorted({r["town"] for r in rows}, key=people):
        of = [r for r in rows if r["town"] == town]
        mean = {
            name: np.mean([r[name] for r in of])
            for name in ("crps", *wins, "covered_50", "covered_90")
        }
        ratios = {name: mean["crps"] / mean[name] for name in wins}
        wins = {name: wins[name] + (ratio < 1) for name, ratio in ratios.items()}
        shown = [f"{ratio:.2f}" for ratio in ratios.values()]
        held_in = [f"{mean[name]:.0%}" for name in ("covered_50", "covered_90")]
        lines.append(
            (town, f"{people(town):.0f}", len(of), f"{mean['crps']:.1f}", *shown, *held_in)
        )
    won = ", ".join(f"{name}: {number}" for name, number in wins.items())
    counted = f"Number of towns, of {len(lines) - 1}, with a lower CRPS than {won}."
    return f"{table(lines)}\n\n{counted}\n\n{age(rows, TASK, code_of)}"


def figure() -> None:
    """Forecasts from all origins, beside what came."""
    import matplotlib.pyplot as plt

    rows = latest(held(RESULTS), TASK)
    drawn, axes = plt.subplots(len(DRAWN), 1, figsize=(9, 8), sharex=True, layout="constrained")
    for town, axis in zip(DRAWN, axes, strict=True):
        cases = data()["cases"].sel(town=town, time=slice("1954-01", "1959-12"))
        for number, row in enumerate(r for r in rows if r["town"] == town):
            start = int(np.searchsorted(data()["time"].values, np.datetime64(row["origin"])))
            ahead, bands = data()["time"].values[start : start + AHEAD], row["quantiles"]
            named = ("90 % interval", "50 % interval", "median") if not number else (None,) * 3
            axis.fill_between(
                ahead, bands[0], bands[4], color="C0", alpha=0.25, lw=0, label=named[0]
            )
            axis.fill_between(
                ahead, bands[1], bands[3], color="C0", alpha=0.35, lw=0, label=named[1]
            )
            axis.plot(ahead, bands[2], color="C0", lw=1.2, label=named[2])
            axis.axvline(ahead[0], color="0.8", lw=0.6, zorder=0)
        axis.plot(cases["time"], cases, "k.-", ms=3, lw=0.7, label="reported")
        axis.set(title=town, ylabel="cases in a fortnight", ylim=(0, 1.6 * float(cases.max())))
    axes[0].legend(frameon=False, ncols=4)
    drawn.savefig(FIGURE, dpi=130)


def people(town: str) -> float:
    return float(data()["people"].sel(town=town, time="1955").mean())


def tasks() -> list[tuple[str, str]]:
    times = [str(data()["time"].values[row])[:10] for row in first_rows()]
    return [(origin, str(town)) for origin in times for town in data()["town"].values]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print what is held, and run nothing")
    parser.add_argument("--figure", action="store_true", help="draw what is held, and run nothing")
    asked = parser.parse_args()
    for task in (
        () if asked.table or asked.figure else lacking(held(RESULTS), TASK, tasks(), code_of)
    ):
        print(keep(RESULTS, run(*task), code_of(*task)), flush=True)
    figure() if asked.figure else print(tables())

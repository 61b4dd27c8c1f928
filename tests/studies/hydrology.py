"""Daily flow of the Piscataquis: twenty years forecast from the weather alone, by science, a hybrid
and an LSTM.

Run: `uv run python -m tests.studies.hydrology`; what is done is kept, `--table` prints it,
`--figure` draws catchment and hybrid, both by the ensemble, after four years (some three minutes).

Each row is a model fitted over 14 years (1981–1994), or the last ten or four of them, each after a
year of spin-up, and judged over 1995–2014: the mean of its forecast by NSE and KGE, its draws by
coverage and CRPS. Catchment and bucket are fitted by NUTS; hybrid and LSTM, which have weights by
the dozen, by an ensemble, with several keys after four years (and the catchment once, to tell
engine from model). Differences of CRPS are those of whole years. Seconds are those of the processor
over the fit, compilation included, and those of the clock, on a machine whose load the row tells.
"""

import hashlib
import sys
import time
from functools import cache
from pathlib import Path

import matplotlib.dates as mdates
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

import bayes_dasl as bd
from case_studies import catchment, piscataquis
from case_studies._pictures import STYLES, UNSEEN, band, finished, panels

from . import ROOT
from .pages import table, write_section
from .provenance import fingerprint, meaning
from .rows import age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "case-studies.md"
FIGURE = ROOT / "docs" / "assets" / "gallery-piscataquis.png"
BEGINS = {
    14: (piscataquis.BEGIN, piscataquis.SPUN_UP),
    10: ("1984-01-01", "1984-12-31"),
    4: ("1990-01-01", "1990-12-31"),
}
MODELS = ("catchment", "hybrid", "LSTM")
BY_ENSEMBLE = "catchment, by the ensemble"
ENSEMBLE = bd.DeepEnsemble(members=8, descent=bd.Descent(steps=1500, held_out=0.2))
KEYS = 3
TASK = ("model", "years", "key")


def tasks(key: int) -> list[tuple]:
    """Ensembles of four years with each key; all else with the first."""
    if key:
        return [(name, 4, key) for name in MODELS[1:]]
    each = [(name, years, 0) for years in (4, 14, 10) for name in MODELS]
    return [*each[:3], (BY_ENSEMBLE, 4, 0), *each[3:], ("bucket", 14, 0)]


@cache
def of_years(years: int) -> bd.Study:
    begin, until = BEGINS[years]
    return piscataquis.study(begin, until)


def model_of(name: str, years: int) -> tuple[bd.Model, bd.inference.AbstractEngine]:
    """A model, and the engine that fits it."""
    study = of_years(years)
    if name in study.models:
        return study.models[name], study.engine
    if name == BY_ENSEMBLE:
        return study.models["catchment"], ENSEMBLE
    return {"hybrid": piscataquis.hybrid, "LSTM": piscataquis.lstm}[name](study.train), ENSEMBLE


def forecast_of(
    name: str, years: int, key: int
) -> tuple[xr.DataTree, xr.DataTree, dict[str, float]]:
    study, (model, engine) = of_years(years), model_of(name, years)
    wall, cpu = time.perf_counter(), time.process_time()
    post = bd.fit(model, study.train, engine, key=key, progress=False)
    took = {
        "seconds": round(time.perf_counter() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
    }
    return post, bd.forecast(model, post, study.data, key=key), took


def run(name: str, years: int, key: int) -> dict:
    post, fc, took = forecast_of(name, years, key)
    test = of_years(years).test
    scores = bd.score(fc, test).loc["flow"]
    mean = fc["predictions"]["flow"].mean(("chain", "draw"))
    without_zeros = test["flow"].where(test["flow"] > 0)
    by_year = [
        float(bd.score(fc, part).loc["flow", "crps"]) for _, part in test.groupby("time.year")
    ]
    return {
        "model": name,
        "years": years,
        "key": key,
        **{
            key: round(value, 4)
            for key, value in piscataquis.efficiencies(mean, test["flow"]).items()
        },
        "nse_above_zero": round(piscataquis.efficiencies(mean, without_zeros)["nse"], 4),
        "covered": round(float(scores["coverage_90"]), 4),
        "crps": round(float(scores["crps"]), 4),
        "crps_by_year": [round(value, 4) for value in by_year],
        "log_score": round(float(scores["log_score"]), 4),
        "verdict": str(bd.diagnose(post).verdict),
        **took,
    }


@cache
def code_of(name: str, years: int, key: int) -> str:
    """The hash of the package behind the model, of the case study and of its catchment."""
    files = [Path(piscataquis.__file__), *sorted(Path(catchment.__file__).parent.glob("*.py"))]
    ours = "\n".join(meaning(path.read_text(encoding="utf-8")) for path in files)
    behind = fingerprint(bd.fit, bd.forecast, bd.score, *model_of(name, years))
    return hashlib.sha256(f"{behind}\n{ours}".encode()).hexdigest()[:12]


def tables() -> str:
    rows = latest(
        [{"key": 0} | r for r in held(RESULTS)], TASK
    )  # the first rows were of one key and told no years
    test = of_years(14).test["flow"]
    yardstick = piscataquis.efficiencies(piscataquis.sac_sma(), test)
    header = (
        "model",
        "fitted to",
        "NSE",
        "KGE",
        "in 90 % intervals",
        "CRPS, mm/day",
        "log score",
        "CRPS less that of the catchment",
    )
    lines: list[tuple] = [
        (*header, "years of 20 better", "processor, s", "clock, s (load)"),
        (
            "SAC-SMA, as supplied",
            "",
            f"{yardstick['nse']:.3f}",
            f"{yardstick['kge']:.3f}",
            *[""] * 7,
        ),
    ]
    science = {
        r["years"]: np.array(r.get("crps_by_year", [])) for r in rows if r["model"] == "catchment"
    }
    for r in sorted(
        rows,
        key=lambda r: (r["years"], [*MODELS, BY_ENSEMBLE, "bucket"].index(r["model"]), r["key"]),
    ):
        log_score = f"{r['log_score']:.3f}" if "log_score" in r else ""
        shown = (
            f"{r['nse']:.3f}",
            f"{r['kge']:.3f}",
            f"{r['covered']:.1%}",
            f"{r['crps']:.3f}",
            log_score,
        )
        own, other = np.array(r.get("crps_by_year", [])), science.get(r["years"], np.zeros(0))
        beside = "", ""
        if own.size == other.size > 0 and r["model"] != "catchment":
            less, error = own - other, (own - other).std(ddof=1) / np.sqrt(own.size)
            beside = f"{less.mean():+.3f} ± {error:.3f}", int((less < 0).sum())
        name = r["model"] + (f", key {r['key']}" if r["key"] else "")
        lines.append(
            (
                name,
                f"{r['years']} years",
                *shown,
                *beside,
                r["cpu_seconds"],
                f"{r['seconds']} ({r['load']:.0f})",
            )
        )
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


def figure() -> None:
    """One of the twenty years, the middle one, and the CRPS of each, of catchment and hybrid by the
    same ensemble.
    """
    drawn, (left, right) = panels()
    test = of_years(4).test["flow"]
    one = test.sel(time="2005")
    forecasts = {
        label: forecast_of(name, 4, 0)[1]
        for label, name in (("catchment", BY_ENSEMBLE), ("hybrid", "hybrid"))
    }
    years = of_years(4).test.groupby("time.year")
    for place, (label, fc) in enumerate(forecasts.items()):
        by_year = {year: float(bd.score(fc, part).loc["flow", "crps"]) for year, part in years}
        color, _ = STYLES[place]
        right.plot(
            [*by_year],
            [*by_year.values()],
            "^o"[place],
            mfc="white",
            color=color,
            label=f"{label}, each year",
        )
    flow = forecasts["hybrid"]["predictions"].dataset["flow"].sel(time="2005")
    band(left, flow["time"].values, flow, "hybrid", 1)
    left.plot(one["time"], one, label="observed, not fitted", **UNSEEN | {"ms": 2.5})
    left.set_yscale("function", functions=(np.sqrt, np.square))
    left.set(xlabel="2005", ylabel="flow (mm/day)", ylim=(0, 42), yticks=(0, 1, 5, 10, 20, 30, 40))
    left.xaxis.set_major_locator(mdates.MonthLocator(bymonth=(1, 4, 7, 10)))
    left.xaxis.set_major_formatter(mdates.DateFormatter("%b"))
    right.set(xlabel="year", ylabel="CRPS (mm/day)", ylim=(0, None))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(loc="lower right")
    finished(drawn).savefig(FIGURE, dpi=160)


if __name__ == "__main__":
    if sys.argv[1:] == ["--figure"]:
        figure()
    else:
        go_on(__doc__, RESULTS, range(KEYS), TASK, tasks, run, code_of, tables)
        write_section(PAGE, "piscataquis", tables())

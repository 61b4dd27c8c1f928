"""An intermittent river: four years of daily flow forecast from the weather, with zero flow on
about half the days.

Run: `uv run python -m tests.studies.intermittent`; what is done is kept, `--table` prints it.

The river is simulated: a bucket driven by synthetic rain, whose residuals are correlated from day
to day. In the truth "root" they are an AR(1) on the scale of the square root, cut off at zero, as
the fitted noise has it. In "loss" they multiply the flow, and the bed swallows the first 0.3 mm of
each day: no noise of the package is of that kind. Two years are fitted, the next four are forecast
without any flow in between. The power of the transform is unknown in each fit. The highest
forecasts are the 5 % of the days with the largest predictive mean.
"""

import time
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from . import ROOT
from .pages import table, write_section
from .provenance import fingerprint
from .rows import age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "correlated.md"
DAYS, FITTED = 6 * 365, 2 * 365
CORRELATION, LOSS, SHIFT = 0.9, 0.3, 0.01
SD = {"root": 0.5, "loss": 0.5}
TRUTH = {"rate": 0.12, "threshold": 60.0, "evaporation": 0.75}
UNITS = {"rain": "mm/day", "demand": "mm/day", "flow": "mm/day", "store": "mm", "time": "day"}
TASK = ("truth", "noise", "seed")
SEEDS = range(4)
PROCESSES = {
    "AR(1)": bd.filtering.AR1(dist.HalfNormal(1.0), dist.Uniform(0.0, 1.0)),
    "independent": bd.filtering.White(dist.HalfNormal(1.0)),
}


class Bucket(bd.Module):
    r"""A store that runs off above a threshold: $q = k (s - s_0)$;
    below it q says how dry it is.
    """

    rate: bd.Scalar = bd.field(units="1/day")
    threshold: bd.Scalar = bd.field(units="mm")
    evaporation: bd.Scalar = bd.field(units="")

    def __call__(self, t, y, u):
        full = y["store"] + u["rain"]
        runs = jnp.maximum(self.rate * (full - self.threshold), 0.0)
        lost = self.evaporation * u["demand"] * jnp.minimum(full / self.threshold, 1.0)
        return {"store": jnp.maximum(full - runs - lost, 0.0)}

    def flow(self, t, y, u):
        return {"flow": self.rate * (y["store"] + u["rain"] - self.threshold)}


def layer(bucket: Bucket) -> bd.Difference:
    return bd.Difference(
        bucket, {"store": 60.0}, Bucket.flow, forcings=("rain", "demand"), units=UNITS
    )


def model(name: str) -> bd.Model:
    bucket = Bucket(
        rate=bd.between(0.02, 0.5),
        threshold=bd.between(20.0, 150.0),
        evaporation=bd.between(0.4, 1.6),
    )
    noise = bd.filtering.CorrelatedBoxCoxNoise(
        PROCESSES[name], power=dist.Uniform(0.0, 1.0), shift=SHIFT
    )
    return bd.Model(layer(bucket), {"flow": noise})


def weather(rng: np.random.Generator) -> xr.Dataset:
    """Rain of wet and dry spells, and a demand with seasons."""
    days, wet = np.arange(DAYS), np.zeros(DAYS, bool)
    season = np.cos(2 * np.pi * days / 365.25)
    for day in days[1:]:
        wet[day] = rng.uniform() < (0.6 if wet[day - 1] else 0.2)
    rain = wet * rng.gamma(0.7, 9.0 + 2.0 * season)
    demand = 2.2 - 1.4 * season
    return xr.Dataset(
        {"rain": ("time", rain), "demand": ("time", demand)}, {"time": days.astype(float)}
    )


def simulated(truth: str, seed: int) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    data = weather(rng)
    x = np.empty(DAYS)
    x[0] = rng.normal()
    for day in range(1, DAYS):
        x[day] = CORRELATION * x[day - 1] + np.sqrt(1 - CORRELATION**2) * rng.normal()
    x *= SD[truth]
    prediction = np.asarray(
        layer(Bucket(**TRUTH))(bd.inputs(data, forcings=("rain", "demand"))).values["flow"]
    )
    if truth == "root":
        slope, zero = SHIFT**-0.5, 2 * SHIFT**0.5
        latent = x + np.where(
            prediction > 0,
            2 * np.sqrt(np.maximum(prediction, 0.0) + SHIFT),
            zero + slope * prediction,
        )
        flow = np.where(latent > zero, np.square(latent / 2) - SHIFT, 0.0)
    else:
        flow = np.maximum(np.maximum(prediction, 0.0) * np.exp(x) - LOSS, 0.0)
    return data.assign(flow=("time", flow))


def run(truth: str, name: str, seed: int) -> dict:
    began, whole, fitted = time.perf_counter(), simulated(truth, seed), model(name)
    train, test = whole.isel(time=slice(FITTED)), whole.isel(time=slice(FITTED, None))
    post = bd.fit(fitted, train, bd.NUTS(chains=2, draws=300), key=seed, progress=False)
    fc = bd.forecast(fitted, post, test[["time", "rain", "demand"]], key=seed)
    scores = bd.score(fc, test).loc["flow"]
    draws = fc["predictions"]["flow"].values.reshape(-1, test.sizes["time"]).clip(min=0.0)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    y = test["flow"].values
    inside = (low <= y) & (y <= high)
    mean = draws.mean(axis=0)
    return {
        "truth": truth,
        "noise": name,
        "seed": seed,
        "zero_days": round(float((y == 0).mean()), 4),
        "zero_forecast": round(float((draws == 0).mean()), 4),
        "covered": round(float(inside.mean()), 4),
        "covered_above_zero": round(float(inside[y > 0].mean()), 4),
        "covered_highest": round(float(inside[mean >= np.quantile(mean, 0.95)].mean()), 4),
        "crps": round(float(scores["crps"]), 5),
        "log_score": round(float(scores["log_score"]), 4),
        "rate": [
            round(float(q), 4) for q in np.quantile(post["posterior"]["rate"], [0.05, 0.5, 0.95])
        ],
        "verdict": str(bd.diagnose(post).verdict),
        "seconds": round(time.perf_counter() - began),
    }


@cache
def code_of(truth: str, name: str, seed: int) -> str:
    return fingerprint(bd.fit, bd.forecast, bd.score, model(name))


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    lines: list[tuple] = [
        (
            "truth",
            "noise of the model",
            "rivers",
            "days without flow",
            "days in 90 % intervals",
            "days with flow",
            "the 5 % highest forecasts (lowest and highest river)",
            "CRPS, mm/day",
            "log score, nats",
            "rate in its 90 % interval",
        )
    ]
    for truth, name in dict.fromkeys((r["truth"], r["noise"]) for r in rows):
        of = [r for r in rows if (r["truth"], r["noise"]) == (truth, name)]
        mean = {
            key: np.mean([r[key] for r in of]) for key in of[0] if isinstance(of[0][key], float)
        }
        highest = [r["covered_highest"] for r in of]
        shares = (f"{mean[key]:.0%}" for key in ("zero_days", "covered", "covered_above_zero"))
        hit = sum(r["rate"][0] <= TRUTH["rate"] <= r["rate"][2] for r in of)
        tail = f"{np.mean(highest):.0%} ({min(highest):.0%}, {max(highest):.0%})"
        scores = f"{mean['crps']:.3f}", f"{mean['log_score']:.2f}"
        lines.append((truth, name, len(of), *shares, tail, *scores, f"{hit} of {len(of)}"))
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


def tasks(seed: int) -> list[tuple]:
    return [(truth, name, seed) for truth in SD for name in PROCESSES]


if __name__ == "__main__":
    go_on(__doc__, RESULTS, SEEDS, TASK, tasks, run, code_of, tables)
    write_section(PAGE, "intermittent", tables())

"""What correlated residuals do to a climate projection: independent noise against an AR(1), over
held-out years.

Run: `uv run python -m tests.studies.uncertainty.climate_noise`; what is done is kept, `--table`
prints it, `--figure` draws the first data set.

Carbon dioxide grows by one per cent a year for 140 years, as in a run of CMIP. The truth is a
two-layer energy balance whose surface temperature also varies by itself, as an AR(1). The first 100
years are fitted, the last 40 forecast.
"""

import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .. import ROOT
from ..pages import table
from ..provenance import fingerprint
from ..rows import age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
FIGURE = ROOT / "docs" / "assets" / "climate_noise.png"
YEARS, FITTED = np.arange(140.0), 100
SD, CORRELATIONS, SEEDS = 0.15, (0.6, 0.9), range(20)
TRUTH = (1.2, 0.7, 8.0)
NOISES = {
    "independent": bd.NormalNoise(dist.HalfNormal(0.5)),
    "AR(1)": bd.filtering.CorrelatedNoise(
        bd.filtering.AR1(dist.HalfNormal(0.5), dist.Uniform(0.0, 1.0))
    ),
}
TASK = ("noise", "correlation", "seed")


class TwoLayers(bd.Module):
    """Heat of the surface and of the deep ocean (Geoffroy et al. 2013), by the year."""

    feedback: bd.Scalar = bd.field(units="W m⁻² K⁻¹")
    exchange: bd.Scalar = bd.field(units="W m⁻² K⁻¹")
    capacity: bd.Scalar = bd.field(units="W yr m⁻² K⁻¹")

    def __call__(self, t, y, u):
        forcing = 7.4 * t / 140.0
        down = self.exchange * (y["surface"] - y["deep"])
        gained = (forcing - self.feedback * y["surface"] - down) / self.capacity
        return {"surface": y["surface"] + gained, "deep": y["deep"] + down / 100.0}


def layer(feedback, exchange, capacity):
    start = {"surface": 0.0, "deep": 0.0}
    return bd.Difference(
        TwoLayers(feedback, exchange, capacity),
        start,
        lambda t, y, u: {"temperature": y["surface"]},
    )


def model(noise: str) -> bd.Model:
    priors = (bd.between(0.5, 3.0), bd.between(0.2, 2.0), bd.between(4.0, 15.0))
    return bd.Model(layer(*priors), NOISES[noise])


def simulated(correlation: float, seed: int) -> xr.Dataset:
    rng = np.random.default_rng([seed, int(100 * correlation)])
    varies = np.empty(YEARS.size)
    varies[0] = SD * rng.normal()
    for i in range(1, YEARS.size):
        varies[i] = correlation * varies[i - 1] + SD * np.sqrt(1 - correlation**2) * rng.normal()
    warming = layer(*TRUTH)(bd.inputs(xr.Dataset(coords={"time": YEARS}))).values["temperature"]
    return xr.Dataset(
        {"temperature": ("time", np.asarray(warming) + varies, {"units": "K"})}, {"time": YEARS}
    )


def forecast_of(noise: str, correlation: float, seed: int):
    whole, fitted = simulated(correlation, seed), model(noise)
    post = bd.fit(
        fitted,
        whole.isel(time=slice(FITTED)),
        bd.NUTS(chains=2, draws=500),
        key=seed,
        progress=False,
    )
    return whole, post, bd.forecast(fitted, post, whole[["time"]], key=seed)


def run(noise: str, correlation: float, seed: int) -> dict:
    began = time.perf_counter()
    whole, post, fc = forecast_of(noise, correlation, seed)
    test = whole.isel(time=slice(FITTED, None))
    scores = bd.score(fc, test)
    feedback = post["posterior"]["feedback"].values
    return {
        "noise": noise,
        "correlation": correlation,
        "seed": seed,
        "covered": round(float(scores["coverage_90"].loc["temperature"]), 4),
        "crps": round(float(scores["crps"].loc["temperature"]), 5),
        "log_score": round(float(scores["log_score"].loc["temperature"]), 4),
        "feedback": [round(float(q), 4) for q in np.quantile(feedback, [0.05, 0.5, 0.95])],
        "seconds": round(time.perf_counter() - began),
    }


@cache
def code_of(noise: str, correlation: float, seed: int) -> str:
    return fingerprint(bd.fit, bd.forecast, bd.score, model(noise))


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    lines: list[tuple] = [
        (
            "correlation of years",
            "noise of the model",
            "runs",
            "held-out years in 90 % intervals (lowest run)",
            "CRPS, K",
            "log score, nats",
            "feedback in its 90 % interval",
        )
    ]
    for correlation in CORRELATIONS:
        for noise in NOISES:
            of = [r for r in rows if (r["noise"], r["correlation"]) == (noise, correlation)]
            if of:
                covered = [r["covered"] for r in of]
                hit = sum(r["feedback"][0] <= TRUTH[0] <= r["feedback"][2] for r in of)
                crps, logs = (np.mean([r[n] for r in of]) for n in ("crps", "log_score"))
                share = f"{np.mean(covered):.0%} ({min(covered):.0%})"
                lines.append(
                    (
                        correlation,
                        noise,
                        len(of),
                        share,
                        f"{crps:.3f}",
                        f"{logs:.2f}",
                        f"{hit} of {len(of)}",
                    )
                )
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


def figure() -> None:
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for noise, axis in zip(NOISES, axes, strict=True):
        whole, _, fc = forecast_of(noise, 0.9, 0)
        draws = fc["predictions"]["temperature"].values.reshape(-1, YEARS.size)
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        axis.fill_between(YEARS, low, high, color="C0", alpha=0.3, lw=0, label="90 % interval")
        axis.plot(YEARS, draws[:3].T, color="C0", lw=0.6)
        axis.plot(YEARS, whole["temperature"], color="k", lw=1, label="simulated")
        axis.axvline(FITTED - 0.5, color="0.6", lw=0.8, ls="--")
        axis.set(title=f"{noise} noise", xlabel="year")
    axes[0].set_ylabel("warming [K]")
    axes[0].legend(frameon=False)
    drawn.savefig(FIGURE, dpi=130)


if __name__ == "__main__":
    if sys.argv[1:] == ["--figure"]:
        figure()
    else:

        def every(seed):
            return [(noise, correlation, seed) for correlation in CORRELATIONS for noise in NOISES]

        go_on(__doc__, RESULTS, SEEDS, TASK, every, run, code_of, tables)

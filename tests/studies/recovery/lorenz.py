"""Lorenz's equations over thirty units of time, from thirty noisy observations, by multiple
shooting.

Run: `uv run python -m tests.studies.recovery.lorenz` (ten data sets, some minutes each; goes on
where it was stopped)

Times, noise and start are those of SciMLBenchmarks, where Stan takes 29 720 s and ends at an R-hat
of 1.72. There is a knot at each observation. The kicks that the gap allows are not in the truth:
with 0.3 they are half the noise.
"""

import time
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from scipy.integrate import solve_ivp

import bayes_dasl as bd

from ..pages import table
from ..provenance import fingerprint
from ..rows import age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
START = {"x": 1.0, "y": 0.0, "z": 0.0}
STATES = tuple(START)
TRUTH = {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}
TIMES = np.arange(1.0, 30.5)
NOISE, GAP = 0.5, 0.3
ENGINE = bd.NUTS(chains=4, warmup=300, draws=2000)


class Lorenz(bd.Module):
    sigma: bd.Scalar
    rho: bd.Scalar
    beta: bd.Scalar

    def __call__(self, t, s, u):
        x, y, z = (s[name] for name in STATES)
        return {"x": self.sigma * (y - x), "y": x * (self.rho - z) - y, "z": x * y - self.beta * z}


def true_rates(t, y):
    """The vector field as SciPy calls it."""
    return list(Lorenz(**TRUTH)(t, dict(zip(STATES, y, strict=True)), {}).values())


def true_states(times):
    """States at any times, by name."""
    end = (0, float(np.max(times)))
    solved = solve_ivp(
        true_rates, end, list(START.values()), "DOP853", rtol=1e-13, atol=1e-13, dense_output=True
    )
    return dict(zip(STATES, solved.sol(np.asarray(times)), strict=True))


def observed(seed: int) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    noisy = {
        name: ("time", v + rng.normal(0, NOISE, TIMES.size))
        for name, v in true_states(TIMES).items()
    }
    return xr.Dataset(noisy, {"time": TIMES})


def model(data: xr.Dataset) -> bd.Model:
    """Unknown parameters, and a state at each knot."""
    priors = {
        "sigma": bd.between(5.0, 20.0),
        "rho": bd.between(15.0, 45.0),
        "beta": bd.between(1.0, 6.0),
    }
    ode = bd.ODE(Lorenz(**priors), START, start=0.0, rtol=1e-6, atol=1e-6, max_steps=256)
    layer = bd.equations.MultipleShooting(
        ode, TIMES[:-1], bd.equations.segment_states(data, STATES, TIMES[:-1], 2.0), GAP
    )
    return bd.Model(layer, noise=bd.NormalNoise(NOISE))


@cache
def code() -> str:
    return fingerprint(bd.fit, ENGINE, model(observed(0)))


def fit(seed: int) -> dict:
    """Where the posterior lies, and how well the chains mixed, over all unknowns."""
    began, data = time.perf_counter(), observed(seed)
    post = bd.fit(model(data), data, ENGINE, key=seed, progress=False)
    draws = post["posterior"].data_vars
    rhat = max(
        float(np.max(array_stats.rhat(v.values, chain_axis=0, draw_axis=1))) for v in draws.values()
    )
    row = {"seed": seed, "rhat": round(rhat, 4), "seconds": round(time.perf_counter() - began)}
    for name, value in TRUTH.items():
        low, high = np.quantile(draws[name], [0.025, 0.975])
        row[name] = {
            "mean": float(draws[name].mean()),
            "low": low,
            "high": high,
            "covered": bool(low <= value <= high),
        }
    return row


def tables() -> str:
    rows = sorted(latest(held(RESULTS), ("seed",)), key=lambda row: row["seed"])
    lines = [["seed", "σ", "ρ", "β", "highest R-hat", "seconds"]]
    for row in rows:
        each = [row[name] for name in TRUTH]
        spans = [
            f"{e['low']:.3f} – {e['high']:.3f}{'' if e['covered'] else ' (not covered)'}"
            for e in each
        ]
        lines.append([row["seed"], *spans, f"{row['rhat']:.4f}", row["seconds"]])
    return f"{table(lines)}\n\n{age(rows, (), code)}"


if __name__ == "__main__":
    go_on(
        __doc__,
        RESULTS,
        range(10),
        ("seed",),
        lambda seed: [(seed,)],
        fit,
        lambda seed: code(),
        tables,
    )

"""Leave-future-out by importance weights beside a fit at each origin: do joint densities agree
within their errors?

Run: `python -m tests.studies.uncertainty.future`; it takes some ten minutes, goes on where it was
stopped and writes its table into docs/measurements/benchmarks.md.

Five small models of 36 simulated times, each a truth of its own. From one fit to the first 24 the
draws are weighed to origins 2, 4, 6 and 8 times on, four times ahead of each; beside it a fit of
its own at each. NUTS with 4 x 1000 draws; errors are those of a mean over as many draws as the
weights are worth.
"""

import time
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .. import ROOT
from ..pages import table, write_section
from ..provenance import fingerprint
from ..rows import Row, age, go_on, held, latest

RESULTS = Path(__file__).with_name("future.jsonl")
PAGE = ROOT / "docs" / "measurements" / "benchmarks.md"
TASK = ("model",)
TIMES, FIRST, ORIGINS, HORIZON = np.arange(36.0), 23.0, (25.0, 27.0, 29.0, 31.0), 4
ENGINE = bd.NUTS(map_starts=8)


class Trend(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


class Constant(bd.Module):
    level: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + 0.0 * t}


class Logistic(bd.Module):
    first: bd.Scalar
    rate: bd.Scalar
    most: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.most / (1 + (self.most / self.first - 1) * jnp.exp(-self.rate * t))}


class Growth(bd.Module):
    first: bd.Scalar
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.first * jnp.exp(self.rate * t)}


def still(t, y, u):
    return {"y": 0.0 * y["y"]}


def _walk(rng: np.random.Generator) -> np.ndarray:
    return np.cumsum(0.4 * rng.normal(size=len(TIMES))) + 0.3 * rng.normal(size=len(TIMES))


def _ar1(rng: np.random.Generator) -> np.ndarray:
    y = [rng.normal()]
    for _ in TIMES[1:]:
        y.append(0.7 * y[-1] + np.sqrt(1 - 0.49) * rng.normal())
    return 2.0 + 0.5 * np.asarray(y)


def _noise() -> bd.NormalNoise:
    return bd.NormalNoise(dist.LogNormal(-1.0, 0.5))


CASES: dict[str, tuple[bd.Model, Callable[[np.random.Generator], np.ndarray]]] = {
    "linear trend": (
        bd.Model(bd.Algebraic(Trend(dist.Normal(0.0, 2.0), dist.Normal(0.0, 0.3))), _noise()),
        lambda rng: 1.0 + 0.1 * TIMES + 0.5 * rng.normal(size=len(TIMES)),
    ),
    "AR(1)": (
        bd.Model(
            bd.Algebraic(Constant(dist.Normal(0.0, 3.0))),
            bd.filtering.CorrelatedNoise(
                bd.filtering.AR1(dist.LogNormal(-0.7, 0.5), dist.Uniform(0.0, 0.99))
            ),
        ),
        _ar1,
    ),
    "logistic growth": (
        bd.Model(
            bd.Algebraic(
                Logistic(bd.between(0.2, 3.0), bd.between(0.05, 0.5), bd.between(5.0, 40.0))
            ),
            bd.LogNormalNoise(dist.LogNormal(-1.5, 0.5)),
        ),
        lambda rng: (
            15.0 / (1 + 14.0 * np.exp(-0.18 * TIMES)) * np.exp(0.2 * rng.normal(size=len(TIMES)))
        ),
    ),
    "Poisson growth": (
        bd.Model(
            bd.Algebraic(Growth(bd.between(1.0, 20.0), dist.Normal(0.0, 0.1))), bd.PoissonNoise()
        ),
        lambda rng: rng.poisson(5.0 * np.exp(0.06 * TIMES)).astype(float),
    ),
    "local level": (
        bd.Model(
            bd.filtering.Kalman(still, {"y": dist.LogNormal(-1.0, 0.5)}, {"y": 0.0}, {"y": 1.0}),
            _noise(),
        ),
        _walk,
    ),
}


def run(name: str) -> Row:
    """By how much, and by how many of their errors,
    densities by weights differ from those of fits.
    """
    model, draw = CASES[name]
    data = xr.Dataset({"y": ("time", draw(np.random.default_rng(len(name))))}, {"time": TIMES})
    began = time.perf_counter()
    weighed = bd.weighting.leave_future_out(
        model, data, origins=[FIRST, *ORIGINS], horizon=HORIZON, engine=ENGINE, key=1
    )
    between = time.perf_counter()
    differences, errors = [], []
    for origin in ORIGINS:
        by_weights = weighed.to_dataset().sel(origin=origin)
        if by_weights["refitted"]:
            continue
        exact = bd.weighting.leave_future_out(
            model, data, origins=[origin], horizon=HORIZON, engine=ENGINE, key=2
        )
        exact = exact.to_dataset().isel(origin=0)
        fewer = ENGINE.chains * ENGINE.draws / float(by_weights["effective_draws"])
        differences.append(round(float(by_weights["log_density"] - exact["log_density"]), 4))
        error = np.hypot(
            float(by_weights["density_error"]) * np.sqrt(fewer), float(exact["density_error"])
        )
        errors.append(round(float(error), 4))
    return {
        "model": name,
        "differences": differences,
        "errors": errors,
        "refits": int(weighed["refitted"].sum()) - 1,
        "seconds": round(between - began),
        "beside_s": round(time.perf_counter() - between),
    }


def code_of(name: str) -> str:
    return fingerprint(bd.weighting.leave_future_out, ENGINE, CASES[name][0])


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    lines: list[tuple] = [
        (
            *(
                "model",
                "origins by weights",
                "refits",
                "largest difference, nats",
                "largest error",
                "largest z",
            ),
            *("root mean square z", "seconds", "of the fits beside it"),
        )
    ]
    for row in rows:
        differences, errors = np.asarray(row["differences"]), np.asarray(row["errors"])
        z = differences / errors
        lines.append(
            (
                *(
                    row["model"],
                    f"{len(z)} of {len(ORIGINS)}",
                    row["refits"],
                    f"{np.abs(differences).max():.3f}",
                ),
                *(f"{errors.max():.3f}", f"{np.abs(z).max():.1f}", f"{np.sqrt(np.mean(z**2)):.1f}"),
                *(row["seconds"], row["beside_s"]),
            )
        )
    found = f"{table(lines)}\n\n{age(rows, TASK, code_of)}"
    write_section(PAGE, "future", found)
    return found


if __name__ == "__main__":
    every = lambda seed: [(name,) for name in CASES]  # noqa: E731
    go_on(__doc__, RESULTS, range(1), TASK, every, run, code_of, tables)

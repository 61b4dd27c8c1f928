"""Whether the split of uncertainty tells noise from ignorance, where both are known.

Run: `uv run python -m tests.studies.uncertainty.noise`; what is done is kept, `--table` prints it.

A smooth curve, seen with noise of a known sd of 0.2 (`known`), or of one that grows fivefold along
the input (`varying`). The inside are 101 places among the data, the outside 20 places beyond them
by up to half of their range.
"""

import time
from functools import cache
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from ..pages import table
from ..provenance import fingerprint
from ..rows import age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
SD = 0.2
SIZES, SEEDS, VARYING_SIZE = (30, 500, 3000), range(3), 500
ENGINES = {
    "NUTS": bd.NUTS(draws=300),
    "anchored, bootstrapped ensemble": bd.DeepEnsemble(20, descent=bd.Descent(steps=3000)),
    "anchored ensemble": bd.DeepEnsemble(20, bootstrap=False, descent=bd.Descent(steps=3000)),
    "plain ensemble": bd.DeepEnsemble(
        20, anchored=False, bootstrap=False, descent=bd.Descent(steps=3000)
    ),
    "MC dropout": bd.engines.MCDropout(descent=bd.Descent(steps=3000, patience=None)),
    "SWAG": bd.engines.SWAG(),
    "Laplace, last layer": bd.engines.Laplace("last", descent=bd.Descent(steps=3000, patience=20)),
}
INSIDE, OUTSIDE = (
    np.linspace(-1.0, 1.0, 101),
    np.concatenate([np.linspace(-2, -1.3, 10), np.linspace(1.3, 2, 10)]),
)


def curve(x):
    return np.sin(2.5 * x) + 0.5 * x


def varying_sd(x):
    return 0.08 * np.exp(0.8 * (1 + x))


def drawn(rng: np.random.Generator, x: np.ndarray, sd) -> xr.Dataset:
    return xr.Dataset({"y": ("x", curve(x) + sd * rng.standard_normal(x.size))}, {"x": x})


def model(varying: bool) -> bd.Model:
    layer = bd.Algebraic(
        bd.Network.mlp({"t": (0.0, 0.6)}, ("y",), dist.LogNormal(0.0, 0.5), width=10, depth=1),
        index="x",
    )
    typical = dist.LogNormal(np.log(0.3), 1.0)
    head = bd.Network.mlp({"t": (0.0, 0.6)}, ("log_scale",), 1.0, width=8, depth=1)
    return bd.Model(
        layer, bd.NormalNoise(bd.noise.VaryingScale(typical, head) if varying else typical)
    )


def known_data(size: int, seed: int) -> xr.Dataset:
    rng = np.random.default_rng([seed, size])
    return drawn(rng, np.sort(rng.uniform(-1, 1, size)), SD)


def known(engine: str, size: int, seed: int) -> dict:
    data, fitted = known_data(size, seed), model(varying=False)
    began = time.perf_counter()
    post = bd.fit(fitted, data, ENGINES[engine], key=seed, progress=False)
    seconds = round(time.perf_counter() - began)
    places = np.unique(np.concatenate([INSIDE, OUTSIDE]))
    fc = bd.forecast(fitted, post, xr.Dataset(coords={"x": places}))
    parts = bd.decompose(fc).isel(observable=0)
    inside = np.abs(parts["x"].values) <= 1
    mean = fc["conditional_mean"]["y"].mean(("chain", "draw")).values
    row = {"study": "known", "engine": engine, "size": size, "seed": seed, "seconds": seconds}
    row["aleatoric_sd"] = round(float(np.sqrt(parts["aleatoric"].values[inside].mean())), 5)
    for where, at in (("inside", inside), ("outside", ~inside)):
        row[f"epistemic_{where}"] = float(f"{parts['epistemic'].values[at].mean():.4g}")
        row[f"aleatoric_{where}"] = float(f"{parts['aleatoric'].values[at].mean():.4g}")
    return row | {"rmse": round(float(np.sqrt(np.mean((mean - curve(places))[inside] ** 2))), 4)}


def varying(engine: str, size: int, seed: int) -> dict:
    """Coverage of new data by 90 % intervals in each third of the places by their noise."""
    rng = np.random.default_rng([seed, 1])
    x, at = (np.sort(rng.uniform(-1, 1, number)) for number in (size, 3000))
    truth, fitted = varying_sd(at), model(varying=True)
    data, test = drawn(rng, x, varying_sd(x)), drawn(rng, at, truth)
    began = time.perf_counter()
    post = bd.fit(fitted, data, ENGINES[engine], key=seed, progress=False)
    seconds = round(time.perf_counter() - began)
    fc = bd.forecast(fitted, post, xr.Dataset(coords={"x": at}))
    mean, variance = (
        fc[f"conditional_{n}"]["y"].values.reshape(-1, at.size) for n in ("mean", "variance")
    )
    # A member's or draw's own noise makes intervals that single predictions of a few members could
    # not.
    draws = mean[:, None] + np.sqrt(variance)[:, None] * rng.standard_normal(
        (len(mean), -(-1000 // len(mean)), at.size)
    )
    low, high = np.quantile(draws.reshape(-1, at.size), [0.05, 0.95], axis=0)
    hit = (low <= test["y"].values) & (test["y"].values <= high)
    third = np.digitize(truth, np.quantile(truth, [1 / 3, 2 / 3]))
    found = np.sqrt(bd.decompose(fc)["aleatoric"].values[0])
    return {
        "study": "varying",
        "engine": engine,
        "size": size,
        "seed": seed,
        "seconds": seconds,
        "covered": [round(float(hit[third == i].mean()), 4) for i in range(3)],
        "sd_ratio": [round(float((found / truth)[third == i].mean()), 4) for i in range(3)],
    }


TASK = ("study", "engine", "size", "seed")


@cache
def _code(study: str, engine: str) -> str:
    return fingerprint(
        bd.fit, bd.forecast, bd.decompose, ENGINES[engine], model(study == "varying")
    )


def code_of(study: str, engine: str, size: int, seed: int) -> str:
    return _code(study, engine)


def run(study: str, engine: str, size: int, seed: int) -> dict:
    return {"known": known, "varying": varying}[study](engine, size, seed)


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    header = (
        "engine",
        "N",
        "data sets",
        "estimated sd ÷ true (range)",
        "÷ that of the noise drawn (range)",
    )
    header += (
        "epistemic variance inside",
        "outside",
        "aleatoric variance inside",
        "outside",
        "seconds",
    )
    lines: list[tuple] = [header]
    said = lambda ratio: f"{ratio.mean():.3f} ({ratio.min():.3f}–{ratio.max():.3f})"  # noqa: E731
    for engine in ENGINES:
        for size in SIZES:
            of = [
                r
                for r in rows
                if (r["study"], r["engine"], r.get("size")) == ("known", engine, size)
            ]
            if of:
                found = np.array([r["aleatoric_sd"] for r in of])
                data = [known_data(size, r["seed"]) for r in of]
                there = np.array([(d["y"] - curve(d["x"])).std().item() for d in data])
                mean = {
                    n: np.mean([r[n] for r in of])
                    for n in of[0]
                    if "_inside" in n or "_outside" in n
                }
                epistemic = [f"{mean[f'epistemic_{where}']:.2g}" for where in ("inside", "outside")]
                aleatoric = [f"{mean[f'aleatoric_{where}']:.3g}" for where in ("inside", "outside")]
                seconds = f"{np.median([r['seconds'] for r in of]):.0f}"
                ratios = (said(found / SD), said(found / there))
                lines.append((engine, size, len(of), *ratios, *epistemic, *aleatoric, seconds))
    thirds: list[tuple] = [
        (
            "engine",
            "data sets",
            "covered by 90 % intervals where noise is least",
            "middle",
            "most",
            "seconds",
        )
    ]
    for engine in ENGINES:
        of = [r for r in rows if (r["study"], r["engine"]) == ("varying", engine)]
        if of:
            covered = np.mean([r["covered"] for r in of], axis=0)
            seconds = f"{np.median([r['seconds'] for r in of]):.0f}"
            thirds.append((engine, len(of), *(f"{c:.1%}" for c in covered), seconds))
    return f"{table(lines)}\n\n{table(thirds)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    sizes = [("known", size) for size in SIZES] + [("varying", VARYING_SIZE)]

    def every(seed):
        return [(study, engine, size, seed) for engine in ENGINES for study, size in sizes]

    go_on(__doc__, RESULTS, SEEDS, TASK, every, run, code_of, tables)

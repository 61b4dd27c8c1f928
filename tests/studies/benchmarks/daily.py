"""Processor seconds of a day's work: load a posterior of ten years of daily data, take in a day,
forecast a week, save.

Run: `uv run python -m tests.studies.benchmarks.daily [DAYS]`

Each day is a process of its own, user and system time, with Python's and JAX's start included. The
first day compiles programs that JAX keeps on disk; the days after it load them.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .import_time import seconds

YEARS, DAYS = 10, 5
WORK = """
from pathlib import Path
from tests.studies.benchmarks.daily import day
day(Path({folder!r}), {number})
"""


class Store(bd.Module):
    """A store of water that loses a share each day, and more in a warm season."""

    share: bd.Scalar
    season: bd.Scalar

    def __call__(self, t, y, u):
        lost = self.share * (1 + self.season * u["warmth"]) * y["water"]
        return {"water": y["water"] + u["rain"] - lost}

    def flow(self, t, y, u):
        return {"flow": self.share * y["water"]}


def model() -> bd.Model:
    store = Store(bd.between(0.02, 0.3), bd.between(0.1, 0.8))
    layer = bd.Difference(
        store, {"water": dist.LogNormal(3.0, 0.5)}, Store.flow, forcings=("rain", "warmth")
    )
    return bd.Model(layer, bd.NormalNoise(dist.HalfNormal(1.0)))


def series(days: int) -> xr.Dataset:
    """Rain and flow of so many days."""
    rng, water, flow = np.random.default_rng(0), 30.0, []
    warmth = np.sin(2 * np.pi * np.arange(days) / 365.25)
    rain = rng.gamma(0.3, 10.0, days)
    for fallen, warm in zip(rain, warmth, strict=True):
        flow.append(0.1 * water)
        water += fallen - 0.1 * (1 + 0.4 * warm) * water
    columns = {
        "rain": rain,
        "warmth": warmth,
        "flow": np.asarray(flow) + 0.2 * rng.normal(size=days),
    }
    dates = np.datetime64("2010-01-01") + np.arange(days)
    return xr.Dataset({name: ("time", values) for name, values in columns.items()}, {"time": dates})


def prepare(folder: Path) -> int:
    """Fit the years; returns how many days they have."""
    known = round(YEARS * 365.25)
    post = bd.fit(
        model(),
        series(known),
        bd.NUTS(chains=4, warmup=200, draws=250, map_starts=4),
        key=0,
        progress=False,
    )
    bd.save(post, folder / "post.nc")
    return known


def day(folder: Path, number: int) -> None:
    """The work of a day: its row has the given number."""
    post = bd.load(folder / "post.nc")
    rows = series(number + 8)
    post = bd.update(model(), post, rows.isel(time=[number]), progress=False)
    ahead = bd.forecast(model(), post, rows.drop_vars("flow").isel(time=slice(number + 1, None)))
    bd.save(post, folder / "next.nc")
    bd.save(ahead, folder / "forecast.nc")
    (folder / "next.nc").replace(folder / "post.nc")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        known = prepare(Path(name))
        for number in range(known, known + (int(sys.argv[1]) if len(sys.argv) > 1 else DAYS)):
            took = seconds(WORK.format(folder=name, number=number))
            print(f"day {number - known + 1}: {took:.1f} CPU s", flush=True)


if __name__ == "__main__":
    main()

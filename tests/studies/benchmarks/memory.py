"""How much memory a long forecast takes: peak resident memory of a process, beyond what it held
before.

Run: `uv run python -m tests.studies.benchmarks.memory --times 20000 --draws 4000`

An exponential decay is forecast into a file, decomposed, scored, and its PIT taken; with
`--in-memory` it is forecast into memory, and nothing else is done. Prints one JSON object, in MiB:
what the four arrays of draws take, and by how much the peak grew in each step over the memory that
the process took before the first, imports and data included.
"""

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.prediction.datatree import draws_dataset
from bayes_dasl.prediction.posterior import signature

MIB = 2**20


class Decay(bd.Module):
    start: bd.Scalar
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.start * jnp.exp(-self.rate * t)}


def peak() -> float:
    """In MiB; Linux counts in KiB, macOS in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / MIB if sys.platform == "darwin" else size / 1024


def posed(times: int, draws: int) -> tuple[bd.Model, xr.DataTree, xr.Dataset]:
    """Model, posterior in four chains, and data to score."""
    model = bd.Model(bd.Algebraic(Decay(dist.LogNormal(), dist.LogNormal())), bd.NormalNoise(0.1))
    rng = np.random.default_rng(0)
    leaves = {
        f"layer.function.{name}": np.exp(0.1 * rng.normal(size=(4, draws // 4)))
        for name in ("start", "rate")
    }
    at = np.linspace(0.0, 5.0, times)
    data = xr.Dataset({"y": ("time", np.exp(-at) + 0.1 * rng.normal(size=times))}, {"time": at})
    groups = {
        "/": xr.Dataset(attrs={"signature": signature(model)}),
        "posterior": draws_dataset(model, leaves),
        "observed_data": data.isel(time=[0]),
        "constant_data": xr.Dataset(coords={"time": at[:1]}, attrs={"start": 0.0}),
    }
    return model, xr.DataTree.from_dict(groups), data


def measure(times: int, draws: int, *, in_memory: bool) -> dict[str, float]:
    model, post, data = posed(times, draws)
    found = {"output": 4 * 8 * times * draws / MIB, "before": peak()}
    if in_memory:
        bd.forecast(model, post, data)
        return found | {"forecast": peak() - found["before"]}
    with tempfile.TemporaryDirectory() as folder:
        fc = bd.forecast(model, post, data, path=Path(folder) / "forecast.nc")
        for name, step in (
            ("forecast", None),
            ("decompose", bd.decompose),
            ("score", bd.score),
            ("pit", bd.scores.pit),
        ):
            if step is not None:
                step(fc, *([] if name == "decompose" else [data]))
            found[name] = peak() - found["before"]
        fc.close()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--in-memory", action="store_true")
    chosen = parser.parse_args()
    figures = measure(chosen.times, chosen.draws, in_memory=chosen.in_memory)
    print(json.dumps({name: round(size) for name, size in figures.items()}))

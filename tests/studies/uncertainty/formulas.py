"""In which coordinates ensembles of networks had better descend where nothing is solved.

Run: `bayes-dasl study tests/studies/uncertainty/formulas.py --workers 1`; rows that stand are kept,
`--table` prints them.

Networks in place of the science and beside it, on the data of three case studies and on a law with
a part unknown that is known here; forecast far from the data (the channel at two Reynolds numbers,
cold argon, the years after 2000, the law beyond its data) and, of the law, between them.
"""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import bayes_dasl as bd
from case_studies import climate, fluids, molecules

WAYS = ("auto", "plain")
NOISE = 0.05


def tasks(quick: bool) -> list[dict]:
    """Each problem in both coordinates, by three keys and, of the law, data sets."""
    return bd.many.combinations(
        seed=range(1 if quick else 3), problem=[*PROBLEMS], coordinates=WAYS
    )


def row(problem: str, seed: int, coordinates: str) -> dict:
    """What an ensemble of ten says of the data that it did not see."""
    model, train, ahead = PROBLEMS[problem](seed)
    engine = bd.DeepEnsemble(
        members=10, descent=bd.Descent(reparametrisation=coordinates.replace("plain", "none"))
    )
    return bd.many.measure(model, train, ahead, engine, key=seed)


def summary(rows: pd.DataFrame) -> dict:
    """Scores in both coordinates, medians over keys."""
    what = ["crps", "log_score", "coverage_90", "fit_s"]
    return {
        "Ensembles": bd.many.medians(
            bd.many.tidy(rows), what, by=["problem", "ahead", "coordinates"]
        )
    }


def channel(name: str):
    """A network in the channel, of three kinds."""
    train = fluids.rows_of(fluids.TRAINED)
    return fluids.models(train)[name](), train, {str(n): fluids.rows_of([n]) for n in fluids.TESTED}


def warming():
    """A network of the forcings, up to 2000."""
    data = climate.load()
    every, (train, _) = climate.masked(data, climate.SPLIT), bd.split(data, time=climate.SPLIT)
    return (
        climate.models(every)["mlp"](),
        train,
        {"ahead": climate.spans(data, climate.SPLIT)["ahead"]},
    )


def argon():
    """A network of the temperature, of warm argon."""
    gas = molecules.GASES["argon"]
    data = molecules.load(gas)
    train, _ = bd.split(data, coldness=1000.0 / gas.warm)
    return molecules.models(gas, train)["mlp"](), train, {"cold": molecules.below(data, gas.cold)}


class Decay(bd.Module):
    """What decays."""

    start: bd.Scalar = bd.field(units="")
    rate: bd.Scalar = bd.field(units="1/s")

    def __call__(self, t, y, u):
        return {"left": self.start * jnp.exp(-self.rate * u["age"])}


def law(seed: int):
    """A decay, and a swing beside it that a network has to find, from 0 to 4 but for 1.5 to 2.5,
    asked up to 6.
    """
    time = np.round(np.arange(0.0, 6.0, 0.05), 2)
    told = np.exp(-0.5 * time) + 0.3 * np.sin(2 * time)
    noise = NOISE * np.random.default_rng(seed).standard_normal(len(time))
    data = xr.Dataset({"left": ("time", told + noise), "age": ("time", time)}, {"time": time})
    between = (time > 1.5) & (time < 2.5)
    ahead = {"between": data.isel(time=between), "beyond": data.isel(time=time >= 4.0)}
    added = bd.networks.Network.mlp({"age": (3.0, 2.0)}, ("left",), dist.HalfNormal(0.5), width=16)
    decay = Decay(start=dist.LogNormal(0.0, 0.5), rate=dist.LogNormal(-0.7, 0.5))
    layer = bd.Algebraic(bd.Residual(decay, added), index="time", forcings=("age",))
    return (
        bd.Model(layer, bd.NormalNoise(dist.LogNormal(-3.0, 0.7))),
        data.isel(time=~between & (time < 4.0)),
        ahead,
    )


PROBLEMS = {
    "channel, network alone": lambda seed: channel("mlp"),
    "channel, parallel": lambda seed: channel("parallel"),
    "channel, residual": lambda seed: channel("residual"),
    "argon, network alone": lambda seed: argon(),
    "climate, network alone": lambda seed: warming(),
    "decay and a swing": law,
}

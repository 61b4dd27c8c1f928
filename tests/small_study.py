"""A small study of two models, for the tests of studies and of the command line: decay, with and
without inflow.
"""

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd


class Decay(bd.Module):
    r"""$\dot y = q - k\,y$."""

    rate: bd.Scalar = bd.field(units="1/h")
    inflow: bd.Scalar = 0.0

    def __call__(self, t, y, u):
        return {"y": self.inflow - self.rate * y["y"]}


def load() -> xr.Dataset:
    """Ten hours of decay at rate 0.3 from 10 mg/L, with normal noise of 0.2 mg/L."""
    times = np.arange(10.0)
    noise = 0.2 * np.random.default_rng(1).normal(size=10)
    data = xr.Dataset({"y": ("time", 10.0 * np.exp(-0.3 * times) + noise)}, {"time": times})
    data["y"].attrs["units"] = "mg/L"
    data["time"].attrs["units"] = "h"
    return data


def model(inflow=0.0) -> bd.Model:
    layer = bd.ODE(
        Decay(bd.between(0.05, 1.0), inflow), {"y": dist.Normal(10.0, 1.0)}, units={"y": "mg/L"}
    )
    return bd.Model(layer, bd.NormalNoise(scale=dist.LogNormal(-1.0, 0.5)))


def study() -> bd.Study:
    return bd.Study(
        name="decay",
        model=model(),
        label="decay",
        competitors={"inflow": model(inflow=dist.HalfNormal(0.5))},
        data=load(),
        split=6.0,
        engine=bd.NUTS(chains=2, warmup=100, draws=50),
    )

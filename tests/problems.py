"""Models and data that several tests share."""

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from case_studies import lynx_hare

POSTERIORDB_NAMES = {
    "theta[1]": "birth",
    "theta[2]": "predation",
    "theta[3]": "death",
    "theta[4]": "growth",
    "z_init[1]": "initial.hare",
    "z_init[2]": "initial.lynx",
    "sigma[1]": "hare.scale",
    "sigma[2]": "lynx.scale",
}


def posteriordb_lynx_hare() -> tuple[bd.Model, xr.Dataset]:
    """`hudson_lynx_hare-lotka_volterra` of posteriordb: its priors, its likelihood,
    all 21 years.
    """

    def positive(mean, sd):
        return dist.TruncatedNormal(mean, sd, low=0.0)

    science = lynx_hare.LotkaVolterra(
        birth=positive(1.0, 0.5),
        predation=positive(0.05, 0.05),
        death=positive(1.0, 0.5),
        growth=positive(0.05, 0.05),
    )

    def start():
        return dist.LogNormal(np.log(10.0), 1.0)

    noise = {name: bd.LogNormalNoise(dist.LogNormal(-1.0, 1.0)) for name in ("hare", "lynx")}
    return bd.Model(bd.ODE(science, {"hare": start(), "lynx": start()}), noise), lynx_hare.load()

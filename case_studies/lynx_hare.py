"""Lynx and hare pelts of the Hudson's Bay Company: predator and prey, with and without what the
equations miss.

Fitted on 1900–1912, forecast over 1913–1920. The mechanistic model is Lotka–Volterra; the hybrid
adds a small Bayesian network to the growth rates, the noisy one adds noise to them that differs
from year to year. The study forecasts with a mixture of the three, each weighed by how probable the
training data are under it.

Data: pelts in thousands, 1900–1920, from E. P. Odum, Fundamentals of Ecology (1953), after D. A.
MacLulich (1937) and C. Elton and M. Nicholson (1942); digitised by J. M. Mahaffy and used by B.
Carpenter, Predator-Prey Population Dynamics: the Lotka-Volterra model in Stan (2018).
"""

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

FIELD = "ecology"
RUN_TIME = "5 min"
DATA = ()

PELTS = "thousand pelts"
HARE = [30, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22, 25.4, 27.1,
        40.3, 57, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7]  # fmt: skip
LYNX = [4, 6.1, 9.8, 35.2, 59.4, 41.7, 19, 13, 8.3, 9.1, 7.4,
        8, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6]  # fmt: skip


class LotkaVolterra(bd.Module):
    r"""Predator and prey.

    $\dot h = h\,(b - p\,l), \quad \dot l = l\,(g\,h - d)$

    Units: states in thousand pelts, time in years.
    Source: Lotka (1925); Volterra (1926).
    """

    birth: bd.Scalar = bd.field(units="1/year")
    predation: bd.Scalar = bd.field(units="1/(thousand pelts · year)")
    death: bd.Scalar = bd.field(units="1/year")
    growth: bd.Scalar = bd.field(units="1/(thousand pelts · year)")

    def __call__(self, t, y, u):
        hare, lynx = y["hare"], y["lynx"]
        return {
            "hare": hare * (self.birth - self.predation * lynx),
            "lynx": lynx * (self.growth * hare - self.death),
        }


def load() -> xr.Dataset:
    """The pelts as a dataset."""
    data = xr.Dataset(
        {"hare": ("time", HARE), "lynx": ("time", LYNX)}, {"time": np.arange(1900.0, 1921.0)}
    )
    data["time"].attrs["units"] = "year"
    for name in ("hare", "lynx"):
        data[name].attrs = {"units": PELTS, "long_name": f"{name} pelts"}
    return data


def observed(vector_field, process_noise: bd.layers.ProcessNoise | None = None) -> bd.Model:
    """Any vector field of hare and lynx, observed as pelts, which tell of animals to within 15 to
    100 per cent.
    """
    initial = {"hare": dist.LogNormal(np.log(30.0), 0.5), "lynx": dist.LogNormal(np.log(5.0), 0.5)}
    layer = bd.ODE(
        vector_field, initial, units={"hare": PELTS, "lynx": PELTS}, process_noise=process_noise
    )
    noise = {name: bd.LogNormalNoise(scale=dist.LogNormal(-1.0, 0.5)) for name in initial}
    return bd.Model(layer, noise)


def study() -> bd.Study:
    """The study that `bayes-dasl run lynx-hare` runs."""
    data = load()
    train, _ = bd.split(data, time=1912)
    science = LotkaVolterra(
        birth=bd.between(0.2, 1.5),
        predation=bd.between(0.005, 0.1),
        death=bd.between(0.2, 1.5),
        growth=bd.between(0.005, 0.1),
    )
    noise = bd.layers.ProcessNoise(
        {
            name: dist.HalfNormal(0.1) for name in ("hare", "lynx")
        },  # per square root of a year, of what there is
        grid=(1900.0, 1921.0, 21),
        relative=True,
    )
    return bd.Study(
        name="lynx-hare",
        title="Lynx and hare, 1900–1920",
        model=observed(bd.corrected(science, train, "hare", "lynx", relative=True)),
        label="hybrid",
        competitors={"mechanistic": observed(science), "noisy": observed(science, noise)},
        data=data,
        split=1912,
    )

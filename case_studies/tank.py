"""A water tank with an outlet: an equation that is wrong, and its correction.

The science says that the outflow is proportional to the level. The simulated tank obeys
Torricelli's law instead, by which it is proportional to the square root of the level. The hybrid
learns the difference from 28 hours of levels, and forecasts the next 20 hours from the inflow.

Data: simulated, `bd.example_data("tank")`.
Source of the law: Torricelli, Opera geometrica (1644).
"""

import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd


class Tank(bd.Module):
    r"""A tank whose outflow is proportional to its level.

    $\dot h = q - k\,h$

    Units: level h in m, inflow q in m/h (per area of the tank), time in hours.
    """

    outflow: bd.Scalar = bd.field(units="1/hour")

    def __call__(self, t, y, u):
        return {"level": u["inflow"] - self.outflow * y["level"]}


def load() -> xr.Dataset:
    """The levels and the inflow as a dataset."""
    return bd.from_table(bd.example_data("tank"), time="time", value="level", forcings="inflow")


def observed(vector_field) -> bd.Model:
    """Any vector field of the level, observed with a relative error of some per cent."""
    layer = bd.ODE(
        vector_field,
        initial={"level": dist.LogNormal(-0.7, 0.5)},
        forcings=("inflow",),
        units={"level": "m", "inflow": "m/hour", "time": "hour"},
    )
    return bd.Model(layer, noise=bd.LogNormalNoise(scale=dist.LogNormal(-3.0, 1.0)))


def study() -> bd.Study:
    """The study that `bayes-dasl run tank` runs."""
    data = load()
    train, _ = bd.split(data, time=28)
    science = Tank(outflow=bd.between(0.05, 1.0))
    return bd.Study(
        name="tank",
        title="Level of a water tank",
        model=observed(bd.corrected(science, train, "level")),
        label="hybrid",
        competitors={"science": observed(science)},
        data=data,
        split=28,
        engine=bd.NUTS(draws=500),
    )

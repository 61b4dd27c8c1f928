r"""Influenza in a boarding school in 1978: how many boys are in bed, and the basic reproduction
number.

Fitted to the first eight days, two past the peak; the six days after them are forecast. Of 763 boys
one is taken to be infectious on 22 January. SIR and SEIR are compared, with negative-binomial
counts.

Data: Anonymous, Influenza in a boarding school, British Medical Journal 1 (1978) 587; read off its
figure, as in the R package outbreaks.
"""

from typing import Any

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import bayes_dasl as bd

FIELD = "epidemiology"
RUN_TIME = "1 min"
DATA = ()

BOYS = 763.0
IN_BED = [3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]


class SIR(bd.Module):
    r"""Susceptible and infectious boys who mix at random; those who recover stay immune.

    $\dot S = -c\,S I / N, \quad \dot I = c\,S I / N - I / d$

    Units: states in boys, time in days.
    Source: Kermack & McKendrick (1927).
    """

    contact: bd.Scalar = bd.field(units="1/day")
    ill: bd.Scalar = bd.field(units="day")

    def __call__(self, t, y, u):
        infected = self.contact * y["S"] * y["I"] / BOYS
        return {"S": -infected, "I": infected - y["I"] / self.ill}

    def seen(self, t, y, u):
        return {"in_bed": y["I"]}


class SEIR(bd.Module):
    r"""The same with a latent stage before a boy is infectious and in bed.

    $\dot S = -c\,S I / N, \quad \dot E = c\,S I / N - E / l, \quad \dot I = E / l - I / d$

    Units: states in boys, time in days.
    """

    contact: bd.Scalar = bd.field(units="1/day")
    ill: bd.Scalar = bd.field(units="day")
    latent: bd.Scalar = bd.field(units="day")

    def __call__(self, t, y, u):
        infected = self.contact * y["S"] * y["I"] / BOYS
        onset = y["E"] / self.latent
        return {"S": -infected, "E": infected - onset, "I": onset - y["I"] / self.ill}

    def seen(self, t, y, u):
        return {"in_bed": y["I"]}


def load() -> xr.Dataset:
    """Boys in bed on each day from 22 January to 4 February 1978."""
    days = pd.date_range("1978-01-22", periods=len(IN_BED), name="time")
    return xr.Dataset(
        {"in_bed": ("time", np.array(IN_BED, float), {"units": "boys"})}, {"time": days}
    )


def observed(equations, initial) -> bd.Model:
    """Either of the two, observed as counts of boys in bed."""
    layer = bd.ODE(equations, initial, type(equations).seen, units={"in_bed": "boys"})
    return bd.Model(
        layer, {"in_bed": bd.NegativeBinomialNoise(concentration=dist.LogNormal(np.log(20.0), 1.0))}
    )


def sir() -> bd.Model:
    """SIR with a boy or a few infectious at the start."""
    return observed(
        SIR(contact=bd.between(0.5, 5.0), ill=bd.between(0.5, 7.0)), {"S": BOYS - 1.0, "I": 1.0}
    )


def seir() -> bd.Model:
    """SEIR, with a latent stage about as long as the incubation of influenza, 1.4 days (Lessler et
    al. 2009).
    """
    latent = dist.LogNormal(np.log(1.4), 0.3)
    equations = SEIR(contact=bd.between(0.5, 10.0), ill=bd.between(0.5, 7.0), latent=latent)
    return observed(equations, {"S": BOYS - 1.0, "E": 0.0, "I": 1.0})


def reproduction(model: bd.Model) -> dict:
    """How many boys one infects while all others are susceptible: $R_0 = c\\,d$."""
    equations: Any = model.layer.vector_field  # pyright: ignore[reportAttributeAccessIssue]
    return {"R0": equations.contact * equations.ill}


def study() -> bd.Study:
    """The study that `bayes-dasl run influenza` runs."""
    return bd.Study(
        name="influenza",
        title="Influenza in a boarding school, 1978",
        model=sir(),
        label="SIR",
        competitors={"SEIR": seir()},
        data=load(),
        split="1978-01-29",
        engine=bd.NUTS(draws=500),
        derived=reproduction,
    )

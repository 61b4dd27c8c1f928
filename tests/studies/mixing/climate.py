"""Two balances of energy: a warming with an unknown feedback, and an equilibrium with an unknown
albedo.
"""

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .case import Case, Unknown, along, correlated, normal, predicted, real_file, sampled, simulated

FORCINGS = ("steady", "volcanic")
YEARS = np.arange(1850.5, 2025.0)


class TwoLayers(bd.Module):
    r"""Heat of the surface and of the deep ocean (Geoffroy et al. 2013), with an unknown feedback
    beside.

    $C \dot T = F + v V - \lambda T + g(T) - \gamma (T - D), \quad C_d \dot D = \gamma (T - D)$
    """

    capacity: bd.Scalar = bd.field(units="W yr m^-2 K^-1")
    deep_capacity: bd.Scalar = bd.field(units="W yr m^-2 K^-1")
    feedback: bd.Scalar = bd.field(units="W m^-2 K^-1")
    exchange: bd.Scalar = bd.field(units="W m^-2 K^-1")
    eruptions: bd.Scalar
    extra: bd.Basis

    def __call__(self, t, y, u):
        down = self.exchange * (y["surface"] - y["deep"])
        forcing = u["steady"] + self.eruptions * u["volcanic"]
        lost = self.feedback * y["surface"] - self.extra(t, y, u)["flux"]
        return {
            "surface": (forcing - lost - down) / self.capacity,
            "deep": down / self.deep_capacity,
        }


def balance(capacity, deep_capacity, feedback, exchange, eruptions, start, extra) -> bd.ODE:
    return bd.ODE(
        TwoLayers(capacity, deep_capacity, feedback, exchange, eruptions, extra),
        {"surface": start, "deep": 0.0},
        lambda t, y, u: {"temperature": y["surface"]},
        forcings=FORCINGS,
        units={"temperature": "K", "surface": "K", "deep": "K", "time": "year"}
        | dict.fromkeys(FORCINGS, "W m^-2"),
        rtol=1e-3,
        atol=1e-4,
    )


def climate(seed: int) -> Case:
    """Seed 0: the global temperature of 1850–2024 with the forcing of IGCC. Its variability is an
    AR(1).
    """
    rng = np.random.default_rng([seed, 3])
    priors = {
        "capacity": bd.between(5.0, 11.0),
        "deep_capacity": bd.between(60.0, 180.0),
        "feedback": bd.between(0.7, 2.0),
        "exchange": bd.between(0.4, 1.0),
        "eruptions": bd.between(0.3, 1.0),
        "start": dist.Normal(0.0, 0.1),
    }
    extra = bd.Basis(
        bd.bases.HilbertGP(-0.8, 2.4, 10, amplitude=dist.HalfNormal(0.3)), "surface", "flux"
    )
    scale, correlation = dist.LogNormal(np.log(0.12), 0.3), dist.Beta(8.0, 6.0)
    model = bd.Model(
        balance(**priors, extra=extra),
        bd.filtering.CorrelatedNoise(bd.filtering.AR1(scale, correlation)),
    )
    if seed == 0:
        data, truth = measured_climate(), None
        states = data["temperature"].values
    else:
        template = idealised_forcing()
        varies = correlated(sampled(scale, rng), sampled(correlation, rng))
        data, truth = simulated(balance, priors, {"extra": extra}, template, varies, rng)
        states = predicted(truth, template)["temperature"]
    unknown = {
        "flux": Unknown(
            lambda layer: layer.vector_field.extra, ("flux",), *along("surface", states)
        )
    }
    return Case("climate", seed, model, data, unknown, _numbers, truth)


def _numbers(layer) -> dict:
    names = ("capacity", "deep_capacity", "feedback", "exchange", "eruptions")
    return {name: getattr(layer.vector_field, name) for name in names}


def measured_climate() -> xr.Dataset:
    """Global temperature and effective radiative forcing of each year (IGCC)."""
    forcing = _table("climate/igcc_ERF_best_aggregates_1750-2024.csv").sel(time=YEARS)
    warming = _table("climate/igcc_annual_averages.csv").sel(time=YEARS)
    volcanic = forcing["volcanic"].values
    return _years(forcing["total"].values - volcanic, volcanic, temperature=warming["GMST"].values)


def _table(name: str) -> xr.Dataset:
    import pandas as pd

    return pd.read_csv(real_file(name)).set_index("time").to_xarray()


def idealised_forcing() -> xr.Dataset:
    """A rise as of the last 175 years, and an eruption every two decades."""
    past = YEARS - YEARS[0]
    return _years(0.1 + 3.1 * (past / past[-1]) ** 2.5, np.where(past % 23 == 20, -2.5, 0.15))


def _years(steady, volcanic, **observed) -> xr.Dataset:
    columns = {"steady": (steady, "W m^-2"), "volcanic": (volcanic, "W m^-2")}
    columns |= {name: (values, "K") for name, values in observed.items()}
    variables = {
        name: ("time", values, {"units": unit}) for name, (values, unit) in columns.items()
    }
    return xr.Dataset(variables, {"time": ("time", YEARS, {"units": "year"})})


class Balance(bd.Module):
    """Sunlight that is kept is what is radiated: $S (1 - a(T)) = A + B T$, with an unknown albedo
    a.
    """

    radiated: bd.Scalar = bd.field(units="W m^-2")
    response: bd.Scalar = bd.field(units="W m^-2 K^-1")
    albedo: bd.Basis

    def __call__(self, t, y, u):
        kept = u["sun"] * (1 - self.albedo(t, y, u)["albedo"])
        return {"temperature": kept - self.radiated - self.response * y["temperature"]}


def equilibrium(radiated, response, albedo) -> bd.Implicit:
    return bd.Implicit(
        Balance(radiated, response, albedo), {"temperature": 10.0}, forcings="sun", index="planet"
    )


def implicit_law(seed: int) -> Case:
    """Forty planets under suns of 200 to 420 W m⁻²; temperatures in °C with an error of 0.5."""
    rng = np.random.default_rng([seed, 4])
    priors = {"radiated": bd.between(195.0, 215.0), "response": bd.between(1.7, 2.6)}
    family = bd.bases.HilbertGP(-70.0, 80.0, 12, amplitude=dist.HalfNormal(0.02))
    albedo = bd.Basis(family, "temperature", "albedo", level=0.3)
    sun = ("planet", np.linspace(200.0, 420.0, 40), {"units": "W m^-2"})
    template = xr.Dataset({"sun": sun}, {"planet": np.arange(40.0)})
    scale = dist.LogNormal(np.log(0.5), 0.3)
    data, truth = simulated(
        equilibrium, priors, {"albedo": albedo}, template, normal(sampled(scale, rng)), rng
    )
    model = bd.Model(equilibrium(**priors, albedo=albedo), bd.NormalNoise(scale))
    states = predicted(truth, template)["temperature"]
    unknown = {
        "albedo": Unknown(
            lambda layer: layer.equations.albedo, ("albedo",), *along("temperature", states)
        )
    }
    return Case("implicit_law", seed, model, data, unknown, _law, truth)


def _law(layer) -> dict:
    return {"radiated": layer.equations.radiated, "response": layer.equations.response}

"""The warming of the earth since 1850: two layers of heat, driven by what people and volcanoes did to the air.

Fitted up to 2000 together to the temperature of the globe, how much more the land warms, and the heat of the ocean;
forecast over 2001–2024 with the forcings that came. In the hybrid the feedback
changes with the warming, by an unknown function.

Data: Indicators of Global Climate Change 2024 (P. M. Forster et al., Earth Syst. Sci. Data 17, 2641 (2025)), CC BY 4.0:
effective radiative forcing by agent 1750–2024, temperatures 1850–2024, ocean heat content 1971–2024.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import bayes_dasl as bd
from bayes_dasl.study import Run

from ._data import path_of
from ._pictures import UNSEEN, band, finished, panels
from ._two_layers import FLUX, YEAR, TwoLayers, bend

AGENTS = {
    "greenhouse": ("CO2", "nonco2wmghg", "O3", "H2O_stratospheric"),
    "aerosol": ("aerosol",),
    "surface": ("land_use", "BC_on_snow", "contrails"),
    "solar": ("solar",),
    "volcanic": ("volcanic",),
}
WITHIN = {"greenhouse": 0.06, "aerosol": 0.36, "surface": 0.45, "solar": 0.3, "volcanic": 0.15}
"""About the standard deviations of the logarithms of these forcings, from the 5 to 95 % ranges of the same data."""

SPLIT = 2000.5
UNITS = {"temperature": "K", "land": "K", "heat": "ZJ", "surface": "K", "deep": "K", "time": YEAR}
UNITS |= dict.fromkeys(AGENTS, FLUX)
BENDS = {"science": False, "hybrid": True}
# Of a flux of 1 W m^-2 over the earth in a year, in ZJ, what the ocean takes up (von Schuckmann et al. 2023).
ZJ_PER_YEAR, TO_THE_OCEAN = 5.101e14 * 3.1557e7 / 1e21, 0.90
PER_DOUBLING = 3.93  # W m^-2 of twice the carbon dioxide (Forster et al. 2021)


class Earth(TwoLayers):
    """Two layers that the forcings of five groups of agents drive, each with a scale of its own."""

    scales: Any = bd.field(units="")
    land_ratio: bd.Scalar = bd.field(units="")
    heat_level: bd.Scalar = bd.field(units="ZJ")

    def forced(self, u):
        return sum(self.scales[agent] * u[agent] for agent in AGENTS)

    def told(self, y):
        """What is observed of states."""
        heat = self.heat_level + ZJ_PER_YEAR * TO_THE_OCEAN * self.heat(y)
        return {"temperature": y["surface"], "land": self.land_ratio * y["surface"], "heat": heat}

    def observe(self, t, y, u):
        """Means of a year that begins with states."""
        after = self(t, y, u)
        return self.told({name: (y[name] + after[name]) / 2 for name in y})


class Rates(bd.Module):
    """The same as an initial value problem, for rivals that read the rates of the science."""

    earth: Earth

    def __call__(self, t, y, u):
        return self.earth.rates(y, self.earth.forced(u), self.earth.feedback_at(y["surface"]))

    def observe(self, t, y, u):
        return self.earth.told(y)


def earth(bends: bool = False) -> Earth:
    """With priors that are about the spread of climate models (Geoffroy et al. 2013).

    Args:
        bends: whether the feedback changes with the warming, by an unknown function.
    """
    return Earth(
        capacity=bd.between(4.0, 12.0),
        deep_capacity=bd.between(50.0, 250.0),
        feedback=bd.between(0.5, 2.2),
        exchange=bd.between(0.4, 1.2),
        efficacy=bd.between(0.9, 1.8),
        scales={agent: dist.LogNormal(0.0, sd) for agent, sd in WITHIN.items()},
        land_ratio=bd.between(1.2, 1.8),
        heat_level=dist.Normal(-200.0, 150.0),
        bend=bend(4.0) if bends else None,
    )


def yearly(equations: Earth) -> bd.Difference:
    """States from year to year."""
    return bd.Difference(step=equations, initial=_initial(), observe=Earth.observe, forcings=tuple(AGENTS), units=UNITS)


def continuous(equations: Earth) -> bd.ODE:
    """The same between the years, with forcings that run linearly from one to the next."""
    rates = Rates(equations)
    return bd.ODE(rates, _initial(), Rates.observe, forcings=tuple(AGENTS), units=UNITS, rtol=1e-3, atol=1e-4)


def _initial() -> dict[str, dist.Distribution]:
    return {"surface": dist.Normal(0.0, 0.1), "deep": dist.Normal(0.0, 0.05)}


def observed(layer: Any) -> bd.Model:
    """A layer observed with variability that is correlated from year to year, the same weather over land and globe.

    Of the ocean's heat nobody is sure to 40 ZJ before there were floats everywhere, which the published errors say.
    """
    noise = {
        "temperature": bd.CorrelatedNoise(bd.AR1(dist.LogNormal(np.log(0.1), 0.3), dist.Beta(8.0, 6.0))),
        "land": bd.CorrelatedNoise(bd.AR1(dist.LogNormal(np.log(0.15), 0.3), dist.Beta(6.0, 8.0))),
        "heat": bd.CorrelatedNoise(bd.AR1(dist.LogNormal(np.log(40.0), 0.3), dist.Beta(12.0, 3.0))),
    }
    weather = bd.noise.CrossCorrelation(("temperature", "land"), dist.Uniform(-1.0, 1.0))
    return bd.Model(layer, noise, cross_correlation=weather)


def load() -> xr.Dataset:
    """Forcings and what was observed of each year."""
    forcing = _table("climate/igcc_ERF_best_aggregates_1750-2024.csv")
    warming = _table("climate/igcc_annual_averages.csv")
    heat = _table("climate/igcc_earth_energy_imbalance.csv")["ocean_full-depth"]
    years = warming["time"].values
    columns = {agent: (forcing[list(names)].to_array().sum("variable"), FLUX) for agent, names in AGENTS.items()}
    columns |= {"temperature": (warming["GMST"], "K"), "land": (warming["Land"], "K"), "heat": (heat, "ZJ")}
    variables = {name: ("time", v.reindex(time=years).values, {"units": u}) for name, (v, u) in columns.items()}
    return xr.Dataset(variables, {"time": ("time", years, {"units": YEAR})})


def _table(name: str) -> xr.Dataset:
    return pd.read_csv(path_of(name)).set_index("time").to_xarray()


def masked(data: xr.Dataset, until: float) -> xr.Dataset:
    """All forcings, with what was observed up to a year."""
    return data.assign({name: data[name].where(data["time"] <= until) for name in ("temperature", "land", "heat")})


def sensitivity(model: bd.Model) -> dict[str, Any]:
    """The warming of twice the carbon dioxide, in the long run, in K."""
    layer: Any = model.layer
    return {"climate_sensitivity": layer.step.equilibrium(PER_DOUBLING * layer.step.scales["greenhouse"])}


def models(every: xr.Dataset) -> dict[str, Callable[[], bd.Model]]:
    """Makers of all models by name, for all years, of which those that are forecast have forcings alone."""
    own = {name: lambda bends=bends: observed(yearly(earth(bends))) for name, bends in BENDS.items()}
    fixed = {
        "hybrid, science fixed": lambda: bd.rivals.fixed(own["hybrid"]()),
        "fixed": lambda: bd.rivals.fixed(own["science"]()),
    }
    known = observed(continuous(earth()))
    names = ("mlp", "transformer", "gaussian_process", "neural_ode", "pinn")
    return own | fixed | {name: lambda name=name: bd.rivals.named(known, every, name)[name] for name in names}


def study() -> bd.Study:
    """The study that `bayes-dasl run climate` runs."""
    data = load()
    made = models(masked(data, SPLIT))
    return bd.Study(
        name="climate",
        title="Global warming 1850–2024",
        model=made["hybrid"](),
        label="hybrid",
        rivals={"science": made["science"]()},
        data=data,
        split=SPLIT,
        engine=bd.NUTS(draws=500),
        derived=sensitivity,
        options=bd.ReportOptions(
            window=(1985.5, 2024.5),
            thresholds={"temperature": [1.0, 1.5]},
            source="Indicators of Global Climate Change 2024 (Forster et al. 2025)",
            licence="CC BY 4.0",
        ),
    )


def picture(run: Run) -> Figure:
    """Warming and the heat of the ocean from 1980 on, of the science and the hybrid, beside what was observed."""
    data = run.study.data
    fig, axes = panels()
    for ax, (name, label) in zip(
        axes, {"temperature": "warming (K)", "heat": "heat of the ocean (ZJ)"}.items(), strict=True
    ):
        for place, model in enumerate(("science", "hybrid")):
            held = bd.load(run.path(model, "forecast.nc"))["predictions"].dataset[name].sel(time=slice(1980, None))
            band(ax, held["time"].values, held, model, place)
        fitted, unseen = (data[name].sel(time=at) for at in (slice(1980, SPLIT), slice(SPLIT, None)))
        ax.plot(fitted["time"], fitted, "o", ms=4, color="black", label="observed, fitted")
        ax.plot(unseen["time"], unseen, label="observed, not fitted", **UNSEEN)
        ax.set(xlabel="year", ylabel=label)
    return finished(fig)


ENSEMBLE = bd.DeepEnsemble(members=5, descent=bd.Descent(steps=1500))
NETWORKS = ("mlp", "transformer", "neural_ode", "pinn")


def tasks(quick: bool) -> list[dict]:
    """Each model from two ends of the training data, and from fewer years of them."""
    every = ["science", "hybrid", "hybrid, science fixed", "fixed", *NETWORKS, "gaussian_process"]
    if quick:
        some = ["science", "hybrid", "fixed", "mlp"]
        return bd.combinations(model=some, until=[SPLIT], seed=[0])
    found = bd.combinations(model=every, until=[SPLIT, 1990.5], seed=[0])
    found += bd.combinations(model=[*NETWORKS], until=[SPLIT], seed=range(1, 5))
    return found + bd.combinations(model=["science", "hybrid", "mlp"], until=[1980.5, 1985.5, 1995.5], seed=[0])


def row(model: str, until: float, seed: int) -> dict:
    """What a model that was fitted to the years up to one says of all that follow, their forcings given."""
    data = load()
    train, _ = bd.split(data, time=until)
    ahead = data.sel(time=slice(until + 0.5, None))
    every = masked(data, until)
    made = models(every)[model]()
    train = every if model == "pinn" else train  # it obeys the equation where it is asked to
    engine = ENSEMBLE if model in NETWORKS else bd.NUTS(chains=2, draws=300)
    scientific = model in ("science", "hybrid")
    return bd.measure(made, train, {"ahead": ahead}, engine, derived=sensitivity if scientific else None, key=seed)


def summary(rows: pd.DataFrame) -> dict:
    """Errors ahead, and the climate sensitivity."""
    table = bd.tidy(rows)
    by = ["until", "observable", "model"]
    what = ["rmse", "crps", "log_score", "coverage_90", "fit_s", "memory_mb"]
    scores = pd.DataFrame(table.groupby(by)[what].median())
    found = {"Ahead": scores.sort_values([*by[:2], "crps"])}
    told = bd.tidy(rows, "derived")
    return found if told.empty else found | {"Climate sensitivity": told[["model", "until", "low", "median", "high"]]}

"""The warming of the earth since 1850: two layers of heat, driven by what people and volcanoes did
to the air.

Fitted up to 2000 together to the temperature of the globe, how much more the land warms, and the
heat of the ocean; forecast over 2001–2024 with the forcings that came, and to 2100 with some that
may come. In the hybrid the feedback changes with the warming, by an unknown function. A twin of the
earth has known numbers, and a feedback that may bend.

Data: Indicators of Global Climate Change 2024 (P. M. Forster et al., Earth Syst. Sci. Data 17, 2641
(2025)), CC BY 4.0: effective radiative forcing by agent 1750–2024, temperatures 1850–2024, ocean
heat content 1971–2024.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import bayes_dasl as bd
from bayes_dasl.study import Run

from ._data import path_of
from ._pictures import UNSEEN, band, finished, panels, ribbon
from ._two_layers import FLUX, YEAR, TwoLayers, bend

FIELD = "climate"
RUN_TIME = "5 min"
DATA = (
    "climate/igcc_ERF_best_aggregates_1750-2024.csv",
    "climate/igcc_annual_averages.csv",
    "climate/igcc_earth_energy_imbalance.csv",
)

AGENTS = {
    "greenhouse": ("CO2", "nonco2wmghg", "O3", "H2O_stratospheric"),
    "aerosol": ("aerosol",),
    "surface": ("land_use", "BC_on_snow", "contrails"),
    "solar": ("solar",),
    "volcanic": ("volcanic",),
}
WITHIN = {"greenhouse": 0.06, "aerosol": 0.36, "surface": 0.45, "solar": 0.3, "volcanic": 0.15}
"""Standard deviations of the logarithms of the scales. The 5 to 95 % ranges of the same data have
about as much of greenhouse gases and volcanoes, 0.4 to 0.45 of aerosols and 0.45 to 0.6 of the sun;
those of the surface go both ways, which no scale can say."""

SPLIT = 2000.5
UNITS = {"temperature": "K", "land": "K", "heat": "ZJ", "surface": "K", "deep": "K", "time": YEAR}
UNITS |= dict.fromkeys(AGENTS, FLUX)
SCIENTIFIC = {
    "science": (False, None),
    "hybrid": (True, None),
    "science, without land": (False, "land"),
    "hybrid, without land": (True, "land"),
    "science, without heat": (False, "heat"),
    "hybrid, without heat": (True, "heat"),
}
"""Whether the feedback changes with the warming, and which observable is left out, by name."""
# Of a flux of 1 W m^-2 over the earth in a year, in ZJ, what the ocean takes up (von Schuckmann et
# al. 2023).
ZJ_PER_YEAR, TO_THE_OCEAN = 5.101e14 * 3.1557e7 / 1e21, 0.90
PER_DOUBLING = 3.93  # W m^-2 of twice the carbon dioxide (Forster et al. 2021)
OBSERVED = ("temperature", "land", "heat")
HEAT_ERROR = 36.0  # ZJ, that of 2024, for years of which nothing is published


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
    """The same as an initial value problem, for competitors that read the rates of the science."""

    earth: Earth

    def __call__(self, t, y, u):
        return self.earth.rates(y, self.earth.forced(u), self.earth.feedback_at(y["surface"]))

    def observe(self, t, y, u):
        return self.earth.told(y)


def earth(bends: bool = False) -> Earth:
    """With priors that are about the spread of climate models (Geoffroy et al. 2013), and a
    feedback from what is known of its processes, 1.16, "very likely" between 0.51 and 1.81 (Forster
    et al. 2021).

    Args:
        bends: whether the feedback changes with the warming, by an unknown function.
    """
    return Earth(
        capacity=bd.between(4.0, 12.0),
        deep_capacity=bd.between(50.0, 250.0),
        feedback=dist.TruncatedNormal(1.16, 0.40, low=0.1),
        exchange=bd.between(0.4, 1.2),
        efficacy=bd.between(0.9, 1.8),
        scales={agent: dist.LogNormal(0.0, sd) for agent, sd in WITHIN.items()},
        land_ratio=bd.between(1.2, 1.8),
        heat_level=dist.Normal(-200.0, 150.0),
        bend=bend(4.0) if bends else None,
    )


def yearly(equations: Earth) -> bd.Difference:
    """States from year to year."""
    return bd.Difference(
        step=equations,
        initial=_initial(),
        observe=Earth.observe,
        forcings=tuple(AGENTS),
        units=UNITS,
    )


def continuous(equations: Earth) -> bd.ODE:
    """The same between the years, with forcings that run linearly from one to the next."""
    rates = Rates(equations)
    return bd.ODE(
        rates, _initial(), Rates.observe, forcings=tuple(AGENTS), units=UNITS, rtol=1e-3, atol=1e-4
    )


def _initial() -> dict[str, dist.Distribution]:
    return {"surface": dist.Normal(0.0, 0.1), "deep": dist.Normal(0.0, 0.05)}


def observed(layer: Any, without: Literal["land", "heat"] | None = None) -> bd.Model:
    """A layer observed with variability that is correlated from year to year, the same weather over
    land and globe.

    Errors of the ocean's heat are the published standard deviations, 66 ZJ in 1971, half of that
    now, each year's by
    itself: an assumption, for errors of a level stay for years.

    Args:
        layer: of the states.
        without: an observable that is left out.
    """
    noise = {
        "temperature": bd.filtering.CorrelatedNoise(
            bd.filtering.AR1(dist.LogNormal(np.log(0.1), 0.3), dist.Beta(8.0, 6.0))
        ),
        "land": bd.filtering.CorrelatedNoise(
            bd.filtering.AR1(dist.LogNormal(np.log(0.15), 0.3), dist.Beta(6.0, 8.0))
        ),
        "heat": bd.NormalNoise(known_error=bd.noise.PerDatum("heat_error", otherwise=HEAT_ERROR)),
    }
    weather = bd.filtering.CrossCorrelation(("temperature", "land"), dist.Uniform(-1.0, 1.0))
    if without:
        del noise[without]
    return bd.Model(layer, noise, cross_correlation=weather if "land" in noise else None)


def load() -> xr.Dataset:
    """Forcings and what was observed of each year."""
    forcing = _table("climate/igcc_ERF_best_aggregates_1750-2024.csv")
    warming = _table("climate/igcc_annual_averages.csv")
    ocean = _table("climate/igcc_earth_energy_imbalance.csv")
    years = warming["time"].values
    columns = {
        agent: (forcing[list(names)].to_array().sum("variable"), FLUX)
        for agent, names in AGENTS.items()
    }
    columns |= {"temperature": (warming["GMST"], "K"), "land": (warming["Land"], "K")}
    columns |= {
        "heat": (ocean["ocean_full-depth"], "ZJ"),
        "heat_error": (ocean["ocean_full-depth_error"], "ZJ"),
    }
    variables = {
        name: ("time", v.reindex(time=years).values, {"units": u})
        for name, (v, u) in columns.items()
    }
    return xr.Dataset(variables, {"time": ("time", years, {"units": YEAR})})


def _table(name: str) -> xr.Dataset:
    return pd.read_csv(path_of(name)).set_index("time").to_xarray()


def masked(data: xr.Dataset, until: float) -> xr.Dataset:
    """All forcings, with what was observed up to a year."""
    return data.assign({name: data[name].where(data["time"] <= until) for name in OBSERVED})


SCENARIOS = {"as in the last 20 years": 1.0, "half as fast": 0.5, "as in 2024": 0.0}
"""How fast the forcing of greenhouse gases grows after 2024, in shares of its growth from 2004 to
2024.
"""


def scenarios(data: xr.Dataset) -> dict[str, Any]:
    """Forcings from 1850 to 2100: what came up to 2024; then greenhouse gases by each of the
    `SCENARIOS`, aerosols and surface as in 2024, sun and volcanoes as they were on average."""
    years = np.arange(data["time"].values[0], 2101.0)
    later = years > data["time"].values[-1]
    every = data[[*AGENTS]].reindex(time=years)
    for agent in AGENTS:
        kept = data[agent].mean() if agent in ("solar", "volcanic") else data[agent][-1]
        every[agent] = every[agent].where(~later, kept)
    growth = float(data["greenhouse"][-1] - data["greenhouse"][-21]) / 20
    grown = growth * np.maximum(years - data["time"].values[-1], 0.0)
    every["time"] = "time", years, data["time"].attrs
    return {
        name: every.assign(
            greenhouse=every["greenhouse"].copy(data=every["greenhouse"] + share * grown)
        )
        for name, share in SCENARIOS.items()
    }


TWIN = {"capacity": 8.0, "deep_capacity": 110.0, "feedback": 1.1, "exchange": 0.7, "efficacy": 1.3}
TWINS = {"twin": 0.0, "bent twin": -0.3}
"""The weight of a straight line over the warming in the logarithm of the feedback: with -0.3 that
is 0.16 higher at no warming, as told at 1.5 K, and 0.26 lower at 4 K."""


def twin(bent: float) -> Earth:
    """An earth of which all is known.

    Args:
        bent: one of the `TWINS`.
    """
    line = bd.bases.Polynomial(-1.0, 4.0, 1)  # pyright: ignore[reportCallIssue]
    weaker = (
        bd.Basis(line, "warming", "factor", np.asarray([0.0, bent]), positive=True)
        if bent
        else None
    )
    return Earth(
        **TWIN, scales=dict.fromkeys(AGENTS, 1.0), land_ratio=1.5, heat_level=-200.0, bend=weaker
    )


def simulated(bent: float, seed: int) -> xr.Dataset:
    """What the forcings up to 2100 make of a twin, as much of it observed as of the earth, and all
    of later years.

    Weather and errors are of the kind that the models take them for.

    Args:
        bent: one of the `TWINS`.
        seed: of its weather and of the errors.
    """
    data, random = load(), np.random.default_rng(seed)
    asked = next(iter(scenarios(data).values()))
    layer = dataclasses.replace(yearly(twin(bent)), initial={"surface": 0.0, "deep": 0.0})
    truth = layer(observed(layer).inputs(asked)).values
    seen = data.reindex(time=asked["time"])
    weather = np.zeros((asked.sizes["time"], 2))
    shocks = random.multivariate_normal([0.0, 0.0], [[1.0, 0.7], [0.7, 1.0]], len(weather))
    for year in range(1, len(weather)):
        weather[year] = 0.5 * weather[year - 1] + np.sqrt(1 - 0.5**2) * shocks[year]
    errors = {"temperature": 0.1 * weather[:, 0], "land": 0.15 * weather[:, 1]}
    errors |= {
        "heat": seen["heat_error"].fillna(HEAT_ERROR).values * random.normal(size=len(weather))
    }
    later = asked["time"].values > data["time"].values[-1]
    for name, error in errors.items():
        found = np.asarray(truth[name]) + error
        asked[name] = (
            "time",
            np.where(later | seen[name].notnull(), found, np.nan),
            data[name].attrs,
        )
    return asked.assign(heat_error=seen["heat_error"])


def sensitivity(model: bd.Model) -> dict[str, Any]:
    """The warming of twice the carbon dioxide, in the long run, in K."""
    layer: Any = model.layer
    return {"climate_sensitivity": sensitivity_of(layer.step)}


def sensitivity_of(equations: Earth) -> Any:
    """The same of equations."""
    return equations.equilibrium(PER_DOUBLING * equations.scales["greenhouse"])


def models(every: xr.Dataset) -> dict[str, Callable[[], bd.Model]]:
    """Makers of all models by name, for all years, of which those that are forecast have forcings
    alone.
    """
    own = {
        name: lambda bends=bends, without=without: observed(yearly(earth(bends)), without)
        for name, (bends, without) in SCIENTIFIC.items()
    }
    fixed = {
        "hybrid, science fixed": lambda: bd.baselines.fixed(own["hybrid"]()),
        "fixed": lambda: bd.baselines.fixed(own["science"]()),
    }
    known = observed(continuous(earth()))
    names = ("mlp", "transformer", "gaussian_process", "neural_ode", "pinn")
    return (
        own
        | fixed
        | {name: lambda name=name: bd.baselines.named(known, every, name)[name] for name in names}
    )


def study() -> bd.Study:
    """The study that `bayes-dasl run climate` runs."""
    data = load()
    made = models(masked(data, SPLIT))
    return bd.Study(
        name="climate",
        title="Global warming 1850–2024",
        model=made["hybrid"](),
        label="hybrid",
        competitors={"science": made["science"]()},
        data=data,
        split=SPLIT,
        engine=bd.NUTS(draws=500),
        derived=sensitivity,
        mix=False,  # before 1971 the ocean's heat was not observed, so that there is little to weigh models by
        options=bd.ReportOptions(
            window=(1985.5, 2024.5),
            thresholds={"temperature": [1.0, 1.5]},
            source="Indicators of Global Climate Change 2024 (Forster et al. 2025)",
            licence="CC BY 4.0",
        ),
    )


def picture(run: Run) -> Figure:
    """Warming from 1980 on, of the science and the hybrid, beside what was observed; and the
    hybrid's to 2100.
    """
    study, data = run.study, run.study.data
    fig, (left, right) = panels()
    for place, model in enumerate(("science", "hybrid")):
        held = bd.load(run.path(model, "forecast.nc"))["predictions"].dataset["temperature"]
        held = held.sel(time=slice(1980, None))
        band(left, held["time"].values, held, model, place)
    fitted, unseen = (
        part["temperature"].sel(time=slice(1980, None)) for part in (study.train, study.test)
    )
    left.plot(fitted["time"], fitted, "o", ms=4, color="black", label="observed, fitted")
    left.plot(unseen["time"], unseen, label="observed, not fitted", **UNSEEN)
    left.set(xlabel="year", ylabel="warming (K)")
    post = bd.load(run.path("hybrid", "posterior.nc"))
    for (name, fc), line in zip(
        bd.forecast(study.model, post, scenarios(data)).items(), ("-", "--", ":"), strict=True
    ):
        held = fc["predictions"].dataset["temperature"].sel(time=slice(2010, None))
        ribbon(right, held["time"].values, held, bd.plots.BLUE, line, alpha=0.15)
        right.annotate(
            name,
            (2099, float(held.isel(time=-1).median())),
            (0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    right.set(xlabel="year", ylabel="warming (K)")
    right.set_title(
        "the same hybrid to 2100, 90 % bands,\nby greenhouse forcing after 2024",
        loc="left",
        fontsize=9,
    )
    return finished(fig)


ENSEMBLE = bd.DeepEnsemble(members=5, descent=bd.Descent(steps=1500))
EARTH = "earth"
NETWORKS = ("mlp", "transformer", "neural_ode", "pinn")


def tasks(quick: bool) -> list[dict]:
    """Each model from two ends of the training data, some from fewer years or observables of them,
    and of twins of the earth."""
    every = ["science", "hybrid", "hybrid, science fixed", "fixed", *NETWORKS, "gaussian_process"]
    if quick:
        some = ["science", "hybrid", "fixed", "mlp"]
        return bd.many.combinations(world=[EARTH], model=some, until=[SPLIT], seed=[0])
    some = ["science", "hybrid", "mlp"]
    found = bd.many.combinations(world=[EARTH], model=every, until=[SPLIT, 1990.5], seed=[0])
    fewer = [name for name, (_, without) in SCIENTIFIC.items() if without]
    found += bd.many.combinations(world=[EARTH], model=fewer, until=[SPLIT], seed=[0])
    found += bd.many.combinations(
        world=[EARTH], model=some, until=[1980.5, 1985.5, 1995.5], seed=[0]
    )
    found += bd.many.combinations(world=[*TWINS], model=some, until=[SPLIT], seed=range(5))
    return found + bd.many.combinations(
        world=[EARTH], model=[*NETWORKS], until=[SPLIT], seed=range(1, 5)
    )


def spans(data: xr.Dataset, until: float) -> dict[str, xr.Dataset]:
    """What is forecast from a year on: up to 2024, and of a twin the last 25 years to 2100, by the
    forcings before.
    """
    later = data.sel(time=slice(until + 0.5, None))
    last = later.assign({name: later[name].where(later["time"] > 2075.0) for name in OBSERVED})
    found = {"ahead": later.sel(time=slice(None, 2024.5)), "2100": last}
    return {name: part for name, part in found.items() if part["temperature"].notnull().any()}


def row(world: str, model: str, until: float, seed: int) -> dict:
    """What a model that was fitted to the years up to one says of all that follow, their forcings
    given.
    """
    data = load() if world == EARTH else simulated(TWINS[world], seed)
    train, _ = bd.split(data, time=until)
    ahead = spans(data, until)
    every = masked(data, until)
    made = models(every)[model]()
    train = every if model == "pinn" else train  # it obeys the equation where it is asked to
    engine = ENSEMBLE if model in NETWORKS else bd.NUTS(chains=2, draws=300)
    found = bd.many.measure(
        made, train, ahead, engine, derived=sensitivity if model in SCIENTIFIC else None, key=seed
    )
    return (
        found
        if world == EARTH
        else found | {"true_sensitivity": float(sensitivity_of(twin(TWINS[world])))}
    )


def summary(rows: pd.DataFrame) -> dict:
    """Errors ahead, differences to the science over seeds of a twin,
    and the climate sensitivity.
    """
    table: Any = bd.many.tidy(rows)
    by = ["world", "until", "ahead", "observable", "model"]
    what = ["rmse", "crps", "log_score", "coverage_90", "fit_s", "memory_mb"]
    found = {"Ahead": bd.many.medians(table, what, by=by)}
    for (world, ahead), part in table.query(
        "world != @EARTH and observable == 'temperature'"
    ).groupby(["world", "ahead"]):
        if "science" in part["model"].values:
            title = f"CRPS of the temperature of a {world} ({ahead}), less that of the science"
            found[title] = bd.many.paired(part, "crps", between="model", against="science")
    told = bd.many.tidy(rows, "derived")
    if told.empty:
        return found
    if "true_sensitivity" in told:
        told["held"] = (
            told["true_sensitivity"]
            .between(told["low"], told["high"])
            .where(told["world"] != EARTH)
        )
    columns = [
        "world",
        "model",
        "until",
        "seed",
        "low",
        "median",
        "high",
        "true_sensitivity",
        "held",
    ]
    return found | {"Climate sensitivity": told[told.columns.intersection(columns, sort=False)]}

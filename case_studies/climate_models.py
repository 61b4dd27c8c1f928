"""Fourteen climate models: fitted to four times the carbon dioxide at once, forecast for one per
cent more a year.

All are two layers of heat with numbers of their own around what is typical. In the experiment of
the fit the carbon dioxide is four times what it was from the first day on; in the one that is
forecast it grows for 150 years, the forcing somewhat faster than with its logarithm. Both are put
one after the other, and at the start of each all heat is where it was before.

Data: surface air temperature and net flux at the top of the atmosphere, differences to each model's
own control run, from CMIP6 by M. Ringer (github.com/mark-ringer/cmip6), CC BY-SA 4.0.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import bayes_dasl as bd
from bayes_dasl.study import Run

from ._data import path_of
from ._pictures import STYLES, UNSEEN, band, bars, finished, panels
from ._two_layers import FLUX, YEAR, TwoLayers, bend

FIELD = "climate"
RUN_TIME = "3 min"
DATA = (
    "climate/cmip6_tas_abrupt-4xCO2_14models.csv",
    "climate/cmip6_tas_1pctCO2_14models.csv",
    "climate/cmip6_net_abrupt-4xCO2_14models.csv",
    "climate/cmip6_net_1pctCO2_14models.csv",
)

FILES = {
    "temperature": "climate/cmip6_tas_{}_14models.csv",
    "flux": "climate/cmip6_net_{}_14models.csv",
}
EXPERIMENTS = ("abrupt-4xCO2", "1pctCO2")
YEARS = 150
SPLIT = YEARS + 0.5
MODELS = (
    "BCC-CSM2-MR", "CESM2", "CNRM-CM6-1", "CNRM-ESM2-1", "EC-Earth3", "GFDL-CM4", "GFDL-ESM4", "GISS-E2-1-G",
    "HadGEM3-GC31-LL", "INM-CM4-8", "IPSL-CM6A-LR", "MRI-ESM2-0", "NorESM2-LM", "UKESM1-0-LL",
)  # fmt: skip
"""Of those that the tables have."""
CURVE = bd.between(0.9, 1.1)
"""Twice the carbon dioxide is then 0.44 to 0.51 of four times; 0.5 where the forcing goes with the
logarithm.
"""
LEVEL = 4.0
"""K: where the feedback of a model is its own number, whatever the function says."""


def share_of_forcing(times: float | np.ndarray) -> Any:
    """The forcing of so many times the carbon dioxide, as a share of that of four times.

    Source: Meinshausen et al. (2020), table 3, without overlaps with other gases.
    """
    before = 284.3  # ppm, of 1850

    def forcing(times):
        more = before * (times - 1)
        return (5.2488 + 7.5906e-4 * more - 2.4785e-7 * more**2) * np.log(times)

    return forcing(times) / forcing(4.0)


class Planet(TwoLayers):
    """Two layers that a share of the forcing of four times the carbon dioxide drives, from where an
    experiment begins.

    How the forcing grows in between is known of line-by-line radiation; a model's own may be a
    power of that, of which four times the carbon dioxide says nothing. The flux at the top is all
    heat that is gained.
    """

    forcing: bd.Scalar = bd.field(units=FLUX)
    curve: bd.Scalar = bd.field(units="")

    def forced(self, u):
        return u["share"] ** self.curve * self.forcing

    def factor(self, warming):
        """By how much the feedback is another than at `LEVEL`: else all feedbacks and the function
        could trade.
        """
        return super().factor(warming) / super().factor(jnp.asarray(LEVEL))

    def __call__(self, t, y, u):
        """The states after a year; an experiment begins where nothing is carried over."""
        return super().__call__(t, {name: u["carried"] * value for name, value in y.items()}, u)

    def observe(self, t, y, u):
        """Of a year the mean warming, and the heat that is gained."""
        before, after = {name: u["carried"] * value for name, value in y.items()}, self(t, y, u)
        warming = (before["surface"] + after["surface"]) / 2
        return {"temperature": warming, "flux": self.heat(after) - self.heat(before)}


def load() -> xr.Dataset:
    """What each model said of both experiments, year by year, `(time, model)`, and what drives
    them.
    """
    parts = []
    for number, experiment in enumerate(EXPERIMENTS):
        tables = {
            name: pd.read_csv(path_of(file.format(experiment)), index_col="Year")
            for name, file in FILES.items()
        }
        years = np.arange(1.0, YEARS + 1)
        held: dict[str, Any] = {
            name: (("time", "model"), table.loc[years, [*MODELS]].to_numpy())
            for name, table in tables.items()
        }
        share = np.ones(YEARS) if number == 0 else share_of_forcing(1.01 ** (years - 0.5))
        held |= {"share": ("time", share), "carried": ("time", np.where(years > 1, 1.0, 0.0))}
        parts.append(xr.Dataset(held, {"time": number * YEARS + years, "model": [*MODELS]}))
    data: Any = xr.concat(parts, "time")
    for name, units in {
        "temperature": "K",
        "flux": FLUX,
        "share": "",
        "carried": "",
        "time": YEAR,
    }.items():
        data[name].attrs["units"] = units
    return data


def number(low: float, high: float, spread: float = 0.3, alone: bool = False) -> Any:
    """A number of each model: around what is typical, or each by itself."""
    if alone:
        middle, wide = np.log(low * high) / 2, np.log(high / low) / 3.3
        return bd.varying(dist.LogNormal(middle, wide))
    return bd.population(bd.between(low, high), dist.HalfNormal(spread))


def model_of(
    names: Any = MODELS,
    *,
    bends: bool = False,
    efficacy: bool = True,
    curve: bool = True,
    alone: bool = False,
) -> bd.Model:
    """Two layers of each climate model.

    Args:
        names: those of the climate models.
        bends: whether the feedback changes with the warming, by an unknown function.
        efficacy: whether that of the ocean's uptake is unknown, not one.
        curve: whether models differ in how the forcing grows in between.
        alone: whether there is no population, and each model is by itself.
    """
    numbers = {
        "capacity": number(4.0, 12.0, alone=alone),
        "deep_capacity": number(40.0, 250.0, 0.5, alone=alone),
        "feedback": number(0.5, 2.2, 0.5, alone=alone),
        "exchange": number(0.4, 1.2, alone=alone),
        "efficacy": number(0.9, 1.8, alone=alone) if efficacy else 1.0,
        "forcing": number(5.0, 10.0, 0.2, alone=alone),
        "curve": bd.varying(CURVE) if curve else 1.0,
    }
    one = bd.Difference(
        step=Planet(**numbers, bend=bend(9.0) if bends else None),
        initial={"surface": 0.0, "deep": 0.0},
        observe=Planet.observe,
        forcings=("share", "carried"),
        start=1.0,
        units={"temperature": "K", "flux": FLUX, "surface": "K", "deep": "K", "time": YEAR},
    )
    noise = {
        "temperature": bd.filtering.CorrelatedNoise(
            bd.filtering.AR1(dist.LogNormal(np.log(0.13), 0.5), dist.Beta(6.0, 6.0))
        ),
        "flux": bd.filtering.CorrelatedNoise(
            bd.filtering.AR1(dist.LogNormal(np.log(0.3), 0.5), dist.Beta(3.0, 9.0))
        ),
    }
    return bd.Model(bd.Each(one, members=list(names), dim="model"), noise)


def sensitivity(model: bd.Model) -> dict[str, Any]:
    """The warming of twice the carbon dioxide in the long run, of each climate model, in K."""
    layer: Any = model.layer
    equations = layer.layer.step
    return {
        "climate_sensitivity": equations.equilibrium(
            equations.forced({"share": share_of_forcing(2.0)})
        )
    }


VARIANTS = {
    "population": {},
    "hybrid": {"bends": True},
    "no efficacy": {"efficacy": False},
    "one curve": {"curve": False},
    "each alone": {"alone": True},
}
ENGINE = bd.NUTS(chains=2, warmup=500, draws=600, map_starts=4)


def study() -> bd.Study:
    """The study that `bayes-dasl run climate-models` runs."""
    return bd.Study(
        name="climate-models",
        title="Fourteen climate models: one per cent more carbon dioxide a year",
        model=model_of(),
        label="population",
        competitors={"no efficacy": model_of(efficacy=False)},
        data=load(),
        split=SPLIT,
        engine=ENGINE,
        mix=False,  # the experiments are no series
        options=bd.ReportOptions(
            window=False,
            source="CMIP6, fourteen models, by M. Ringer (github.com/mark-ringer/cmip6)",
            licence="CC BY-SA 4.0",
        ),
    )


def picture(run: Run) -> Figure:
    """What a year warms to in the run that nobody fitted: of the worst and the best forecast, and
    of all at its end.
    """
    fig, (left, right) = panels()
    held = bd.load(run.path("population", "forecast.nc"))["predictions"].dataset["temperature"]
    true = run.study.test["temperature"]
    held, years = held.sel(time=true["time"]), true["time"].values - YEARS
    errors = ((held.median(("chain", "draw")) - true) ** 2).mean("time")
    for place, name in enumerate((errors.idxmax("model").item(), errors.idxmin("model").item())):
        band(left, years, held.sel(model=name), name, place)
        own: Any = UNSEEN | {"mec": STYLES[place][0]}
        left.plot(years[::5], true.sel(model=name)[::5], label=f"{name}, not fitted", **own)
    left.set(xlabel="year of the run", ylabel="warming (K)")
    last = slice(SPLIT + YEARS - 20, None)
    at = true.sel(time=last).mean("time").values
    bars(right, at, held.sel(time=last).mean("time"), "population", 1)
    right.axline((at[0], at[0]), slope=1.0, color="black", lw=0.8)
    right.set(
        xlabel="climate model, mean of the last 20 years (K)", ylabel="forecast, 90 % interval (K)"
    )
    return finished(fig)


ALL = "one per cent a year"


def tasks(quick: bool) -> list[dict]:
    """Each variant, and each from several keys."""
    if quick:
        return bd.many.combinations(variant=["population", "one curve"], seed=[0])
    return bd.many.combinations(variant=[*VARIANTS], seed=range(3))


def row(variant: str, seed: int) -> dict:
    """What the models that were fitted to one experiment say of the other."""
    data = load()
    train, ahead = bd.split(data, time=SPLIT)
    made = model_of(**VARIANTS[variant])
    return bd.many.measure(
        made, train, {ALL: ahead}, ENGINE, derived=sensitivity, each="model", key=seed
    )


def summary(rows: pd.DataFrame) -> dict:
    """Errors of the experiment that is forecast: over all models, and their medians over models."""
    table: Any = bd.many.tidy(rows)
    what = ["rmse", "crps", "coverage_50", "coverage_90"]
    whole, by = table["ahead"] == ALL, ["observable", "variant"]
    found = {"One per cent a year": bd.many.medians(table[whole], what, by=by)}
    if not (apart := table[~whole]).empty:
        each = apart.groupby([*by, "seed"], as_index=False)[["rmse", "crps"]].median()
        found["The same, medians over models"] = bd.many.medians(each, ["rmse", "crps"], by=by)
        told = apart[apart["observable"] == "temperature"].assign(
            model=apart["ahead"].str.removeprefix(f"{ALL}, ")
        )
        found["Temperature of each model"] = bd.many.medians(
            told, "rmse", by=["model"], across="variant"
        )
    others = ["mae", "log_score", "fit_s", "forecast_s", "memory_mb"]
    return found | {"Other scores, and costs": bd.many.medians(table[whole], others, by=by)}

"""Daily flow of the Piscataquis in Maine: snow, soil, two reservoirs; fitted on 1981–1994, forecast over 1995–2014.

The fit follows a year of spin-up; the forecast looks at the weather alone, at no flow in between. The SAC-SMA model
that comes with the data, calibrated by its authors, is a yardstick.

Data: CAMELS catchment 01031500, Piscataquis River near Dover-Foxcroft, 771 km²; A. J. Newman et al., Development of a
large-sample watershed-scale hydrometeorological data set, Hydrol. Earth Syst. Sci. 19, 209 (2015); weather from Daymet,
flow from the US Geological Survey. Of the flows 18 are zero, all in the frost of November and December 2014 and most
between days of several millimetres: the river was under ice and the gauge said nothing, most likely. They are kept as
the files have them.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.networks import Recurrent

from ._data import path_of

BASIN = "hydrology/camels_01031500"
BEGIN, SPUN_UP, SPLIT = "1980-01-01", "1980-12-31", "1994-12-31"
FORCINGS = ("rain", "temperature", "demand")
RATE = "mm/day"
UNITS = {"rain": RATE, "temperature": "°C", "demand": RATE, "flow": RATE}
MISSING = -999.0
_SMALL = 1e-3  # mm: keeps shares of an empty store finite
_SOFT = 0.7  # K: over how much melting sets in


class Snow(bd.Module):
    r"""Snow that falls in the cold and melts by degrees above a threshold, and slowly from the ground.

    $\text{melt} = s\,(1 - e^{-m/s}), \quad m = \text{degree\_day}\,\max(T - T_m, 0) + \text{ground}$

    so that of a deep pack m melts, and of a shallow one what is there. The maximum is smooth over a kelvin.

    Units: mm of water, days, °C.
    Source: Martinec & Rango (1986) for degree-days; Bergström (1976), HBV.
    """

    falls_below: bd.Scalar = bd.field(units="°C")
    melts_above: bd.Scalar = bd.field(units="°C")
    degree_day: bd.Scalar = bd.field(units="mm/(K day)")
    ground: bd.Scalar = bd.field(units="mm/day")

    def __call__(self, snow, u):
        """Snow left, and water that reaches the soil."""
        rain = u["rain"] * jax.nn.sigmoid(u["temperature"] - self.falls_below)
        pack = snow + u["rain"] - rain
        degrees: Any = _SOFT * jax.nn.softplus((u["temperature"] - self.melts_above) / _SOFT)
        melt = taken(pack, self.degree_day * degrees + self.ground)
        return pack - melt, rain + melt


class Soil(bd.Module):
    r"""A soil that passes on the more of its water, the wetter it is, and loses what plants take.

    $\text{recharge} = \text{water}\,(s/c)^\beta, \quad \text{lost} = f\,\text{demand}\,(1 - e^{-s/(h c)})$

    Units: mm, days.
    Source: Bergström (1976), HBV.
    """

    capacity: bd.Scalar = bd.field(units="mm")
    beta: bd.Scalar = bd.field(units="")
    evaporation: bd.Scalar = bd.field(units="")
    dryness: bd.Scalar = bd.field(units="")

    def __call__(self, soil, water, u):
        """Soil water left, water that passes on, and what evaporates."""
        filled = soil / self.capacity
        wet: Any = jnp.clip(filled, 1e-6, 1.0)
        recharge = water * wet**self.beta
        lost = taken(soil, self.evaporation * u["demand"] * -jnp.expm1(-filled / self.dryness))
        kept = soil + water - recharge - lost
        over = jnp.minimum(0.5 * jax.nn.softplus((kept - self.capacity) / 0.5), kept)
        return kept - over, recharge + over, lost


class Catchment(bd.Module):
    r"""Snow, soil, a quick reservoir that drains the faster the fuller it is, a slow one, and two of routing.

    $q_\text{quick} = s\,(1 - e^{-(s/20\,\text{mm})^\alpha\,k})$; from the quick to the slow reservoir at most
    `percolation` seeps; the river delays what is quick by two equal linear reservoirs (Nash 1957).

    Units: mm, days.
    """

    snow: Snow
    soil: Soil
    percolation: bd.Scalar = bd.field(units="mm/day")
    quick: bd.Scalar = bd.field(units="1/day")
    alpha: bd.Scalar = bd.field(units="")
    slow: bd.Scalar = bd.field(units="1/day")
    lag: bd.Scalar = bd.field(units="day")

    def day(self, y, u):
        """The stores at the end of a day, the flow in it and what evaporated."""
        snow, water = self.snow(y["snow"], u)
        soil, recharge, lost = self.soil(y["soil"], water, u)
        quick = y["quick"] + recharge
        seeps = self.percolation * quick / (quick + self.percolation)
        quick = quick - seeps
        full: Any = jnp.maximum(quick, 1e-6) / 20.0
        runs = quick * -jnp.expm1(-(full**self.alpha) * self.quick)
        base = self.slow * y["slow"]
        lag: Any = self.lag
        share = -jnp.expm1(-2.0 / lag)
        first = y["first"] + runs
        second = y["second"] + share * first
        stores = {"snow": snow, "soil": soil, "quick": quick - runs, "slow": y["slow"] + seeps - base}
        stores |= {"first": (1 - share) * first, "second": (1 - share) * second}
        return stores, share * second + base, lost

    def __call__(self, t, y, u):
        return self.day(y, u)[0]

    def flow(self, t, y, u):
        return {"flow": self.day(y, u)[1]}


class Hybrid(bd.Module):
    r"""A catchment whose evaporation, melt and quick outflow differ from the equations by factors that a network says.

    $\text{factor} = e^{g(\text{weather},\, \text{soil and snow})}$, so that water is neither made nor lost.

    Units: as those of `Catchment`.
    """

    science: Catchment
    closure: bd.Network

    def day(self, y, u):
        """The stores at the end of a day, the flow in it and what evaporated."""
        science: Any = self.science
        wet = {"filled": y["soil"] / science.soil.capacity, "pack": jnp.log1p(y["snow"])}
        factor = {name: jnp.exp(value) for name, value in self.closure(None, wet, u).items()}
        today = eqx.tree_at(
            lambda c: (c.quick, c.snow.degree_day),
            science,
            (science.quick * factor["quick"], science.snow.degree_day * factor["melt"]),
        )
        return today.day(y, u | {"demand": u["demand"] * factor["evaporation"]})

    def __call__(self, t, y, u):
        return self.day(y, u)[0]

    def flow(self, t, y, u):
        return {"flow": self.day(y, u)[1]}


class Bucket(bd.Module):
    r"""One store that knows no snow: $q = s\,(s/100\,\text{mm})^\alpha\,k$, at most all of it."""

    quick: bd.Scalar = bd.field(units="1/day")
    alpha: bd.Scalar = bd.field(units="")
    evaporation: bd.Scalar = bd.field(units="")

    def day(self, y, u):
        """The store at the end of a day, and the flow in it."""
        full = y["store"] + u["rain"]
        runs = full * -jnp.expm1(-((full / 100.0) ** self.alpha) * self.quick)
        return {"store": full - runs - taken(full - runs, self.evaporation * u["demand"])}, runs

    def __call__(self, t, y, u):
        return self.day(y, u)[0]

    def flow(self, t, y, u):
        return {"flow": self.day(y, u)[1]}


def taken(store, wanted):
    r"""What leaves a store of which much is wanted: $s\,(1 - e^{-w/s})$, never more than there is."""
    return store * -jnp.expm1(-wanted / (store + _SMALL))


def hamon(temperature, daylight):
    """Potential evaporation by Hamon (1961), with the numbers of Lu et al. (2005), in mm/day.

    Args:
        temperature: daily means, °C.
        daylight: the length of the days, s.
    """
    pressure = 6.108 * np.exp(17.26939 * temperature / (temperature + 237.3))
    return 0.1651 * (daylight / 43200.0) * 216.7 * pressure / (temperature + 273.3)


def load() -> xr.Dataset:
    """Weather of 1980–2014 and, from October 1980, the flow, by date; what is missing of the flow is NaN."""
    columns = ["year", "month", "day", "hour", "daylight", "rain", "sun", "snow", "warmest", "coldest", "vapour"]
    read = pd.read_csv(path_of(f"{BASIN}_lump_cida_forcing_leap.txt"), sep=r"\s+", skiprows=4, names=columns)
    weather = read.set_index(pd.DatetimeIndex(pd.to_datetime(read[["year", "month", "day"]]), name="time"))
    temperature = (weather["warmest"] + weather["coldest"]) / 2
    table = pd.DataFrame(
        {
            "rain": weather["rain"],
            "temperature": temperature,
            "demand": hamon(temperature, weather["daylight"]),
            "flow": _model_output()["OBS_RUN"].reindex(weather.index),
        }
    )
    table["flow"] = table["flow"].where(table["flow"] > MISSING)
    data = table.to_xarray()
    names = {"rain": "precipitation", "demand": "potential evaporation", "temperature": "air temperature"}
    for name, units in UNITS.items():
        data[name].attrs = {"units": units, "long_name": names.get(name, name)}
    return data


def sac_sma() -> xr.DataArray:
    """The flow that SAC-SMA with Snow-17 says, calibrated by Newman et al. (2015), by date, in mm/day."""
    return _model_output()["MOD_RUN"].to_xarray().rename("flow").assign_attrs(units=RATE)


def _model_output() -> pd.DataFrame:
    read = pd.read_csv(path_of(f"{BASIN}_05_model_output.txt"), sep=r"\s+")
    dates = pd.to_datetime(read[["YR", "MNTH", "DY"]].set_axis(["year", "month", "day"], axis=1))
    return read.set_index(pd.DatetimeIndex(dates, name="time"))


def efficiencies(predicted: xr.DataArray, observed: xr.DataArray) -> dict[str, float]:
    """How well a series of flows follows the observed one, over the days that both have.

    Args:
        predicted: one number a day, such as the mean of the draws of a forecast.
        observed: the flow, NaN where missing.
    """
    both = xr.align(predicted, observed.dropna("time"), join="inner")
    p, o = (np.asarray(part.values, float) for part in both)
    return {"nse": bd.metrics.nse(p, o), "kge": bd.metrics.kge(p, o)}


def catchment() -> Catchment:
    """The equations, with priors from what such numbers are in other cold catchments (Seibert & Vis 2012)."""
    return Catchment(
        snow=Snow(
            falls_below=bd.between(-3.0, 2.0),
            melts_above=bd.between(-2.0, 3.0),
            degree_day=bd.between(1.0, 6.0),
            ground=bd.between(0.1, 1.0),
        ),
        soil=Soil(
            capacity=bd.between(80.0, 600.0),
            beta=bd.between(1.0, 8.0),
            evaporation=bd.between(0.8, 1.8),
            dryness=bd.between(0.2, 1.5),
        ),
        percolation=bd.between(0.3, 8.0),
        quick=bd.between(0.1, 2.0),
        alpha=bd.between(0.2, 1.5),
        slow=bd.between(0.01, 0.2),
        lag=bd.between(0.5, 4.0),
    )


def driven(step: Any, initial: dict, observe: Callable, **units: str) -> bd.Difference:
    """What has states and says a flow, by the day, from the first day of the data.

    Args:
        step: gives the states of the next day.
        initial: those of the first.
        observe: gives the flow.
        units: of the states.
    """
    units = {**UNITS, "time": "day", **units}
    return bd.Difference(step=step, initial=initial, observe=observe, forcings=FORCINGS, units=units)


def stores(equations: Catchment | Hybrid) -> bd.Difference:
    """The catchment from what is usual in January; after a year of spin-up this matters no more."""
    january = {"snow": 50.0, "soil": 150.0, "quick": 5.0, "slow": 10.0, "first": 1.0, "second": 1.0}
    return driven(equations, january, type(equations).flow, **dict.fromkeys(january, "mm"))


def scattered() -> bd.Censored:
    """Errors that grow with the flow, normal on the scale of its square root; a flow of zero is "at most zero"."""
    return bd.Censored(bd.BoxCoxNoise(dist.HalfNormal(1.0), power=0.5, shift=0.01), below=0.0)


def spun_up(data: xr.Dataset, begin: str, until: str) -> xr.Dataset:
    """The data from a date on, whose flow counts only after another one: until then stores forget their start."""
    data = data.sel(time=slice(begin, None))
    return data.assign(flow=data["flow"].where(data["time"] > np.datetime64(until)))


def hybrid(weather: xr.Dataset) -> bd.Model:
    """The catchment with a small network beside it.

    Args:
        weather: what the inputs of the network are standardised by.
    """
    inputs = bd.standardise(weather, *FORCINGS) | {"filled": (0.6, 0.3), "pack": (2.0, 2.0)}
    closure = bd.Network.mlp(inputs, ("evaporation", "melt", "quick"), scale=0.3, width=6, depth=1)
    return bd.Model(stores(Hybrid(catchment(), closure)), {"flow": scattered()})


def lstm(weather: xr.Dataset, width: int = 8) -> bd.Model:
    """No science: what a network remembers of the weather says the flow.

    Args:
        weather: what its inputs are standardised by.
        width: of what it remembers.
    """
    cell = eqx.nn.LSTMCell(len(FORCINGS), width, key=jax.random.key(0))
    scale = dist.LogNormal(1.0, 1.0)
    network = Recurrent(cell, bd.standardise(weather, *FORCINGS), ("flow",), scale, activation=jax.nn.softplus)
    return bd.Model(driven(network, network.initial, Recurrent.read), {"flow": scattered()})


def study(begin: str = BEGIN, until: str = SPUN_UP) -> bd.Study:
    """The study that `bayes-dasl run piscataquis` runs.

    Args:
        begin: the first day of the weather that is looked at.
        until: the last day of the spin-up, whose flow does not count.
    """
    bucket = Bucket(quick=bd.between(0.01, 1.0), alpha=bd.between(0.2, 3.0), evaporation=bd.between(0.3, 1.8))
    return bd.Study(
        name="piscataquis",
        title="Daily flow of the Piscataquis, 1981–2014",
        model=bd.Model(stores(catchment()), {"flow": scattered()}),
        label="catchment",
        rivals={"bucket": bd.Model(driven(bucket, {"store": 100.0}, Bucket.flow, store="mm"), {"flow": scattered()})},
        data=spun_up(load(), begin, until),
        split=SPLIT,
        engine=bd.NUTS(chains=2, draws=600, climbs=4),
        mix=False,  # the rival is there to be beaten, and a fit takes minutes
        options=bd.ReportOptions(
            window=("2010-10-01", "2011-09-30"),
            return_periods={"flow": [2, 5, 20]},
            block="year",
            metrics={"NSE": bd.metrics.nse, "KGE": bd.metrics.kge},
            source="CAMELS catchment 01031500 (Newman et al. 2015), as in RRMPG",
            licence="MIT",
        ),
    )

"""Daily flow of the Piscataquis in Maine: snow, soil, two reservoirs; fitted on 1981–1994, forecast
over 1995–2014.

The fit follows a year of spin-up; the forecast looks at the weather alone, at no flow in between.
The SAC-SMA model that comes with the data, calibrated by its authors, is a yardstick.

Data: CAMELS catchment 01031500, Piscataquis River near Dover-Foxcroft, 771 km²; A. J. Newman et
al., Development of a large-sample watershed-scale hydrometeorological data set, Hydrol. Earth Syst.
Sci. 19, 209 (2015); weather from Daymet, flow from the US Geological Survey. Of the flows 18 are
zero, all in the frost of November and December 2014 and most between days of several millimetres:
the river was under ice and the gauge said nothing, most likely. They are kept as the files have
them.
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
from .catchment import Catchment, daily, hamon, scattered, spun_up, taken, with_network

FIELD = "hydrology"
DATA = (
    "hydrology/camels_01031500_lump_cida_forcing_leap.txt",
    "hydrology/camels_01031500_05_model_output.txt",
)

BASIN = "hydrology/camels_01031500"
BEGIN, SPUN_UP, SPLIT = "1980-01-01", "1980-12-31", "1994-12-31"
FORCINGS = ("rain", "temperature", "demand")
RATE = "mm/day"
UNITS = {"rain": RATE, "temperature": "°C", "demand": RATE, "flow": RATE}
MISSING = -999.0


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


def load() -> xr.Dataset:
    """Weather of 1980–2014 and, from October 1980, the flow, by date; what is missing of the flow
    is NaN.
    """
    columns = [
        "year",
        "month",
        "day",
        "hour",
        "daylight",
        "rain",
        "sun",
        "snow",
        "warmest",
        "coldest",
        "vapour",
    ]
    read = pd.read_csv(
        path_of(f"{BASIN}_lump_cida_forcing_leap.txt"), sep=r"\s+", skiprows=4, names=columns
    )
    weather = read.set_index(
        pd.DatetimeIndex(pd.to_datetime(read[["year", "month", "day"]]), name="time")
    )
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
    names = {
        "rain": "precipitation",
        "demand": "potential evaporation",
        "temperature": "air temperature",
    }
    for name, units in UNITS.items():
        data[name].attrs = {"units": units, "long_name": names.get(name, name)}
    return data


def sac_sma() -> xr.DataArray:
    """The flow that SAC-SMA with Snow-17 says, calibrated by Newman et al. (2015), by date, in
    mm/day.
    """
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
    return {"nse": bd.scores.metrics.nse(p, o), "kge": bd.scores.metrics.kge(p, o)}


def driven(step: Any, initial: dict, observe: Callable, **units: str) -> bd.Difference:
    """What has states and says a flow, by the day, from the first day of the data.

    Args:
        step: gives the states of the next day.
        initial: those of the first.
        observe: gives the flow.
        units: of the states.
    """
    units = {**UNITS, "time": "day", **units}
    return bd.Difference(
        step=step, initial=initial, observe=observe, forcings=FORCINGS, units=units
    )


def hybrid(weather: xr.Dataset) -> bd.Model:
    """The catchment with a small network beside it.

    Args:
        weather: what the inputs of the network are standardised by.
    """
    return bd.Model(daily(with_network(Catchment(), weather)), {"flow": scattered()})


def lstm(weather: xr.Dataset, width: int = 8) -> bd.Model:
    """No science: what a network remembers of the weather says the flow.

    Args:
        weather: what its inputs are standardised by.
        width: of what it remembers.
    """
    cell = eqx.nn.LSTMCell(len(FORCINGS), width, key=jax.random.key(0))
    scale = dist.LogNormal(1.0, 1.0)
    network = Recurrent(
        cell, bd.standardise(weather, *FORCINGS), ("flow",), scale, activation=jax.nn.softplus
    )
    return bd.Model(driven(network, network.initial, Recurrent.read), {"flow": scattered()})


def study(begin: str = BEGIN, until: str = SPUN_UP) -> bd.Study:
    """The study that `bayes-dasl run piscataquis` runs.

    Args:
        begin: the first day of the weather that is looked at.
        until: the last day of the spin-up, whose flow does not count.
    """
    bucket = Bucket(
        quick=bd.between(0.01, 1.0), alpha=bd.between(0.2, 3.0), evaporation=bd.between(0.3, 1.8)
    )
    return bd.Study(
        name="piscataquis",
        title="Daily flow of the Piscataquis, 1981–2014",
        model=bd.Model(daily(Catchment()), {"flow": scattered()}),
        label="catchment",
        competitors={
            "bucket": bd.Model(
                driven(bucket, {"store": 100.0}, Bucket.flow, store="mm"), {"flow": scattered()}
            )
        },
        data=spun_up(load(), begin, until),
        split=SPLIT,
        engine=bd.NUTS(chains=2, draws=600, map_starts=4),
        mix=False,  # the competitor is there to be beaten, and a fit takes minutes
        options=bd.ReportOptions(
            window=("2010-10-01", "2011-09-30"),
            return_periods={"flow": [2, 5, 20]},
            block="year",
            metrics={"NSE": bd.scores.metrics.nse, "KGE": bd.scores.metrics.kge},
            source="CAMELS catchment 01031500 (Newman et al. 2015), as in RRMPG",
            licence="MIT",
        ),
    )

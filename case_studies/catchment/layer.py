"""The layer of a catchment, its noise, and the forcings and data that it takes."""

from typing import Any

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import ModelError

from .equations import Catchment
from .hybrid import Hybrid

RATE = "mm/day"
_JANUARY = {"snow": 50.0, "soil": 150.0, "quick": 5.0, "slow": 10.0, "first": 1.0, "second": 1.0}
"""Usual stores in January, mm."""


def daily(equations: Catchment | Hybrid, **initial: Any) -> bd.Difference:
    """A layer that solves a catchment day by day, and predicts the `flow` in mm/day.

    `bd.Model(daily(Catchment(snow=None, rain="P", demand="PET")), {"flow": scattered()})`

    Args:
        equations: the catchment, perhaps with a network.
        initial: stores on the first day by name, mm, as numbers or priors. The defaults are usual
            stores in January; they do not matter after a year of spin-up.

    Raises: ModelError for equations of something else, or a store that the catchment does not have.
    """
    science = equations if isinstance(equations, Catchment) else getattr(equations, "science", None)
    if not isinstance(science, Catchment):
        raise ModelError(
            "daily takes a Catchment, or one with a network beside it, not "
            f"{type(equations).__name__}"
        )
    usual = {
        name: value
        for name, value in _JANUARY.items()
        if science.snow is not None or name != "snow"
    }
    for name in initial:
        if name not in usual:
            raise ModelError(
                f"the catchment has no store '{name}': its stores are {', '.join(usual)}"
            )
    units = {
        science.rain: RATE,
        science.demand: RATE,
        "flow": RATE,
        "time": "day",
        **dict.fromkeys(usual, "mm"),
    }
    if science.snow is not None:
        units[science.temperature] = "°C"
    stores, flow = {**usual, **initial}, type(equations).flow
    return bd.Difference(
        step=equations, initial=stores, observe=flow, forcings=science.forcings, units=units
    )


def scattered() -> bd.noise.Censored:
    """A noise that is normal on the square-root scale, so that errors grow with the flow; zeros are
    censored.
    """
    return bd.noise.Censored(
        bd.noise.BoxCoxNoise(dist.HalfNormal(1.0), power=0.5, shift=0.01), below=0.0
    )


def spun_up(data: xr.Dataset, begin: str, until: str) -> xr.Dataset:
    """The data from a date on, without the flow of the spin-up, in which the stores forget their
    start.

    Args:
        data: weather and `flow` by date.
        begin: the first day.
        until: the last day of the spin-up.
    """
    data = data.sel(time=slice(begin, None))
    return data.assign(flow=data["flow"].where(data["time"] > np.datetime64(until)))


def hamon(temperature, daylight):
    """Potential evaporation by Hamon (1961), with the numbers of Lu et al. (2005), in mm/day.

    Args:
        temperature: daily means, °C.
        daylight: the length of the days, s.
    """
    pressure = 6.108 * np.exp(17.26939 * temperature / (temperature + 237.3))
    return 0.1651 * (daylight / 43200.0) * 216.7 * pressure / (temperature + 273.3)

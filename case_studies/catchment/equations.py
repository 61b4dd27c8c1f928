"""The equations of a catchment: snow, soil, a quick and a slow reservoir, and two of routing."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import bayes_dasl as bd

_SMALL = 1e-3  # mm: keeps shares of an empty store finite
_SOFT = 0.7  # K: the width over which melting sets in


def _between(low: float, high: float, units: str) -> Any:
    """A parameter with a default prior: 95 % of it lies between two values."""
    return bd.field(units=units, default_factory=partial(bd.between, low, high))


class Snow(bd.Module):
    r"""Snow that falls in the cold, melts by degree-days above a threshold, and melts slowly from
    the ground.

    $\text{melt}
    = s\,(1 - e^{-m/s}), \quad m = \text{degree\_day}\,\max(T - T_m, 0) + \text{ground}$

    A deep pack melts by m, a shallow one by its own depth. The maximum is smooth over a kelvin.

    Args:
        falls_below: the temperature at which half of the precipitation is snow, °C.
        melts_above: the temperature T_m above which the snow melts, °C.
        degree_day: the melt by day and kelvin, mm/(K day).
        ground: the melt from the ground, mm/day.

    Units: mm of water, days, °C.
    Source: Martinec & Rango (1986) for degree-days; Bergström (1976), HBV; Seibert & Vis (2012) for
    the priors.
    """

    falls_below: bd.Scalar = _between(-3.0, 2.0, "°C")
    melts_above: bd.Scalar = _between(-2.0, 3.0, "°C")
    degree_day: bd.Scalar = _between(1.0, 6.0, "mm/(K day)")
    ground: bd.Scalar = _between(0.1, 1.0, "mm/day")

    def __call__(self, snow, rain, temperature):
        """The snow at the end of a day, and the water that reaches the soil."""
        liquid = rain * jax.nn.sigmoid(temperature - self.falls_below)
        pack = snow + rain - liquid
        degrees: Any = _SOFT * jax.nn.softplus((temperature - self.melts_above) / _SOFT)
        melt = taken(pack, self.degree_day * degrees + self.ground)
        return pack - melt, liquid + melt


class Soil(bd.Module):
    r"""A soil that passes on a larger share of its water when it is wetter, and loses water to
    plants.

    $\text{recharge}
    = \text{water}\,(s/c)^\beta, \quad \text{lost} = f\,\text{demand}\,(1 - e^{-s/(h c)})$

    Args:
        capacity: the water c that the soil can hold, mm.
        beta: the exponent β.
        evaporation: the factor f of the potential evaporation.
        dryness: the filled share h at which evaporation falls.

    Units: mm, days.
    Source: Bergström (1976), HBV; Seibert & Vis (2012) for the priors.
    """

    capacity: bd.Scalar = _between(80.0, 600.0, "mm")
    beta: bd.Scalar = _between(1.0, 8.0, "")
    evaporation: bd.Scalar = _between(0.8, 1.8, "")
    dryness: bd.Scalar = _between(0.2, 1.5, "")

    def __call__(self, soil, water, demand):
        """The water in the soil at the end of a day, the water that passes on,
        and the evaporation.
        """
        filled = soil / self.capacity
        wet: Any = jnp.clip(filled, 1e-6, 1.0)
        recharge = water * wet**self.beta
        lost = taken(soil, self.evaporation * demand * -jnp.expm1(-filled / self.dryness))
        kept = soil + water - recharge - lost
        over = jnp.minimum(0.5 * jax.nn.softplus((kept - self.capacity) / 0.5), kept)
        return kept - over, recharge + over, lost


class Catchment(bd.Module):
    r"""Snow, soil, a quick and a slow reservoir, and two reservoirs for routing.

    $q_\text{quick} = s\,(1 - e^{-(s/20\,\text{mm})^\alpha\,k})$

    The quick reservoir drains faster when it is fuller. Water seeps from it to the slow one at a
    rate of at most `percolation`. Two equal linear reservoirs delay the quick flow in the river
    (Nash 1957).

    Each parameter is a number or a prior. The default priors suit cold catchments. `daily` turns it
    into a layer.

    Args:
        snow: its snow; `None` for a river without snow, whose forcings then include no temperature.
        soil: its soil.
        percolation: the highest flow from the quick to the slow reservoir, mm/day.
        quick: the rate k of the quick reservoir at 20 mm, 1/day.
        alpha: the exponent α.
        slow: the rate of the slow reservoir, 1/day.
        lag: the mean delay in the river, days.
        rain: the name of the precipitation in the data.
        demand: the name of the potential evaporation.
        temperature: the name of the air temperature.

    Units: mm, days, °C.
    """

    snow: Snow | None = eqx.field(default_factory=Snow)
    soil: Soil = eqx.field(default_factory=Soil)
    percolation: bd.Scalar = _between(0.3, 8.0, "mm/day")
    quick: bd.Scalar = _between(0.1, 2.0, "1/day")
    alpha: bd.Scalar = _between(0.2, 1.5, "")
    slow: bd.Scalar = _between(0.01, 0.2, "1/day")
    lag: bd.Scalar = _between(0.5, 4.0, "day")
    rain: str = eqx.field(static=True, default="rain")
    demand: str = eqx.field(static=True, default="demand")
    temperature: str = eqx.field(static=True, default="temperature")

    @property
    def forcings(self) -> tuple[str, ...]:
        """The names of the forcings in the data."""
        return (
            (self.rain, self.demand)
            if self.snow is None
            else (self.rain, self.temperature, self.demand)
        )

    def day(self, y, u):
        """The stores at the end of a day, and the flow and the evaporation of that day."""
        kept, water = {}, u[self.rain]
        if self.snow is not None:
            kept["snow"], water = self.snow(y["snow"], water, u[self.temperature])
        soil, recharge, lost = self.soil(y["soil"], water, u[self.demand])
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
        kept |= {"soil": soil, "quick": quick - runs, "slow": y["slow"] + seeps - base}
        kept |= {"first": (1 - share) * first, "second": (1 - share) * second}
        return kept, share * second + base, lost

    def __call__(self, t, y, u):
        return self.day(y, u)[0]

    def flow(self, t, y, u):
        return {"flow": self.day(y, u)[1]}


def taken(store, wanted):
    r"""The water that leaves a store: $s\,(1 - e^{-w/s})$, never more than it holds.

    Args:
        store: the water s in it, mm.
        wanted: the water w that would leave a full store, mm.
    """
    return store * -jnp.expm1(-wanted / (store + _SMALL))

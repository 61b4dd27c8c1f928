"""A catchment whose evaporation, melt and quick outflow a network corrects."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import xarray as xr

import bayes_dasl as bd

from .equations import Catchment


class Hybrid(bd.Module):
    r"""A catchment with factors from a network on evaporation, melt and quick outflow.

    $\text{factor} = e^{g(\text{weather},\, \text{soil and snow})}$

    Factors on flows keep the water balance.

    Args:
        science: the catchment.
        closure: the network g, with the outputs `evaporation`, `quick` and, with snow, `melt`; see
            `with_network`.

    Units: as for `Catchment`.
    """

    science: Catchment
    closure: bd.Network

    def day(self, y, u):
        """The stores at the end of a day, and the flow and the evaporation of that day."""
        science: Any = self.science
        wet = {"filled": y["soil"] / science.soil.capacity}
        if science.snow is not None:
            wet["pack"] = jnp.log1p(y["snow"])
        factor = {name: jnp.exp(value) for name, value in self.closure(None, wet, u).items()}
        today = eqx.tree_at(lambda c: c.quick, science, science.quick * factor["quick"])
        if science.snow is not None:
            today = eqx.tree_at(
                lambda c: c.snow.degree_day, today, science.snow.degree_day * factor["melt"]
            )
        return today.day(y, u | {science.demand: u[science.demand] * factor["evaporation"]})

    def __call__(self, t, y, u):
        return self.day(y, u)[0]

    def flow(self, t, y, u):
        return {"flow": self.day(y, u)[1]}


def with_network(science: Catchment, weather: xr.Dataset) -> Hybrid:
    """A catchment with a small network, whose factors differ from one by about a third under the
    prior.

    Args:
        science: the catchment.
        weather: the data that standardise the inputs of the network.
    """
    inputs: dict[str, Any] = {**bd.standardise(weather, *science.forcings), "filled": (0.6, 0.3)}
    corrected = ("evaporation", "quick")
    if science.snow is not None:
        inputs["pack"] = (2.0, 2.0)
        corrected = ("evaporation", "melt", "quick")
    return Hybrid(science, bd.Network.mlp(inputs, corrected, scale=0.3, width=6, depth=1))

"""Inputs of a baseline that knows no science: level, spread and sign of the observations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.distributions import constraints

from .._jax.tree import FrozenDict
from ..data.datasets import checked_times, observations, standardise
from ..errors import DataError, ModelError
from ..layers import AbstractLayer
from ..layers.layer import AbstractPopulation
from ..model import Model, is_series
from ..pde.pde import PDE
from ..populations import Each
from ..random import Module, Values


@dataclasses.dataclass(frozen=True)
class Seen:
    """A model and the data that it is fitted to, in the units and numbers of its layer."""

    model: Model
    data: xr.Dataset

    @classmethod
    def of(
        cls, model: Model, data: xr.Dataset, *, fields: bool = False, members: bool = False
    ) -> "Seen":
        """Of the data in the units of the layer.

        Args:
            model: the science.
            data: the training data.
            fields: whether observables may have dimensions beyond the index.
            members: whether the model may be that of a population.

        Raises:
            ModelError: for a model of fields or of a population, unless these are meant.
            DataError: for data at one place alone.
        """
        beyond = {dim for name in model.observables for dim in model.dims(name)[1:]}
        own = {model.layer.dim} if isinstance(model.layer, AbstractPopulation) else set()
        beyond -= own if members else set()
        if beyond and not fields:
            others = ""
            if isinstance(model.layer, PDE):
                others = "; of the fields of a bd.pde.PDE there are 'cnn' and 'fixed'"
            elif beyond == own:
                others = "; of a population there are 'fixed', 'mlp' and 'gaussian_process'"
            raise ModelError(
                "this baseline is for series and rows, not of what has the dimensions "
                f"{', '.join(sorted(beyond))}{others}"
            )
        found = cls(model, model.in_numbers(model.in_own_units(data)))
        begin, end = found.span
        if not end > begin:
            raise DataError(
                f"baselines need data at two values of {model.index}, not at {begin:g} alone"
            )
        return found

    @property
    def of_members(self) -> bool:
        """Whether the model is that of a population."""
        return isinstance(self.model.layer, AbstractPopulation)

    @property
    def span(self) -> tuple[float, float]:
        """The first and the last value of the index."""
        times = checked_times(self.data, self.model.index)
        return float(times[0]), float(times[-1])

    @property
    def inputs(self) -> dict[str, tuple[float, float]]:
        """Location and width of the index, as "t", unless it only counts rows,
        and of each forcing.
        """
        begin, end = self.span
        forced = standardise(self.data, *self.model.layer.forcings)
        return (
            forced if self.counts_rows else {"t": ((begin + end) / 2, (end - begin) / 4)} | forced
        )

    @property
    def counts_rows(self) -> bool:
        """Whether the index holds whole numbers without a unit, of rows that are no series and have
        forcings.
        """
        places = checked_times(self.data, self.model.index)
        if is_series(self.model, self.data) or not self.model.layer.forcings:
            return False
        return bool(np.all(places == np.round(places))) and not self.data[
            self.model.index
        ].attrs.get("units")

    @property
    def scales(self) -> dict[str, tuple[str, float, float]]:
        """How each observable is predicted, and its level and spread on that scale."""
        found = {}
        for name in self.model.observables:
            seen = observations(self.data, name, dims=self.model.dims(name))
            seen = seen[np.isfinite(seen)]
            link = _link(self.model, name)
            if link == "share":  # of trials that each datum may have its own number of
                found[name] = link, 0.0, _OF_SHARES
                continue
            if link == "positive" and not seen.max() > 0:
                raise DataError(f"all data of '{name}' are 0: nothing is known of its size")
            values = np.log(np.maximum(seen, _LEAST * seen.max())) if link == "positive" else seen
            found[name] = link, float(np.mean(values)), float(np.std(values)) or 1.0
        return found

    def with_layer(self, layer: AbstractLayer) -> Model:
        """The model with another layer, of each member if it has members: the same noise, and no
        laws, which are science."""
        model = self.model
        if isinstance(model.layer, AbstractPopulation):
            layer = Each(layer, model.layer.members, model.layer.dim)
        return Model(layer, model.noise, None, model.cross_correlation, model.varied_noise)

    @property
    def like(self) -> dict[str, Any]:
        """Forcings, units and index of the model's own layer; a forcing is what it is at each time
        of the data.
        """
        own = self.model.layer
        return {"forcings": own.forcings, "units": dict(own.units), "index": own.index}


_LEAST = 1e-3  # of the largest value, below which a positive one counts as that
_OF_SHARES = 1.5  # on the scale of log odds
_BACKWARD = {"real": lambda x: x, "positive": jnp.exp, "share": lambda x: 1 / (1 + jnp.exp(-x))}


def _link(model: Model, name: str) -> str:
    noise = model.noise_of(name)
    while hasattr(noise, "noise"):  # that of counts may stand inside another
        noise = noise.noise  # pyright: ignore[reportAttributeAccessIssue]
    if hasattr(noise, "trials"):
        return "share"
    return "real" if noise.support is constraints.real else "positive"


class Placed(Module):
    """Standardised values on the scales of observables."""

    function: Any
    scales: Mapping[str, tuple[str, float, float]] = eqx.field(static=True, converter=FrozenDict)

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        found = self.function(t, y, u)
        return {name: self.placed(name, value) for name, value in found.items()}

    def placed(self, name: str, value: Any) -> Any:
        """One value on the scale of its observable.

        Args:
            name: that of the observable.
            value: how far it lies from the level, in spreads.
        """
        link, level, spread = self.scales[name]
        return _BACKWARD[link](level + spread * value)

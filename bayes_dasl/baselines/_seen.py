"""Range of inputs and scale of observables, for baselines without equations."""

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
    """A model and its training data, in the units of its layer, with dates as numbers.

    Args:
        model: the scientific model.
        data: the converted training data.
    """

    model: Model
    data: xr.Dataset

    @classmethod
    def of(
        cls, model: Model, data: xr.Dataset, *, fields: bool = False, members: bool = False
    ) -> "Seen":
        """Convert training data to the units of the layer.

        Args:
            model: the scientific model.
            data: the training data.
            fields: whether the baseline supports fields, with spatial dimensions.
            members: whether the baseline supports groups of a population.

        Returns:
            The model with the converted data.

        Raises:
            ModelError: if observables have dimensions that the baseline does not support.
            DataError: if all data are at one value of the index.
        """
        layer = model.layer
        beyond = {dim for name in model.observables for dim in model.dims(name)[1:]}
        groups = {layer.dim} if isinstance(layer, AbstractPopulation) else set()
        if members:
            beyond -= groups
        if beyond and not fields:
            others = ""
            if isinstance(layer, PDE):
                others = "; of the fields of a bd.pde.PDE there are 'cnn' and 'fixed'"
            elif beyond == groups:
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
        """Whether the model is a population."""
        return isinstance(self.model.layer, AbstractPopulation)

    @property
    def span(self) -> tuple[float, float]:
        """The first and the last value of the index."""
        times = checked_times(self.data, self.model.index)
        return float(times[0]), float(times[-1])

    @property
    def inputs(self) -> dict[str, tuple[float, float]]:
        """Location and width of each input, by name, for standardisation.

        The inputs are the forcings and the index, as "t", unless the index only counts rows.
        """
        forced = standardise(self.data, *self.model.layer.forcings)
        return forced if self.counts_rows else {"t": self.time} | forced

    @property
    def time(self) -> tuple[float, float]:
        """Location and width of the index as an input: its middle, and a quarter of its span."""
        begin, end = self.span
        return (begin + end) / 2, (end - begin) / 4

    @property
    def counts_rows(self) -> bool:
        """Whether the index only counts rows, so that it is no useful input.

        This holds if it has whole numbers without units, the data are no series, and there are
        forcings.
        """
        if is_series(self.model, self.data) or not self.model.layer.forcings:
            return False
        index = self.model.index
        places = checked_times(self.data, index)
        return bool(np.all(places == np.round(places))) and not self.data[index].attrs.get("units")

    @property
    def scales(self) -> dict[str, tuple[str, float, float]]:
        """Link, mean and standard deviation of each observable, by name.

        Mean and standard deviation are those of the data on the scale of the link. Positive data
        have the link "positive" (the logarithm), fractions of trials "share" (log odds), and other
        data "real" (no transform).

        Raises:
            DataError: if positive data are all zero.
        """
        found = {}
        for name in self.model.observables:
            seen = observations(self.data, name, dims=self.model.dims(name))
            seen = seen[np.isfinite(seen)]
            link = _link(self.model, name)
            # The number of trials may differ between data, so use a fixed scale.
            if link == "share":
                found[name] = link, 0.0, _LOG_ODDS_SPREAD
                continue
            if link == "positive" and not seen.max() > 0:
                raise DataError(f"all data of '{name}' are 0: nothing is known of its size")
            # Positive data are modelled on the log scale; a floor keeps log(0) finite.
            values = np.log(np.maximum(seen, _FLOOR * seen.max())) if link == "positive" else seen
            found[name] = link, float(np.mean(values)), float(np.std(values)) or 1.0
        return found

    def with_layer(self, layer: AbstractLayer) -> Model:
        """Return the model with another layer and the same noise.

        Constraints are left out, since they belong to the science.

        Args:
            layer: the layer. For a population it is the layer of one group.

        Returns:
            The model.
        """
        model = self.model
        if isinstance(model.layer, AbstractPopulation):
            layer = Each(layer, model.layer.members, model.layer.dim)
        return Model(layer, model.noise, None, model.cross_correlation, model.varied_noise)

    @property
    def like(self) -> dict[str, Any]:
        """Forcings, units and index of the model's layer, as keyword arguments of another layer."""
        own = self.model.layer
        return {
            "forcings": own.forcings,
            "units": dict(own.units),
            "index": own.index,
        }


_FLOOR = 1e-3  # smallest positive value, as a share of the largest
_LOG_ODDS_SPREAD = 1.5
_BACKWARD = {
    "real": lambda x: x,
    "positive": jnp.exp,
    "share": lambda x: 1 / (1 + jnp.exp(-x)),
}


def _link(model: Model, name: str) -> str:
    """Return "real", "positive" or "share", depending on the support of an observable's noise."""
    noise = model.noise_of(name)
    # A noise of counts may be wrapped in another noise.
    while hasattr(noise, "noise"):
        noise = noise.noise  # pyright: ignore[reportAttributeAccessIssue]
    if hasattr(noise, "trials"):
        return "share"
    return "real" if noise.support is constraints.real else "positive"


class Placed(Module):
    r"""A function with standardised outputs, converted to the scales of the observables.

    $y = g^{-1}(\text{level} + \text{spread} \cdot f)$ with the link $g$

    Args:
        function: the function f.
        scales: link, level and spread of each observable, by name.
    """

    function: Any
    scales: Mapping[str, tuple[str, float, float]] = eqx.field(static=True, converter=FrozenDict)

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        found = self.function(t, y, u)
        return {name: self.placed(name, value) for name, value in found.items()}

    def placed(self, name: str, value: Any) -> Any:
        """Convert one value to the scale of its observable.

        Args:
            name: the name of the observable.
            value: the standardised value.

        Returns:
            The value in the units of the observable.
        """
        link, level, spread = self.scales[name]
        return _BACKWARD[link](level + spread * value)

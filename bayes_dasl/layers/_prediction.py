"""What every layer returns."""

from abc import abstractmethod
from collections.abc import Mapping

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int

from ..data import Inputs
from ..random import Module


class Prediction(eqx.Module):
    """Named arrays, the solver's health and its work.

    `values` are finite even where the solver failed (`ok` is false), so that gradients stay finite too;
    they mean nothing there.
    """

    values: dict[str, Float[Array, "time ..."]]
    ok: Bool[Array, ""]
    stats: dict[str, Int[Array, ""]]


class AbstractLayer(Module):
    """A differentiable scientific model: `layer(inputs) -> Prediction`.

    `forcings` names the data variables that drive it; `units` are those of outputs and forcings, where known.
    """

    forcings: eqx.AbstractVar[tuple[str, ...]]
    units: eqx.AbstractVar[Mapping[str, str]]

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the values that the layer predicts."""

    @abstractmethod
    def __call__(self, inputs: Inputs) -> Prediction:
        """Predict at `inputs.times`."""

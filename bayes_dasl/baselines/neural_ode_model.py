"""A neural ODE: a network gives the rates of a model's states."""

import dataclasses
from typing import Any

import equinox as eqx
import xarray as xr
from numpyro.distributions import constraints

from ..errors import ModelError
from ..hybrid import corrected
from ..layers import ODE
from ..layers.layer import is_smooth
from ..model import Model
from ..networks import Network, fan_in
from ..random import Module, Values, is_random
from ._seen import Seen


def neural_ode(model: Model, data: xr.Dataset, *, width: int = 16, depth: int = 1) -> Model:
    """Replace the rates of an ODE by a network of states and forcings.

    The states, their initial values and the observations are unchanged. If `observe` is a method of
    the equations, all parameters of the equations keep their priors. If all states begin positive,
    the network gives rates relative to the state, so that states stay positive. The baseline uses
    the science only for the size of the rates under the prior (as in `bd.corrected`).

    Args:
        model: the model of an `ODE` without jumps, doses, events, algebraic states and process
            noise.
        data: the training data. States without data are scaled by the scientific model.
        width: the number of units of each hidden layer.
        depth: the number of hidden layers.

    Returns:
        The baseline.

    Raises:
        ModelError: if the layer is no such `ODE`, or `bd.corrected` would raise it.

    Source: Chen et al. (2018), Neural ordinary differential equations.
    """
    seen = Seen.of(model, data)
    layer = smooth_ode(seen, "a neural ODE")
    known = rates_of(layer, seen)
    network = Network.mlp(
        known.inputs, known.units, 1.0, width=width, depth=depth, prior=fan_in(1.5)
    )
    # `observe` may be a method of the equations.
    equations = layer.vector_field if layer.observe is not None else None
    field = _NetworkRates(network, known.relative, equations)
    found = eqx.tree_at(lambda ode: ode.vector_field, layer, field)
    return Model(found, model.noise, None, model.cross_correlation)


class _NetworkRates(Module):
    """Rates by a network.

    Args:
        network: the network.
        relative: whether the network gives rates relative to the state.
        equations: the equations, if `observe` may be their method, else None.
    """

    network: Network
    relative: bool = eqx.field(static=True)
    equations: Any

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        found = self.network(t, y, u)
        return {name: value * y[name] if self.relative else value for name, value in found.items()}


@dataclasses.dataclass(frozen=True)
class Known:
    """Scales of the states and rates of an ODE.

    Args:
        inputs: location and width of each state and forcing.
        units: the typical size of each rate.
        relative: whether rates are relative to the state.
    """

    inputs: dict[str, tuple[float, float]]
    units: dict[str, float]
    relative: bool


def smooth_ode(seen: Seen, what: str) -> ODE:
    """Return the layer of a model if it is an ODE without sudden or random changes of states.

    Args:
        seen: the model and its data.
        what: the name of the baseline in the error message.

    Returns:
        The ODE.

    Raises:
        ModelError: if the layer is not such an ODE.
    """
    layer = seen.model.layer
    if not isinstance(layer, ODE) or not is_smooth(layer):
        raise ModelError(
            f"{what} takes the place of a bd.ODE without jumps, doses, events, algebraic states, "
            f"process noise, sums and means, not of this {type(layer).__name__}"
        )
    return layer


def rates_of(layer: ODE, seen: Seen) -> Known:
    """Return the scales of an ODE, as `bd.corrected` determines them for a network.

    Args:
        layer: the ODE.
        seen: the model and its data.

    Returns:
        The scales of states, forcings and rates.

    Raises:
        ModelError: if `bd.corrected` would raise it.
    """
    states = tuple(layer.initial)
    # A relative rate keeps a positive state positive.
    relative = all(_begins_positive(value) for value in layer.initial.values())
    inputs = (*states, *layer.forcings)
    hybrid: Any = corrected(layer, seen.data, *states, inputs=inputs, relative=relative)
    closure = hybrid.vector_field.closure
    units = dict(zip(closure.outputs, closure.units, strict=True))
    return Known(dict(closure.inputs), units, relative)


def _begins_positive(value: Any) -> bool:
    """Whether an initial state is positive, or random with positive support."""
    return value.support is constraints.positive if is_random(value) else bool(value > 0)

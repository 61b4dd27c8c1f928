"""A neural ODE: it knows the states of a model, but nothing of their rates."""

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
    """The same differential equation with a network in place of all that science says of its rates.

    It keeps the states, where they begin, and how they are observed; where that is a method of the
    equations, all numbers of these, those that it does not read with their priors. Rates hang on
    states and forcings, not on time itself. They are per unit of state where all states begin
    positive for certain, so that they stay positive, and are measured in those that the science has
    under its prior (`bd.corrected`), which is all that is known of it.

    Args:
        model: that of an `ODE` without jumps, doses, events, algebraic states and process noise.
        data: the training data; states that they lack are those of the science.
        width: units of each hidden layer.
        depth: hidden layers.

    Raises:
        ModelError: for another layer, or as `bd.corrected`.

    Source: Chen et al. (2018), Neural ordinary differential equations.
    """
    seen = Seen.of(model, data)
    layer = smooth_ode(seen, "a neural ODE")
    known = rates_of(layer, seen)
    network = Network.mlp(
        known.inputs, known.units, 1.0, width=width, depth=depth, prior=fan_in(1.5)
    )
    field = _Rates(
        network, known.relative, layer.vector_field if layer.observe is not None else None
    )
    found = eqx.tree_at(lambda ode: ode.vector_field, layer, field)
    return Model(found, model.noise, None, model.cross_correlation)


class _Rates(Module):
    """Rates by a network; beside it stand the equations, for what is observed may be a method of
    theirs.
    """

    network: Network
    relative: bool = eqx.field(static=True)
    equations: Any

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        found = self.network(t, y, u)
        return {name: value * y[name] if self.relative else value for name, value in found.items()}


@dataclasses.dataclass(frozen=True)
class Known:
    """Of the states and rates of an ODE: where the states lie, how large rates are, and whether per
    unit of state.
    """

    inputs: dict[str, tuple[float, float]]
    units: dict[str, float]
    relative: bool


def smooth_ode(seen: Seen, what: str) -> ODE:
    """The layer of a model, if it is an ODE of which nothing but rates moves the states.

    Raises:
        ModelError: for another.
    """
    layer = seen.model.layer
    if not isinstance(layer, ODE) or not is_smooth(layer):
        raise ModelError(
            f"{what} takes the place of a bd.ODE without jumps, doses, events, algebraic states, "
            "process noise, sums "
            f"and means, not of this {type(layer).__name__}"
        )
    return layer


def rates_of(layer: ODE, seen: Seen) -> Known:
    """What a network that gives rates is told of their size."""
    states = tuple(layer.initial)
    relative = all(_is_positive(value) for value in layer.initial.values())
    hybrid: Any = corrected(
        layer, seen.data, *states, inputs=(*states, *layer.forcings), relative=relative
    )
    closure = hybrid.vector_field.closure
    return Known(
        dict(closure.inputs), dict(zip(closure.outputs, closure.units, strict=True)), relative
    )


def _is_positive(value: Any) -> bool:
    return value.support is constraints.positive if is_random(value) else bool(value > 0)

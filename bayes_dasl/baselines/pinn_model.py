"""A physics-informed network: a function of time that obeys an equation at some points."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import xarray as xr

from .._jax.tree import FrozenDict
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers import ODE, Prediction
from ..layers.layer import AroundTrajectory, finite
from ..model import Model
from ..networks import Network, fan_in
from ._seen import Seen
from .neural_ode_model import rates_of, smooth_ode


def pinn(
    model: Model,
    data: xr.Dataset,
    *,
    points: int = 64,
    tolerance: float = 0.05,
    width: int = 16,
    depth: int = 2,
) -> Model:
    r"""A physics-informed network: states are a network of time, and how they break the equation is
    a datum of zero.

    $y(t)
    = y_0 + s\,\tau\,\mathrm{net}(t), \quad (\dot y - f(t, y, u)) / (\text{tolerance} \cdot r) \sim
    N(0, 1)$ at points spread evenly from the start to the last of the data that are fitted

    τ is the time that has passed, as a share of that of the data, s the spread of a state and r the
    size of its rates under the prior (`bd.corrected`). Where all states begin positive for certain,
    their logarithms are meant. Numbers of the science are unknown as before.

    Args:
        model: that of an `ODE` without jumps, doses, events, algebraic states and process noise.
        data: the training data. Rows without observations ahead of them, with their forcings, in
            these and in what is fitted let the equation hold there too.
        points: at how many times the equation is asked for.
        tolerance: how much it may be broken, as a share of the rates.
        width: units of each hidden layer.
        depth: hidden layers.

    Raises:
        ModelError: for another layer, no points or no tolerance, or as `bd.corrected`.

    Source: Raissi et al. (2019), Physics-informed neural networks; Yang et al. (2021), B-PINNs.
    """
    if points < 1 or not tolerance > 0:
        raise ModelError(
            f"points={points} and tolerance={tolerance}: at least one point, and a tolerance above "
            "zero"
        )
    seen = Seen.of(model, data)
    layer = smooth_ode(seen, "a PINN")
    known, (begin, end) = rates_of(layer, seen), seen.span
    states = tuple(layer.initial)
    spreads = {name: 1.0 if known.relative else known.inputs[name][1] for name in states}
    time = {"t": ((begin + end) / 2, (end - begin) / 4)}
    network = Network.mlp(time, spreads, 2.0, width=width, depth=depth, prior=fan_in(2.0))
    allowed = {name: tolerance * unit for name, unit in known.units.items()}
    informed = Informed(  # pyright: ignore[reportCallIssue]  # forcings and units are properties
        ode=layer,
        network=network,
        span=end - begin,
        allowed=allowed,
        points=points,
        logarithms=known.relative,
    )
    return Model(informed, model.noise, dict(model.constraints), model.cross_correlation)


class Informed(AroundTrajectory):
    """States as a network of time, with what breaks the equation as mismatches.

    Args:
        ode: the equation, of which nothing is solved.
        network: from time to how far each state has moved.
        span: a typical time, by which the network's share of what moves a state grows.
        allowed: how much each rate may be missed, in its units, or those of the logarithm of its
            state.
        points: at how many times, from the start to the last one asked for, the equation is asked
            for.
        logarithms: whether the network moves the logarithms of the states.
    """

    ode: ODE
    network: Network
    span: float = eqx.field(static=True)
    allowed: Mapping[str, float] = eqx.field(static=True, converter=FrozenDict)
    points: int = eqx.field(static=True)
    logarithms: bool = eqx.field(static=True)

    @property
    def pointwise(self) -> bool:
        return True

    def __call__(self, inputs: Inputs) -> Prediction:
        states = self._states(inputs)
        found = jax.vmap(states)(inputs.times)
        at = jnp.linspace(inputs.start, inputs.times[-1], self.points)
        known, moving = jax.vmap(lambda t: jax.jvp(states, (t,), (jnp.ones_like(t),)))(at)
        wanted = self.ode.rates_along(inputs, at, known)
        broken = {}
        for name, rate in moving.items():
            away = rate - wanted[name]
            broken[name] = (away / known[name] if self.logarithms else away) / self.allowed[name]
        ok = finite((found, broken))
        kept = {f"equation of {name}": jnp.where(ok, value, 0.0) for name, value in broken.items()}
        masked = jax.tree.map(lambda v: jnp.where(ok, v, 1.0), found)
        return self.ode.predict(inputs, masked, ok, jnp.asarray(0), mismatches=kept)

    def _states(self, inputs: Inputs) -> Any:
        initial = self.ode.begin(inputs)

        def at(t):
            passed = (t - inputs.start) / self.span
            moved = self.network(t, {}, {})
            if self.logarithms:
                return {name: y * jnp.exp(passed * moved[name]) for name, y in initial.items()}
            return {name: y + passed * moved[name] for name, y in initial.items()}

        return at

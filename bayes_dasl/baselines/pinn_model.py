"""A physics-informed network: states are a network of time, with an equation as soft constraint."""

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
    r"""Build a physics-informed network: states are functions of time that softly obey an equation.

    $y(t) = y_0 + s\,\tau\,\mathrm{net}(t), \quad
    (\dot y - f(t, y, u)) / (\text{tolerance} \cdot r) \sim N(0, 1)$

    y are the states, $y_0$ the initial states, u the forcings and f the rates of the equation. τ is
    the time since the start, divided by the time span of the data. s is the spread of a state, and
    r the size of its rates under the prior (as in `bd.corrected`). If all states begin positive, y
    and f stand for the logarithms of the states and their rates.

    The constraint is evaluated at equally spaced times from the start to the last fitted time.
    Parameters of the scientific model keep their priors.

    Args:
        model: the model of an `ODE` without jumps, doses, events, algebraic states and process
            noise.
        data: the training data. They may have later rows with forcings but without observations;
            the constraint then covers these times too.
        points: the number of times at which the constraint is evaluated.
        tolerance: the standard deviation of the constraint residual, as a fraction of the size of
            the rates.
        width: the number of units of each hidden layer.
        depth: the number of hidden layers.

    Returns:
        The baseline.

    Raises:
        ModelError: if the layer is no such `ODE`, points or tolerance are not positive, or
            `bd.corrected` would raise it.

    Source: Raissi et al. (2019), Physics-informed neural networks; Yang et al. (2021), B-PINNs.
    """
    if points < 1 or not tolerance > 0:
        raise ModelError(
            f"points={points} and tolerance={tolerance}: at least one point, and a tolerance above "
            "zero"
        )
    seen = Seen.of(model, data)
    layer = smooth_ode(seen, "a PINN")
    known = rates_of(layer, seen)
    begin, end = seen.span
    # Logarithms have no units: a spread of one is a factor of e.
    spreads = {name: 1.0 if known.relative else known.inputs[name][1] for name in layer.initial}
    sizes: Any = {"width": width, "depth": depth}
    network = Network.mlp({"t": seen.time}, spreads, 2.0, prior=fan_in(2.0), **sizes)
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
    """States as a network of time, with constraint residuals of the equation.

    Args:
        ode: the equation, which is not solved.
        network: a function from time to the change of each state, per `span` of time.
        span: the time span of the data.
        allowed: the tolerated residual of each rate, in its units, or per time for logarithms.
        points: the number of times at which the constraint is evaluated, from the start to the last
            requested time.
        logarithms: whether the network changes the logarithms of the states.
    """

    ode: ODE
    network: Network
    span: float = eqx.field(static=True)
    allowed: Mapping[str, float] = eqx.field(static=True, converter=FrozenDict)
    points: int = eqx.field(static=True)
    logarithms: bool = eqx.field(static=True)

    @property
    def pointwise(self) -> bool:
        """Whether a prediction at one time does not depend on other times: always true."""
        return True

    def __call__(self, inputs: Inputs) -> Prediction:
        # 1. The states at the requested times.
        states = self._states(inputs)
        found = jax.vmap(states)(inputs.times)
        # 2. States and their derivatives dy/dt at the times of the constraint.
        at = jnp.linspace(inputs.start, inputs.times[-1], self.points)
        known, moving = jax.vmap(lambda t: jax.jvp(states, (t,), (jnp.ones_like(t),)))(at)
        wanted = self.ode.rates_along(inputs, at, known)
        # 3. Residuals (dy/dt − f) / allowed; for logarithms (dy/dt − f) / (y allowed).
        broken = {}
        for name, rate in moving.items():
            away = rate - wanted[name]
            broken[name] = (away / known[name] if self.logarithms else away) / self.allowed[name]
        # 4. A state that is not finite makes the draw invalid, and gradients must stay finite.
        ok = finite((found, broken))
        kept = {f"equation of {name}": jnp.where(ok, value, 0.0) for name, value in broken.items()}
        masked = jax.tree.map(lambda v: jnp.where(ok, v, 1.0), found)
        return self.ode.predict(inputs, masked, ok, jnp.asarray(0), constraint_residuals=kept)

    def _states(self, inputs: Inputs) -> Any:
        """Return a function from time to the states by name."""
        initial = self.ode.begin(inputs)

        def at(t):
            # τ = 0 at the start, so that initial states hold exactly.
            passed = (t - inputs.start) / self.span
            moved = self.network(t, {}, {})
            if self.logarithms:
                return {name: y * jnp.exp(passed * moved[name]) for name, y in initial.items()}
            return {name: y + passed * moved[name] for name, y in initial.items()}

        return at

"""Stochastic differential equations, with their Brownian path as a latent variable."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._jax.tree import FrozenDict
from ..data.forcings import Step
from ..data.layer_inputs import Inputs
from ..errors import DataError, ModelError
from ..layers._assumed import refuse_assumed
from ..layers._functions import (
    any_state,
    by_name,
    check_initial,
    method_of,
    output_names,
    several_names,
    shapes_of,
)
from ..layers._initial import AbstractFromStates
from ..layers._times import ROUNDING, checked_grid, known
from ..layers.layer import Prediction, StatedFunction, finite, predict_rows, prediction, shielded
from ..random import Values, VectorField, is_function, shape_of

# A solve counts as diverged if a state exceeds this many times the largest initial value (or 1).
# Derivatives are still finite at this size.
_LARGEST = 1e30


class StochasticEquation(AbstractFromStates):
    """Base class of stochastic differential equations: drift, diffusion and initial states."""

    drift: VectorField
    diffusion: Callable[[Any, Values, Values], Values] | Mapping[str, Any]
    initial: dict[str, Any]
    observe: Callable[..., Values] | None = eqx.field(default=None, kw_only=True)
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    # A default that is a value, not a factory: it must hide the property of the base class.
    interpolation: Mapping[str, str] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )

    def __post_init__(self):
        if not is_function(self.drift):
            raise ModelError(f"drift must be callable as f(t, y, u), not {self.drift!r}")
        check_initial(self.initial, self.observe)
        if not is_function(self.diffusion) and not isinstance(self.diffusion, Mapping):
            raise ModelError(
                "diffusion must be a dict of numbers by state, or callable as g(t, y, u), not "
                f"{self.diffusion!r}"
            )
        if not self.noisy:
            raise ModelError(
                "the diffusion names no state: use bd.ODE for an equation without noise"
            )

    @property
    def noisy(self) -> tuple[str, ...]:
        """Names of the states with noise."""
        named = (
            self.diffusion
            if isinstance(self.diffusion, Mapping)
            else shapes_of(self.diffusion, "the diffusion", any_state(self.initial), self.forcings)
        )
        self._refuse_unknown(named)
        return tuple(named)

    @property
    def outputs(self) -> tuple[str, ...]:
        return output_names(self.observe, self.drift, any_state(self.initial), self.forcings)

    @property
    def _stated_functions(self) -> list[StatedFunction]:
        return [("the drift", self.drift, self.initial)]

    def _refuse_unknown(self, amplitudes: Mapping[str, Any]) -> None:
        """Raise a ModelError if the diffusion names a state that does not exist."""
        unknown = [name for name in amplitudes if name not in self.initial]
        if unknown:
            raise ModelError(
                f"the diffusion names {', '.join(unknown)} but the states are "
                f"{', '.join(self.initial)}"
            )

    def _initial(self, dtype: Any) -> tuple[Float[Array, " state"], Callable]:
        """Return the initial state vector, and the function from vectors to states by name."""
        return ravel_pytree(
            {name: jnp.asarray(value, dtype) for name, value in self.initial.items()}
        )

    def _rates(self, t: Any, y: Values, u: Values) -> Float[Array, " state"]:
        """Return the drift of every state, as a vector."""
        rates = self.drift(t, y, u)
        if set(rates) != set(y):
            raise ModelError(
                f"the drift returns rates for {', '.join(rates)} but the states are {', '.join(y)}"
            )
        return _vector(rates, y)

    def _amplitudes(self, t: Any, y: Values, u: Values) -> Float[Array, " state"]:
        """Return the diffusion of every state as a vector; it is 0 for states without noise."""
        diffusion = (
            self.diffusion if isinstance(self.diffusion, Mapping) else self.diffusion(t, y, u)
        )
        self._refuse_unknown(diffusion)
        return _vector(diffusion, y)

    @abstractmethod
    def __call__(self, inputs: Inputs, *args: Any) -> Prediction:
        """Predict at `inputs.times`.

        Args:
            inputs: start, times and forcings.
            args: for a filter, the noise variances of the observations; nothing for an `SDE`.

        Returns:
            The prediction.
        """


def _vector(values: Mapping[str, Any], like: Values) -> Float[Array, " state"]:
    """Return the values of all states as one vector; states that `values` does not name have 0.

    `like` holds an array of the shape of each state.
    """
    shaped = {
        name: jnp.broadcast_to(jnp.asarray(values.get(name, 0.0), y.dtype), y.shape)
        for name, y in like.items()
    }
    return ravel_pytree(shaped)[0]


class SDE(StochasticEquation):
    r"""An Itô stochastic differential equation, whose Brownian path is a latent variable.

    $dX = f(t, X, u)\, dt + g(t, X, u) \odot dW, \quad X(t_0) = x_0$

    X are the states, f is the drift, g the diffusion, u the forcings and W Brownian motion.

    The equation is solved on a fixed grid of times. The grid should contain the times of the data
    and the times at which a step forcing changes. Between grid times states are interpolated
    linearly, which omits up to $g^2 h / 4$ of their variance, where h is the step.

    Each step is Milstein's, with the drift of Heun's method. (It equals Diffrax's `Heun` for
    additive noise, and its `ItoMilstein` without a drift.) All steps are one scan, so that the
    gradient in $n$ increments costs $n$ steps. A state that diverges gives `ok=False`. The scheme
    has strong order 1 if the noise is additive or each g depends only on its own state, else 1/2.
    With additive noise it has weak order 2. To solve a Stratonovich equation, add
    $g_i\, \partial_i g_i / 2$ to the drift $f_i$. Stiff equations need steps shorter than their
    fastest time scale.

    Args:
        drift: a function `(t, y, u)` of time, a dict of states and a dict of forcings. It returns a
            dict with the drift of every state, in its units per unit of time.
        diffusion: a dict of numbers by state (additive noise), or a function `(t, y, u)` that
            returns such a dict, in the units of the state per square root of time. The noise is
            diagonal: each state has its own Brownian motion. States without an entry have no noise.
        initial: the states at the start of the grid by name, each a number, an array or a random
            leaf, in its units.
        grid: (start, end, steps): the first and last time, in the units of time of the data, and
            the number of equal steps. **It must cover the times of forecasts too**; a time outside
            the grid is refused. Increments after the data keep their prior, so forecasts become
            more uncertain with time.
        path: the standard normal increments $z_k$ of each state with noise,
            $W_{k+1} - W_k = \sqrt{h}\, z_k$; random leaves Normal(0, 1) unless given.
        observe: a function `(t, y, u)` that returns a dict of predicted values; without it the
            states are predicted.
        forcings: the data variables that drive the equation: a name, or several. They are
            interpolated linearly between their data unless `interpolation` names them.
        interpolation: the kind of interpolation by name of the forcing: `{"rain": "step"}` keeps
            each datum until the next one, `"cubic"` is a smooth spline.
        units: the units of states, forcings and observed values, by name. Data in other units are
            converted. Data in incompatible units are refused.

    Shapes: states are scalars, or arrays if `observe` reduces them to scalars; `path[name]` is
    `(steps,)` followed by the shape of the state; predictions are `(time,)`.

    Raises:
        ModelError: if built with a bad grid, a path of the wrong shape or a diffusion of unknown
            states.
        DataError: for times outside the grid.

    Source: Kloeden & Platen (1992), Numerical Solution of Stochastic Differential Equations, 10.3
    and 14.1.

    Example:
        ```python
        decay = Decay(bd.between(0.1, 1.0))
        layer = bd.equations.SDE(decay, {"y": bd.between(0.02, 0.5)}, {"y": 2.0}, (0.0, 8.0, 16))
        model = bd.Model(layer, bd.NormalNoise(0.05))
        ```
    """

    latent_fields: ClassVar[tuple[str, ...]] = ("path",)

    grid: tuple[float, float, int] = eqx.field(static=True)
    path: Any = None

    def __post_init__(self):
        super().__post_init__()
        self.grid = checked_grid(self.grid)
        shapes = {name: (self.grid[2], *any_state(self.initial)[name].shape) for name in self.noisy}
        self.path = _checked_path(self.path, shapes)

    @property
    def start(self) -> float:
        """Start time of the grid, at which the states have their initial values."""
        return self.grid[0]

    @property
    def step(self) -> float:
        """Length h of a step of the grid."""
        start, end, steps = self.grid
        return (end - start) / steps

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        steps = self._steps_up_to(inputs.times)
        vectors, alive, unravel = self._solve(inputs, steps)
        states, covered = self._between(vectors, inputs.times)
        ok = alive & covered & finite(states)
        named, stats = jax.vmap(unravel)(states), {"steps": jnp.asarray(steps)}
        if self.observe is None:
            return prediction(named, ok, stats)
        observe = method_of(self.drift, self.observe)

        def rows(times):
            return jax.vmap(lambda t, y: dict(observe(t, y, inputs.forced(t))))(times, named)

        return predict_rows(rows, inputs.times, ok, stats)

    def _steps_up_to(self, times: Array) -> int:
        """Return the number of steps that reach the last time; all steps if times are traced.

        Raises:
            DataError: for times outside the grid.
        """
        start, end, steps = self.grid
        fixed = known(times)
        if fixed is None:
            return steps
        last = (fixed[-1] - start) / self.step
        if fixed[0] < start or last > steps + ROUNDING:
            at = fixed[0] if fixed[0] < start else fixed[-1]
            raise DataError(
                f"time {at:g} lies outside the grid of the path, from {start:g} to {end:g}: build "
                "the layer with a "
                "grid that covers data and forecasts"
            )
        return min(max(math.ceil(last - ROUNDING), 1), steps)

    def _solve(
        self, inputs: Inputs, steps: int
    ) -> tuple[Float[Array, "grid state"], Array, Callable]:
        """Solve the equation on the first `steps` steps of the grid.

        Returns:
            The state vector at each grid time, whether the solve succeeded, and a function from
            state vectors to states by name. A state that diverges is constant from then on.
        """
        h = self.step
        first, unravel = self._initial(inputs.times.dtype)

        def after(y, k, normals):
            begin = self.start + k * h
            # A step forcing may change at an end of this step: evaluate it just inside.
            inside = begin + ROUNDING * h, begin + (1 - ROUNDING) * h

            def forced(t):
                within = jnp.clip(t, *inside)
                return {
                    name: f(within if isinstance(f, Step) else t)
                    for name, f in inputs.forcings.items()
                }

            return _step(
                lambda t, y: self._rates(t, unravel(y), forced(t)),
                lambda t, y: self._amplitudes(t, unravel(y), forced(t)),
                begin, h, y, math.sqrt(h) * normals,
            )  # fmt: skip

        largest = _LARGEST * jnp.maximum(jnp.max(jnp.abs(first)), 1.0)

        def step(before, at):
            y, alive = before
            new, alive = shielded(
                after, lambda new: alive & jnp.all(jnp.abs(new) < largest), y, *at
            )
            y = jnp.where(alive, new, y)
            return (y, alive), y

        normals = self._normals(first.dtype)[:steps]
        (_, alive), vectors = jax.lax.scan(
            step, (first, finite(first)), (jnp.arange(steps), normals)
        )
        return jnp.concatenate([first[None], vectors]), alive, unravel

    def _normals(self, dtype: Any) -> Float[Array, "steps state"]:
        """Return the increments z_k of every state as vectors, with 0 for states without noise."""
        steps = self.grid[2]
        every = {
            name: jnp.asarray(self.path[name], dtype)
            if name in self.path
            else jnp.zeros((steps, *y.shape), dtype)
            for name, y in any_state(self.initial).items()
        }
        return jax.vmap(lambda row: ravel_pytree(row)[0])(every)

    def _between(self, vectors: Float[Array, "grid state"], times: Array) -> tuple[Array, Array]:
        """Interpolate states linearly between grid times.

        Args:
            vectors: the state vector at each grid time.
            times: the times at which states are wanted, in increasing order.

        Returns:
            The state vectors, `(time, state)`, and whether all times lie within the grid.
        """
        position = (times - self.start) / self.step
        left = jnp.clip(jnp.floor(position).astype(int), 0, len(vectors) - 2)
        weight = (position - left)[:, None]
        covered = (position[0] >= 0) & (position[-1] <= len(vectors) - 1 + ROUNDING)
        return (1 - weight) * vectors[left] + weight * vectors[left + 1], covered


def _step(drift: Callable, diffusion: Callable, t: Any, h: float, y: Array, dw: Array) -> Array:
    """Make one step of Milstein's scheme, with the drift by Heun's method.

    Args:
        drift: a function of time and state vector that returns the drift.
        diffusion: a function of time and state vector that returns the diffusion of each state.
        t: the time at the start of the step.
        h: the length of the step.
        y: the state vector at the start of the step.
        dw: the increment of the Brownian motion of each state.

    Returns:
        The state vector at the end of the step.
    """
    # Kloeden & Platen (1992), sections 10.3 and 14.1.
    # 1. Drift f and diffusion g at the start of the step.
    rate = drift(t, y)
    amplitude = diffusion(t, y)
    # 2. The derivative of each amplitude along its own noise: g_i ∂g_i/∂y_i.
    _, slope = jax.jvp(lambda state: diffusion(t, state), (y,), (amplitude,))
    # 3. Milstein's noise g ΔW + g g' (ΔW² - h) / 2 is of strong order 1, in the sense of Itô.
    noise = amplitude * dw + 0.5 * slope * (dw**2 - h)
    # 4. Heun's drift: the mean of f at the start and at an Euler step that includes the noise.
    return y + 0.5 * h * (rate + drift(t + h, y + h * rate + noise)) + noise


def _checked_path(path: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the increments of each state with noise: as given, or standard normal random leaves.

    Args:
        path: the argument of `SDE`.
        shapes: the required shape of the increments of each state with noise.

    Raises:
        ModelError: for increments of other states or shapes.
    """
    if path is None:
        return {
            name: dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))
            for name, shape in shapes.items()
        }
    if not isinstance(path, Mapping):
        if len(shapes) > 1:
            raise ModelError(f"path must be a dict of increments for each of {', '.join(shapes)}")
        path = dict.fromkeys(shapes, path)
    if set(path) != set(shapes):
        raise ModelError(
            f"path names {', '.join(path) or 'nothing'}, but the states with noise are "
            f"{', '.join(shapes)}"
        )
    for name, shape in shapes.items():
        found = shape_of(path[name])
        if found != shape:
            raise ModelError(
                f"path['{name}'] has shape {found}, but the grid and the state need {shape}"
            )
    return dict(path)

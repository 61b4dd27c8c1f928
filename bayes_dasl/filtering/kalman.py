"""Likelihood of a stochastic differential equation without its path, by a Kalman filter."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from .._statistics.describe_distributions import may_be_negative
from ..data.layer_inputs import Inputs, Past
from ..equations.sde import StochasticEquation
from ..errors import DataError, ModelError
from ..layers._assumed import refuse_assumed
from ..layers._functions import any_state, check_tolerances, method_of
from ..layers._start import start_time
from ..layers._steps import RetryingController, safe_rates
from ..layers._times import known
from ..layers.layer import AbstractFilter, Prediction, finite, prediction, shielded
from ..layers.ode import find_solver
from ..random import check_scalar, is_random


class _Belief(NamedTuple):
    """Mean and covariance of the states at one time, with the success and steps of the solver."""

    mean: Float[Array, " state"]
    covariance: Float[Array, "state state"]
    ok: Bool[Array, ""]
    steps: Int[Array, ""]


class Kalman(StochasticEquation, AbstractFilter):
    r"""A stochastic differential equation with its path integrated out: an extended Kalman filter.

    $dX = f(t, X, u)\, dt + g(t, X, u) \odot dW, \quad X(t_0) \sim N(x_0, \mathrm{diag}(s_0^2))$

    $\dot m = f(t, m, u), \quad
    \dot P = F P + P F^\top + \mathrm{diag}(g(t, m, u)^2), \quad F = f_m$

    X are the states, f is the drift, g the diffusion, u the forcings and W Brownian motion. The
    filter integrates the mean m and the covariance P of the states between the data.

    The noise of the data must be `bd.NormalNoise`.

    The prediction of a datum is its mean and variance given earlier data. The product of these
    densities is the marginal likelihood of the data. Data at the same time are processed one after
    the other, in the order of `outputs`. Without past data (`inputs.past` is None), predictions are
    the marginal means and variances.

    If drift and `observe` are linear in the states and the noise is additive, the likelihood is
    exact up to the tolerance of the solver. Otherwise drift and `observe` are linearised about the
    mean, and g is evaluated at the mean. The standard deviation of the states must then be so small
    that both are nearly linear within it.

    Args:
        drift: a function `(t, y, u)` of time, a dict of states and a dict of forcings. It returns
            the drift of every state, in its units per unit of time.
        diffusion: a dict of numbers by state (additive noise), or a function `(t, y, u)` that
            returns such a dict, in units of the state per square root of time. States without an
            entry have no noise.
        initial: a dict of the means of the states at `start`, each a number, an array or a random
            leaf, in the units of the state.
        initial_sd: a dict of the standard deviations of the states at `start`, in the same form.
            States without an entry are known exactly.
        solver: a Diffrax solver or its name: `tsit5` for non-stiff, `rodas5p` for stiff equations.
        start: the time of `initial`, as a date or in the units of time of the data. The default is
            the first time of the data that the model is fitted to.
        rtol: the relative tolerance of a step for the means; for covariances relative to the
            standard deviations of their states.
        atol: the absolute tolerance of a step for the means, in the units of the states, the same
            for all states.
        max_steps: the largest number of solver steps in each interval between two data.
        adjoint: the method by which Diffrax differentiates the solve.
        observe: a function `(t, y, u)` that returns a dict of predicted values; by default the
            states are predicted.
        forcings: the data variables that drive the equation: one name or several. They are
            interpolated linearly, unless `interpolation` names them.
        interpolation: the interpolation of forcings by name: `{"rain": "step"}` keeps each datum
            until the next one, `"cubic"` is a smooth spline.
        units: the units of states, forcings and observed values, by name. Data in other units are
            converted. Data in incompatible units are refused.

    Shapes: states are scalars, or arrays if `observe` reduces them to scalars; predictions are
    `(time,)`.

    Raises:
        ModelError: if the arguments are invalid, as for `SDE`, or `initial_sd` names unknown states
            or is negative.
        DataError: if data lie before the start.

    Source: Särkkä & Solin (2019), Applied Stochastic Differential Equations, algorithm 10.20; Bucy
    & Joseph (1968).

    Example:
        ```python
        decay = Decay(bd.between(0.1, 1.0))
        layer = bd.filtering.Kalman(
            decay, {"y": bd.between(0.02, 0.5)}, {"y": 2.0}, initial_sd={"y": 0.1}
        )
        model = bd.Model(layer, bd.NormalNoise(0.05))
        ```
    """

    initial_sd: Mapping[str, Any]
    solver: diffrax.AbstractSolver = eqx.field(default="tsit5", converter=find_solver)
    start: float | datetime | None = eqx.field(default=None, static=True, converter=start_time)
    rtol: float = eqx.field(default=1e-6, static=True)
    atol: float = eqx.field(default=1e-6, static=True)
    max_steps: int = eqx.field(default=4096, static=True)
    adjoint: diffrax.AbstractAdjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=32)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.initial_sd, Mapping):
            raise ModelError(
                "initial_sd must be a dict of standard deviations by state; {} if all are known"
            )
        for name, value in self.initial_sd.items():
            if name not in self.initial:
                raise ModelError(
                    f"initial_sd names {name} but the states are {', '.join(self.initial)}"
                )
            if self.observe is None:
                check_scalar(value, f"initial_sd['{name}']")
            if is_random(value):
                wrong = f"a {type(value).__name__} has negative numbers too"
                negative = may_be_negative(value)
            else:
                wrong, fixed = f"is {value}", known(value)
                negative = fixed is not None and (fixed < 0).any()
            if negative:
                raise ModelError(f"initial_sd['{name}'] must not be negative, and {wrong}")
        check_tolerances(self)

    def __leaf_units__(self, path: tuple[str, ...]) -> str:
        """Units of a random leaf of `initial` or `initial_sd`: the units of its state.

        Args:
            path: the names on the way from the layer to the leaf.

        Returns:
            The units; "" if they are unknown or for any other leaf.
        """
        return self.units.get(path[1], "") if path[0] in ("initial", "initial_sd") else ""

    def __call__(self, inputs: Inputs, variances: Mapping[str, Any]) -> Prediction:
        refuse_assumed(self, inputs)
        names = self.outputs
        _check_past(inputs, variances, names)
        # Events are all times of data, of predictions and of kinks of forcings.
        times = self._events(inputs)
        rows = _past_rows(times, inputs.past, names)
        noise = jnp.asarray([variances.get(name, 1.0) for name in names], times.dtype)
        begin = jnp.concatenate([inputs.start[None], times[:-1]])
        first, unravel = self._initial(times.dtype)

        def event(belief, at):
            t0, t1, data = at
            # 1. Predict: m and P from the event before (Särkkä & Solin 2019, algorithm 10.20).
            before = self._propagate(inputs, unravel, belief, t0, t1)
            # 2. Linearise what is observed about the predicted mean: h(y) ≈ h(m) + H (y - m).
            linearised = partial(self._linearised, inputs, unravel)
            seen, fine = shielded(
                linearised, lambda seen: before.ok & finite(seen), before.mean, t1
            )
            before = before._replace(ok=fine)
            # 3. Condition on the data of this time, one observable after the other.
            seen = jax.tree.map(lambda part: jnp.where(fine, part, 0.0), seen)
            (after, _), predicted = jax.lax.scan(
                _update, (before, before.mean), (*seen, data, noise)
            )
            return after, predicted

        belief = _Belief(
            first, self._initial_covariance(first.dtype), finite(first), jnp.zeros((), int)
        )
        # 4. Run over all events, and keep the predictions at the requested times.
        belief, predicted = jax.lax.scan(event, belief, (begin, times, rows))
        asked = jnp.searchsorted(times, inputs.times)
        mean, variance = (
            {name: part[asked, k] for k, name in enumerate(names)} for part in predicted
        )
        ok = belief.ok & (times[0] >= inputs.start) & finite(predicted)
        # A failed solve gets variance 1, so that the density stays finite.
        masked = {name: jnp.where(ok, value, 1.0) for name, value in variance.items()}
        return prediction(mean, ok, {"steps": belief.steps}, variances=masked)

    def _events(self, inputs: Inputs) -> Float[Array, " event"]:
        """Return all distinct times of predictions, data and kinks of forcings, sorted."""
        asked = [inputs.times] if inputs.past is None else [inputs.times, inputs.past.times]
        # Intervals end at the kinks and jumps of forcings, so that each solve is smooth.
        kinks = [inputs.forcings[name].times for name in self.forcings]
        if any(known(times) is None for times in (*asked, *kinks, inputs.start)):
            # Under tracing the number of distinct times is unknown: repeat the last one.
            every = _all_times(inputs.start, asked, kinks, jnp)
            return jnp.unique(every, size=every.size, fill_value=every.max())
        asked, kinks = ([np.asarray(times) for times in part] for part in (asked, kinks))
        return jnp.asarray(np.unique(_all_times(np.asarray(inputs.start), asked, kinks, np)))

    def _initial_covariance(self, dtype: Any) -> Float[Array, "state state"]:
        """Return the covariance of the states at the start."""
        deviations = {
            name: jnp.broadcast_to(jnp.asarray(self.initial_sd.get(name, 0.0), dtype), y.shape)
            for name, y in any_state(self.initial).items()
        }
        return jnp.diag(jnp.square(ravel_pytree(deviations)[0]))

    def _propagate(
        self, inputs: Inputs, unravel: Callable, belief: _Belief, t0: Any, t1: Any
    ) -> _Belief:
        """Integrate mean and covariance from one event to the next.

        Args:
            inputs: start, times and forcings.
            unravel: a function from state vectors to states by name.
            belief: mean and covariance at t0.
            t0: the time of the earlier event.
            t1: the time of the later event.

        Returns:
            The mean and covariance at t1.
        """
        # A forcing may jump at t1: use its value before the jump.
        before = jax.lax.stop_gradient(jnp.nextafter(t1, t0))

        def drift(y, t):
            rate = self._rates(t, unravel(y), inputs.forced(jnp.minimum(t, before)))
            return rate, rate

        def amplitudes(y, t):
            return self._amplitudes(t, unravel(y), inputs.forced(jnp.minimum(t, before)))

        # Scale covariances by sd_i sd_j rtol / atol, so that the solver's atol on them amounts to
        # rtol relative to the standard deviations.
        grown = jnp.square(amplitudes(belief.mean, t0)) * (t1 - t0)
        spread = jnp.diag(belief.covariance) + grown + self.atol**2
        spread = jnp.where(jnp.isfinite(spread), spread, 1.0)
        spread = jnp.sqrt(jax.lax.stop_gradient(spread))
        unit = jnp.outer(spread, spread) * self.rtol / self.atol

        # 1. Moments of the linearised equation: m' = f(m), P' = F P + P Fᵀ + diag(g²), F = ∂f/∂y.
        def rates(t, y):
            mean, covariance = y
            slope, rate = jax.jacfwd(drift, has_aux=True)(mean, t)
            flow = slope @ (covariance * unit)
            return rate, (flow + flow.T + jnp.diag(jnp.square(amplitudes(mean, t)))) / unit

        # 2. Integrate both moments together to the next event. A solve that fails keeps the old
        # belief with ok=False: a sampler then rejects the draw.
        first = belief.mean, belief.covariance / unit
        safe = jax.lax.stop_gradient((t0, first))
        closed = eqx.filter_closure_convert(rates, *safe)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: safe_rates(closed, t, y, safe)),
            self.solver,
            t0,
            jnp.where(belief.ok, t1, t0),
            None,
            first,
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=RetryingController(
                diffrax.PIDController(rtol=self.rtol, atol=self.atol)
            ),
            max_steps=self.max_steps,
            adjoint=self.adjoint,
            throw=False,
        )
        mean, covariance = jax.tree.map(lambda y: y[-1], solution.ys)
        ok = (
            belief.ok & (solution.result == diffrax.RESULTS.successful) & finite((mean, covariance))
        )
        mean = jnp.where(ok, mean, belief.mean)
        covariance = jnp.where(ok, covariance * unit, belief.covariance)
        return _Belief(mean, covariance, ok, belief.steps + solution.stats["num_steps"])

    def _linearised(
        self, inputs: Inputs, unravel: Callable, mean: Array, t: Any
    ) -> tuple[Array, Array]:
        """Return the outputs at the mean, and their Jacobian by the states, one row per output."""

        def observed(y):
            states = unravel(y)
            observe = method_of(self.drift, self.observe)
            seen = states if observe is None else observe(t, states, inputs.forced(t))
            values = jnp.stack([jnp.asarray(seen[name], y.dtype) for name in self.outputs])
            return values, values

        slopes, values = jax.jacfwd(observed, has_aux=True)(mean)
        return values, slopes


def _update(
    carry: tuple[_Belief, Array], observable: tuple
) -> tuple[tuple[_Belief, Array], tuple[Array, Array]]:
    """Predict one observable, and condition on its datum if there is one.

    The function is the body of a scan over the observables at one time.

    Args:
        carry: the belief, conditioned on earlier observables at this time, and the mean m₀ about
            which outputs are linearised.
        observable: the output h at m₀, its derivatives H by the states, its datum (NaN if missing),
            and its noise variance R.

    Returns:
        The new carry, and the predicted mean and variance of the observable without its noise.

    Source: Särkkä & Solin (2019), Applied Stochastic Differential Equations; Bucy & Joseph (1968)
    for the form of the covariance.
    """
    belief, about = carry
    value, slope, datum, noise = observable
    # 1. Prediction of the datum: z = h + H (m - m₀), with variance H P Hᵀ (and noise R).
    predicted = value + slope @ (belief.mean - about)
    shared = belief.covariance @ slope
    variance = jnp.maximum(slope @ shared, 0.0)
    total = variance + noise
    # 2. Gain K = P Hᵀ / (H P Hᵀ + R), 0 for a missing datum.
    seen = ~jnp.isnan(datum) & belief.ok & (total > 0)
    gain = jnp.where(seen, shared / jnp.where(seen, total, 1.0), 0.0)
    mean = belief.mean + gain * jnp.where(seen, datum - predicted, 0.0)
    # 3. (I - K H) P (I - K H)ᵀ + K R Kᵀ stays positive under round-off; (I - K H) P may not.
    rest = jnp.eye(len(mean)) - jnp.outer(gain, slope)
    covariance = rest @ belief.covariance @ rest.T + noise * jnp.outer(gain, gain)
    covariance = 0.5 * (covariance + covariance.T)
    return (belief._replace(mean=mean, covariance=covariance), about), (predicted, variance)


def _all_times(start: Any, asked: list, kinks: list, numpy: Any) -> Any:
    """Join the times of predictions, of past observations, and of kinks of forcings.

    Kinks are clipped to the range from the start to the last of the other times. The array is not
    sorted and may hold duplicates.

    Args:
        start: the start time.
        asked: the times of predictions and, if there are any, of past observations.
        kinks: arrays of times at which forcings have kinks.
        numpy: the module `numpy`, or `jax.numpy` for traced times.
    """
    every = numpy.concatenate(asked)
    last = every.max()
    return numpy.concatenate([every, *(numpy.clip(times, start, last) for times in kinks)])


def _past_rows(
    times: Float[Array, " event"], past: Past | None, names: tuple[str, ...]
) -> Float[Array, "event output"]:
    """Return the past observations at each event; NaN at events without data."""
    nothing = jnp.full(times.shape, jnp.nan, times.dtype)
    if past is None:
        return jnp.stack([nothing] * len(names), axis=1)
    at = jnp.clip(jnp.searchsorted(past.times, times), 0, len(past.times) - 1)
    seen = past.times[at] == times
    columns = [
        jnp.where(seen, past.values[n][at], jnp.nan) if n in past.values else nothing for n in names
    ]
    return jnp.stack(columns, axis=1)


def _check_past(inputs: Inputs, variances: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raise an error if noise, past data and outputs do not match, or data precede the start."""
    for name in variances:
        if name not in names:
            raise ModelError(
                f"'{name}' has noise but is not an output; the outputs are {', '.join(names)}"
            )
    if inputs.past is None:
        return
    for name in inputs.past.values:
        if name not in variances:
            raise ModelError(
                f"the past holds '{name}', whose noise has no variance; known are "
                f"{', '.join(variances)}"
            )
    times = known(inputs.past.times)
    start = known(inputs.start)
    if times is not None and start is not None and times[0] < start:
        raise DataError(
            f"the past begins at {times[0]:g}, before the start of the model at {start:g}"
        )

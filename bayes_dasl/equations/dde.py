"""`DDE`: delay differential equations, whose rates depend on past states."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._jax.tree import FrozenDict, frozen, prepared
from .._statistics.describe_distributions import describe_distribution, may_be_negative
from ..data.forcings import Linear, Step
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers._assumed import refuse_assumed
from ..layers._functions import (
    any_state,
    by_name,
    check_initial,
    check_interpolation,
    check_tolerances,
    checked_rates,
    method_of,
    named,
    output_names,
    several_names,
)
from ..layers._initial import AbstractFromStates
from ..layers._start import start_time
from ..layers._steps import limits, safe_rates
from ..layers.layer import Prediction, finite, predict_rows
from ..random import Scalar, Values, VectorField, check_scalar, is_function, is_random
from ._past_states import Lookup, Solution

# Default number of steps in the shortest delay.
_FINE = 32
# Times of the stages, as shares of a step.
_STAGES = (0.0, 0.5, 1.0)
# A discontinuity at the start is one order smoother after each delay. After this many delays it
# does not affect a method of order four.
_BREAKS = 3


class DDE(AbstractFromStates):
    r"""A delay differential equation with initial history.

    $\dot y = f(t, y, u), \quad u_\text{past}(t) = y(t - \tau)$

    Here y are the states, and u holds forcings and past states, each with its delay τ.

    The equation is solved by the method of steps, with the classical Runge–Kutta method (order
    four) and cubic interpolation of past states. Steps are no longer than `longest_step`. They end
    at the times where a discontinuity at the start reappears (after one, two and three delays), and
    where a forcing has a kink or a jump. A second solve with twice the step length estimates the
    error. If the error at a requested time exceeds the tolerances `rtol` and `atol`, the result has
    `ok=False`; there is no exception. The same holds if a delay is shorter than a step.

    Args:
        vector_field: a function `(t, y, u)` of time, a dict of states, and a dict of forcings and
            past states. It returns a dict with the rate of every state, in its units per unit of
            time.
        initial: a dict of the states at `start`, each a number, an array or a random leaf, in the
            units of the state.
        delays: a dict of past states by their name in `u`. Each is a tuple of the name of the state
            and its delay. The delay is a number or a random leaf, in the units of time.
            `{"past": ("y", tau)}` defines `u["past"]`, the value of y a time tau earlier.
        observe: a function `(t, y, u)` that returns a dict of predicted values; without it the
            states are predicted. Its `u` also holds the past states. It may be a method of the
            class of `vector_field`; it is then called on `vector_field`.
        history: a function `(t, y, u)` of a time before `start`, the states at `start` and the
            forcings. It returns a dict of states at time t. States that it does not return have
            their initial value before `start`; so do all states if there is no `history`.
        longest_step: the length of a step, in the units of time; by default a 32nd of the shortest
            delay. It is required if a delay is unknown.
        start: the time of `initial`. The default is the first time of the data that the model is
            fitted to.
        rtol: relative tolerance of the error at a datum.
        atol: absolute tolerance of the error at a datum, in the units of the states.
        max_steps: the largest number of steps of equal length in a solve. A longer solve is
            refused.
        forcings: the data variables that drive the equation: a name, or several. They are
            interpolated linearly between their data unless `interpolation` names them.
        interpolation: the kind of interpolation by name of the forcing: `{"rain": "step"}` keeps
            each datum until the next one, `"cubic"` is a smooth spline.
        units: the units of states, forcings and observed values, by name. Data in other units are
            converted. Data in incompatible units are refused.

    Shapes: states are scalars, or arrays if `observe` reduces them to scalars; predictions are
    `(time,)`.

    Raises:
        ModelError: for invalid delays, an unknown delay without `longest_step`, a `longest_step`
            longer than a known delay, or as for `ODE`. When called: for rates of other states or
            shapes, traced times, or more than `max_steps` steps.

    Source: Bellen & Zennaro (2003), Numerical Methods for Delay Differential Equations.

    Example:
        ```python
        def field(t, y, u):
            return {"y": -0.4 * u["past"]}

        layer = bd.equations.DDE(field, {"y": 2.0}, {"past": ("y", bd.between(0.2, 1.0))},
                                 longest_step=0.05)
        ```
    """

    vector_field: VectorField
    initial: dict[str, Any]
    delays: dict[str, Scalar]
    observe: Callable[..., Values] | None
    history: Callable[..., Values] | None
    of: Mapping[str, str] = eqx.field(static=True)
    longest_step: float = eqx.field(static=True)
    start: float | datetime | None = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    forcings: tuple[str, ...] = eqx.field(default=(), static=True)
    interpolation: Mapping[str, str] = eqx.field(default=FrozenDict(), static=True)
    units: Mapping[str, str] = eqx.field(default=FrozenDict(), static=True)

    def __init__(
        self,
        vector_field: VectorField,
        initial: dict[str, Any],
        delays: Mapping[str, tuple[str, Any]],
        observe: Callable[..., Values] | None = None,
        *,
        history: Callable[..., Values] | None = None,
        longest_step: float | None = None,
        start: float | str | datetime | None = None,
        rtol: float = 1e-4,
        atol: float = 1e-6,
        max_steps: int = 20_000,
        forcings: Any = (),
        interpolation: Mapping[str, str] = FrozenDict(),
        units: Mapping[str, str] = FrozenDict(),
    ):
        if not is_function(vector_field):
            raise ModelError(f"vector_field must be callable as f(t, y, u), not {vector_field!r}")
        check_initial(initial, observe)
        self.vector_field = vector_field
        self.initial = initial
        self.observe = observe
        self.forcings = several_names(forcings)
        self.start = start_time(start)
        self.of, self.delays = _checked_delays(delays, initial, self.forcings)
        if history is not None and not is_function(history):
            raise ModelError(
                f"history must be a function (t, y, u) that returns some states, not {history!r}"
            )
        self.history = history
        self.longest_step = _longest(longest_step, self.delays)
        self.rtol = rtol
        self.atol = atol
        self.max_steps = max_steps
        check_tolerances(self)
        self.interpolation = by_name(interpolation)
        self.units = by_name(units)
        check_interpolation(self.interpolation, self.forcings)

    @property
    def outputs(self) -> tuple[str, ...]:
        seen = any_state(self.initial)
        return output_names(self.observe, self.vector_field, seen, (*self.forcings, *self.of))

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        initial = {
            name: jnp.asarray(value, inputs.times.dtype) for name, value in self.initial.items()
        }
        # 1. Solve with fine steps, then with steps of twice the length.
        found, steps = self._solved(inputs, initial, 1)
        # The error estimate needs no gradient.
        without_gradient = dataclasses.replace(inputs, forcings=frozen(inputs.forcings))
        coarse, _ = frozen(self)._solved(without_gradient, frozen(initial), 2)
        _, unravel = ravel_pytree(initial)
        at = inputs.times
        here, there = (jax.vmap(lambda t, s=s: s.at(t))(at) for s in (found, coarse))
        # 2. Richardson's estimate at order four: error of the fine solve = difference / (2⁴ - 1).
        error = jnp.abs(here - there) / 15
        allowed = self.atol + self.rtol * jnp.abs(here)
        ok = (
            found.ok
            & finite(here)
            & jnp.all(error <= allowed)
            & jnp.all(jnp.abs(here) < limits(here.dtype)[1])
        )
        # 3. Observe, with masked states where the solve failed.
        states = jnp.where(ok, here, 1.0)
        if self.observe is None:
            return predict_rows(jax.vmap(unravel), states, ok, {"steps": steps})
        observe = method_of(self.vector_field, self.observe)
        past = self._past(found, inputs, initial)

        def rows(times):
            def one(t, y):
                lagged = jax.tree.map(lambda v: jnp.where(ok, v, 1.0), past(t))
                return named(
                    observe(t, unravel(y), inputs_at(inputs, self.forcings, t) | lagged), "observe"
                )

            return jax.vmap(one)(times, states)

        return predict_rows(rows, at, ok, {"steps": steps})

    def _past(
        self, found: Solution, inputs: Inputs, initial: dict[str, Any]
    ) -> Callable[[Any], dict[str, Any]]:
        """Return a function from a time of the solve to the past states by name.

        Args:
            found: the solution.
            inputs: start, times and forcings.
            initial: the states at the start, by name.
        """
        _, unravel = ravel_pytree(initial)

        def past(t):
            lagged = {}
            for name, lag in self.delays.items():
                s, state = t - jnp.asarray(lag), self.of[name]
                # Evaluate each branch only at valid times, so that gradients are finite.
                early = s < inputs.start
                before = self._before(inputs, initial, jnp.where(early, s, inputs.start))[state]
                after = unravel(found.at(jnp.where(early, inputs.start, s)))[state]
                lagged[name] = jnp.where(early, before, after)
            return lagged

        return past

    def _before(self, inputs: Inputs, initial: dict[str, Any], t: Any) -> dict[str, Any]:
        """Return the states at a time before the start: from `history`, or their initial values."""
        if self.history is None:
            return initial
        found = named(self.history(t, initial, inputs_at(inputs, self.forcings, t)), "history")
        for name, value in found.items():
            if name not in initial or value.shape != initial[name].shape:
                raise ModelError(
                    f"history gives '{name}' the shape {value.shape}, but the states are "
                    f"{', '.join(f'{n} {v.shape}' for n, v in initial.items())}"
                )
        return initial | found

    def _nodes(self, inputs: Inputs, coarser: int) -> Float[Array, " node"]:
        """Return the times at which steps begin and end, in increasing order.

        Steps are at most `coarser` times `longest_step`.
        """
        if isinstance(inputs.times, Tracer) or isinstance(inputs.start, Tracer):
            raise ModelError(
                "DDE needs to know the times of its data: fit it to all rows at a time"
            )
        start, end = float(inputs.start), float(np.asarray(inputs.times)[-1])
        number = max(int(np.ceil((end - start) / (coarser * self.longest_step) - 1e-9)), 1)
        if number > self.max_steps:
            raise ModelError(
                f"DDE would take {number} steps of {self.longest_step:g} from {start:g} to "
                f"{end:g}: give a longer "
                f"longest_step, or more than max_steps={self.max_steps}"
            )
        # 1. Kinks and jumps of forcings, and the times one delay after each jump.
        lags = [jnp.asarray(lag) for lag in self.delays.values()]
        used = [inputs.forcings[name] for name in self.forcings]
        kinks = {
            id(f.times): jnp.asarray(f.times) for f in used if isinstance(f, Linear | Step)
        }.values()
        again = [f.times + lag for f in used if isinstance(f, Step) for lag in lags]
        # 2. A discontinuity at the start reappears after every sum of up to three delays.
        sums = [
            inputs.start + sum(chosen)
            for number in range(1, _BREAKS + 1)
            for chosen in itertools.combinations_with_replacement(lags, number)
        ]
        # 3. Evenly spaced nodes in addition to these times.
        breaks = jnp.concatenate([jnp.zeros(0), *kinks, *again, jnp.stack(sums)])
        even = jnp.linspace(start, end, number + 1)
        return jnp.sort(jnp.concatenate([even, jnp.clip(breaks, start, end)]))

    def _solved(
        self, inputs: Inputs, initial: dict[str, Any], coarser: int
    ) -> tuple[Solution, Any]:
        """Solve the equation with steps of `coarser` times `longest_step`.

        Returns:
            The solution, and the number of steps.
        """
        # Bellen & Zennaro (2003), the method of steps.
        # 1. Nodes, and the past times that each stage of each step needs: known before any step.
        nodes = self._nodes(inputs, coarser)
        begins, lengths = nodes[:-1], jnp.diff(nodes)
        flat, unravel = ravel_pytree(initial)
        rates, known = self._rates(inputs, initial, unravel)
        lookups = [
            self._lookups(inputs, initial, nodes, lag, of)
            for lag, of in zip(self.delays.values(), self.of.values(), strict=True)
        ]

        def step(carry, at):
            y, solution = carry
            k, t, h, looked = at
            # A forcing may jump at the end of the step: evaluate it just before.
            last = t + h + jax.lax.stop_gradient(jnp.nextafter(t + h, t) - (t + h))

            def past(stage):
                every = [
                    lookup.value(solution, stage, unravel, of)
                    for lookup, of in zip(looked, self.of.values(), strict=True)
                ]
                return dict(zip(self.delays, every, strict=True))

            before = [past(stage) for stage in range(len(_STAGES))]
            # 2. The classical Runge-Kutta step: y + h (k₁ + 2 k₂ + 2 k₃ + k₄) / 6.
            slope = lambda t, y, stage: safe_rates(rates, t, (y, before[stage]), known)[0]  # noqa: E731
            first = slope(t, y, 0)
            second = slope(t + h / 2, y + h / 2 * first, 1)
            third = slope(t + h / 2, y + h / 2 * second, 1)
            fourth = slope(last, y + h * third, 2)
            new = y + h / 6 * (first + 2 * second + 2 * third + fourth)
            # 3. Keep states and slopes at both ends, for cubic Hermite interpolation of the past.
            return (new, solution.with_step(k, first, slope(last, new, 2), new)), None

        blank = jnp.zeros((len(lengths), flat.size), flat.dtype)
        solution = Solution(
            nodes,
            jnp.zeros((len(nodes), flat.size), flat.dtype).at[0].set(flat),
            blank,
            blank,
            jnp.asarray(True),
        )
        rows = jnp.arange(len(lengths)), begins, lengths, lookups
        (_, solution), _ = jax.lax.scan(step, (flat, solution), rows)
        # 4. A delay shorter than a step would need states that are not solved yet: not ok.
        shortest = jnp.min(jnp.stack([jnp.asarray(lag, float) for lag in self.delays.values()]))
        late = shortest < jnp.max(lengths) * (1 - 1e-9) if coarser == 1 else jnp.asarray(False)
        return solution._replace(ok=~late & finite(solution.states)), jnp.asarray(len(lengths))

    def _rates(
        self, inputs: Inputs, initial: dict[str, Any], unravel: Callable
    ) -> tuple[Callable, Any]:
        """Return a function `(t, (state vector, past states))` for the rates, and sample inputs.

        The function returns a tuple with the vector of rates. The sample inputs are those at the
        start. They are finite, so that they can replace inputs that are not.
        """
        field = prepared(self.vector_field)

        def rates(t, at):
            flat, past = at
            y = unravel(flat)
            found = checked_rates(field(t, y, inputs_at(inputs, self.forcings, t) | past), y)
            return (ravel_pytree(found)[0],)

        start = inputs.start
        past = {
            name: self._before(inputs, initial, start - jnp.asarray(lag))[self.of[name]]
            for name, lag in self.delays.items()
        }
        known = jax.lax.stop_gradient((jnp.asarray(start, float), (ravel_pytree(initial)[0], past)))
        return eqx.filter_closure_convert(rates, *known), known

    def _lookups(
        self, inputs: Inputs, initial: dict[str, Any], nodes: Array, lag: Any, of: str
    ) -> Lookup:
        """Return the past times that all stages of all steps need, and the history there.

        Args:
            inputs: start, times and forcings.
            initial: the states at the start, by name.
            nodes: the times at which steps begin and end.
            lag: the delay.
            of: the name of the delayed state.

        Returns:
            The lookup for this delay, with arrays `(step, stage)`.
        """
        begins, lengths = nodes[:-1], jnp.diff(nodes)
        lag = jnp.asarray(lag, nodes.dtype)
        s = begins[:, None] + lengths[:, None] * jnp.asarray(_STAGES) - lag
        # Steps end one delay after the start, so all past times of a step are on one side of it.
        before = begins + lengths / 2 - lag < inputs.start
        early = jnp.where(before[:, None], s, inputs.start)
        inside = jnp.where(before[:, None], inputs.start, s)
        history = jax.vmap(jax.vmap(lambda t: self._before(inputs, initial, t)[of]))(early)
        number = jnp.searchsorted(nodes, jax.lax.stop_gradient(inside), side="right") - 1
        # Only earlier steps are solved when a step is made.
        number = jnp.clip(number, 0, jnp.maximum(jnp.arange(len(begins))[:, None] - 1, 0))
        return Lookup(inside, number, history, before)


def inputs_at(inputs: Inputs, forcings: tuple[str, ...], t: Any) -> dict[str, Any]:
    """Return the named forcings at one time, by name."""
    return {name: inputs.forcings[name](t) for name in forcings}


def _checked_delays(
    delays: Any, initial: Mapping[str, Any], forcings: tuple[str, ...]
) -> tuple[FrozenDict, dict[str, Any]]:
    """Check the delays.

    Args:
        delays: the argument of `DDE`.
        initial: the states at the start, by name.
        forcings: the names of the forcings.

    Returns:
        The name of the delayed state, and the delay; each is a dict by the name of the past state.

    Raises:
        ModelError: for an invalid delay.
    """
    if not isinstance(delays, Mapping) or not delays:
        raise ModelError(
            'delays must be a dict of past states, such as {"past": ("y", 2.0)}; '
            "without any take bd.ODE"
        )
    of, lags = {}, {}
    for name, delay in delays.items():
        if not isinstance(delay, tuple) or len(delay) != 2 or delay[0] not in initial:
            raise ModelError(
                f"delays['{name}'] must be a state and how long ago, such as "
                f"('{next(iter(initial))}', 2.0), not "
                f"{delay!r}; the states are {', '.join(initial)}"
            )
        if name in forcings:
            raise ModelError(f"'{name}' is a forcing: give the past state another name")
        of[name], lags[name] = delay
        check_scalar(lags[name], f"delays['{name}']")
        if may_be_negative(lags[name]):
            what = describe_distribution(lags[name]) if is_random(lags[name]) else lags[name]
            raise ModelError(
                f"delays['{name}'] must be positive, or a distribution of positive numbers, not "
                f"{what}"
            )
    return FrozenDict(of), lags


def _longest(given: float | None, lags: Mapping[str, Any]) -> float:
    """Return the length of the longest step: as given, or a 32nd of the shortest delay.

    Args:
        given: the argument `longest_step`.
        lags: the delays, by the name of the past state.

    Raises:
        ModelError: if `given` is not positive, longer than a known delay, or missing for an unknown
            delay.
    """
    known = [
        float(lag) for lag in lags.values() if not is_random(lag) and not isinstance(lag, Tracer)
    ]
    if given is None:
        if len(known) < len(lags):
            raise ModelError(
                "where a delay is unknown give longest_step, such as a 32nd of the shortest delay "
                "that may be"
            )
        return min(known) / _FINE
    if not 0 < given < np.inf:
        raise ModelError(f"longest_step must be positive, not {given!r}")
    for name, lag in lags.items():
        if not is_random(lag) and not isinstance(lag, Tracer) and given > float(lag):
            raise ModelError(
                f"longest_step {given:g} is longer than the delay of '{name}', {float(lag):g}"
            )
    return float(given)

"""Delay differential equations: rates that depend on what the states were some time ago."""

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

_FINE = 32  # steps in the shortest delay, unless told
_STAGES = (0.0, 0.5, 1.0)  # of a step, at which rates are taken
# After as many delays what happened at the start is too smooth to be seen by a method of order
# four.
_BREAKS = 3


class DDE(AbstractFromStates):
    r"""An initial value problem whose rates depend on the past.

    $\dot y = f(t, y, u), \quad u_\text{past}(t) = y(t - \tau)$

    The method of steps with Runge and Kutta's classical method (order four) and cubic interpolation
    of what has been solved. Steps are no longer than `longest_step`, and end where what happened at
    the start comes back (after one, two and three delays) and where a forcing has a kink or jumps.
    A second solve with steps of twice the length says how large the error is: where it is larger
    than `rtol` and `atol` allow at a datum the solve is reported by `ok=False`, as one is whose
    delay is shorter than a step, never by an exception.

    Args:
        vector_field: a function `(t, y, u)` of time, a dict of states and a dict of forcings and of
            past states, which returns a dict with the rate of change of every state, in its units
            per unit of time.
        initial: a dict of the states at `start`, each a number, an array or a random leaf, in the
            units of the state.
        delays: which past states the equation sees, by the name that they have in `u`: the state,
            and how long ago, in the units of time, a number or a random leaf:
            `{"past": ("y", tau)}` is `u["past"]`.
        observe: a function `(t, y, u)` that turns states into a dict of the values that are
            predicted; without it the states themselves are. It sees the past states, too. A method
            of the equations' class is called on the equations.
        history: a function `(t, y, u)` of a time before `start`, the states at `start` and the
            forcings, which returns a dict of some states at that time; those that it does not name,
            or all without it, were what they are at `start`.
        longest_step: that of a step, in the units of time: a 32nd of the shortest delay unless
            given, which it must be where a delay is unknown. A delay that is shorter than a step
            fails.
        start: the time of `initial`; unless given, the first time of the data that the model is
            fitted to.
        rtol: the error at a datum that is allowed, relative to the states.
        atol: the error that is allowed besides, in the units of the states, the same for all.
        max_steps: the most steps of a solve: more are refused.
        forcings: the data variables that drive the equation: a name, or several. They run linearly
            between their data, unless `interpolation` says otherwise.
        interpolation: which forcings do not: `{"rain": "step"}` holds each datum until the next
            one, `"cubic"` is a smooth spline.
        units: the units of states, forcings and observed values, by name: data in others are
            converted, or refused.

    Shapes: states are scalars, or arrays if `observe` reduces them to scalars; predictions are
    `(time,)`.

    Raises:
        ModelError: if built with no delay, one that is not positive or of no state, an unknown
            delay without a `longest_step`, one longer than a known delay, or as `ODE` does; when
            called, for rates of other states or shapes, times that are not known, or more than
            `max_steps`.

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
        self.vector_field, self.initial, self.observe = vector_field, initial, observe
        self.forcings, self.start = several_names(forcings), start_time(start)
        self.of, self.delays = _read(delays, initial, self.forcings)
        if history is not None and not is_function(history):
            raise ModelError(
                f"history must be a function (t, y, u) that returns some states, not {history!r}"
            )
        self.history, self.longest_step = history, _longest(longest_step, self.delays)
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps
        check_tolerances(self)
        self.interpolation, self.units = by_name(interpolation), by_name(units)
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
        # How far the solution is off needs no gradient.
        held = dataclasses.replace(inputs, forcings=frozen(inputs.forcings))
        coarse, _ = frozen(self)._solved(held, frozen(initial), 2)
        _, unravel = ravel_pytree(initial)
        at = inputs.times
        here, there = (jax.vmap(lambda t, s=s: s.at(t))(at) for s in (found, coarse))
        # 2. Richardson's estimate at order four: error of the fine solve = difference / (2⁴ - 1).
        error, allowed = jnp.abs(here - there) / 15, self.atol + self.rtol * jnp.abs(here)
        ok = (
            found.ok
            & finite(here)
            & jnp.all(error <= allowed)
            & jnp.all(jnp.abs(here) < limits(here.dtype)[1])
        )
        states = jnp.where(ok, here, 1.0)
        if self.observe is None:
            return predict_rows(lambda y: jax.vmap(unravel)(y), states, ok, {"steps": steps})
        observe, past = (
            method_of(self.vector_field, self.observe),
            self._past(found, inputs, initial),
        )

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
        """The past states at any time of the solve."""
        _, unravel = ravel_pytree(initial)

        def past(t):
            lagged = {}
            for name, lag in self.delays.items():
                s, state = t - jnp.asarray(lag), self.of[name]
                # Both are evaluated, each on its own side of the start, so that gradients stay
                # finite.
                early = s < inputs.start
                before = self._before(inputs, initial, jnp.where(early, s, inputs.start))[state]
                after = unravel(found.at(jnp.where(early, inputs.start, s)))[state]
                lagged[name] = jnp.where(early, before, after)
            return lagged

        return past

    def _before(self, inputs: Inputs, initial: dict[str, Any], t: Any) -> dict[str, Any]:
        """The states at a time before the start."""
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
        """Where steps end."""
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
        lags = [jnp.asarray(lag) for lag in self.delays.values()]
        used = [inputs.forcings[name] for name in self.forcings]
        kinks = {
            id(f.times): jnp.asarray(f.times) for f in used if isinstance(f, Linear | Step)
        }.values()
        again = [f.times + lag for f in used if isinstance(f, Step) for lag in lags]
        sums = [
            inputs.start + sum(chosen)
            for number in range(1, _BREAKS + 1)
            for chosen in itertools.combinations_with_replacement(lags, number)
        ]
        breaks = jnp.concatenate([jnp.zeros(0), *kinks, *again, jnp.stack(sums)])
        even = jnp.linspace(start, end, number + 1)
        return jnp.sort(jnp.concatenate([even, jnp.clip(breaks, start, end)]))

    def _solved(
        self, inputs: Inputs, initial: dict[str, Any], coarser: int
    ) -> tuple[Solution, Any]:
        """The solution with steps of `longest_step`, or as many times as long, and their number."""
        # Bellen & Zennaro (2003), the method of steps.
        # 1. Nodes, and where each stage of each step looks back: known before any step is made.
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
            # A forcing may jump where the step ends: in the step it is what it was before.
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
        # 4. A delay shorter than a step would look at what is not solved yet: not ok.
        shortest = jnp.min(jnp.stack([jnp.asarray(lag, float) for lag in self.delays.values()]))
        late = shortest < jnp.max(lengths) * (1 - 1e-9) if coarser == 1 else jnp.asarray(False)
        return solution._replace(ok=~late & finite(solution.states)), jnp.asarray(len(lengths))

    def _rates(
        self, inputs: Inputs, initial: dict[str, Any], unravel: Callable
    ) -> tuple[Callable, Any]:
        """The rates of the flat states, of their time and of past states, and where they are known
        to be finite.
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
        """Where each stage of each step looks, found before any step is made."""
        begins, lengths = nodes[:-1], jnp.diff(nodes)
        lag = jnp.asarray(lag, nodes.dtype)
        s = begins[:, None] + lengths[:, None] * jnp.asarray(_STAGES) - lag
        # All of a step lies on one side of the start, since a step ends where the start comes back.
        before = begins + lengths / 2 - lag < inputs.start
        sides = (
            jnp.where(before[:, None], s, inputs.start),
            jnp.where(before[:, None], inputs.start, s),
        )
        told = jax.vmap(jax.vmap(lambda t: self._before(inputs, initial, t)[of]))(sides[0])
        inside = sides[1]
        number = jnp.searchsorted(nodes, jax.lax.stop_gradient(inside), side="right") - 1
        # What is being solved is not known yet.
        number = jnp.clip(number, 0, jnp.maximum(jnp.arange(len(begins))[:, None] - 1, 0))
        return Lookup(inside, number, told, before)


def inputs_at(inputs: Inputs, forcings: tuple[str, ...], t: Any) -> dict[str, Any]:
    """Some forcings at one time."""
    return {name: inputs.forcings[name](t) for name in forcings}


def _read(
    delays: Any, initial: Mapping[str, Any], forcings: tuple[str, ...]
) -> tuple[FrozenDict, dict[str, Any]]:
    """The state of each past value, and how long ago."""
    if not isinstance(delays, Mapping) or not delays:
        raise ModelError(
            'delays must be a dict of past states, such as {"past": ("y", 2.0)}; '
            "without any take bd.ODE"
        )
    of, lags = {}, {}
    for name, told in delays.items():
        if not isinstance(told, tuple) or len(told) != 2 or told[0] not in initial:
            raise ModelError(
                f"delays['{name}'] must be a state and how long ago, such as "
                f"('{next(iter(initial))}', 2.0), not "
                f"{told!r}; the states are {', '.join(initial)}"
            )
        if name in forcings:
            raise ModelError(f"'{name}' is a forcing: give the past state another name")
        of[name], lags[name] = told
        check_scalar(lags[name], f"delays['{name}']")
        if may_be_negative(lags[name]):
            what = describe_distribution(lags[name]) if is_random(lags[name]) else lags[name]
            raise ModelError(
                f"delays['{name}'] must be positive, or a distribution of positive numbers, not "
                f"{what}"
            )
    return FrozenDict(of), lags


def _longest(given: float | None, lags: Mapping[str, Any]) -> float:
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

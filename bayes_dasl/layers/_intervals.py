"""Sums and means of ODE predictions over an interval before each datum.

The integral of each such prediction becomes one more state of the ODE.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..random import Module, Values, VectorField, is_function
from ._functions import method_of
from .layer import Prediction

type Lengths = Mapping[str, float | None]
"""Length of the interval before each datum, by output; None for the interval since the start."""


def is_positive_length(length: Any) -> bool:
    """Whether a value is a positive finite number."""
    return isinstance(length, Real) and 0 < float(length) < math.inf


def check_intervals(
    sums: Lengths,
    means: Lengths,
    outputs: tuple[str, ...],
    is_length: Callable[[Any], bool] = is_positive_length,
    length_in_words: str = "positive length of time",
) -> None:
    """Check the arguments `sums` and `means` of a layer.

    Args:
        sums: the length of the interval by output, for outputs that are summed.
        means: the length of the interval by output, for outputs that are averaged.
        outputs: the names of all outputs.
        is_length: a function that says whether a length is valid.
        length_in_words: the description of a valid length, for the error message.

    Raises:
        ModelError: for an unknown output, an output in both `sums` and `means`, or an invalid
            length.
    """
    for name, length in (*sums.items(), *means.items()):
        if name not in outputs:
            raise ModelError(f"sums and means are of {', '.join(outputs)}, not of '{name}'")
        if length is not None and not is_length(length):
            raise ModelError(
                f"'{name}' is taken over a {length_in_words}, or None for all, not {length!r}"
            )
    if both := set(sums) & set(means):
        raise ModelError(f"'{both.pop()}' is either a sum or a mean")


def over_intervals(ode: Any, inputs: Inputs) -> Prediction:
    """Predict an ODE that has `sums` or `means` over an interval before each time.

    An interval never begins before the start of the solve.

    Args:
        ode: an `ODE`.
        inputs: the start, times and forcings.

    Returns:
        The prediction. Outputs named in `sums` or `means` have their sum or mean as value.
    """
    # 1. Add one state for each sum or mean: the integral S of the output since the start.
    lengths = {**ode.sums, **ode.means}
    totals = {_integral_name(name): jnp.zeros(()) for name in lengths}
    with_totals = dataclasses.replace(
        ode,
        vector_field=_WithTotals(ode.vector_field, ode.observe, tuple(lengths)),
        initial=ode.initial | totals,
        observe=lambda t, y, u: dict(y),
        jumps=[dataclasses.replace(jump, change=_of_states(jump.change)) for jump in ode.jumps],
        events=[
            dataclasses.replace(event, when=_OfStates(event.when), change=_of_states(event.change))
            for event in ode.events
        ],
        sums={},
        means={},
    )
    # 2. Solve at the times of the data and at the beginnings of all intervals.
    begins = {length: _begin(inputs, length) for length in lengths.values()}
    asked = jnp.sort(jnp.concatenate([inputs.times, *begins.values()]))
    more = dataclasses.replace(inputs, times=asked)
    found, ok, steps = with_totals.solve(more, with_totals.begin(more))

    def at(times):
        rows = jnp.searchsorted(asked, times)
        return {name: values[rows] for name, values in found.items()}

    now, before = at(inputs.times), {length: at(times) for length, times in begins.items()}
    # 3. The sum is S(t) - S(t - length); the mean is the sum divided by the elapsed time.
    plain = ode.predict(inputs, {name: now[name] for name in ode.initial}, ok, steps)
    values = dict(plain.values)
    for name, length in lengths.items():
        summed = now[_integral_name(name)] - before[length][_integral_name(name)]
        elapsed = inputs.times - begins[length]
        # At the start the interval has length zero: its mean is the value at the start.
        mean = jnp.where(elapsed > 0, summed / jnp.where(elapsed > 0, elapsed, 1.0), values[name])
        values[name] = summed if name in ode.sums else mean
    masked = {name: jnp.where(plain.ok, value, 1.0) for name, value in values.items()}
    return dataclasses.replace(plain, values=masked)


def _begin(inputs: Inputs, length: float | None) -> Any:
    """Return the time at which the interval before each requested time begins, `(time,)`."""
    start = jnp.broadcast_to(inputs.start, inputs.times.shape).astype(inputs.times.dtype)
    return start if length is None else jnp.maximum(inputs.times - length, start)


def _integral_name(name: str) -> str:
    """Return the name of the state that holds the integral of an output."""
    return f"total of {name}"


def _visible(y: Values) -> Values:
    """Return the states without the integrals, as the user's functions know them."""
    return {name: value for name, value in y.items() if not name.startswith(_integral_name(""))}


class _OfStates(Module):
    """A user's function `(t, y, u)`, which gets the states `y` without the integrals."""

    function: Any

    def __call__(self, t: Any, y: Values, u: Values) -> Any:
        return self.function(t, _visible(y), u)


def _of_states(change: Any) -> Any:
    """Hide the integrals from the change of a jump, if it is a function."""
    return _OfStates(change) if is_function(change) else change


class _WithTotals(Module):
    """A vector field extended by integrals of outputs, whose rates are the outputs themselves.

    Args:
        field: the vector field of the ODE.
        observe: its function of observed values, or None.
        names: the outputs that are integrated.
    """

    field: VectorField
    observe: Any
    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        own = _visible(y)
        observe = method_of(self.field, self.observe)
        seen = dict(own if observe is None else observe(t, own, u))
        return {
            **self.field(t, own, u),
            **{_integral_name(name): jnp.asarray(seen[name], float) for name in self.names},
        }

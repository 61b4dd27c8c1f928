"""`Difference`: difference equations, which compute states from those of the previous step."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from .._jax.tree import FrozenDict, prepared
from ..data.layer_inputs import Inputs
from ..errors import DataError, ModelError, ShapeError
from ..random import Values, VectorField, is_function
from ._assumed import refuse_assumed
from ._functions import (
    any_state,
    by_name,
    check_initial,
    method_of,
    named,
    output_names,
    several_names,
)
from ._initial import AbstractFromStates
from ._intervals import check_intervals
from ._start import start_time
from ._steps import limits
from .layer import Prediction, predict_rows, shielded

# Largest distance of a time of the data from the grid, as a share of a step.
_OFF = 1e-6


class Difference(AbstractFromStates):
    r"""A difference equation: each step computes the next states from the present ones.

    $y_{k+1} = g(t_k, y_k, u_k), \quad t_k = t_0 + k\,\text{length}$

    $y_k$ are the states and $u_k$ the forcings at time $t_k$, the beginning of step k; g is `step`.
    The times of the data must be times $t_k$; gaps are allowed. If a state is not finite, the
    prediction has `ok=False`; there is no exception.

    Args:
        step: a function `(t, y, u)` of time, states and forcings that returns the next value of
            every state, in its units.
        initial: a dict of the states at `start`, each a number, an array or a random leaf, in the
            units of the state.
        observe: a function `(t, y, u)` that returns a dict of predicted values, such as the flow in
            a step. It gets the states and forcings at the beginning of the step. Without it the
            states are predicted. A method of the class of `step`, such as `Bucket.flow`, is called
            on the object `step`.
        forcings: the data variables that drive the equation: one name, or a tuple of names.
        start: the time of `initial`, a number or a date. By default the first time of the data
            that the model is fitted to.
        length: the length of a step, in the units of time of the data.
        sums: for predicted values whose data are sums over several steps, such as weekly cases: the
            number of steps, by name. The last of these steps is the one at the time of the datum.
            `None` stands for all steps since the start.
        means: the same for predicted values whose data are means over several steps.
        units: the units of states, forcings and observed values, by name. Data in other units of
            the same dimension are converted; data of another dimension are refused. For data with
            dates, the entry `time` is the unit and origin of `t`, by default days since 1970.

    Shapes: states are scalars, or arrays if `observe` reduces them to scalars; predictions are
    `(time,)`.

    Raises:
        ModelError: if `step` is no function, the length is not positive, or `sums` or `means` have
            an unknown name. When called, if the step returns other names than those of the states.
        ShapeError: when called, if a returned state has another shape than in `initial`.
        DataError: if a time of the data is no time of the grid.

    Example:
        ```python
        class Bucket(bd.Module):
            share: bd.Scalar

            def __call__(self, t, y, u):
                return {"store": (1 - self.share) * y["store"] + u["rain"]}

            def flow(self, t, y, u):
                return {"flow": self.share * y["store"]}

        bucket = Bucket(bd.between(0.1, 0.9))
        layer = bd.Difference(bucket, {"store": 5.0}, Bucket.flow, forcings="rain")
        ```
    """

    step: VectorField
    initial: dict[str, Any]
    observe: Callable[..., Values] | None = None
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    start: float | datetime | None = eqx.field(
        default=None, static=True, converter=start_time, kw_only=True
    )
    length: float = eqx.field(default=1.0, static=True, kw_only=True)
    sums: Mapping[str, int | None] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )
    means: Mapping[str, int | None] = eqx.field(
        default=FrozenDict(), static=True, converter=by_name, kw_only=True
    )
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )

    def __check_init__(self):
        if not is_function(self.step):
            raise ModelError(f"step must be callable as g(t, y, u), not {self.step!r}")
        check_initial(self.initial, self.observe)
        if not self.length > 0:
            raise ModelError(f"the length of a step must be positive, not {self.length!r}")
        # The outputs are found by evaluating `observe`, which only sums and means need here.
        if self.sums or self.means:
            is_count = lambda number: isinstance(number, int) and number >= 1  # noqa: E731
            several = (self.sums, self.means, self.outputs)
            check_intervals(*several, is_count, "whole number of steps")

    @property
    def outputs(self) -> tuple[str, ...]:
        return output_names(self.observe, self.step, any_state(self.initial), self.forcings)

    def refuse_times(self, times: Float[np.ndarray, " time"]) -> None:
        """Refuse times of the data that lie between two steps.

        If `start` is a date, this check is made later, when the layer is called.

        Args:
            times: the times of the data, `(time,)`.

        Raises:
            DataError: at the first time that is not on the grid of steps.
        """
        # A start that is a date becomes a number only when the layer is called.
        start = times[0] if self.start is None else self.start
        if not isinstance(start, datetime):
            self._refuse_between(times, start)

    def _refuse_between(self, times: np.ndarray, start: float) -> None:
        """Raise DataError if a time is not on the grid of steps that begins at `start`."""
        steps = (times - start) / self.length
        for time in times[np.abs(steps - np.round(steps)) > _OFF][:1]:
            raise DataError(
                f"time {time:g} lies between two steps of length {self.length:g} from {start:g}: "
                "give every datum the "
                "time of its step, or the layer another start or length"
            )

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        # 1. The grid t_k = t_0 + k length, and the forcings at its times.
        steps = self._steps_up_to(inputs)
        grid = inputs.start + self.length * jnp.arange(steps + 1, dtype=inputs.times.dtype)
        u = {name: jax.vmap(inputs.forcings[name])(grid) for name in self.forcings}
        # 2. Iterate; if any step failed, mask the states so that `observe` is not singular.
        step = prepared(self.step)
        states, ok = self._states(step, grid, u)
        states = jax.tree.map(lambda y: jnp.where(ok, y, 1.0), states)
        # 3. Observe every step, and take the values, sums or means at the rows of the data.
        at = jnp.round((inputs.times - inputs.start) / self.length).astype(int)

        def rows(grid):
            return {
                name: self._taken(name, each, at)
                for name, each in self._observed(step, grid, states, u).items()
            }

        end = jax.tree.map(lambda y: y[-1], states)
        return predict_rows(rows, grid, ok, {"steps": jnp.asarray(steps)}, end=end)

    @property
    def _goes_on(self) -> bool:
        return not (self.sums or self.means)

    def _from_end(self, states: Values) -> "Difference":
        return eqx.tree_at(lambda layer: layer.initial, self, dict(states))

    def _states(
        self, step: VectorField, grid: Array, u: dict[str, Array]
    ) -> tuple[dict[str, Any], Array]:
        """Iterate the steps from the initial states.

        Args:
            step: the function `(t, y, u)` of the next states.
            grid: the times of the steps, `(step,)`.
            u: the forcings at these times, `(step, …)` by name.

        Returns:
            The states at the times of the grid, `(step, …)` by name, and whether all of them are
            valid numbers.
        """
        initial = {name: jnp.asarray(value, grid.dtype) for name, value in self.initial.items()}

        def following(y, when):
            t, forced = when
            found = named(step(t, y, forced), "the step")
            if set(found) != set(y):
                raise ModelError(
                    f"the step returns {', '.join(found)}, but the states are {', '.join(y)}"
                )
            for name, value in found.items():
                if value.shape != y[name].shape:
                    raise ShapeError(
                        f"the step gives '{name}' the shape {value.shape}, not its own "
                        f"{y[name].shape}"
                    )
            return {name: found[name].astype(y[name].dtype) for name in y}, y

        def every(initial, when):
            last, before = lax.scan(following, initial, when)
            return jax.tree.map(lambda y, end: jnp.concatenate([y, end[None]]), before, last)

        # The whole series is shielded at once: if any step fails the draw is rejected.
        return shielded(every, _are_states, initial, (grid[:-1], jax.tree.map(lambda v: v[:-1], u)))

    def _observed(
        self, step: VectorField, grid: Array, states: dict[str, Any], u: dict[str, Array]
    ) -> dict[str, Any]:
        """Return the observed values at the times of the grid, `(step, …)` by name."""
        observe = method_of(step, self.observe)
        if observe is None:
            return dict(states)
        return jax.vmap(lambda t, y, u: named(observe(t, y, u), "observe"))(grid, states, u)

    def _taken(self, name: str, values: Array, at: Array) -> Array:
        """Return an output at the rows of the data: its values, or sums or means over steps.

        Args:
            name: the output.
            values: its values at all steps.
            at: the number of the step of each row of the data.
        """
        if name not in self.sums and name not in self.means:
            return values[at]
        # A sum over steps is a difference of cumulative sums.
        number = self.sums.get(name, self.means.get(name))
        total = jnp.concatenate([jnp.zeros_like(values[:1]), jnp.cumsum(values, axis=0)])
        begin = jnp.zeros_like(at) if number is None else jnp.maximum(at + 1 - number, 0)
        summed = total[at + 1] - total[begin]
        return summed if name in self.sums else summed / (at + 1 - begin)

    def _steps_up_to(self, inputs: Inputs) -> int:
        """Return the number of steps from the start to the last time of the data.

        Raises:
            ModelError: if JAX traces the times, since the number of steps must be known.
            DataError: if a time is not on the grid.
        """
        if isinstance(inputs.times, Tracer) or isinstance(inputs.start, Tracer):
            raise ModelError(
                "Difference needs to know the times of its data: fit it to all rows at a time"
            )
        times, start = np.asarray(inputs.times), float(inputs.start)
        self._refuse_between(times, start)
        return round(float((times[-1] - start) / self.length))


def _are_states(states: dict[str, Array]) -> Array:
    """Whether all states are numbers below the largest valid state."""
    return jnp.all(
        jnp.stack([jnp.all(jnp.abs(y) < limits(y.dtype)[1]) for y in jax.tree.leaves(states)])
    )

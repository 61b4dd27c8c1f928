"""`Algebraic`: a formula that is evaluated at each row of the data."""

from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax

from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..random import Values, VectorField, is_function
from ._functions import by_name, named, several_names, shapes_of
from .layer import AbstractLayer, AbstractTrajectory, Prediction, StatedFunction, predict_rows


class Algebraic(AbstractLayer):
    """A closed form, evaluated at each row of the data.

    $z_i = f(t_i, u_i)$: the predictions $z_i$ at row i depend on the index $t_i$ and on the
    forcings $u_i$.

    For integrals in the formula see `bd.equations.integrate`. If a value is not finite, the
    prediction has `ok=False`; there is no exception.

    Args:
        function: a function `(t, y, u)` of the index at one row, an empty dict (there are no
            states) and a dict of the forcings at that row. It returns a dict of predicted values.
        forcings: the data variables that enter the formula: one name, or a tuple of names.
        units: the units of forcings and predicted values, by name. Data in other units of the same
            dimension are converted; data of another dimension are refused.
        index: the name of the coordinate along which the rows lie, such as `temperature`.

    Shapes: each value is a number; predictions are `(row,)`.

    Raises:
        ModelError: if `function` is no function; when called, if it returns no dict.

    Example:
        ```python
        class Line(bd.Module):
            slope: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": self.slope * t}

        model = bd.Model(bd.Algebraic(Line(dist.Normal(0.0, 1.0))), bd.NormalNoise(0.1))
        ```
    """

    function: VectorField
    forcings: tuple[str, ...] = eqx.field(
        default=(), static=True, converter=several_names, kw_only=True
    )
    units: Mapping[str, str] = eqx.field(
        default_factory=dict, static=True, converter=by_name, kw_only=True
    )
    index: str = eqx.field(default="time", static=True, kw_only=True)

    def __check_init__(self):
        if not is_function(self.function):
            raise ModelError(f"function must be callable as f(t, y, u), not {self.function!r}")

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(shapes_of(self.function, "the function", {}, self.forcings))

    @property
    def _stated_functions(self) -> list[StatedFunction]:
        return [("the formula", self.function, {})]

    @property
    def pointwise(self) -> bool:
        return True

    @property
    def trajectories(self) -> list[AbstractTrajectory]:
        return []

    def __call__(self, inputs: Inputs) -> Prediction:
        def rows(times):
            return at_rows(
                self.function, "the function", times, {}, forced_rows(inputs, self.forcings)
            )

        return predict_rows(rows, inputs.times, True)


def at_rows(function: VectorField, what: str, times: Any, states: Values, forced: Values) -> Values:
    """Evaluate a function `(t, y, u)` at each row.

    Args:
        function: the function.
        what: its name, for error messages.
        times: the index at each row, `(row,)`.
        states: the states at each row, `(row, …)` by name.
        forced: the forcings at each row, `(row, …)` by name.

    Returns:
        The returned values, `(row, …)` by name.
    """
    return jax.vmap(lambda t, y, u: named(function(t, y, u), what))(times, states, forced)


def forced_rows(inputs: Inputs, forcings: Iterable[str]) -> dict[str, Any]:
    """Return the values of some forcings at `inputs.times`, `(row, …)` by name."""
    return {name: jax.vmap(inputs.forcings[name])(inputs.times) for name in forcings}

"""Closed forms: values that follow from each row of the data by a formula."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .._errors import ModelError
from .._tree import FrozenDict
from .._types import Values, VectorField
from ..data import Inputs
from ._functions import named, shapes_of
from ._prediction import AbstractLayer, Prediction, finite, prediction


class Algebraic(AbstractLayer):
    r"""A closed form, evaluated at each row of the data.

    $z_i = f(t_i, u_i)$

    `function(t, y, u)` takes the value of the index at one row, an empty dict (there are no states) and a dict of the
    forcings at that row, and returns a dict of named values. `index` names the coordinate that the data run along, such
    as `temperature` or `sample`; `forcings` names the variables of the data that enter the formula. `units` are the
    units of forcings and values: data in other units are refused. Integrals in it are best done by `integrate`.

    A row that is not finite is reported by `ok=False`, never by an exception.

    Shapes: each value is a number; predictions are `(row,)`.
    Raises: ModelError if the function is none, or when called if it returns no dict.
    """

    function: VectorField
    forcings: tuple[str, ...] = eqx.field(default=(), static=True, converter=tuple, kw_only=True)
    units: Mapping[str, str] = eqx.field(default_factory=dict, static=True, converter=FrozenDict, kw_only=True)
    index: str = eqx.field(default="time", static=True, kw_only=True)

    def __check_init__(self):
        if not callable(self.function):
            raise ModelError(f"function must be callable as f(t, y, u), not {self.function!r}")

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(shapes_of(self.function, "the function", {}, self.forcings))

    def __call__(self, inputs: Inputs) -> Prediction:
        def rows(times):
            return at_rows(self.function, "the function", times, {}, forced_rows(inputs, self.forcings))

        return predict_rows(rows, inputs.times, True)


def predict_rows(rows: Callable, times: Any, ok: Any, stats: Any = None) -> Prediction:
    """The prediction of a function of all rows; where it fails its gradient is zero, even if it is singular there."""
    closed = eqx.filter_closure_convert(rows, times)
    ok = ok & finite(frozen(closed)(times))
    return prediction(guarded(closed, ok)(times), ok, stats)


def at_rows(function: VectorField, what: str, times: Any, states: Values, forced: Values) -> Values:
    """What a function returns at each row of states and forcings; `what` names it in errors."""
    return jax.vmap(lambda t, y, u: named(function(t, y, u), what))(times, states, forced)


def forced_rows(inputs: Inputs, forcings: Iterable[str]) -> dict[str, Any]:
    """Each forcing at the rows of the inputs, where it is the datum itself."""
    return {name: jax.vmap(inputs.forcings[name])(inputs.times) for name in forcings}


def guarded(closed: Any, ok: Any) -> Any:
    """A function and all the arrays that it is closed over, through which no gradient flows unless `ok`.

    Masking what it returns is not enough: where it is singular its derivative is infinite, and zero times that is NaN.
    """
    return jax.tree.map(lambda x: jnp.where(ok, x, lax.stop_gradient(x)) if eqx.is_inexact_array(x) else x, closed)


def frozen(tree: Any) -> Any:
    """A tree through which no gradient flows."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_array(x) else x, tree)

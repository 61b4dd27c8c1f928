"""`MultiFidelity`: a costly model as a scaled and corrected cheap model."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax

from .._jax.tree import FrozenDict
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers._parts import check_function
from ..layers.layer import begins, prediction, start_of
from ..random import Scalar, Values, VectorField, check_scalar, is_function


def _checked_costly(costly: Any) -> FrozenDict:
    """Raise ModelError unless `costly` is a dict that is not empty."""
    if not isinstance(costly, Mapping) or not costly:
        raise ModelError("costly must name what is predicted, such as {'costly': 'cheap'}")
    return FrozenDict(costly)


class MultiFidelity(AbstractLayer):
    r"""A costly model as a scaled and corrected cheap model; both are predicted.

    $\text{costly}(t) = \rho(t) \cdot \text{cheap}(t) + \delta(t, \text{cheap values}, u)$

    ρ is the ratio of the two models, δ the discrepancy. Data of both models determine ρ and δ.
    Where costly data are few, cheap data determine the shape. If ρ or δ is a function `(t, y, u)`,
    its `y` holds the values of the cheap layer at time t.

    Args:
        low: the cheap layer.
        costly: the costly outputs, each with the cheap output that it corrects:
            `{"costly name": "cheap name"}`.
        ratio: ρ, without a unit: a number, a distribution, or a function `(t, y, u)` that returns a
            dict with a number for each costly name.
        discrepancy: δ, in the units of the values: a function `(t, y, u)`, such as a `Basis` or a
            `Network`, that returns a dict of corrections. Costly names without an entry are not
            corrected.
        extra: data variables that ρ or δ use and the cheap layer does not.

    Units: costly values have the units of the cheap ones.

    Raises:
        ModelError: if a name is unknown or taken, or ρ or δ return a name that is not costly.

    Source: Kennedy & O'Hagan (2000), Predicting the output from a complex computer code when fast
    approximations are available.
    """

    low: AbstractLayer
    costly: Mapping[str, str] = eqx.field(static=True, converter=_checked_costly)
    ratio: Scalar | Callable
    discrepancy: VectorField
    extra: tuple[str, ...] = eqx.field(default=(), static=True, converter=tuple)

    def __check_init__(self):
        if not isinstance(self.low, AbstractLayer) or isinstance(self.low, AbstractFilter):
            raise ModelError(
                f"low must be a layer that needs no observations, not {type(self.low).__name__}"
            )
        for name, cheap in self.costly.items():
            if cheap not in self.low.outputs:
                raise ModelError(
                    f"'{name}' builds on '{cheap}'; the cheap layer has "
                    f"{', '.join(self.low.outputs)}"
                )
            if name in self.low.outputs:
                raise ModelError(
                    f"'{name}' is an output of the cheap layer: give the costly one another name"
                )
        check_function(self.discrepancy, "discrepancy")
        if is_function(self.ratio):
            check_function(self.ratio, "ratio")
        else:
            check_scalar(self.ratio, "MultiFidelity.ratio")

    @property
    def outputs(self) -> tuple[str, ...]:
        return (*self.low.outputs, *self.costly)

    @property
    def forcings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.low.forcings, *self.extra)))

    @property
    def units(self) -> Mapping[str, str]:
        return self._with_costly(self.low.units)

    @property
    def interpolation(self) -> Mapping[str, str]:
        return self.low.interpolation

    @property
    def index(self) -> str:
        return self.low.index

    @property
    def start(self) -> Any:
        return start_of(self.low)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return self._with_costly(self.low.dims)

    def _with_costly(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Add to a mapping by cheap output the same values for the costly outputs."""
        costly = {name: known[cheap] for name, cheap in self.costly.items() if cheap in known}
        return {**known, **costly}

    @property
    def _begins(self) -> bool:
        return begins(self.low)

    @property
    def states(self) -> int:
        return self.low.states

    def __call__(self, inputs: Inputs) -> Prediction:
        # 1. The cheap layer is solved once.
        # 2. ρ and δ act on its values time by time.
        low = self.low(inputs)
        costly = jax.vmap(lambda t, y: self._costly(t, y, inputs.forced(t)))(
            inputs.times, low.values
        )
        values = {**low.values, **costly}
        return prediction(
            values,
            low.ok,
            low.stats,
            constraint_residuals=low.constraint_residuals,
            variances=low.variances,
        )

    def _costly(self, t: Any, y: Values, u: Values) -> Values:
        """Return the costly values at one time, by name."""
        # costly = ρ · cheap + δ; a name without a discrepancy has δ = 0.
        ratio = self._ratio(t, y, u)
        correction = self._checked_names(self.discrepancy(t, y, u), "discrepancy")
        return {
            name: ratio[name] * y[cheap] + correction.get(name, 0.0)
            for name, cheap in self.costly.items()
        }

    def _ratio(self, t: Any, y: Values, u: Values) -> Mapping[str, Any]:
        """Return the ratio ρ by costly name."""
        # One number serves all costly names; a function must return one for each.
        ratio: Any = self.ratio
        if not is_function(ratio):
            return dict.fromkeys(self.costly, ratio)
        ratio = self._checked_names(ratio(t, y, u), "ratio")
        missing = [name for name in self.costly if name not in ratio]
        if missing:
            raise ModelError(f"the ratio has no value for {', '.join(missing)}")
        return ratio

    def _checked_names(self, values: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """Raise a ModelError if a name in `values` is no costly name; else return `values`."""
        for name in values:
            if name not in self.costly:
                raise ModelError(
                    f"the {what} returns '{name}'; the costly names are {', '.join(self.costly)}"
                )
        return values

"""What all combinators share: parts that are vector fields make a vector field, layers make a
layer.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._jax.tree import prepared, prepared_inside
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers import AbstractFilter, AbstractLayer, AbstractTrajectory, Prediction
from ..layers._functions import agreed, agreed_interpolation
from ..layers._parts import is_layer
from ..layers.layer import begins, joined
from ..random import Values, with_possible

type Part = Callable[..., Any]


class AbstractHybrid(AbstractLayer):
    """Parts joined point by point: `hybrid(t, y, u)` of functions, `hybrid(inputs)` where a part is
    a layer.

    What a part returns is known to networks, closures and gates as `part.name`, and as `name` where
    that is no state and no other part returns it. In a layer, functions see no states; `extra`
    names the data variables that they read and the layers do not (a vector field sees the forcings
    of its `ODE`).

    Raises:
        ModelError: if layers state different units of one name, or read one forcing by different
            interpolation.
    """

    extra: tuple[str, ...] = eqx.field(default=(), static=True, converter=tuple, kw_only=True)

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Part]:
        """What is evaluated first, by name."""

    @abstractmethod
    def join(self, t: Any, y: Values, u: Values, found: Mapping[str, Values]) -> Values:
        """The values at one point.

        Args:
            t: the time, or the value of the index.
            y: the states, and what the parts say.
            u: the forcings, by name.
            found: the values of each part, by its name.
        """

    @property
    def layered(self) -> bool:
        """Whether a part is a layer, so that this is one too."""
        return any(is_layer(part) for part in self.parts.values())

    @property
    def _layers(self) -> dict[str, Any]:
        if not self.layered:
            raise ModelError(
                f"this {type(self).__name__} joins vector fields, not layers: put it into a bd.ODE"
            )
        return {name: part for name, part in self.parts.items() if is_layer(part)}

    def __check_init__(self):
        if self.layered:
            _ = self.units, self.interpolation

    @property
    def outputs(self) -> tuple[str, ...]:
        found = {
            name: dict.fromkeys(part.outputs, jnp.ones(())) for name, part in self._layers.items()
        }
        known, u = with_possible(self), dict.fromkeys(self.forcings, jnp.zeros(()))
        return tuple(jax.eval_shape(lambda: dict(known._at(jnp.zeros(()), {}, u, found))))

    @property
    def forcings(self) -> tuple[str, ...]:
        """All that the layers read, and what the functions read beside that."""
        return tuple(
            dict.fromkeys(
                [f for part in self._layers.values() for f in part.forcings] + [*self.extra]
            )
        )

    @property
    def units(self) -> Mapping[str, str]:
        layers = self._layers.items()
        return agreed(
            "units",
            ((part, name, unit) for part, layer in layers for name, unit in layer.units.items()),
        )

    @property
    def interpolation(self) -> Mapping[str, str]:
        return agreed_interpolation(
            self._layers, {part: layer.forcings for part, layer in self._layers.items()}
        )

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        held = {name: dims for part in self._layers.values() for name, dims in part.dims.items()}
        return {name: held[name] for name in self.outputs if name in held}

    @property
    def index(self) -> str:
        return self._shared("index", "time")

    @property
    def start(self) -> Any:
        return self._shared("start", None)

    @property
    def _begins(self) -> bool:
        return any(begins(part) for part in self._layers.values())

    @property
    def states(self) -> int:
        return sum(part.states for part in self._layers.values())

    @property
    def trajectories(self) -> list[AbstractTrajectory] | None:
        of_parts = [part.trajectories for part in self._layers.values()]
        return (
            None
            if any(found is None for found in of_parts)
            else [t for found in of_parts for t in found]
        )

    def _shared(self, name: str, default: Any) -> Any:
        values = {getattr(part, name, default) for part in self._layers.values()} - {None}
        if len(values) > 1:
            raise ModelError(
                f"the layers of this {type(self).__name__} have different {name}: {values}"
            )
        return values.pop() if values else default

    def prepared(self) -> Any:
        """Itself, with what its parts can work out before a solve worked out."""
        return prepared_inside(self)

    def __call__(self, t: Any, y: Values | None = None, u: Values | None = None) -> Any:
        if y is None or u is None:
            return self._predict(t)
        if self.layered:
            kind = type(self).__name__
            raise ModelError(
                f"this {kind} joins layers, so it is a layer itself: it cannot be a vector field, "
                "as in ODE"
            )
        found = {name: dict(part(t, y, u)) for name, part in self.parts.items()}
        return self._at(t, y, u, found)

    def _at(self, t: Any, y: Values, u: Values, found: dict[str, Any]) -> Values:
        for name, part in self.parts.items():
            if name not in found:  # a function beside layers
                found = found | {name: dict(part(t, y, u))}
        return self.join(t, self.known(y, found), u, found)

    @staticmethod
    def known(y: Values, found: Mapping[str, Values]) -> Values:
        """States, what each part returns by `part.name`,
        and by `name` where that is unambiguous.
        """
        returned = [name for values in found.values() for name in values]
        plain = {
            n: v for values in found.values() for n, v in values.items() if returned.count(n) == 1
        }
        full = {f"{part}.{name}": v for part, values in found.items() for name, v in values.items()}
        return {**plain, **full, **y}

    def _predict(self, inputs: Inputs) -> Prediction:
        solved = {name: self._solved(part, inputs) for name, part in self._layers.items()}
        values = self._over_times(inputs, {name: p.values for name, p in solved.items()})
        return joined(solved, values)

    def _over_times(self, inputs: Inputs, found: Mapping[str, Values]) -> Values:
        """The joined values at all times, from what the layers predict there."""
        field = prepared(self)

        def at(t, found):
            return dict(field._at(t, {}, inputs.forced(t), found))

        return jax.vmap(at)(inputs.times, dict(found))

    def _solved(self, part: Any, inputs: Inputs) -> Prediction:
        if isinstance(part, AbstractFilter):
            raise ModelError(
                f"{type(part).__name__} looks back at observations: it cannot be part of a hybrid"
            )
        found = part(inputs)
        if found.variances:
            kind = type(part).__name__
            raise ModelError(
                f"{kind} predicts a variance too, which a hybrid would lose: put the hybrid inside "
                "of it"
            )
        return found

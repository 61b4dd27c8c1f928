"""The base class of hybrids: vector fields combine to a vector field, layers to a layer."""

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
    """Parts combined at each point: `hybrid(t, y, u)` for functions, `hybrid(inputs)` with a layer.

    Networks, closures and gates read the values of a part as `part.name`. They also read them as
    `name`, unless that is a state or another part returns it. In a layer, functions see no states,
    and `extra` names the data variables that only they read. In a vector field they see the
    forcings of its `ODE`.

    Raises:
        ModelError: if layers state different units, or different interpolation, of one name.
    """

    extra: tuple[str, ...] = eqx.field(default=(), static=True, converter=tuple, kw_only=True)

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Part]:
        """The parts by name, which are evaluated first."""

    @abstractmethod
    def join(self, t: Any, y: Values, u: Values, found: Mapping[str, Values]) -> Values:
        """Combine the parts at one point.

        Args:
            t: the time, or the value of the index.
            y: the states and the values of the parts.
            u: the forcings, by name.
            found: the values of each part, by its name.

        Returns:
            The combined values by name.
        """

    @property
    def layered(self) -> bool:
        """Whether a part is a layer, so that the hybrid is one too."""
        return any(is_layer(part) for part in self.parts.values())

    @property
    def _layers(self) -> dict[str, Any]:
        """The parts that are layers; raise ModelError if there is none."""
        if not self.layered:
            raise ModelError(
                f"this {type(self).__name__} joins vector fields, not layers: put it into a bd.ODE"
            )
        return {name: part for name, part in self.parts.items() if is_layer(part)}

    def __check_init__(self):
        # These properties raise if layers disagree.
        if self.layered:
            _ = self.units, self.interpolation

    @property
    def outputs(self) -> tuple[str, ...]:
        # Trace the combination with scalars in place of the values of layers.
        found = {
            name: dict.fromkeys(part.outputs, jnp.ones(())) for name, part in self._layers.items()
        }
        known = with_possible(self)
        u = dict.fromkeys(self.forcings, jnp.zeros(()))
        return tuple(jax.eval_shape(lambda: dict(known._at(jnp.zeros(()), {}, u, found))))

    @property
    def forcings(self) -> tuple[str, ...]:
        """The forcings of the layers, and those that only functions read."""
        of_layers = [name for part in self._layers.values() for name in part.forcings]
        return tuple(dict.fromkeys((*of_layers, *self.extra)))

    @property
    def units(self) -> Mapping[str, str]:
        stated = (
            (part, name, unit)
            for part, layer in self._layers.items()
            for name, unit in layer.units.items()
        )
        return agreed("units", stated)

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
        if any(found is None for found in of_parts):
            return None
        return [t for found in of_parts for t in found]

    def _shared(self, name: str, default: Any) -> Any:
        """Return an attribute that all layers have in common, or raise ModelError."""
        values = {getattr(part, name, default) for part in self._layers.values()} - {None}
        if len(values) > 1:
            raise ModelError(
                f"the layers of this {type(self).__name__} have different {name}: {values}"
            )
        if values:
            return values.pop()
        return default

    def prepared(self) -> Any:
        """Return a copy with quantities precomputed that are the same at all points of a solve."""
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
        """Combine at one point; functions beside layers are evaluated here."""
        for name, part in self.parts.items():
            if name not in found:
                found = found | {name: dict(part(t, y, u))}
        return self.join(t, self.known(y, found), u, found)

    @staticmethod
    def known(y: Values, found: Mapping[str, Values]) -> Values:
        """Collect what functions can read: states, `part.name`, and unambiguous `name`s."""
        returned = [name for values in found.values() for name in values]
        plain = {
            n: v for values in found.values() for n, v in values.items() if returned.count(n) == 1
        }
        full = {f"{part}.{name}": v for part, values in found.items() for name, v in values.items()}
        return {**plain, **full, **y}

    def _predict(self, inputs: Inputs) -> Prediction:
        """Solve all layers, then combine their values at all times."""
        solved = {name: self._solved(part, inputs) for name, part in self._layers.items()}
        values = self._over_times(inputs, {name: p.values for name, p in solved.items()})
        return joined(solved, values)

    def _over_times(self, inputs: Inputs, found: Mapping[str, Values]) -> Values:
        """Combine the predictions of the layers at all times."""
        field = prepared(self)

        def at(t, found):
            return dict(field._at(t, {}, inputs.forced(t), found))

        return jax.vmap(at)(inputs.times, dict(found))

    def _solved(self, part: Any, inputs: Inputs) -> Prediction:
        """Solve one layer, or raise ModelError if a hybrid cannot contain it."""
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

"""The base class of hybrid models, which combine vector fields, or layers and functions."""

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
    """Several parts whose values are combined at each point.

    If all parts are functions `(t, y, u)`, the hybrid is a vector field: `hybrid(t, y, u)`. If a
    part is a layer, the hybrid is a layer: `hybrid(inputs)`.

    Networks, closures and gates can read the value `name` of the part `part` as an input
    `part.name`. They can also read it as `name`, unless a state has this name or another part
    returns it too. In a layer, functions get no states. In a vector field, they get the forcings
    of its `ODE`.

    Args:
        extra: for a layer, the data variables that functions read but layers do not.

    Raises:
        ModelError: if layers state different units, or different interpolation, for one name.
    """

    extra: tuple[str, ...] = eqx.field(default=(), static=True, converter=tuple, kw_only=True)

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Part]:
        """The parts by name, which are evaluated before they are combined."""

    @abstractmethod
    def join(self, t: Any, y: Values, u: Values, found: Mapping[str, Values]) -> Values:
        """Combine the values of the parts at one point.

        Args:
            t: the time, or the value of the index.
            y: the states and the values of the parts, under all names that functions can read.
            u: the forcings, by name.
            found: the values of each part by name, by the name of the part.

        Returns:
            The combined values by name.
        """

    @property
    def layered(self) -> bool:
        """Whether a part is a layer, so that the hybrid is a layer too."""
        return any(is_layer(part) for part in self.parts.values())

    @property
    def _layers(self) -> dict[str, Any]:
        """The parts that are layers, by name.

        Raises:
            ModelError: if no part is a layer.
        """
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
        """The forcings of the layers, and the `extra` variables that only functions read."""
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
        """Return an attribute that all layers have in common.

        Args:
            name: the name of the attribute.
            default: its value if no layer has it.

        Raises:
            ModelError: if layers have different values.
        """
        values = {getattr(part, name, default) for part in self._layers.values()} - {None}
        if len(values) > 1:
            raise ModelError(
                f"the layers of this {type(self).__name__} have different {name}: {values}"
            )
        if values:
            return values.pop()
        return default

    def prepared(self) -> Any:
        """Return a copy in which quantities that stay constant during a solve are precomputed."""
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
        """Combine the parts at one point.

        Args:
            t: the time, or the value of the index.
            y: the states by name; empty in a layer.
            u: the forcings by name.
            found: the known values of parts, by part. Other parts are evaluated here.

        Returns:
            The combined values by name.
        """
        for name, part in self.parts.items():
            if name not in found:
                found = found | {name: dict(part(t, y, u))}
        return self.join(t, self.known(y, found), u, found)

    @staticmethod
    def known(y: Values, found: Mapping[str, Values]) -> Values:
        """Collect the values that functions can read, under all names.

        Args:
            y: the states by name.
            found: the values of each part.

        Returns:
            The states by name, and the values of the parts as `part.name`. Also the values as
            `name`, if only one part returns it and no state has this name.
        """
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
        """Combine the predictions of the layers at all times.

        Args:
            inputs: the times and forcings.
            found: the values of each layer, `(time, …)` by name, by the name of the layer.

        Returns:
            The combined values, `(time, …)` by name.
        """
        field = prepared(self)

        def at(t, found):
            return dict(field._at(t, {}, inputs.forced(t), found))

        return jax.vmap(at)(inputs.times, dict(found))

    def _solved(self, part: Any, inputs: Inputs) -> Prediction:
        """Solve one layer.

        Raises:
            ModelError: if the layer is a filter or predicts a variance.
        """
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

"""`Coupling` and `Link`: coupled vector fields, or layers that drive other layers."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._jax.tree import FrozenDict
from ..data.forcings import Linear
from ..data.layer_inputs import Inputs
from ..errors import ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers._assumed import refuse_assumed
from ..layers._functions import agreed, agreed_interpolation
from ..layers._parts import check_function
from ..layers.layer import joined
from ..random import Module, Scalar, Values, VectorField, check_scalar


class Link(Module):
    """A value of one part as a forcing of another: `Link("slow.x", "fast.drive", strength)`.

    Here the value `x` of the part `slow`, times `strength`, is a forcing `drive` of the part
    `fast`. The values of several links to one target are added.

    Args:
        source: the value, "part.value".
        target: the forcing, "part.forcing".
        strength: the factor, in the units of the forcing over the units of the value.

    Raises:
        ModelError: unless source and target are a part and a name with a dot between.
    """

    source: str = eqx.field(static=True)
    target: str = eqx.field(static=True)
    strength: Scalar = 1.0

    def __check_init__(self):
        for end in (self.source, self.target):
            if not isinstance(end, str) or not all(end.partition(".")):
                raise ModelError(f"a link runs from 'part.value' to 'part.forcing', not {end!r}")

    @property
    def origin(self) -> tuple[str, str]:
        """The part and the value from which the link comes: `source` split at its first dot."""
        part, name = self.source.split(".", 1)
        return part, name

    @property
    def goal(self) -> tuple[str, str]:
        """The part and the forcing to which the link leads: `target` split at its first dot."""
        part, name = self.target.split(".", 1)
        return part, name


def as_links(links: Any) -> tuple[Link, ...]:
    """Convert one link or several to a tuple.

    Raises:
        ModelError: if any element is no `Link`.
    """
    found = tuple(links) if isinstance(links, Iterable) else (links,)
    if not all(isinstance(link, Link) for link in found):
        raise ModelError(
            f"links must be such as (bd.multiscale.Link('slow.x', 'fast.drive'),), not {links!r}"
        )
    return found


class Coupling(Module):
    r"""A vector field of parts with different time scales, coupled by links.

    $\dot y_p = f_p(t, y_p, u \cup \{\text{strength} \cdot \text{linked state}\}) / \tau_p$

    Part p has the vector field $f_p$, the states $y_p$ and the time scale $\tau_p$. Besides the
    forcings u, it gets the states that are linked to it. Strengths and time scales may be random.

    Args:
        parts: vector fields by name of the part.
        links: a `Link`, or several, from states to forcings of parts.
        states: the names of the states of each part. No two parts may have a state of the same
            name, since `ODE(initial=…)` needs the initial values of all states in one dict.
        timescales: τ by part, small for a fast part; 1 unless given.

    Shapes: states may have any shape; a linked forcing has the shape of the state.

    Units: τ is in units of time if f is in units of the states, and has no unit if f is a rate.

    Raises:
        ModelError: if a part is no function, a link or time scale names an unknown part or state,
            or two parts have a state of the same name. When called: if a part returns rates of
            other states, or a forcing has the name of a link's target.
    """

    parts: dict[str, VectorField]
    links: tuple[Link, ...] = eqx.field(converter=as_links)
    states: Mapping[str, tuple[str, ...]] = eqx.field(
        static=True,
        converter=lambda states: FrozenDict(
            (part, _name_tuple(names)) for part, names in states.items()
        ),
    )
    timescales: dict[str, Scalar] = eqx.field(default_factory=dict)

    def __check_init__(self):
        for part, field in self.parts.items():
            check_function(field, f"parts['{part}']")
        if set(self.states) != set(self.parts):
            raise ModelError(
                f"states are given for {listed(self.states)}, but the parts are "
                f"{listed(self.parts)}"
            )
        refuse_twice(self.states, "state")
        check_links(self.links, self.states)
        for part, value in self.timescales.items():
            if part not in self.parts:
                raise ModelError(
                    f"a time scale is given for '{part}'; the parts are {listed(self.parts)}"
                )
            check_scalar(value, f"timescales['{part}']")
            if isinstance(value, (int, float)) and value <= 0:
                raise ModelError(f"timescales['{part}'] must be positive, not {value}")

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        rates = {}
        for part, names in self.states.items():
            # A part sees its own states, the forcings, and states that are linked to it.
            seen = linked(self.links, part, lambda link: y[link.origin[1]])
            _refuse_clash(seen, u, part)
            found = self.parts[part](t, {name: y[name] for name in names}, {**u, **seen})
            if set(found) != set(names):
                raise ModelError(
                    f"part '{part}' returns rates for {listed(found)}, but has states "
                    f"{listed(names)}"
                )
            # ẏ_p = f_p / τ_p
            slowness: Any = self.timescales.get(part, 1.0)
            rates |= {name: found[name] / slowness for name in names}
        return rates


class LayerCoupling(AbstractLayer):
    r"""Several layers, each with its own solver, in which predictions of one layer drive another.

    $u_{target}(t) = \sum \text{strength} \cdot y_{source}(t)$

    Links must not form a circle: each layer is solved once, after the layers that it depends on. A
    linked value is computed at `points` times and interpolated linearly between them. So its error
    falls as the square of the number of points. Name a linked forcing among the `forcings` of the
    layer that receives it. All other forcings come from the data. The outputs are the outputs of
    all layers.

    Args:
        layers: layers by name.
        links: a `Link`, or several, from outputs to forcings of layers.
        points: the number of equally spaced times at which linked values are computed, from the
            start to the last time of the data.

    Shapes: linked values are `(time,)`.

    Raises:
        ModelError: if a link names an unknown layer, output or forcing; if links form a circle; if
            layers differ in start, index, or the units or interpolation of one forcing; if two
            layers predict the same name; if a linked forcing is not linear; or if a layer is a
            filter.
    """

    layers: dict[str, AbstractLayer]
    links: tuple[Link, ...] = eqx.field(converter=as_links)
    points: int = eqx.field(default=129, static=True)

    def __check_init__(self):
        for name, layer in self.layers.items():
            if not isinstance(layer, AbstractLayer) or isinstance(layer, AbstractFilter):
                raise ModelError(
                    f"'{name}' must be a layer that needs no observations, not "
                    f"{type(layer).__name__}"
                )
        outputs = {name: layer.outputs for name, layer in self.layers.items()}
        refuse_twice(outputs, "output")
        check_links(self.links, outputs)
        for link in self.links:
            self._check_link(link)
        if self.points < 2:
            raise ModelError(f"points must be at least 2, not {self.points}")
        for what in ("index", "start"):
            if len(found := self._own(what)) > 1:
                raise ModelError(
                    f"coupled layers must have the same {what}, not {listed(map(str, found))}"
                )
        # Each of these raises if the layers contradict each other.
        _ = self.order, self.units, self.interpolation

    def _check_link(self, link: Link) -> None:
        """Raise a ModelError if a link cannot be interpolated linearly into its target."""
        (source, value), (target, forcing) = link.origin, link.goal
        if forcing not in self.layers[target].forcings:
            known = listed(self.layers[target].forcings)
            raise ModelError(
                f"'{link.target}' is linked, but the forcings of '{target}' are {known}"
            )
        # Values between points are linear, whatever the receiving layer wants.
        kind = self.layers[target].interpolation.get(forcing, "linear")
        if kind != "linear":
            raise ModelError(
                f"'{link.target}' is linked, so it is linear between points: it cannot be '{kind}'"
            )
        if self.layers[source].dims.get(value):
            raise ModelError(f"'{link.source}' is a field; only a series of numbers can be linked")

    def _own(self, what: str) -> set:
        """Return the distinct values of an attribute over all layers, without None."""
        return {
            value
            for layer in self.layers.values()
            if (value := getattr(layer, what, None)) is not None
        }

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the layers, each after the layers that it depends on."""
        # A topological sort of the graph from each layer to the sources of its links.
        before = {
            name: {k.origin[0] for k in self.links if k.goal[0] == name} for name in self.layers
        }
        try:
            return tuple(TopologicalSorter(before).static_order())
        except CycleError as error:
            circle = " → ".join(error.args[1])
            raise ModelError(
                f"the links run in a circle: {circle}; couple the vector fields instead"
            ) from error

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for layer in self.layers.values() for name in layer.outputs)

    def _external(self, name: str) -> list[str]:
        """Return the forcings of a layer that come from the data, not from a link."""
        linked = {link.goal for link in self.links}
        return [forcing for forcing in self.layers[name].forcings if (name, forcing) not in linked]

    @property
    def forcings(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(forcing for name in self.layers for forcing in self._external(name))
        )

    @property
    def units(self) -> Mapping[str, str]:
        own = {
            part: (*layer.outputs, *self._external(part), layer.index)
            for part, layer in self.layers.items()
        }
        # Units of a linked forcing are left out: the strength of its link converts them.
        stated = (
            (part, n, u)
            for part, layer in self.layers.items()
            for n, u in layer.units.items()
            if n in own[part]
        )
        return agreed("units", stated)

    @property
    def interpolation(self) -> Mapping[str, str]:
        return agreed_interpolation(
            self.layers, {name: self._external(name) for name in self.layers}
        )

    @property
    def index(self) -> str:
        return next(iter(self._own("index")), "time")

    @property
    def start(self) -> Any:
        return next(iter(self._own("start")), None)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {name: dims for layer in self.layers.values() for name, dims in layer.dims.items()}

    @property
    def states(self) -> int:
        return sum(layer.states for layer in self.layers.values())

    def __call__(self, inputs: Inputs) -> Prediction:
        refuse_assumed(self, inputs)
        # Linked values are computed at the points of a grid, and outputs at the times of the data.
        grid = jnp.linspace(inputs.start, inputs.times[-1], self.points)
        both = jnp.sort(jnp.concatenate([grid, inputs.times]))
        passed: dict[tuple[str, str], Array] = {}
        predictions = {}
        for name in self.order:
            # 1. The forcings of this layer: from the data, and from layers solved before.
            own = self._inputs_of(name, inputs, grid, passed)
            sends = {link.origin for link in self.links if link.origin[0] == name}
            # 2. A layer that sends values is solved at both sets of times.
            if sends:
                finer = self.layers[name](eqx.tree_at(lambda g: g.times, own, both))
                passed |= {k: finer.values[k[1]][jnp.searchsorted(both, grid)] for k in sends}
                predictions[name] = _at_rows_of(finer, jnp.searchsorted(both, inputs.times))
            else:
                predictions[name] = self.layers[name](own)
        # 3. All outputs together; names differ, as was checked at the start.
        values = {name: v for p in predictions.values() for name, v in p.values.items()}
        variances = {name: v for p in predictions.values() for name, v in p.variances.items()}
        return joined(predictions, values, variances=variances)

    def _inputs_of(
        self, name: str, inputs: Inputs, grid: Float[Array, " points"], passed: Mapping
    ) -> Inputs:
        """Return the inputs of a layer, with its linked forcings.

        Args:
            name: the name of the layer.
            inputs: the inputs from the data.
            grid: the times at which linked values are computed.
            passed: linked values on the grid, by (layer, output), of layers that were solved
                before.
        """
        # Linked forcings are linear between the points of the grid.
        arriving = linked(self.links, name, lambda link: passed[link.origin])
        forcings = {forcing: inputs.forcings[forcing] for forcing in self._external(name)}
        forcings |= {forcing: Linear(grid, values) for forcing, values in arriving.items()}
        return Inputs(inputs.start, inputs.times, forcings, inputs.coordinates)


def linked(links: Iterable[Link], part: str, value_of: Any) -> dict[str, Any]:
    """Return the linked forcings of a part, by name: Σ strength · value.

    Args:
        links: all links.
        part: the name of the part.
        value_of: a function from a link to the value at its source.
    """
    found: dict[str, Any] = {}
    for link in links:
        to, name = link.goal
        if to == part:
            found[name] = found.get(name, 0.0) + link.strength * value_of(link)
    return found


def _name_tuple(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def listed(names: Iterable) -> str:
    """Join names for an error message."""
    return ", ".join(names) or "none"


def check_links(links: Iterable[Link], values: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ModelError for links from or to an unknown part, or from an unknown value.

    `values` holds the names of the values of each part that a link can take.
    """
    for link in links:
        (source, name), (target, _) = link.origin, link.goal
        for part in (source, target):
            if part not in values:
                raise ModelError(f"a link names '{part}'; the parts are {listed(values)}")
        if name not in values[source]:
            raise ModelError(
                f"a link comes from '{link.source}'; '{source}' has {listed(values[source])}"
            )


def refuse_twice(names: Mapping[str, Iterable[str]], what: str) -> None:
    """Raise ModelError if two parts have the same name.

    Args:
        names: the names in each part.
        what: the kind of the names in the error message.
    """
    owner: dict[str, str] = {}
    for part, own in names.items():
        for name in own:
            if name in owner:
                raise ModelError(
                    f"{what} '{name}' is in '{owner[name]}' and in '{part}': give it two names"
                )
            owner[name] = part


def _refuse_clash(linked: Mapping, u: Values, part: str) -> None:
    """Raise ModelError if a linked forcing of a part has the name of a forcing in `u`."""
    for name in linked:
        if name in u:
            raise ModelError(
                f"'{part}.{name}' is linked, but '{name}' is a forcing of the model too: rename one"
            )


def _at_rows_of(prediction: Prediction, rows: Any) -> Prediction:
    """Return the prediction at some of its times, given by their row numbers."""
    values = {name: value[rows] for name, value in prediction.values.items()}
    variances = {name: value[rows] for name, value in prediction.variances.items()}
    return Prediction(
        values, prediction.ok, prediction.stats, prediction.constraint_residuals, variances
    )

"""Layers at different scales, one after another."""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..data.layer_inputs import Inputs, Linear
from ..errors import ModelError
from ..layers import AbstractFilter, AbstractLayer, Prediction
from ..layers._parts import agreed, agreed_interpolation
from ..layers._prediction import joined
from .coupling import Link, as_links, check_links, linked, listed, refuse_twice


class LayerCoupling(AbstractLayer):
    r"""Layers at different scales, each with its own solver: what one predicts drives another.

    $u_{target}(t) = \sum \text{strength} \cdot y_{source}(t)$

    The links go one way: each layer is solved once, after those that it depends on. What is passed on is known at
    `points` times and linear between them, so its error falls with the square of their number. Name a linked forcing
    among the `forcings` of the layer that receives it; the coupled layer asks the data for all other forcings. It
    predicts what all its layers predict.

    Args:
        layers: by name.
        links: what one layer passes on to another: a `Link`, or several.
        points: how many equidistant times, from the start to the last time of the data, what is passed on is known at.

    Shapes: linked values are `(time,)`.
    Raises: ModelError if a link names an unknown layer, output or forcing, links run in a circle, two layers predict
    the same name, start at different times, run along different coordinates, read one forcing by different
    interpolation or in different units, or want a linked one as steps or a spline, or if one of them is a filter.
    """

    layers: dict[str, AbstractLayer]
    links: tuple[Link, ...] = eqx.field(converter=as_links)
    points: int = eqx.field(default=129, static=True)

    def __check_init__(self):
        for name, layer in self.layers.items():
            if not isinstance(layer, AbstractLayer) or isinstance(layer, AbstractFilter):
                raise ModelError(f"'{name}' must be a layer that needs no observations, not {type(layer).__name__}")
        outputs = {name: layer.outputs for name, layer in self.layers.items()}
        refuse_twice(outputs, "output")
        check_links(self.links, outputs)
        for link in self.links:
            self._check_link(link)
        if self.points < 2:
            raise ModelError(f"points must be at least 2, not {self.points}")
        for what in ("index", "start"):
            if len(found := self._own(what)) > 1:
                raise ModelError(f"coupled layers must have the same {what}, not {listed(map(str, found))}")
        _ = self.order, self.units, self.interpolation

    def _check_link(self, link: Link) -> None:
        (source, value), (target, forcing) = link.origin, link.goal
        if forcing not in self.layers[target].forcings:
            known = listed(self.layers[target].forcings)
            raise ModelError(f"'{link.target}' is linked, but the forcings of '{target}' are {known}")
        kind = self.layers[target].interpolation.get(forcing, "linear")
        if kind != "linear":
            raise ModelError(f"'{link.target}' is linked, so it is linear between points: it cannot be '{kind}'")
        if self.layers[source].dims.get(value):
            raise ModelError(f"'{link.source}' is a field; only a series of numbers can be linked")

    def _own(self, what: str) -> set:
        return {value for layer in self.layers.values() if (value := getattr(layer, what, None)) is not None}

    @property
    def order(self) -> tuple[str, ...]:
        """The layers, each after those that it depends on."""
        before = {name: {k.origin[0] for k in self.links if k.goal[0] == name} for name in self.layers}
        try:
            return tuple(TopologicalSorter(before).static_order())
        except CycleError as error:
            circle = " → ".join(error.args[1])
            raise ModelError(f"the links run in a circle: {circle}; couple the vector fields instead") from error

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for layer in self.layers.values() for name in layer.outputs)

    def _external(self, name: str) -> list[str]:
        linked = {link.goal for link in self.links}
        return [forcing for forcing in self.layers[name].forcings if (name, forcing) not in linked]

    @property
    def forcings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(forcing for name in self.layers for forcing in self._external(name)))

    @property
    def units(self) -> Mapping[str, str]:
        own = {part: (*layer.outputs, *self._external(part)) for part, layer in self.layers.items()}
        stated = ((part, n, u) for part, layer in self.layers.items() for n, u in layer.units.items() if n in own[part])
        return agreed("units", stated)

    @property
    def interpolation(self) -> Mapping[str, str]:
        return agreed_interpolation(self.layers, {name: self._external(name) for name in self.layers})

    @property
    def index(self) -> str:
        return next(iter(self._own("index")), "time")

    @property
    def start(self) -> float | None:
        return next(iter(self._own("start")), None)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {name: dims for layer in self.layers.values() for name, dims in layer.dims.items()}

    @property
    def states(self) -> int:
        return sum(layer.states for layer in self.layers.values())

    def __call__(self, inputs: Inputs) -> Prediction:
        grid = jnp.linspace(inputs.start, inputs.times[-1], self.points)
        both = jnp.sort(jnp.concatenate([grid, inputs.times]))
        passed: dict[tuple[str, str], Array] = {}
        predictions = {}
        for name in self.order:
            own = self._inputs_of(name, inputs, grid, passed)
            sends = {link.origin for link in self.links if link.origin[0] == name}
            if sends:
                finer = self.layers[name](eqx.tree_at(lambda g: g.times, own, both))
                passed |= {k: finer.values[k[1]][jnp.searchsorted(both, grid)] for k in sends}
                predictions[name] = _at(finer, jnp.searchsorted(both, inputs.times))
            else:
                predictions[name] = self.layers[name](own)
        values = {name: v for p in predictions.values() for name, v in p.values.items()}
        variances = {name: v for p in predictions.values() for name, v in p.variances.items()}
        return joined(predictions, values, variances=variances)

    def _inputs_of(self, name: str, inputs: Inputs, grid: Float[Array, " points"], passed: Mapping) -> Inputs:
        arriving = linked(self.links, name, lambda link: passed[link.origin])
        forcings = {forcing: inputs.forcings[forcing] for forcing in self._external(name)}
        forcings |= {forcing: Linear(grid, values) for forcing, values in arriving.items()}
        return Inputs(inputs.start, inputs.times, forcings, inputs.coordinates)


def _at(prediction: Prediction, places: Any) -> Prediction:
    """The prediction at some of its times."""
    values, variances = ({k: v[places] for k, v in d.items()} for d in (prediction.values, prediction.variances))
    return Prediction(values, prediction.ok, prediction.stats, prediction.mismatches, variances)

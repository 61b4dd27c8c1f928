"""A baseline for partial differential equations: rates of the fields by a convolutional network."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float

from .._jax.keys import as_key
from .._jax.tree import FrozenDict
from ..data.datasets import standardise
from ..errors import ModelError
from ..model import Model
from ..networks.network import bayesian, standardised
from ..pde.grid import Grid
from ..pde.pde import PDE
from ..priors import draw_prior
from ..random import Module, Values, realise
from ._seen import Seen

_DRAWS = 8  # each is a solve


def cnn(
    model: Model, data: xr.Dataset, *, width: int = 8, depth: int = 2, kernel: int = 3
) -> Model:
    r"""The same fields from the same start, their rates by a convolutional network in place of all
    that science says.

    $\partial_t y_i = r_i\,\mathrm{net}(y, u, x)_i$, the same network around every cell

    It reads the fields, standardised, the forcings, and along axes that are not periodic the
    coordinates of the cells; where an axis is periodic it is the same everywhere, elsewhere fields
    go on beyond the sides as they are there. What stands in the equations as a function of the
    place is science, which it is not told. Between layers stand hyperbolic tangents, so that rates
    are bounded, whatever the fields are. Nothing keeps a field positive. Rates are measured in
    those, r, that the science has over the times of the data, the root mean square over cells and
    times, the median over prior draws. Fields are observed, and jump, as before; where there is an
    `observe`, all numbers of the equations keep their priors, for it may read them.

    Args:
        model: that of a `bd.pde.PDE`.
        data: the training data.
        width: channels of each hidden layer.
        depth: hidden layers.
        kernel: cells that a layer looks at along each axis, an odd number; all of them together at
            $1 + (\text{depth} + 1)(\text{kernel} - 1)$.

    Raises:
        ModelError: for another layer, sizes that there cannot be, or a science whose solver gets
            through no draw of the prior or in which a field stands still.
        DataError: for data at one time alone.

    Source: after Stachenfeld et al. (2022), Learned coarse models for efficient turbulence
    simulation.
    """
    layer = model.layer
    if not isinstance(layer, PDE):
        raise ModelError(
            f"a CNN takes the place of a bd.pde.PDE, not of this {type(layer).__name__}"
        )
    if min(width, depth, kernel) < 1 or kernel % 2 == 0:
        raise ModelError(
            f"width={width}, depth={depth}, kernel={kernel}: all at least 1, and the kernel odd"
        )
    seen, grid = Seen.of(model, data, fields=True), layer.grid
    known = _known(layer, seen, data)
    places = {name: (sum(grid.axes[name][:2]) / 2, grid.length(name) / 4) for name in grid.names}
    inputs = known.inputs | standardise(seen.data, *layer.forcings)
    inputs |= {name: place for name, place in places.items() if name not in layer.periodic}
    sizes = len(inputs), *[width] * depth, len(known.units)
    keys = jax.random.split(as_key(0), depth + 1)
    convolutions = [
        # A bias of the last layer would move a whole field at once, by several times its spread.
        eqx.nn.Conv(len(grid.names), *size, kernel, use_bias=i < depth, key=key)
        for i, (size, key) in enumerate(zip(itertools.pairwise(sizes), keys, strict=True))
    ]
    network = _Convolutions(bayesian(convolutions), tuple(n in layer.periodic for n in grid.names))
    equations = layer.vector_field if layer.observe is not None else None
    field = _Rates(grid, network, inputs, known.units, layer.periodic, equations)
    return seen.with_layer(eqx.tree_at(lambda pde: pde.vector_field, layer, field))


class _Convolutions(Module):
    """Convolutions over the cells, with hyperbolic tangents between them."""

    random_group: ClassVar[str] = "network"

    layers: list[eqx.nn.Conv]
    wraps: tuple[bool, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "inputs ..."]) -> Float[Array, "outputs ..."]:
        """Channels of the same size.

        Args:
            x: channels over the cells.
        """
        x = _convolved(self.layers[0], self._padded(x))
        for layer in self.layers[1:]:
            x = _convolved(layer, self._padded(jnp.tanh(x)))
        return x

    def _padded(self, x: Array) -> Array:
        """With as many cells more at both ends of an axis as a kernel reaches beyond; Equinox pads
        all axes alike.
        """
        for axis, wraps in enumerate(self.wraps):
            beyond = self.layers[0].kernel_size[axis] // 2
            widths = [(beyond, beyond) if i == axis + 1 else (0, 0) for i in range(x.ndim)]
            x = jnp.pad(x, widths, mode="wrap" if wraps else "edge")
        return x


def _convolved(layer: eqx.nn.Conv, x: Array) -> Array:
    """What an Equinox layer makes of padded channels, as one product of matrices.

    Of many draws of the weights at once, as engines have them, XLA's own convolution takes a time
    on CPUs that grows with the square of their number.
    """
    cells = [size - kernel + 1 for size, kernel in zip(x.shape[1:], layer.kernel_size, strict=True)]
    around = [
        x[(slice(None), *(slice(low, low + n) for low, n in zip(corner, cells, strict=True)))]
        for corner in itertools.product(*map(range, layer.kernel_size))
    ]
    weight = layer.weight.reshape(layer.out_channels, -1)
    found = jnp.tensordot(weight, jnp.stack(around, axis=1).reshape(-1, *cells), axes=1)
    return found if layer.bias is None else found + layer.bias


class _Rates(Module):
    """Rates of fields by convolutions; beside them stand the equations, by which fields may be
    observed.
    """

    grid: Grid
    network: _Convolutions
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True, converter=FrozenDict)
    units: Mapping[str, float] = eqx.field(static=True, converter=FrozenDict)
    periodic: tuple[str, ...] = eqx.field(static=True)
    equations: Any

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        features = standardised(self.inputs, {**self.grid.places, **u, **y})
        found = self.network(jnp.moveaxis(features, -1, 0))
        return {name: unit * found[i] for i, (name, unit) in enumerate(self.units.items())}

    def outflow(self, t: Any, y: Values, u: Values) -> Values:
        """What leaves through the sides, as the equations have it; nothing if they have none.

        Args:
            t: the time.
            y: the fields, arrays over the cells by name.
            u: the forcings at that time, by name.
        """
        return getattr(self.equations, "outflow", lambda *_: {})(t, y, u)


@dataclasses.dataclass(frozen=True)
class _Known:
    """Of each field where it lies, and how large its rates are."""

    inputs: dict[str, tuple[float, float]]
    units: dict[str, float]


def _known(layer: PDE, seen: Seen, data: xr.Dataset) -> _Known:
    """Of fields that are observed as they are the data say where they lie, of others the science
    under its prior.
    """
    whole = dataclasses.replace(layer, observe=None)
    given = dataclasses.replace(seen.model.reader.driven(data), coordinates={})

    @jax.jit
    def course(drawn: Mapping[str, Array]) -> tuple[Values, Values, Bool[Array, ""]]:
        pde = realise(whole, drawn)
        found = pde(given)
        rates = jax.vmap(pde.vector_field)(given.times, found.values, given.forced_at_times())
        return found.values, rates, found.ok

    drawn = draw_prior(whole, _DRAWS, key=as_key(0))
    every = [
        course({path: v[i] for path, v in drawn.items()}) for i in range(_DRAWS if drawn else 1)
    ]
    through = [(fields, rates) for fields, rates, ok in every if ok]
    if not through:
        raise ModelError(
            f"the solver gets through none of {len(every)} prior draws, which say how large rates "
            "are"
        )
    inputs, units = {}, {}
    for name in layer.initial:
        values = np.stack([fields[name] for fields, _ in through])
        inputs[name] = float(values.mean()), float(np.median([v.std() for v in values])) or 1.0
        units[name] = float(np.median([np.sqrt(np.mean(rates[name] ** 2)) for _, rates in through]))
        if not 0 < units[name] < np.inf:
            raise ModelError(
                f"the rate of '{name}' is {units[name]:g} under the prior: nothing to measure it by"
            )
    observed = seen.model.observables if layer.observe is None else ()
    return _Known(inputs | standardise(seen.data, *observed), units)

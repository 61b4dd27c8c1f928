"""A baseline for PDEs: rates of the fields by a convolutional network."""

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
    r"""Replace the rates of a PDE's fields by a convolutional network.

    $\partial_t y_i = r_i\,\mathrm{net}(y, u, x)_i$, the same network around every cell

    - Inputs are the standardised fields, the forcings, and the coordinates along axes that are
      not periodic. Functions of place in the equations are science, which the network lacks.
    - Periodic axes wrap around. Beyond other sides, fields continue with their value there.
    - Hidden layers have hyperbolic tangents, so that rates are bounded. Fields may become negative.
    - The unit $r_i$ of a rate is its root mean square over cells and times under the science, as
      the median over prior draws.
    - Start, jumps and observations stay. With `observe`, which may read them, all parameters of
      the equations keep their priors.

    Args:
        model: the model of a `bd.pde.PDE`.
        data: the training data.
        width: channels of each hidden layer.
        depth: number of hidden layers.
        kernel: cells that a layer sees along each axis, an odd number. All layers together see
            $1 + (\text{depth} + 1)(\text{kernel} - 1)$ cells.

    Returns:
        The baseline.

    Raises:
        ModelError: if the layer is no PDE, a size is impossible, the solver fails for all prior
            draws, or a rate is zero under the prior.
        DataError: if all data are at one time.

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
    # 1. Location and width of each input: fields, forcings, and coordinates without a period.
    seen = Seen.of(model, data, fields=True)
    grid = layer.grid
    field_inputs, units = _scales_of_fields(layer, seen, data)
    inputs = field_inputs | standardise(seen.data, *layer.forcings)
    for name in grid.names:
        if name not in layer.periodic:
            inputs[name] = sum(grid.axes[name][:2]) / 2, grid.length(name) / 4
    # 2. The network, with priors in place of its weights.
    sizes = len(inputs), *[width] * depth, len(units)
    keys = jax.random.split(as_key(0), depth + 1)
    convolutions = [
        # A bias of the last layer would move a whole field at once, by several times its spread.
        eqx.nn.Conv(len(grid.names), *size, kernel, use_bias=i < depth, key=key)
        for i, (size, key) in enumerate(zip(itertools.pairwise(sizes), keys, strict=True))
    ]
    network = _Convolutions(bayesian(convolutions), tuple(n in layer.periodic for n in grid.names))
    # 3. The same layer with these rates.
    equations = layer.vector_field if layer.observe is not None else None
    field = _ConvolutionalRates(
        grid,
        network,
        inputs,
        units,
        layer.periodic,
        equations,
    )
    return seen.with_layer(eqx.tree_at(lambda pde: pde.vector_field, layer, field))


class _Convolutions(Module):
    """Convolutions over the cells, with hyperbolic tangents between them."""

    random_group: ClassVar[str] = "network"

    layers: list[eqx.nn.Conv]
    wraps: tuple[bool, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "inputs ..."]) -> Float[Array, "outputs ..."]:
        """Return output channels over the same cells.

        Args:
            x: input channels over the cells.

        Returns:
            The outputs of the last layer.
        """
        x = _convolved(self.layers[0], self._padded(x))
        for layer in self.layers[1:]:
            x = _convolved(layer, self._padded(jnp.tanh(x)))
        return x

    def _padded(self, x: Array) -> Array:
        """Add the cells that a kernel needs beyond each end; Equinox would pad all axes alike."""
        for axis, wraps in enumerate(self.wraps):
            beyond = self.layers[0].kernel_size[axis] // 2
            widths = [(beyond, beyond) if i == axis + 1 else (0, 0) for i in range(x.ndim)]
            x = jnp.pad(x, widths, mode="wrap" if wraps else "edge")
        return x


def _convolved(layer: eqx.nn.Conv, x: Array) -> Array:
    """Apply an Equinox convolution to padded channels as one matrix product.

    Engines evaluate many draws of the weights at once. XLA's own convolution then takes a time on
    CPUs that grows with the square of their number.
    """
    # 1. Shift the cells to each place of the kernel.
    cells = [size - kernel + 1 for size, kernel in zip(x.shape[1:], layer.kernel_size, strict=True)]
    around = [
        x[(slice(None), *(slice(low, low + n) for low, n in zip(corner, cells, strict=True)))]
        for corner in itertools.product(*map(range, layer.kernel_size))
    ]
    # 2. Sum over input channels c and places k: Σ_ck w_ock x_ck.
    weight = layer.weight.reshape(layer.out_channels, -1)
    found = jnp.tensordot(weight, jnp.stack(around, axis=1).reshape(-1, *cells), axes=1)
    return found if layer.bias is None else found + layer.bias


class _ConvolutionalRates(Module):
    """Rates of fields by convolutions; the equations are kept if observations need them."""

    grid: Grid
    network: _Convolutions
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True, converter=FrozenDict)
    units: Mapping[str, float] = eqx.field(static=True, converter=FrozenDict)
    periodic: tuple[str, ...] = eqx.field(static=True)
    equations: Any

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        # The coordinates are data of the grid, not of the caller.
        features = standardised(
            self.inputs,
            {
                **self.grid.places,
                **u,
                **y,
            },
        )
        found = self.network(jnp.moveaxis(features, -1, 0))
        return {name: unit * found[i] for i, (name, unit) in enumerate(self.units.items())}

    def outflow(self, t: Any, y: Values, u: Values) -> Values:
        """Return the outflow through the sides as in the equations, or none.

        Args:
            t: the time.
            y: the fields, arrays over the cells by name.
            u: the forcings at that time, by name.

        Returns:
            The outflow by name.
        """
        return getattr(self.equations, "outflow", lambda *_: {})(t, y, u)


def _scales_of_fields(
    layer: PDE, seen: Seen, data: xr.Dataset
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Return location and width of each field, and the unit of its rate.

    Fields that are observed directly have location and width of the data, other fields those of
    the science under its prior.

    Raises:
        ModelError: if the solver fails for all prior draws, or a rate is zero or infinite.
    """
    whole = dataclasses.replace(layer, observe=None)
    given = dataclasses.replace(seen.model.reader.driven(data), coordinates={})

    @jax.jit
    def solve(drawn: Mapping[str, Array]) -> tuple[Values, Values, Bool[Array, ""]]:
        pde = realise(whole, drawn)
        found = pde(given)
        rates = jax.vmap(pde.vector_field)(given.times, found.values, given.forced_at_times())
        return found.values, rates, found.ok

    # 1. Solve the science for some prior draws; a science without unknowns needs one solve.
    drawn = draw_prior(whole, _DRAWS, key=as_key(0))
    number = _DRAWS if drawn else 1
    solves = [solve({path: v[i] for path, v in drawn.items()}) for i in range(number)]
    solved = [(fields, rates) for fields, rates, ok in solves if ok]
    if not solved:
        raise ModelError(
            f"the solver gets through none of {number} prior draws, which say how large rates are"
        )
    # 2. Mean and standard deviation of each field, and the root mean square of its rate.
    inputs, units = {}, {}
    for name in layer.initial:
        values = np.stack([fields[name] for fields, _ in solved])
        width = float(np.median([v.std() for v in values]))
        inputs[name] = float(values.mean()), width or 1.0
        sizes = [np.sqrt(np.mean(rates[name] ** 2)) for _, rates in solved]
        units[name] = float(np.median(sizes))
        if not 0 < units[name] < np.inf:
            raise ModelError(
                f"the rate of '{name}' is {units[name]:g} under the prior: nothing to measure it by"
            )
    observed = seen.model.observables if layer.observe is None else ()
    return inputs | standardise(seen.data, *observed), units

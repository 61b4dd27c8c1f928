"""A baseline for PDEs: a convolutional network gives the rates of the fields."""

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

_DRAWS = 8  # number of prior draws, each of which needs a solve


def cnn(
    model: Model, data: xr.Dataset, *, width: int = 8, depth: int = 2, kernel: int = 3
) -> Model:
    r"""Replace the rates of a PDE's fields by a convolutional network.

    $\partial_t y_i = r_i\,\mathrm{net}(y, u, x)_i$, with the same network at every cell

    Here y are the fields, u the forcings, x the coordinates, and $r_i$ the unit of a rate.

    - Inputs are the standardised fields, the forcings, and the coordinates along axes that are
      not periodic. Functions of the coordinates in the equations are science, which the network
      does not get.
    - Periodic axes wrap around. Beyond other sides, fields are padded with their value at the side.
    - Hidden layers have hyperbolic tangents, so that rates are bounded. Fields may become negative.
    - The unit $r_i$ is the root mean square of the rate over cells and times in the scientific
      model, as the median over prior draws.
    - Start, jumps and observations are unchanged. `observe` may use parameters of the equations. So
      with `observe` these parameters keep their priors.

    Args:
        model: the model of a `bd.pde.PDE`.
        data: the training data.
        width: the number of channels of each hidden layer.
        depth: the number of hidden layers.
        kernel: the number of cells in the kernel of a layer along each axis, an odd number. All
            layers together have a receptive field of $1 + (\text{depth} + 1)(\text{kernel} - 1)$
            cells.

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
    # 1. Location and width of each input: fields, forcings, and coordinates along other axes than
    #    periodic ones.
    seen = Seen.of(model, data, fields=True)
    grid = layer.grid
    field_inputs, units = _scales_of_fields(layer, seen, data)
    inputs = field_inputs | standardise(seen.data, *layer.forcings)
    for name in grid.names:
        if name not in layer.periodic:
            inputs[name] = sum(grid.axes[name][:2]) / 2, grid.length(name) / 4
    # 2. The network, with priors instead of its weights.
    sizes = len(inputs), *[width] * depth, len(units)
    keys = jax.random.split(as_key(0), depth + 1)
    convolutions = [
        # No bias in the last layer, since it would shift a whole field by several times its spread.
        eqx.nn.Conv(len(grid.names), *size, kernel, use_bias=i < depth, key=key)
        for i, (size, key) in enumerate(zip(itertools.pairwise(sizes), keys, strict=True))
    ]
    network = _Convolutions(bayesian(convolutions), tuple(n in layer.periodic for n in grid.names))
    # 3. The same PDE layer, with the network as its rates.
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
    """Convolutions over the cells, with hyperbolic tangents between them.

    Args:
        layers: the convolutions.
        wraps: whether each axis is periodic.
    """

    random_group: ClassVar[str] = "network"

    layers: list[eqx.nn.Conv]
    wraps: tuple[bool, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "inputs ..."]) -> Float[Array, "outputs ..."]:
        """Apply all layers.

        Args:
            x: input channels over the cells.

        Returns:
            The output channels of the last layer, over the same cells.
        """
        x = _convolved(self.layers[0], self._padded(x))
        for layer in self.layers[1:]:
            x = _convolved(layer, self._padded(jnp.tanh(x)))
        return x

    def _padded(self, x: Array) -> Array:
        """Pad each axis by the cells that a kernel needs beyond its ends.

        Equinox's own padding cannot differ between axes.
        """
        for axis, wraps in enumerate(self.wraps):
            beyond = self.layers[0].kernel_size[axis] // 2
            widths = [(beyond, beyond) if i == axis + 1 else (0, 0) for i in range(x.ndim)]
            x = jnp.pad(x, widths, mode="wrap" if wraps else "edge")
        return x


def _convolved(layer: eqx.nn.Conv, x: Array) -> Array:
    """Apply an Equinox convolution to padded channels as one matrix product.

    Engines evaluate many draws of the weights at once. On CPUs, the time of XLA's own convolution
    grows with the square of the number of draws.
    """
    # 1. Shift the cells to each position of the kernel.
    cells = [size - kernel + 1 for size, kernel in zip(x.shape[1:], layer.kernel_size, strict=True)]
    around = [
        x[(slice(None), *(slice(low, low + n) for low, n in zip(corner, cells, strict=True)))]
        for corner in itertools.product(*map(range, layer.kernel_size))
    ]
    # 2. Sum over input channels c and kernel positions k for each output o: Σ_ck w_ock x_ck.
    weight = layer.weight.reshape(layer.out_channels, -1)
    found = jnp.tensordot(weight, jnp.stack(around, axis=1).reshape(-1, *cells), axes=1)
    return found if layer.bias is None else found + layer.bias


class _ConvolutionalRates(Module):
    """Rates of fields by convolutions.

    Args:
        grid: the grid of the fields.
        network: the convolutions.
        inputs: location and width of each input.
        units: the unit of the rate of each field.
        periodic: names of the periodic axes.
        equations: the equations, if `observe` may use them, else None.
    """

    grid: Grid
    network: _Convolutions
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True, converter=FrozenDict)
    units: Mapping[str, float] = eqx.field(static=True, converter=FrozenDict)
    periodic: tuple[str, ...] = eqx.field(static=True)
    equations: Any

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        # The coordinates of the cells come from the grid, not from the caller.
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
        """Return the outflow through each side as the equations compute it, or an empty dict.

        Args:
            t: the time.
            y: the fields, arrays over the cells by name.
            u: the forcings at time t, by name.

        Returns:
            The outflow by name.
        """
        return getattr(self.equations, "outflow", lambda *_: {})(t, y, u)


def _scales_of_fields(
    layer: PDE, seen: Seen, data: xr.Dataset
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Return the scales of the fields and of their rates.

    The location and width of an observed field are those of the data. For other fields they are the
    mean and standard deviation in the scientific model under its prior.

    Args:
        layer: the PDE of the scientific model.
        seen: the model and the converted data.
        data: the training data.

    Returns:
        Location and width of each field, and the unit of the rate of each field.

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

    # 1. Solve the scientific model for some prior draws. Without unknowns one solve is enough.
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

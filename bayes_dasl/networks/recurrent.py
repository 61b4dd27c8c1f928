"""`Recurrent`: a recurrent neural network as the step of a `Difference`."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._jax.keys import as_key
from ..errors import ModelError
from ..random import Module, Scalar, Values
from .network import bayesian, named_values, realised, standardised
from .weights import WeightPrior

_CELLS = (eqx.nn.LSTMCell, eqx.nn.GRUCell)


class Recurrent(Module):
    r"""A Bayesian recurrent network, for a time-series model without science.

    $h_{k+1} = \mathrm{cell}\left((u_k - m) / w,\ h_k\right), \quad \hat y_k = s\,f(W h_{k+1} + b)$

    In step k, $h_k$ are the hidden states, $u_k$ the inputs with locations m and widths w, and
    $\hat y_k$ the outputs. The weights W and b belong to a linear readout. The network is the
    `step` of a `Difference`: `bd.Difference(network, network.initial, bd.networks.Recurrent.read,
    forcings=("rain",))`. The random leaves form the group *network*.

    Args:
        cell: an `eqx.nn.LSTMCell` or `eqx.nn.GRUCell` with as many inputs as there are names. Its
            arrays become random leaves.
        inputs: the names of forcings, or `"t"`. A dict `{name: (m, w)}`, in the units of the input,
            standardises them (see `bd.standardise`). A tuple of names leaves them unchanged.
        outputs: the names of the outputs of `read`.
        scale: s, about the prior standard deviation of the outputs, in their units.
        activation: f, such as `jax.nn.softplus` for positive outputs.
        prior: the prior of each array, as for `Network`.

    Raises:
        ModelError: if the cell has another type or size, or there is no output. Also if an input
            has no valid location and width, or if scale, activation or prior is invalid. When
            called, if an input is no forcing.

    Source: Hochreiter & Schmidhuber (1997), Long short-term memory; Cho et al. (2014) for the GRU.
    """

    random_group: ClassVar[str] = "network"

    cell: Any
    readout: Any
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True)
    outputs: tuple[str, ...] = eqx.field(static=True)
    scale: Scalar
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        cell: eqx.nn.LSTMCell | eqx.nn.GRUCell,
        inputs: Mapping[str, tuple[float, float]] | tuple[str, ...],
        outputs: tuple[str, ...],
        scale: Scalar = 1.0,
        *,
        activation: Callable = jax.nn.identity,
        prior: WeightPrior | None = None,
    ):
        if not isinstance(cell, _CELLS):
            raise ModelError(f"cell must be an eqx.nn.LSTMCell or an eqx.nn.GRUCell, not {cell!r}")
        self.inputs, self.outputs, self.scale = named_values("Recurrent", inputs, outputs, scale)
        if cell.input_size != len(self.inputs):
            raise ModelError(
                f"the cell takes {cell.input_size} inputs, but {len(self.inputs)} are named"
            )
        if not self.outputs:
            raise ModelError(
                "a recurrent network has no output: name what it returns, such as ('flow',)"
            )
        if not callable(activation):
            raise ModelError(
                f"activation must be a function, such as jax.nn.softplus, not {activation!r}"
            )
        self.activation = activation
        self.cell = bayesian(cell, prior)
        # All arrays of the readout become random, so the seed does not matter.
        self.readout = bayesian(
            eqx.nn.Linear(cell.hidden_size, len(self.outputs), key=as_key(0)), prior
        )

    @property
    def initial(self) -> dict[str, Array]:
        """The states before the first step, which are zero, by name."""
        names = ("hidden", "cell") if isinstance(self.cell, eqx.nn.LSTMCell) else ("hidden",)
        return {name: jnp.zeros(self.cell.hidden_size) for name in names}

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        """Return the states after one step, by name.

        Args:
            t: the time at the beginning of the step.
            y: the states at the beginning of the step.
            u: the forcings of the step.
        """
        features = standardised(self.inputs, {"t": t, **u})
        cell = realised(self.cell)
        if isinstance(cell, eqx.nn.LSTMCell):
            hidden, memory = cell(features, (y["hidden"], y["cell"]))
            return {"hidden": hidden, "cell": memory}
        return {"hidden": cell(features, y["hidden"])}

    def read(self, t: Any, y: Values, u: Values) -> Values:
        """Return the outputs of a step, which depend on the forcings of the same step.

        Args:
            t: the time at the beginning of the step.
            y: the states at the beginning of the step.
            u: the forcings of the step.

        Returns:
            The outputs by name.
        """
        out = self.activation(realised(self.readout)(self(t, y, u)["hidden"]))
        return {name: self.scale * out[i] for i, name in enumerate(self.outputs)}

"""`Recurrent`: recurrent networks as the step of a `Difference`."""

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
    r"""A Bayesian recurrent network, as the step of a `Difference`: a time-series model without
    science.

    $h_{k+1} = \mathrm{cell}\left((u_k - m) / w,\ h_k\right), \quad \hat y_k = s\,f(W h_{k+1} + b)$

    Use it as `bd.Difference(network, network.initial, bd.networks.Recurrent.read,
    forcings=("rain",))`. The random leaves form the group *network*.

    Args:
        cell: `eqx.nn.LSTMCell` or `eqx.nn.GRUCell`, with one input for each name; its arrays become
            random leaves.
        inputs: names of forcings, or `"t"`. A mapping name → (location m, width w), in the units of
            the input, standardises them (see `standardise`); a tuple of names takes them as they
            are.
        outputs: the names of the outputs of `read`.
        scale: s, about the prior standard deviation of the outputs, in their units.
        activation: f, such as `jax.nn.softplus` for positive outputs.
        prior: as for `Network`.

    Raises:
        ModelError: if the cell is of another type or size, if there is no output, if an input has
            no valid location and width, or if scale, activation or prior are invalid; when called,
            if an input is no forcing.

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
        # The arrays of the readout all become random, so that any seed will do.
        self.readout = bayesian(
            eqx.nn.Linear(cell.hidden_size, len(self.outputs), key=as_key(0)), prior
        )

    @property
    def initial(self) -> dict[str, Array]:
        """The zero states before the first step."""
        names = ("hidden", "cell") if isinstance(self.cell, eqx.nn.LSTMCell) else ("hidden",)
        return {name: jnp.zeros(self.cell.hidden_size) for name in names}

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        """Return the states after a step with the forcings u."""
        features = standardised(self.inputs, {"t": t, **u})
        cell = realised(self.cell)
        if isinstance(cell, eqx.nn.LSTMCell):
            hidden, memory = cell(features, (y["hidden"], y["cell"]))
            return {"hidden": hidden, "cell": memory}
        return {"hidden": cell(features, y["hidden"])}

    def read(self, t: Any, y: Values, u: Values) -> Values:
        """Return the outputs of a step, which depend on the forcings of the same step.

        Args:
            t: the time at the begin of the step.
            y: the states at the begin of the step.
            u: the forcings of the step.

        Returns:
            The outputs by name.
        """
        out = self.activation(realised(self.readout)(self(t, y, u)["hidden"]))
        return {name: self.scale * out[i] for i, name in enumerate(self.outputs)}

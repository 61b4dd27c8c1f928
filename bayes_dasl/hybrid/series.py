"""`Series`: a network whose inputs are the outputs of a scientific model."""

from ..layers import AbstractLayer
from ..layers._parts import check_function, check_part
from ..random import Values, VectorField
from ._joined import AbstractHybrid


class Series(AbstractHybrid):
    r"""A network applied to the outputs of a scientific model.

    $n\big(t,\ y,\ s(t, y, u),\ u\big)$

    n is the network and s the science; y are the states and u the forcings at time t. Inputs of the
    network are time, states, forcings and the outputs of the science. An output `name` of the
    science is the input `science.name`, and also `name` unless a state has this name.

    Args:
        science: a vector field `(t, y, u)`, or a layer.
        network: a function `(t, y, u)` that returns all outputs: the rates of all states for a
            vector field, the outputs of a layer.
        extra: with a layer, the data variables that only the network reads.

    Raises:
        ModelError: if the network is no function.

    Example:
        ```python
        network = bd.Network.mlp({"science.y": (0.0, 1.0)}, ("y",), 1.0)
        layer = bd.ODE(bd.Series(Decay(bd.between(0.1, 1.0)), network), {"y": 2.0})
        ```
    """

    science: VectorField | AbstractLayer
    network: VectorField

    def __check_init__(self):
        check_part(self.science, "science")
        check_function(self.network, "network")

    @property
    def parts(self):
        return {"science": self.science}

    def join(self, t, y, u, found) -> Values:
        return dict(self.network(t, y, u))

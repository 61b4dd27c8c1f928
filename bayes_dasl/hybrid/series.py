"""A network whose inputs are the outputs of a scientific model."""

from ..layers import AbstractLayer
from ..layers._parts import check_function, check_part
from ..random import Values, VectorField
from ._joined import AbstractHybrid


class Series(AbstractHybrid):
    r"""A network of what the science says.

    $n\big(t,\ y,\ s(t, y, u),\ u\big)$

    The network reads what the science returns as `science.name` (and as `name`, where that is no
    state), beside time, states and forcings.

    Args:
        science: a vector field `(t, y, u)`, or a layer.
        network: a function `(t, y, u)` that returns all that is to be returned: the rates of every
            state in a vector field, the outputs of a layer.
        extra: the data variables that the network reads and the science does not, where that is a
            layer.

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

"""`Hierarchical`: a network that combines several scientific models."""

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError
from ..layers._parts import check_function, check_part
from ..random import Values, VectorField
from ._joined import AbstractHybrid


class Hierarchical(AbstractHybrid):
    r"""A network that combines several scientific models of parts or scales of one system.

    $n\big(t,\ y,\ s_1(t, y, u), \dots, s_k(t, y, u),\ u\big)$

    n is the network, $s_i$ are the scientific models, y the states and u the forcings at time t.

    Args:
        sciences: the scientific models by name: vector fields or layers.
        network: a function `(t, y, u)`, such as a `Network`, that returns all outputs. Its input
            `science.value` is the value `value` of the scientific model `science`.
        extra: with layers, the data variables that only the network reads.

    Raises:
        ModelError: if there are no named sciences, or the network is no function.
    """

    sciences: Mapping[str, Any]
    network: VectorField

    def __check_init__(self):
        if not isinstance(self.sciences, Mapping) or not self.sciences:
            raise ModelError("sciences must be a dict of vector fields, or of layers, by name")
        for name, science in self.sciences.items():
            check_part(science, f"sciences['{name}']")
        check_function(self.network, "network")

    @property
    def parts(self):
        return self.sciences

    def join(self, t, y, u, found) -> Values:
        return dict(self.network(t, y, u))

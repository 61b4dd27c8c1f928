"""`Hierarchical`: several scientific models under one network."""

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError
from ..layers._parts import check_function, check_part
from ..random import Values, VectorField
from ._joined import AbstractHybrid


class Hierarchical(AbstractHybrid):
    r"""A network over several scientific models of different parts or scales of one system.

    $n\big(t,\ y,\ s_1(t, y, u), \dots, s_k(t, y, u),\ u\big)$

    Args:
        sciences: vector fields or layers by name.
        network: a function `(t, y, u)` that reads the values of each science as `name.value` and
            returns all outputs.
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

"""Models of several parts: coupled vector fields or layers, and multi-fidelity models."""

from .._listing import listed as _listed
from .coupling_and_link import Coupling as Coupling, LayerCoupling as LayerCoupling, Link as Link
from .fidelity import MultiFidelity as MultiFidelity

__dir__ = _listed(__name__)

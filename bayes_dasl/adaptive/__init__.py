"""Structural adaptation (unknown functions), and bridges between scales and fidelities."""

from . import bases as bases
from .basis import Basis as Basis
from .coupling import Coupling as Coupling, LayerCoupling as LayerCoupling, Link as Link
from .fidelity import MultiFidelity as MultiFidelity

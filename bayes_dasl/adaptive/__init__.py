"""Structural adaptation (unknown functions), and bridges between scales and fidelities."""

from ..networks.weights import Horseshoe as Horseshoe, NormalShrinkage as NormalShrinkage, RandomWalk as RandomWalk
from .basis import Basis as Basis
from .coupling import Coupling as Coupling, Link as Link
from .families import RBF as RBF, BSpline as BSpline, Fourier as Fourier, Polynomial as Polynomial, Product as Product
from .fidelity import MultiFidelity as MultiFidelity
from .hilbert import HilbertGP as HilbertGP
from .layer_coupling import LayerCoupling as LayerCoupling

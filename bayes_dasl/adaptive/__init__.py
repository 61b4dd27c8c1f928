"""Structural adaptation (unknown functions), and bridges between scales and fidelities."""

from ..weights import Horseshoe as Horseshoe
from ..weights import NormalShrinkage as NormalShrinkage
from ..weights import RandomWalk as RandomWalk
from .basis import Basis as Basis
from .coupling import Coupling as Coupling
from .coupling import Link as Link
from .families import RBF as RBF
from .families import BSpline as BSpline
from .families import Fourier as Fourier
from .families import Polynomial as Polynomial
from .families import Product as Product
from .fidelity import MultiFidelity as MultiFidelity
from .hilbert import HilbertGP as HilbertGP
from .layer_coupling import LayerCoupling as LayerCoupling

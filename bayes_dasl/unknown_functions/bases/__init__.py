"""Families of basis functions for unknown functions, and priors of their weights."""

from ..._listing import listed as _listed
from ...networks.weights import (
    Horseshoe as Horseshoe,
    NormalShrinkage as NormalShrinkage,
    RandomWalk as RandomWalk,
)
from .families import (
    RBF as RBF,
    AbstractFamily as AbstractFamily,
    BSpline as BSpline,
    Fourier as Fourier,
    Polynomial as Polynomial,
    Product as Product,
)
from .hilbert import HilbertGP as HilbertGP

__dir__ = _listed(__name__)

"""Engines that draw from the posterior, behind one verb: `fit`."""

from ._fit import Engine as Engine
from ._fit import fit as fit
from ._problem import pose as pose
from .nuts import NUTS as NUTS

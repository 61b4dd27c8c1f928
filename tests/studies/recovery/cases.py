"""All cases of the suite."""

from . import residual
from .layers import LAYERS
from .structures import STRUCTURES

CASES = (*LAYERS, *STRUCTURES, residual.case())

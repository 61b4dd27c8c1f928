"""All cases of the suite."""

from recovery import residual
from recovery.layers import LAYERS
from recovery.structures import STRUCTURES

CASES = (*LAYERS, *STRUCTURES, residual.case())

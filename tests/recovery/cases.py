"""All cases of the suite."""

from .layers import LAYERS
from .structures import STRUCTURES

CASES = (*LAYERS, *STRUCTURES)

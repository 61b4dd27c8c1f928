"""Unknown functions of known variables, as weighted sums of basis functions with priors."""

from . import bases as bases
from .basis import Basis as Basis

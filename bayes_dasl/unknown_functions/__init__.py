"""Unknown functions of known variables, in bases with priors: structural adaptation."""

from . import bases as bases
from .basis import Basis as Basis

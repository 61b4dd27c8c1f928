"""Further types of equation: delay, stochastic, boundary-value and integral ones."""

from .._listing import listed as _listed
from .boundary_value import BoundaryValue as BoundaryValue
from .dde import DDE as DDE
from .integrals import integrate as integrate, integrate_between as integrate_between
from .sde import SDE as SDE
from .shooting import MultipleShooting as MultipleShooting, segment_states as segment_states

__dir__ = _listed(__name__)

"""Update of a posterior by new data, and checks of its solver and of its unknown functions."""

from .._listing import listed as _listed
from .function_check import check_functions as check_functions
from .solver_check import check_solver as check_solver
from .tighter_tolerances import tightened as tightened
from .updates import update as update

__dir__ = _listed(__name__)

"""Revision of a posterior by new data, a finer solver or finer functions."""

from .function_check import check_functions as check_functions
from .solver_check import check_solver as check_solver
from .tighter_tolerances import tightened as tightened
from .updates import update as update

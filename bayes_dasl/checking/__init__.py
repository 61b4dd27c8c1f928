"""Tools before a fit: describe a model, check it with its data, and choose a solver."""

from .._listing import listed as _listed
from .checks import Check as Check, check as check
from .description import Description as Description, describe as describe
from .solver_choice import SolverChoice as SolverChoice, choose_solver as choose_solver

__dir__ = _listed(__name__)

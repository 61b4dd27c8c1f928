"""Before a fit: what the model is, whether it is ready, and which solver suits it."""

from .checks import Check as Check, check as check
from .description import Description as Description, describe as describe
from .solver_choice import SolverChoice as SolverChoice, choose_solver as choose_solver

"""Revision of a posterior: by new data, a finer solver, or weights of its chains; forecasts as data come in."""

from .function_check import check_functions as check_functions
from .members_left_out import loo_members as loo_members
from .mixtures import mixture as mixture
from .recalibration import recalibrate as recalibrate
from .rolling_origins import leave_future_out as leave_future_out, model_weights as model_weights
from .solver_check import check_solver as check_solver, tightened as tightened
from .stacking import stack as stack
from .updates import update as update

"""What there is to be checked of a fit, once it is there."""

from collections.abc import Callable

import xarray as xr

from ..model import Model
from ..unknown_functions.lookup import unknown_functions
from .function_check import check_functions
from .solver_check import check_solver, has_tolerances

type Check = Callable[[Model, xr.DataTree], xr.DataTree]


def checks_after_fit(model: Model) -> dict[str, tuple[str, Check]]:
    """What is checked, and by what, for each group that a check adds to the posterior."""
    found: dict[str, tuple[str, Check]] = {}
    if has_tolerances(model):
        found["solver_check"] = "solver", check_solver
    if unknown_functions(model.layer):
        found["function_check"] = "unknown functions", check_functions
    return found

"""How far a posterior or a forecast violates the constraints of its model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import MismatchError
from .ensemble_scores import ScoreTable
from .matching import RECALIBRATED, check_forecast


def consistency(tree: xr.DataTree) -> ScoreTable:
    """Summarise the constraint residuals of a posterior or a forecast, in units of their tolerance.

    Draws with a residual that is not finite are left out. `attrs["failed_draws"]` is the number of
    such draws, for the constraint that has most of them.

    Args:
        tree: the result of `fit`, with residuals at the times of its data, or of `forecast`, with
            residuals at the times of the forecast.

    Returns:
        A table with a row for each constraint. `rms` and `rms_95` are the median and the 95 %
        quantile over draws of the root mean square residual. `within` is the share of draws whose
        root mean square residual is less than 1.

    Raises:
        MismatchError: if the model has no constraints, or for a recalibrated forecast.
    """
    if RECALIBRATED in tree.attrs:
        check_forecast(tree, "constraint_residual")
    if "constraint_residual" not in tree.children:
        raise MismatchError(
            "nothing was constrained: give laws to bd.Model(…, constraints={name: f(values, "
            "inputs)})"
        )
    # Quantiles over the draws that are finite.
    rows, failed = {}, 0
    for name, variable in tree["constraint_residual"].data_vars.items():
        rms = variable.values[np.isfinite(variable.values)]
        failed = max(failed, variable.size - rms.size)
        found = [np.nan] * 3
        if rms.size:
            found = [*np.quantile(rms, [0.5, 0.95]), np.mean(rms < 1)]
        rows[str(name)] = dict(zip(("rms", "rms_95", "within"), found, strict=True))
    table = ScoreTable(pd.DataFrame.from_dict(rows, orient="index"))
    table.attrs["failed_draws"] = failed
    table.index.name = "law"
    return table

"""How far a posterior or a forecast violates the constraints of its model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import MismatchError
from .ensemble_scores import ScoreTable
from .matching import RECALIBRATED, check_forecast


def consistency(tree: xr.DataTree) -> ScoreTable:
    """How far a posterior or a forecast breaks each constraint, one row for each law.

    `rms` is the root mean square over the law's numbers in the median draw, `rms_95` in the 95 %
    quantile of the draws, `within` the share of draws with less than one, all in units of what the
    constraint tolerates. Draws for which a law is not finite are left out; `attrs["failed_draws"]`
    says how many they are at most.

    Args:
        tree: what `fit` returned, judged at the times of its data, or what `forecast` returned,
            judged at its own.

    Raises:
        MismatchError: if nothing was constrained, or for a recalibrated forecast.
    """
    if RECALIBRATED in tree.attrs:
        check_forecast(tree, "mismatch")
    if "mismatch" not in tree.children:
        raise MismatchError(
            "nothing was constrained: give laws to bd.Model(…, constraints={name: f(values, "
            "inputs)})"
        )
    rows, failed = {}, 0
    for name, variable in tree["mismatch"].data_vars.items():
        rms = variable.values[np.isfinite(variable.values)]
        failed = max(failed, variable.size - rms.size)
        median, high = np.quantile(rms, [0.5, 0.95]) if rms.size else (np.nan, np.nan)
        rows[str(name)] = {
            "rms": median,
            "rms_95": high,
            "within": np.mean(rms < 1) if rms.size else np.nan,
        }
    table = ScoreTable(pd.DataFrame.from_dict(rows, orient="index"))
    table.attrs["failed_draws"] = failed
    table.index.name = "law"
    return table

"""Probability integral transforms of observations."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .._statistics.blocks import blocks_of, draws_at
from ..data.censoring import alike
from .draws_at_data import finite_throughout, ranks
from .matching import in_units_of_forecast, recalibration_label, shared


def pit(fc: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    r"""Return the probability integral transform of each observation; NaN where missing.

    $p = (\#\{x < y\} + u\,(\#\{x = y\} + 1)) / (m + 1)$ for an observation $y$, its $m$ draws $x$
    and $u \sim U(0, 1)$

    For a calibrated forecast $p$ is uniform, also for counts. The random numbers $u$ come from a
    fixed seed. Draws within the bounds of a censored datum count as equal to it.

    Args:
        fc: the result of `forecast` or `recalibrate`.
        data: a dataset with the observables, NaN where missing.

    Returns:
        A dataset of the observables with the dimensions of the data, at the times that forecast and
        data share.

    Raises:
        MismatchError: as for `score`.
    """
    predictions, _, common = shared(fc, in_units_of_forecast(fc, data))
    return transforms(predictions, common).assign_attrs(recalibration_label(fc))


def transforms(predictions: xr.Dataset, common: xr.Dataset) -> xr.Dataset:
    """Return the PIT of each datum from the results of `matching.shared`.

    Args:
        predictions: the predictive draws.
        common: the observations at the same times.

    Returns:
        The PIT of each datum, by observable.
    """
    # One generator for all observables, in their order: results do not depend on blocks.
    rng = np.random.default_rng(0)
    found = {}
    for name, variable in predictions.data_vars.items():
        whole = finite_throughout(variable)
        parts = []
        for at in blocks_of(variable):
            seen = common[name].isel(at)
            draws = alike(draws_at(variable, at)[whole], seen)
            parts.append(ranks(draws, seen.values.ravel(), rng))
        values = np.concatenate(parts).reshape(common[name].shape)
        found[name] = common[name].dims, values, {"units": ""}
    return xr.Dataset(found, common.coords)

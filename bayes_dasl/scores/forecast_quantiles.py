"""Quantiles of a forecast as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ..data.datasets import index_of
from ..errors import DataError
from .failures import usable_predictions

LEVELS = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)


def quantiles(fc: xr.DataTree, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Return quantiles of a forecast as a long table: a row for each time, place and observable.

    Args:
        fc: the result of `forecast` or `recalibrate`.
        levels: levels of quantiles of the predictive draws, between 0 and 1.

    Returns:
        Columns for the index and places, if any; `observable`, `units`; `mean`, `sd` and a column
        such as `q0.05` for each level. Draws with a failed solve or a prediction that is not finite
        are left out.

    Raises:
        MismatchError: if `fc` is no forecast.
        DataError: for levels that are not between 0 and 1.
    """
    try:
        wanted = np.asarray(list(levels), float)
    except (TypeError, ValueError):
        wanted = np.zeros(0)
    if wanted.ndim != 1 or not wanted.size or not np.all((wanted > 0) & (wanted < 1)):
        raise DataError(
            f"levels are numbers between 0 and 1, such as [0.05, 0.5, 0.95], not {levels!r}"
        )
    held = usable_predictions(fc)
    index = index_of(fc["predictions"].to_dataset())
    tables = []
    for name, variable in held.data_vars.items():
        draws = variable.transpose("sample", index, ...)
        dims = [str(dim) for dim in draws.dims[1:]]
        values = draws.values.reshape(draws.sizes["sample"], -1)
        columns = ["mean", "sd", *(f"q{level:.10g}" for level in wanted)]
        # Unknown if all draws failed.
        found = [np.nan] * len(columns)
        if len(values):
            moments = values.mean(axis=0), values.std(axis=0)
            found = [*moments, *np.quantile(values, wanted, axis=0)]
        said = {"observable": str(name), "units": str(variable.attrs.get("units", ""))}
        numbers = dict(zip(columns, found, strict=True))
        tables.append(_index_columns(draws, dims).assign(**said, **numbers))
    return pd.concat(tables, ignore_index=True)


def _index_columns(draws: xr.DataArray, dims: list[str]) -> pd.DataFrame:
    """Return columns for the index and the places of each value of a flattened array.

    A dimension without a coordinate is numbered from 0.

    Args:
        draws: the array, with a leading dimension of draws.
        dims: its other dimensions, in order.
    """
    # All combinations of positions along the dimensions, in the order of the values.
    at = [draws[dim].values if dim in draws.coords else np.arange(draws.sizes[dim]) for dim in dims]
    grid = np.meshgrid(*(np.arange(len(values)) for values in at), indexing="ij")
    return pd.DataFrame(
        {dim: values[where.ravel()] for dim, values, where in zip(dims, at, grid, strict=True)}
    )

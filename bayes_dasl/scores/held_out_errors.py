"""Standardised errors of forecasts of held-out data, in units of the forecast's own intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from .._statistics.blocks import blocks_of, draws_at
from ..data.censoring import bounds
from ..data.datasets import index_of
from .draws_at_data import finite_throughout
from .log_score import are_whole
from .matching import in_units_of_forecast, shared
from .pit_values import transforms

HELD_OUT = "held_out"
"""The group with these errors in the result of `leave_future_out`."""
DIMS = ("observable", "lead", "member", "value")


def spread(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the median of draws, and the widths of the 90 % interval below and above it.

    For counts each width is at least half a count.

    Args:
        draws: draws `(draw, datum)`.

    Returns:
        The median, the width below it and the width above it, `(datum,)` each.
    """
    low, middle, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
    least = 0.5 if are_whole(draws, draws) else 0.0
    return middle, np.maximum(middle - low, least), np.maximum(high - middle, least)


def standardised(draws: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return errors of the median in units of the 90 % interval's width on the side of the datum.

    Args:
        draws: draws `(draw, datum)`.
        observed: the data, `(datum,)`.

    Returns:
        Errors `(datum,)`: the datum minus the median, divided by the width. They are infinite where
        the width is zero, and NaN without draws.
    """
    if not len(draws):
        return np.full(observed.shape, np.nan)
    middle, below, above = spread(draws)
    off = observed - middle
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(off == 0, 0.0, off / np.where(off < 0, below, above))


def held_out_errors(
    fc: xr.DataTree, data: xr.Dataset, times: np.ndarray | None = None
) -> xr.Dataset:
    """Return the errors of a forecast at held-out data.

    Args:
        fc: the result of `forecast`.
        data: a dataset with the observables, NaN where missing.
        times: the times of the leads; each row is a lead by default.

    Returns:
        Three variables. `error`, as from `standardised`, and `pit` have the dimensions observable,
        lead, member (the group of a population) and value (places and replicates). `censored`, by
        observable and lead, is the number of censored values, whose error is unknown.
    """
    predictions, _, common = shared(fc, in_units_of_forecast(fc, data))
    index = index_of(common)
    transformed = transforms(predictions, common)
    rows = common[index].values
    # 1. The rows of each lead.
    if times is None:
        leads = list(np.arange(len(rows))[:, None])
    else:
        leads = [np.flatnonzero(rows == when) for when in times]
    found: dict[str, list[np.ndarray]] = {"error": [], "pit": []}
    censored = np.zeros((len(predictions), len(leads)), int)
    # 2. Errors and PIT of each observable, by group of a population and lead.
    for i, (name, variable) in enumerate(predictions.data_vars.items()):
        observed = common[name]
        whole = finite_throughout(variable)
        parts = []
        for at in blocks_of(variable):
            draws = draws_at(variable, at)[whole]
            parts.append(standardised(draws, observed.isel(at).values.ravel()))
        errors = observed.copy(data=np.concatenate(parts).reshape(observed.shape))
        for kind, values in (("error", errors), ("pit", transformed[name])):
            each = _by_group(values, index, fc.attrs.get("members"))
            of_leads = [np.moveaxis(each[at], 1, 0).reshape(each.shape[1], -1) for at in leads]
            found[kind].append(_stacked_with_nan(of_leads))
        # 3. Censored values, whose errors are unknown.
        low, high = (end.reshape(len(rows), -1) for end in bounds(observed))
        unknown = (low != high) & np.isfinite(observed.values.reshape(len(rows), -1))
        censored[i] = [unknown[at].sum() for at in leads]
    variables = {kind: (DIMS, _stacked_with_nan(values)) for kind, values in found.items()}
    names = [str(name) for name in predictions.data_vars]
    return xr.Dataset(variables | {"censored": (DIMS[:2], censored)}, {"observable": names})


def along_origins(errors: Sequence[xr.Dataset]) -> xr.Dataset:
    """Join errors from several forecast origins along a new dimension `origin`, padded with NaN.

    Args:
        errors: the result of `held_out_errors` for each origin.

    Returns:
        The dataset over `origin`.
    """
    most = {dim: max(each.sizes[dim] for each in errors) for dim in DIMS[2:]}
    whole: list[xr.Dataset] = []
    for each in errors:
        missing = {dim: (0, number - each.sizes[dim]) for dim, number in most.items()}
        whole.append(each.pad(missing))
    return xr.concat(whole, "origin")


def _by_group(values: xr.DataArray, index: str, members: str | None) -> np.ndarray:
    """Return values as an array `(row, group, value)`; without a population there is one group.

    Args:
        values: values over the index and other dimensions.
        index: the index.
        members: the dimension of the groups; None without a population.
    """
    own = [members] if members in values.dims else []
    number = values.sizes[members] if own else 1
    return values.transpose(index, *own, ...).values.reshape(values.sizes[index], number, -1)


def _stacked_with_nan(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays along a new first dimension, padded with NaN to the largest sizes."""
    shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
    whole = np.full((len(arrays), *shape), np.nan)
    for into, a in zip(whole, arrays, strict=True):
        into[tuple(slice(0, n) for n in a.shape)] = a
    return whole

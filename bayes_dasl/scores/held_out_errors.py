"""Errors of forecasts on held-out data, in units of the forecast's own intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from .._statistics.blocks import blocks_of, draws_at
from ..data.censoring import bounds
from ..data.datasets import index_of
from .draws_at_data import finite
from .log_score import are_whole
from .matching import in_units_of_forecast, shared
from .pit_values import transforms

HELD_OUT = "held_out"
"""The group of such errors in what `leave_future_out` returns."""
DIMS = ("observable", "lead", "member", "value")


def spread(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The median of draws `(draw, datum)`, and the parts of the 90 % interval below and above it.

    For counts each part is half a count at least.

    Shapes: `(datum,)` each.
    """
    low, middle, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
    least = 0.5 if are_whole(draws, draws) else 0.0
    return middle, np.maximum(middle - low, least), np.maximum(high - middle, least)


def standardised(draws: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Errors `(datum,)` of the median in units of the part of the 90 % interval on their side.

    Infinite where that part is zero.
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
    """The errors of a forecast at held-out data.

    Args:
        fc: the result of `forecast`.
        data: a dataset with the observables, NaN where missing.
        times: the times of the leads; each row is a lead by default.

    Returns:
        `error` as from `standardised`, and `pit`, by observable, lead and group of a population,
        with places and replicates along `value`. `censored` is the number of censored values, whose
        error is unknown.
    """
    predictions, _, common = shared(fc, in_units_of_forecast(fc, data))
    index, ranks = index_of(common), transforms(predictions, common)
    rows = common[index].values
    if times is None:
        leads = list(np.arange(len(rows))[:, None])
    else:
        leads = [np.flatnonzero(rows == when) for when in times]
    found: dict[str, list[np.ndarray]] = {"error": [], "pit": []}
    censored = np.zeros((len(predictions), len(leads)), int)
    for i, (name, variable) in enumerate(predictions.data_vars.items()):
        observed = common[name]
        whole = np.all([finite(draws_at(variable, at)) for at in blocks_of(variable)], axis=0)
        parts = []
        for at in blocks_of(variable):
            draws = draws_at(variable, at)[whole]
            parts.append(standardised(draws, observed.isel(at).values.ravel()))
        errors = observed.copy(data=np.concatenate(parts).reshape(observed.shape))
        for kind, values in (("error", errors), ("pit", ranks[name])):
            each = _by_member(values, index, fc.attrs.get("members"))
            found[kind].append(
                _stacked([np.moveaxis(each[at], 1, 0).reshape(each.shape[1], -1) for at in leads])
            )
        low, high = (end.reshape(len(rows), -1) for end in bounds(observed))
        unknown = (low != high) & np.isfinite(observed.values.reshape(len(rows), -1))
        censored[i] = [unknown[at].sum() for at in leads]
    variables = {kind: (DIMS, _stacked(values)) for kind, values in found.items()}
    return xr.Dataset(
        variables | {"censored": (DIMS[:2], censored)},
        {"observable": [str(name) for name in predictions.data_vars]},
    )


def along_origins(errors: Sequence[xr.Dataset]) -> xr.Dataset:
    """Errors from several origins as one dataset, padded with NaN."""
    most = {dim: max(each.sizes[dim] for each in errors) for dim in DIMS[2:]}
    whole = [
        each.pad({dim: (0, n - each.sizes[dim]) for dim, n in most.items()}) for each in errors
    ]
    return xr.concat(whole, "origin")


def _by_member(values: xr.DataArray, index: str, members: str | None) -> np.ndarray:
    """Values `(row, member, value)`."""
    own = [members] if members in values.dims else []
    number = values.sizes[members] if own else 1
    return values.transpose(index, *own, ...).values.reshape(values.sizes[index], number, -1)


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays along a new first dimension, padded with NaN."""
    shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
    whole = np.full((len(arrays), *shape), np.nan)
    for into, a in zip(whole, arrays, strict=True):
        into[tuple(slice(0, n) for n in a.shape)] = a
    return whole

"""How far data lie from forecasts that had not seen them, as these forecasts themselves would
measure it.
"""

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
    """The median of draws `(draw, datum)`, and how far their 90 % interval goes below and above it,
    `(datum,)` each.

    Of counts it goes at least half a count.
    """
    low, middle, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
    least = 0.5 if are_whole(draws, draws) else 0.0
    return middle, np.maximum(middle - low, least), np.maximum(high - middle, least)


def standardised(draws: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Errors `(datum,)` of the median, in units of half the 90 % interval on their side; infinite
    where it has none.
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
    """The errors of a forecast at data that it has not seen.

    Args:
        fc: what `forecast` returned.
        data: a dataset with the observables, NaN where missing.
        times: those that are leads, in their order; each row is one unless given.

    Returns:
        `error`, that of the median in units of half the 90 % interval on its side, and `pit`, by
        observable, lead and member of a population; along `value` places and replicates. `censored`
        is how many values are, whose error nobody knows.

    Raises:
        as `score`.
    """
    predictions, _, common = shared(fc, in_units_of_forecast(fc, data))
    index, ranks = index_of(common), transforms(predictions, common)
    rows = common[index].values
    leads = (
        np.arange(len(rows))[:, None]
        if times is None
        else [np.flatnonzero(rows == when) for when in times]
    )
    found: dict[str, list[np.ndarray]] = {"error": [], "pit": []}
    censored = np.zeros((len(predictions), len(leads)), int)
    for i, (name, variable) in enumerate(predictions.data_vars.items()):
        observed = common[name]
        whole = np.all([finite(draws_at(variable, at)) for at in blocks_of(variable)], axis=0)
        parts = [
            standardised(draws_at(variable, a)[whole], observed.isel(a).values.ravel())
            for a in blocks_of(variable)
        ]
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
    """Errors from several origins as one dataset, with NaN where one has fewer members, places or
    replicates.
    """
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
    """Arrays of one number of dimensions along a new first one, with NaN where one is smaller than
    others.
    """
    shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
    whole = np.full((len(arrays), *shape), np.nan)
    for into, a in zip(whole, arrays, strict=True):
        into[tuple(slice(0, n) for n in a.shape)] = a
    return whole

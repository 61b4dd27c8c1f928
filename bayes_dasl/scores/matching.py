"""Match draws of a forecast with data: shared times, places and units, and held-out data."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..data.censoring import LIMIT, alike, with_bounds
from ..data.datasets import checked_index, in_units, index_of, occurrence, units_of
from ..data.dates import are_dates, from_attribute, in_words, refuse_mixed
from ..data.units import agree
from ..errors import DataError, MismatchError
from .draws_at_data import Ensembles, merged

type Span = tuple[Any, Any]
"""Start and end of the fitted data, each a number, a date, or None if unknown."""


RECALIBRATED = "recalibrated"
"""The attribute of a forecast that describes its recalibration in words."""


def repeats(fc: xr.DataTree) -> int:
    """Return the number of predictive draws for each posterior draw of a forecast.

    Returns:
        The number; 1 for a posterior of Markov chains.
    """
    drawn = fc["predictions"].sizes["draw"]
    return drawn // fc["conditional_mean"].sizes["draw"] if "conditional_mean" in fc.children else 1


def check_forecast(fc: object, *groups: str) -> None:
    """Raise MismatchError unless an object is a forecast with the named groups."""
    for group in groups:
        if isinstance(fc, xr.DataTree) and RECALIBRATED in fc.attrs and group not in fc.children:
            raise MismatchError(
                f"this forecast is {fc.attrs[RECALIBRATED]}, and has draws alone: what the group "
                f"'{group}' tells is of "
                "the model, so give the model's own forecast"
            )
        if not isinstance(fc, xr.DataTree) or group not in fc.children:
            raise MismatchError(
                f"this is no forecast: it has no group '{group}'; give the result of bd.forecast"
            )


def check_same(own: Iterable[Hashable], competitors: Mapping[str, Iterable[Hashable]]) -> None:
    """Raise MismatchError unless all forecasts have the same observables.

    Args:
        own: the observables of the model.
        competitors: the observables of each competitor, by its name.
    """
    held = [*map(str, own)]
    for name, theirs in competitors.items():
        if set(held) != set(other := [*map(str, theirs)]):
            raise MismatchError(
                f"the competitor '{name}' forecasts {', '.join(other)}, but is compared with a "
                "model of "
                f"{', '.join(held)}: "
                "give models of the same observables, others by themselves"
            )


def fitted_between(fc: xr.DataTree) -> Span:
    """Return the first and the last time of the fitted data whose inputs a forecast shares.

    Returns:
        Both times; None where unknown, or if the inputs of forecast and fit differ from the first
        row on.
    """
    return from_attribute(fc.attrs, "train_start"), from_attribute(fc.attrs, "train_end")


def fitted_rows(train: xr.Dataset, fitted: Span) -> xr.Dataset | None:
    """Select the rows of the training data that lie in the span of `fitted_between`.

    Args:
        train: the training data.
        fitted: the first and the last time of the span. The last time is None if the inputs of the
            forecast differ from the inputs of the fit from the first row on.

    Returns:
        These rows; None if the last time is None, so that the forecast has other rows than the fit.
    """
    start, end = fitted
    if end is None:
        return None
    index = train[index_of(train)]
    return train.sel({index.name: (index <= end) & (True if start is None else index >= start)})


def refuse_other_rows(known: xr.Dataset, data: xr.Dataset, fitted: Span) -> None:
    """Refuse data whose index has the same values as fitted rows, but whose inputs differ.

    This happens if a second table is numbered like the first one.

    Args:
        known: the inputs of the fit: forcings, and variables that the noise reads.
        data: the new data.
        fitted: the span from `fitted_between`.

    Raises:
        MismatchError: for such a row; the message names the first.
    """
    then_known = fitted_rows(known, fitted) if known.data_vars else None
    if then_known is None:
        return
    index = index_of(known)
    units = units_of(known)
    data = in_units(data, units, doubtful=True)
    for name in map(str, then_known.data_vars):
        # If only one of fit and data states units, the values cannot be compared.
        if name not in data or bool(units[name]) != bool(units_of(data)[name]):
            continue
        # Compare shared rows, for all groups of a population; constants apply to each group.
        each = (d[name].reset_coords(drop=True).drop_duplicates(index) for d in (then_known, data))
        then, now = xr.broadcast(*xr.align(*each, join="inner"))
        then, now = (values.transpose(index, ...) for values in (then, now))
        # A missing value tells nothing.
        missing = np.isnan(then.values) | np.isnan(now.values)
        changed = ~np.isclose(then.values, now.values, rtol=1e-9, atol=0.0) & ~missing
        if changed.any():
            row = then[index].values[np.argwhere(changed)[0][0]]
            raise MismatchError(
                f"the data have another '{name}' than the fit at {index} {in_words(row)}: they are "
                "other rows with the "
                "same labels. Forecast these data by bd.forecast(model, post, data), or give them "
                "other labels"
            )


def held_out(train: xr.Dataset, data: xr.Dataset, fitted: Span) -> xr.Dataset:
    """Return the data with NaN in place of values that were fitted.

    A value counts as fitted if the training data have one at the same time and place, within the
    span. If one of several replicates at a time was fitted, all of them become NaN, since
    replicates cannot be distinguished. A forecast with other forcings than the fit may be scored at
    fitted times: the span then has no end, and all data stay.

    Args:
        train: the training data.
        data: the data.
        fitted: the span from `fitted_between`.

    Returns:
        The data.
    """
    seen = fitted_rows(train, fitted)
    if seen is None:
        return data
    index = train[index_of(train)]

    def unseen(values: xr.DataArray) -> xr.DataArray:
        at = {dim: values[dim] for dim in values.dims if dim in values.coords}
        known = seen[values.name].notnull()
        if not known.indexes[index.name].is_unique:
            known = known.groupby(str(index.name)).any()
        times = at.pop(index.name, known[index.name])
        rounding: Any = np.timedelta64(0, "ns")
        if not are_dates(times):
            rounding = _time_rounding(index.values, times.values)
        nearest: Any = {"method": "nearest", "tolerance": rounding}
        known = known.astype(float).reindex({index.name: times}, **nearest)
        return values.where(~(known.reindex(at) > 0))

    return data.assign({name: unseen(data[name]) for name in seen.data_vars if name in data})


def matched(fc: xr.DataTree, data: xr.Dataset) -> tuple[Ensembles, xr.Dataset]:
    """Return draws and observations of each observable at shared times.

    The places of a field are flattened: each value at a place is a datum.

    Args:
        fc: a forecast.
        data: a dataset with its observables.

    Returns:
        Pairs of draws `(draw, datum)`, with chains merged, and observations `(datum,)`, by
        observable; and the observations as a dataset.

    Raises:
        MismatchError: if `fc` is no forecast, an observable is not in the data, no time is shared,
            or places or units differ.
        DataError: for data that are not numbers.
    """
    predictions, _, observed = shared(fc, data)
    return paired(predictions, observed), observed


def paired(predictions: xr.Dataset, observed: xr.Dataset) -> Ensembles:
    """Return pairs of draws and observations from the results of `shared`.

    Draws within the bounds of a censored datum are set equal to the datum.

    Args:
        predictions: the predictive draws.
        observed: the observations, with bounds as coordinates where they are censored.

    Returns:
        Draws `(draw, datum)` and observations `(datum,)`, by observable.
    """
    return {
        str(name): (alike(merged(variable), observed[name]), observed[name].values.ravel())
        for name, variable in predictions.data_vars.items()
    }


def shared(fc: xr.DataTree, data: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return predictions, parameters of their noise, and observations at shared times.

    Censored observations have their bounds as coordinates.

    Args:
        fc: a forecast.
        data: a dataset with its observables.

    Returns:
        Predictions `(chain, draw, time, …)`, noise parameters and observations `(time, …)`. A noise
        parameter lacks the dimensions along which it is constant.

    Raises:
        MismatchError: if `fc` is no forecast, an observable is not in the data, no time is shared,
            or the data lack a place.
        DataError: for data that are not numbers.
    """
    # 1. Check groups, observables and units.
    check_forecast(fc, "predictions")
    predictions = fc["predictions"].to_dataset()
    index = index_of(predictions)
    checked_index(data, index)
    absent = [str(name) for name in predictions.data_vars if name not in data.data_vars]
    if absent:
        raise MismatchError(
            f"the data lack the observables {', '.join(absent)} that the forecast predicts; "
            f"the data hold {', '.join(map(str, data.data_vars)) or 'nothing'}"
        )
    _refuse_other_units(predictions, data)
    # 2. Rows of the data, and of the forecast, at shared times.
    rows, columns = _shared_times(predictions[index].values, data[index].values, index)
    columns = _as_slice(columns)
    # 3. Observables at these rows and at the places of the forecast.
    draws, observed = {}, {}
    for name, variable in predictions.data_vars.items():
        found = variable.transpose("chain", "draw", index, ...).isel({index: columns})
        there = _at_places(found, data, str(name))
        if there[name].dtype.kind not in "iufb":
            raise DataError(f"observable '{name}' must hold numbers, not {there[name].dtype}")
        if np.isinf(there[name].values).any():
            raise DataError(f"observable '{name}' is infinite; a missing value is NaN")
        draws[name] = found
        seen = with_bounds(there[name], there, variable.attrs)
        observed[name] = seen.isel({index: rows}).transpose(*found.dims[2:]).astype(float)
    noise = fc["noise"].to_dataset() if "noise" in fc.children else xr.Dataset()
    noise = noise.isel({index: columns}, missing_dims="ignore")
    return xr.Dataset(draws), noise, xr.Dataset(observed)


def _as_slice(columns: np.ndarray) -> np.ndarray | slice:
    """Return contiguous indices as a slice, which reads files faster; others unchanged."""
    whole = slice(int(columns[0]), int(columns[0]) + len(columns))
    return whole if np.array_equal(columns, np.arange(whole.start, whole.stop)) else columns


def in_units_of_forecast(fc: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    """Convert data to the units of a forecast, where both state units.

    Returns:
        The converted data.

    Raises:
        DataError: if units have another dimension, or if the index or a place has other units.
    """
    if "predictions" not in fc.children:
        return data
    predictions = fc["predictions"].to_dataset()
    if (index := index_of(predictions)) in predictions.coords:
        refuse_mixed(data, index, predictions[index], "the forecast")
    # Limits of censoring have the units of their observable.
    units = units_of(predictions)
    limits = {f"{name}{LIMIT}": unit for name, unit in units.items()}
    return in_units(data, units | limits, doubtful=True)


def _refuse_other_units(predictions: xr.Dataset, data: xr.Dataset) -> None:
    """Raise MismatchError if forecast and data state different units."""
    theirs = units_of(predictions)
    ours = units_of(data)
    for name in map(str, predictions.data_vars):
        if theirs[name] and ours[name] and agree(theirs[name], ours[name]) is False:
            raise MismatchError(
                f"'{name}' is forecast in '{theirs[name]}' but the data are in '{ours[name]}'"
            )


def _at_places(draws: xr.DataArray, data: xr.Dataset, name: str) -> xr.Dataset:
    """Select the data at the places, or of the groups, that the forecast has.

    Args:
        draws: the forecast of one observable.
        data: a dataset with the observable.
        name: the observable.

    Raises:
        MismatchError: if the data lack one of the places.
    """
    for place in draws.dims[3:]:
        asked = draws[place].values
        if place not in data[name].dims or not np.isin(asked, data[place].values).all():
            raise MismatchError(
                f"'{name}' is forecast at other places '{place}' than those of the data"
            )
        if not np.array_equal(asked, data[place].values):
            data = data.sel({place: asked})
    return data


def _shared_times(
    forecast: np.ndarray, data: np.ndarray, index: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of rows of the data and rows of the forecast with the same time, up to rounding.

    Numbers of 32 bits are so coarse that one time may be close to two others; the nearest is taken.
    Replicates in the data are paired in order with the rows of the forecast at the same time, so
    that their noise is independent. If the forecast has fewer rows at that time, they are used
    again in order.

    Args:
        forecast: the times of the forecast.
        data: the times of the data.
        index: the name of the index, for the error message.

    Returns:
        Indices of rows of the data, and the index of a row of the forecast for each of them.

    Raises:
        MismatchError: if no time is shared.
    """
    theirs, ours = (f"from {in_words(t.min())} to {in_words(t.max())}" for t in (data, forecast))
    if are_dates(forecast):
        first = min(forecast[0], data[0])
        forecast, data = ((times - first) / np.timedelta64(1, "s") for times in (forecast, data))
    tolerance = _time_rounding(forecast, data)
    forecast = np.asarray(forecast, float)
    data = np.asarray(data, float)
    # 1. The nearest time of the forecast for each row of the data.
    order = np.argsort(forecast, kind="stable")
    times, first, number = np.unique(forecast[order], return_index=True, return_counts=True)
    nearest = pd.Index(times).get_indexer(pd.Index(data), method="nearest", tolerance=tolerance)
    rows = np.flatnonzero(nearest >= 0)
    if rows.size == 0:
        raise MismatchError(
            f"no {index} of the data ({theirs}) is in the forecast ({ours}); forecast at the times "
            "of the data"
        )
    # 2. Replicates at a time take its rows in turn.
    at = nearest[rows]
    return rows, order[first[at] + occurrence(at) % number[at]]


def _time_rounding(*several: np.ndarray) -> float:
    """Return the largest difference that rounding may cause between equal times.

    It is less than the smallest step between different times.
    """
    coarsest = max((np.finfo(x.dtype).eps if x.dtype.kind == "f" else 0.0) for x in several)
    times = [np.sort(np.asarray(x, float)) for x in several]
    gaps = np.concatenate([np.diff(x) for x in times])
    largest = max(np.abs(x).max(initial=0.0) for x in times)
    return min([max(4 * coarsest, 2e-13) * largest, *(gaps[gaps > 0] / 4)])


def recalibration_label(fc: xr.DataTree) -> dict[str, str]:
    """Return an attribute that describes the recalibration of a forecast.

    Returns:
        A dict with the attribute; empty if the forecast is not recalibrated.
    """
    return {RECALIBRATED: fc.attrs[RECALIBRATED]} if RECALIBRATED in fc.attrs else {}

"""Recalibration of forecasts by the errors of past forecasts."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..data.datasets import index_of
from ..data.dates import in_words, numbers
from ..errors import DataError, MismatchError
from ..prediction.conditional import conditional
from ..scores.held_out_errors import spread
from ..scores.log_score import are_whole
from ..scores.matching import RECALIBRATED, check_forecast
from .past_errors import (
    CalibrationErrors,
    Pair,
    Past,
    calibration_errors,
    fitted_until,
    known_counts,
    past_errors,
)

METHODS = {"conformal": "conformal prediction", "isotonic": "isotonic regression of the PIT"}
_KEPT = ("train_start", "train_end", "members", "scenario", "series")


def recalibrate(
    fc: xr.DataTree,
    past: xr.DataTree | Pair | Sequence[Pair],
    *,
    method: str = "conformal",
    half_life: float | None = None,
) -> xr.DataTree:
    r"""Recalibrate a forecast by its errors on held-out data.

    Future errors are assumed to be distributed like past errors. The recalibrated forecast is
    labelled as such, since it is no posterior predictive. Errors and quantiles depend on `method`:

    - `conformal`: an error is the distance from the median, in units of half the 90 % interval on
      that side. For a datum $y$ and the forecast's quantiles $q_5$, $q_{50}$ and $q_{95}$ (in per
      cent), it is $(y - q_{50}) / (q_{95} - q_{50})$ above the median and $(y - q_{50}) / (q_{50} -
      q_5)$ below. The recalibrated quantile of a level is the median, plus the quantile of the
      errors at that level in the same units.
    - `isotonic`: an error is the probability integral transform (PIT) of the datum. The empirical
      distribution function of the PIT values maps levels of the forecast to true levels. Such
      intervals keep the shape of the draws, and never extend beyond them.

    With $n$ errors the central interval of level $a$ extends to the $a (n + 1)$-th smallest
    absolute error on both sides. If rows are exchangeable, the interval covers the next datum with
    probability $a$ for any model. From an effective number of 39 errors on, lower and upper
    quantiles are computed separately, which removes a bias.

    In a time series $n$ is the number of origins, and each lead is recalibrated separately. Errors
    after one origin are dependent. The coverage is $a$ if errors are stationary. Origins with
    overlapping windows count as fewer, according to the correlation of their errors
    (docs/measurements/benchmarks.md has measured coverages).

    Each draw keeps its rank at each time, so draws keep their dependence over times, places and
    observables. Draws of counts are rounded away from the median, and draws outside the support of
    the noise are moved to its bound.

    Args:
        fc: the result of `forecast` or `mixture`. In a time series the times after the fit are
            recalibrated, up to the longest lead of `past`; earlier times are left out.
        past: for a time series the result of `leave_future_out` for the same model, or several
            pairs of an earlier forecast and its data. For rows in any order, or groups of a
            population, one pair: a forecast of held-out rows or groups, and their data.
        method: "conformal" or "isotonic".
        half_life: for a series that changes: the number of origins after which the weight of an
            error has halved. By default all errors have the same weight.

    Returns:
        A tree with the group `predictions`, with the dimensions and units of `fc`, for `score`,
        `pit`, `save` and figures. The group `recalibration` has three variables by observable and
        time. `held_out` is the number of origins, rows or groups with errors, and `effective` their
        effective number. `width_ratio` is the width of the 90 % interval divided by its width in
        `fc`. The attribute `recalibrated` describes the method. `known_level` is the largest
        central interval that is known at all times. Draws end there, and `score` gives no coverage
        of wider intervals. `decompose` and `diagnose` evaluate the model, so they refuse this
        forecast; `diagnose` takes it as a competitor.

    Raises:
        DataError: for fewer than 9 held-out origins, rows or groups; for times beyond the longest
            lead; for censored data; or for errors that no interval can cover.
        MismatchError: if `fc` is no forecast, is recalibrated already or a what-if, or if errors
            are those of another model, other observables, or data after the fit.

    Source: Lei et al. (2018), Distribution-free predictive inference for regression; Kuleshov,
    Fenner & Ermon (2018), Accurate uncertainties for deep learning using calibrated regression;
    Barber et al. (2023), Conformal prediction beyond exchangeability, for weights by age; Schefzik,
    Thorarinsdottir & Gneiting (2013), Uncertainty quantification in complex simulation models using
    ensemble copula coupling, for the ranks.
    """
    _refuse_recalibration(fc, method)
    # 1. Errors of past forecasts.
    known = past_errors(fc, past)
    if half_life is not None and (known.units != "origins" or not half_life > 0):
        raise DataError(
            f"half_life is a positive number of origins of a series, not {half_life!r} of "
            f"{known.units}"
        )
    # 2. The errors for each row of the forecast, by its lead.
    rows, leads = _rows_and_leads(fc, known)
    old = fc["predictions"].to_dataset()
    old = old.isel({index_of(old): rows})
    found = calibration_errors(
        known, [*map(str, old)], np.unique(leads), of_pit=method == "isotonic", half_life=half_life
    )
    # 3. Draws with the quantiles of these errors, within the support of the noise.
    limits = _supports(fc, rows)
    label = f"recalibrated by {METHODS[method]}, {known_counts(found, known.units)}"
    moved = {}
    for name, variable in old.data_vars.items():
        draws = _recalibrated_draws(variable, found, leads, method)
        moved[name] = variable.copy(data=np.clip(draws, *limits[str(name)]))
    new = old.assign(moved).assign_attrs({RECALIBRATED: label})
    summary = _numbers_and_widths(old, new, found, leads)
    tree = xr.DataTree.from_dict({"predictions": new, "recalibration": summary})
    tree.attrs = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        RECALIBRATED: label,
        "method": method,
        "known_level": min(each.known_level for each in found.values()),
        **({} if half_life is None else {"half_life": float(half_life)}),
        **{name: fc.attrs[name] for name in _KEPT if name in fc.attrs},
    }
    return tree


def _refuse_recalibration(fc: xr.DataTree, method: str) -> None:
    """Check that a forecast can be recalibrated by a method.

    Raises:
        MismatchError: if it is no forecast, is recalibrated already or a what-if, or the method is
            unknown.
    """
    check_forecast(fc, "predictions")
    if RECALIBRATED in fc.attrs:
        raise MismatchError(
            f"this forecast is {fc.attrs[RECALIBRATED]} already: give the model's own"
        )
    if fc.attrs.get("what_if", 0):
        raise MismatchError(
            "a what-if is of another model than the fitted one, of whose errors nothing is known"
        )
    if method not in METHODS:
        raise MismatchError(f"method is one of {', '.join(METHODS)}, not {method!r}")


def _rows_and_leads(fc: xr.DataTree, known: Past) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a forecast that are recalibrated, and the index of the lead of each row.

    Args:
        fc: the forecast.
        known: errors of past forecasts.

    Raises:
        DataError: if no row is after the fit, or one is beyond the longest lead of the errors.
    """
    predictions = fc["predictions"].to_dataset()
    times = predictions[index_of(predictions)].values
    if (elapsed := known.elapsed) is None:
        return np.arange(len(times)), np.zeros(len(times), int)
    end = fitted_until(fc)
    rows = np.flatnonzero(times > end)
    if not rows.size:
        raise DataError(f"no time of the forecast is after the end of its fit, {in_words(end)}")
    after = numbers(times[rows]) - float(numbers(end))
    longest = elapsed[-1] + np.diff(elapsed, prepend=0.0)[-1] / 2
    if (after > longest).any():
        raise DataError(
            "the forecast goes further ahead than the errors, which are known up to "
            f"{len(elapsed)} times ahead: hold "
            "out more of them (horizon=… of bd.weighting.leave_future_out), or forecast fewer times"
        )
    return rows, np.abs(np.subtract.outer(after, elapsed)).argmin(axis=1)


def _supports(fc: xr.DataTree, rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return lower and upper bounds of each observable from the support of its noise.

    Args:
        fc: the forecast.
        rows: rows of the forecast.

    Returns:
        Pairs of bounds by observable, each an array over rows or a number.
    """
    noise = fc["noise"].to_dataset() if "noise" in fc.children else xr.Dataset()
    predictions = fc["predictions"].to_dataset()
    here = {index_of(predictions): rows}
    found = {}
    for name, variable in predictions.isel(here).data_vars.items():
        own = noise.filter_by_attrs(observable=name).isel(here, missing_dims="ignore")
        kept = conditional(own, variable)
        support = None if kept is None else kept.distribution.support
        low = np.asarray(getattr(support, "lower_bound", -np.inf))
        high = np.asarray(getattr(support, "upper_bound", np.inf))
        # Bounds may differ between draws: the widest hold for all.
        low = low.min(axis=0) if low.ndim else low
        high = high.max(axis=0) if high.ndim else high
        found[str(name)] = low, high
    return found


def _recalibrated_draws(
    variable: xr.DataArray,
    found: Mapping[tuple[str, int], CalibrationErrors],
    leads: np.ndarray,
    method: str,
) -> np.ndarray:
    """Return recalibrated draws of one observable, each with its old rank at its time and place.

    Args:
        variable: the draws.
        found: errors by observable and lead.
        leads: the index of the lead of each row.
        method: "conformal" or "isotonic".

    Raises:
        DataError: if there are fewer than two finite draws, or "isotonic" needs quantiles beyond
            all draws.
    """
    name = str(variable.name)
    index = index_of(variable)
    ordered = variable.transpose("chain", "draw", index, ...)
    values = _merged_draws(variable)
    whole = _finite_draws(values)
    if len(whole) < 2:
        raise DataError(
            f"{len(whole)} draws of '{name}' are finite: a forecast is recalibrated from two on"
        )
    # Equal draws, as of counts, get random ranks.
    whole = np.random.default_rng(0).permutation(whole)
    levels = np.arange(len(whole)) / (len(whole) - 1)
    moved = np.full_like(values, np.nan)
    for lead in np.unique(leads):
        at = np.flatnonzero(leads == lead)
        # 1. The quantile of the errors for each rank of a draw.
        draws = values[np.ix_(whole, at)].reshape(len(whole), -1)
        errors = found[name, int(lead)].quantiles(levels)
        order = np.argsort(draws, axis=0, kind="stable")
        # 2. New values by rank: scaled distances from the median, or other quantiles of the draws.
        if method == "conformal":
            middle, below, above = spread(draws)
            new = middle + np.where(errors[:, None] < 0, below, above) * errors[:, None]
        else:
            ranked = np.take_along_axis(draws, order, axis=0)
            new = _at_levels(ranked, (errors + 1) / 2, levels, name)
        if are_whole(draws, draws):
            # A rounding error must not add one to a count.
            exact = np.round(new, 9)
            new = np.where(levels[:, None] < 0.5, np.floor(exact), np.ceil(exact))
        # 3. Each draw keeps its rank (ensemble copula coupling).
        of_rank = np.empty_like(draws)
        np.put_along_axis(of_rank, order, new, axis=0)
        shape = len(whole), len(at), *values.shape[2:]
        moved[np.ix_(whole, at)] = of_rank.reshape(shape)
    return ordered.copy(data=moved.reshape(ordered.shape)).transpose(*variable.dims).values


def _merged_draws(variable: xr.DataArray) -> np.ndarray:
    """Return draws of all chains in one dimension, `(draw, time, …)`."""
    values = variable.transpose("chain", "draw", index_of(variable), ...).values
    return values.reshape(-1, *values.shape[2:]).astype(float)


def _finite_draws(draws: np.ndarray) -> np.ndarray:
    """Return the indices of draws that are finite at all times and places."""
    return np.flatnonzero(np.isfinite(draws).reshape(len(draws), -1).all(axis=1))


def _at_levels(ranked: np.ndarray, asked: np.ndarray, levels: np.ndarray, name: str) -> np.ndarray:
    """Return quantiles of sorted draws at given levels.

    Args:
        ranked: sorted draws, `(draw, datum)`.
        asked: the level in the forecast that corresponds to each of `levels`.
        levels: recalibrated levels from 0 to 1.
        name: name of the observable.

    Raises:
        DataError: if an end of the 90 % interval lies beyond all draws.
    """
    last = len(ranked) - 1
    # The k-th of n draws is the quantile of level k / (n + 1).
    place = asked * (last + 2) - 1
    ends = np.interp([0.05, 0.95], levels, place)
    if ends[0] < 0 or ends[1] > last:
        raise DataError(
            f"held-out values of '{name}' lie beyond all draws more often than once in twenty "
            "times, and draws tell no "
            "quantile there: take method='conformal'"
        )
    # Interpolate between the draws on both sides.
    place = np.clip(place, 0, last)
    first = np.minimum(place.astype(int), last - 1)
    part = (place - first)[:, None]
    return (1 - part) * ranked[first] + part * ranked[first + 1]


def _numbers_and_widths(
    old: xr.Dataset,
    new: xr.Dataset,
    found: Mapping[tuple[str, int], CalibrationErrors],
    leads: np.ndarray,
) -> xr.Dataset:
    """Return the group `recalibration` of the result of `recalibrate`.

    Args:
        old: predictions of the forecast.
        new: recalibrated predictions.
        found: errors by observable and lead.
        leads: the index of the lead of each row.

    Returns:
        `held_out`, `effective` and `width_ratio` by observable and time; widths are averaged over
        places.
    """
    index = index_of(old)
    names = [str(name) for name in old.data_vars]

    def width(variable: xr.DataArray) -> np.ndarray:
        draws = _merged_draws(variable)
        low, high = np.quantile(draws[_finite_draws(draws)], (0.05, 0.95), axis=0)
        return (high - low).reshape(len(leads), -1).mean(axis=1)

    of_each = [[found[name, int(lead)] for lead in leads] for name in names]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [width(new[name]) / width(old[name]) for name in names]
    columns: dict[str, Any] = {
        "held_out": [[each.held_out for each in row] for row in of_each],
        "effective": [[each.effective for each in row] for row in of_each],
        "width_ratio": ratios,
    }
    variables = {
        name: (("observable", index), np.array(values)) for name, values in columns.items()
    }
    return xr.Dataset(variables, {"observable": names, index: old[index]})

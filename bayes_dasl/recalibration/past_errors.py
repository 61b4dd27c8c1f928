"""Errors of past forecasts on held-out data, and their effective number."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..data.datasets import index_of
from ..data.dates import are_dates, in_words, numbers
from ..errors import DataError, MismatchError
from ..scores.held_out_errors import HELD_OUT, along_origins, held_out_errors
from ..scores.matching import RECALIBRATED, check_forecast, fitted_between
from ..weighting.windows import seen_rows
from .conformal import BY_SIDES, FEWEST, largest_level, next_quantiles

type Pair = tuple[xr.DataTree, xr.Dataset]
"""A forecast, and data that were not used in its fit."""

_WHAT = (
    "past is what bd.weighting.leave_future_out returned, a pair of a forecast and data that it "
    "had not seen, or a list of such"
)


class Past(NamedTuple):
    """Errors of forecasts on held-out data.

    A lead is the position of a time after an origin, the end of the data of a fit.

    Args:
        errors: the result of `held_out_errors`, with the dimension `origin` for the units that are
            counted.
        units: what these units are, in words: "origins", "rows" or "members" (groups).
        elapsed: the time from an origin to each lead, `(lead,)`; None if the errors are no time
            series.
        apart: the time between two origins, `(origin, origin)`; None if the errors are no time
            series.
    """

    errors: xr.Dataset
    units: str
    elapsed: np.ndarray | None = None
    apart: np.ndarray | None = None

    def shared(self, lead: int) -> np.ndarray | None:
        """Return the share of times that the windows of two origins have in common.

        Args:
            lead: index of the lead up to which windows extend.

        Returns:
            The shares `(origin, origin)`, 0 for a window with itself; None if the errors are no
            time series.
        """
        if self.elapsed is None or self.apart is None:
            return None
        return np.maximum(0.0, 1 - self.apart / self.elapsed[lead]) * (self.apart > 0)


class CalibrationErrors(NamedTuple):
    """Errors of one observable at one lead.

    Args:
        errors: the errors, `(error,)`.
        weights: their weights by age.
        held_out: number of origins, rows or groups with errors.
        effective: the effective number of errors: the number of independent errors of equal weight
            with the same information.
        by_sides: whether lower and upper quantiles are computed separately from signed errors.
            Otherwise both come from absolute errors.
    """

    errors: np.ndarray
    weights: np.ndarray
    held_out: int
    effective: float
    by_sides: bool

    @property
    def number(self) -> float:
        """The number of errors in the formulas of quantiles, at least `FEWEST`.

        `calibration_errors` warns if the effective number is smaller.
        """
        return max(self.effective, FEWEST)

    @property
    def known_level(self) -> float:
        """The probability of the largest central interval that is known."""
        return largest_level(self.number, by_sides=self.by_sides)

    def quantiles(self, levels: np.ndarray) -> np.ndarray:
        """Compute quantiles of the next error.

        Args:
            levels: levels from 0 to 1.

        Returns:
            The quantile of each level.
        """
        known = self.errors, self.weights, levels, self.number
        return next_quantiles(*known, by_sides=self.by_sides)


def past_errors(fc: xr.DataTree, past: xr.DataTree | Pair | Sequence[Pair]) -> Past:
    """Collect errors on held-out data for the model and the observables of a forecast.

    Args:
        fc: the forecast that is to be recalibrated.
        past: as for `recalibrate`.

    Returns:
        The errors, with the units that are counted.

    Raises:
        MismatchError: if models, observables or data do not suit the forecast.
        DataError: if held-out data are censored.
    """
    if isinstance(past, xr.DataTree):
        found = _errors_of_origins(fc, past)
    elif len(past) == 2 and isinstance(past[0], xr.DataTree) and isinstance(past[1], xr.Dataset):
        found = _errors_of_rows_or_groups(fc, past[0], past[1])
    else:
        found = _errors_of_pairs(fc, past)
    # Every observable must have errors that are known.
    names = [str(name) for name in fc["predictions"].data_vars]
    if absent := [name for name in names if name not in found.errors["observable"].values]:
        raise MismatchError(
            f"nothing was held out of the observables {', '.join(absent)} that are forecast"
        )
    for name in names:
        if bool((found.errors["censored"].sel(observable=name) > 0).any()):
            raise DataError(
                f"held-out values of '{name}' are censored: nobody knows how far from them a "
                "forecast was, and so no "
                "recalibration learns from them"
            )
    return found


def fitted_until(fc: xr.DataTree) -> Any:
    """Return the last time of the data of a fit, a number or a date.

    Args:
        fc: a forecast made from the fit.

    Returns:
        The time.

    Raises:
        MismatchError: if the forecast does not state it.
    """
    end = fitted_between(fc)[1]
    if end is None:
        raise MismatchError(
            "a forecast does not say until when its data were fitted under its forcings: forecast "
            "anew"
        )
    return end


def calibration_errors(
    past: Past, names: Sequence[str], leads: np.ndarray, *, of_pit: bool, half_life: float | None
) -> dict[tuple[str, int], CalibrationErrors]:
    """Select errors by observable and lead, with weights and effective number.

    Args:
        past: errors of past forecasts.
        names: names of the observables.
        leads: indices of the leads.
        of_pit: whether errors are PIT values scaled to -1 to 1, rather than standardised errors.
        half_life: the number of origins after which the weight of an error has halved; None for
            equal weights.

    Returns:
        The errors by observable and lead.

    Raises:
        DataError: if there are too few errors for the 90 % interval, or some are infinite.
    """
    # 1. Weights of origins by age.
    held = 2 * past.errors["pit"] - 1 if of_pit else past.errors["error"]
    age = np.arange(held.sizes["origin"])[::-1]
    of_origin = np.ones(len(age)) if half_life is None else 0.5 ** (age / half_life)
    found = {}
    for name in names:
        of_one = held.sel(observable=name).transpose("lead", "origin", ...).values
        values = of_one.reshape(*of_one.shape[:2], -1)
        # 2. For each lead, the effective number of absolute and of signed errors.
        persistence = _persistence(past, values)
        sizes, sides = {}, {}
        for lead in map(int, leads):
            seen = ~np.isnan(values[lead])
            if np.isinf(values[lead][seen]).any():
                raise DataError(
                    f"a held-out value of '{name}' lies where its forecast has no spread on that "
                    "side, so that no "
                    "multiple of it reaches there: see why most draws are equal, or take "
                    "method='isotonic'"
                )
            there = of_origin * seen.any(axis=-1)
            shared = past.shared(lead)
            _refuse_few(past, name, lead, there)
            weights = np.broadcast_to(of_origin[:, None], seen.shape)[seen]
            number = int(np.count_nonzero(there))
            alike = 0.0 if shared is None else shared
            own = CalibrationErrors(values[lead][seen], weights, number, 0.0, by_sides=False)
            of_sizes = _effective_number(there, persistence * alike**2)
            # Signed errors are more strongly correlated than absolute errors.
            of_sides = _effective_number(there, persistence**0.5 * alike)
            sizes[name, lead] = own._replace(effective=of_sizes)
            sides[name, lead] = own._replace(effective=of_sides, by_sides=True)
        # 3. Use signed errors, by sides, if all leads have enough of them.
        found |= sides if min(each.effective for each in sides.values()) >= BY_SIDES else sizes
    _warn_if_alike(past, found)
    return found


def _persistence(past: Past, errors: np.ndarray) -> float:
    """Estimate how strongly absolute errors in overlapping windows are correlated.

    The correlation is modelled as a factor times the squared share of times that two windows have
    in common. The factor is returned. It is 1 for errors that accumulate along a window, as in a
    random walk: signed errors are then correlated by the shared times, and absolute errors by the
    square. It is 0 if the errors at all times are independent. It is estimated from rank
    correlations over all leads.

    Args:
        past: the errors, with times of leads and origins.
        errors: the errors of one observable, `(lead, origin, value)`.
    """
    found, most = 0.0, 0.0
    for lead, of_lead in enumerate(errors):
        seen = ~np.isnan(of_lead)
        number = int((there := seen.any(axis=-1)).sum())
        if (shared := past.shared(lead)) is None or number < 3:
            continue
        # 1. The mean absolute error after each origin, as standardised ranks.
        total = np.where(seen, np.abs(of_lead), 0.0)[there].sum(axis=-1)
        sizes = total / seen[there].sum(axis=-1)
        ranks = np.argsort(np.argsort(sizes)) - (number - 1) / 2
        ranks = ranks / np.sqrt((number**2 - 1) / 12)
        # 2. Regression of their products on the squared overlap.
        alike = shared[np.ix_(there, there)] ** 2
        # Ranks of independent sizes have a small negative correlation.
        found += ranks @ alike @ ranks + alike.sum() / (number - 1)
        most += (alike**2).sum()
    return float(np.clip(found / most, 0.0, 1.0)) if most else 0.0


def _effective_number(weights: np.ndarray, alike: np.ndarray | float = 0.0) -> float:
    """Return the number of independent values of equal weight with the same information.

    Args:
        weights: the weight of each value.
        alike: correlations between values, with zeros on the diagonal.
    """
    # (Σ w)² / (Σ w² + Σ_{i≠j} w_i ρ_ij w_j), Kish's effective size with correlations.
    own = float(weights @ weights)
    shared = float(weights @ np.broadcast_to(alike, (len(weights),) * 2) @ weights)
    return float(weights.sum()) ** 2 / (own + shared) if own else 0.0


def _refuse_few(past: Past, name: str, lead: int, weights: np.ndarray) -> None:
    """Check that there are enough errors for the 90 % interval.

    Args:
        past: errors of past forecasts.
        name: name of the observable.
        lead: index of the lead.
        weights: the weight of each origin, row or group; zero without errors.

    Raises:
        DataError: if there are too few.
    """
    number = _effective_number(weights)
    held_out = np.count_nonzero(weights)
    if number > FEWEST - 1e-9:
        return
    times = "time" if lead == 0 else "times"
    ahead = f" {lead + 1} {times} ahead" if past.elapsed is not None else ""
    weighed = f", which count as {number:.3g} by their age" if number < held_out - 1e-9 else ""
    remedy = "take more origins" if past.elapsed is not None else "hold out more"
    raise DataError(
        f"the 90 % interval of '{name}'{ahead} is known from {FEWEST} {past.units} on, but "
        f"{held_out} are held out"
        f"{weighed}: {remedy}, or stay with the model's own forecast"
    )


def _warn_if_alike(past: Past, found: Mapping[tuple[str, int], CalibrationErrors]) -> None:
    """Warn if the effective number of errors is too small for the 90 % interval."""
    (name, lead), fewest = min(found.items(), key=lambda each: each[1].effective)
    if fewest.effective < FEWEST - 1e-9:
        warnings.warn(
            f"errors of '{name}' {lead + 1} times ahead are alike where windows overlap: "
            f"{fewest.held_out} "
            f"{past.units} count as {fewest.effective:.2g}, and intervals may hold less than they "
            "say. Take origins "
            "further apart",
            stacklevel=4,
        )


def _errors_of_origins(fc: xr.DataTree, past: xr.DataTree) -> Past:
    """Return the errors in a result of `leave_future_out`, with their origins and leads.

    Args:
        fc: the forecast that is to be recalibrated.
        past: the result of `leave_future_out`.

    Raises:
        MismatchError: if `past` has no errors, does not suit `fc`, or has times after its fit.
    """
    if HELD_OUT not in past.children:
        old = ": this one keeps no errors, as those of earlier versions did not"
        raise MismatchError(_WHAT + (old if "log_density" in past else ""))
    _refuse_other_model(fc, past)
    windows = past.to_dataset()
    origins = windows["origin"].values
    times = windows["time"].values
    _refuse_seen(fc, times)
    return _past_of_origins(past[HELD_OUT].to_dataset(), origins, times)


def _errors_of_pairs(fc: xr.DataTree, pairs: Sequence[Any]) -> Past:
    """Return the errors of earlier forecasts of a time series, given as pairs with their data."""
    if not len(pairs) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise MismatchError(_WHAT)
    for earlier, _ in pairs:
        check_forecast(earlier, "predictions")
        _refuse_other_model(fc, earlier)
    pairs = sorted(pairs, key=lambda pair: fitted_until(pair[0]))
    origins = np.asarray([fitted_until(earlier) for earlier, _ in pairs])
    if len(np.unique(origins)) < len(origins):
        raise MismatchError("two of these forecasts are from the same origin: give one from each")
    # All origins have the leads of the shortest forecast.
    ahead = [_came_after(earlier, data) for earlier, data in pairs]
    horizon = min(map(len, ahead))
    if not horizon:
        raise MismatchError(
            "one of these forecasts has no time after the end of its fit at which data came"
        )
    times = np.stack([each[:horizon] for each in ahead])
    _refuse_seen(fc, times)
    errors = []
    for (earlier, data), at in zip(pairs, times, strict=True):
        errors.append(held_out_errors(earlier, data, at))
    return _past_of_origins(along_origins(errors), origins, times)


def _came_after(fc: xr.DataTree, data: xr.Dataset) -> np.ndarray:
    """Return the times of a forecast after its fit at which some observable has data."""
    predictions = fc["predictions"].to_dataset()
    index = index_of(predictions)
    seen = np.zeros(data.sizes[index], bool)
    for name in map(str, predictions.data_vars):
        if name in data:
            seen |= seen_rows(data[name], index)
    times = np.unique(data[index].values[seen])
    return times[(times > fitted_until(fc)) & np.isin(times, predictions[index].values)]


def _past_of_origins(errors: xr.Dataset, origins: np.ndarray, times: np.ndarray) -> Past:
    """Return errors of a time series, with the times of leads and between origins.

    Args:
        errors: the errors along `origin`.
        origins: the last known time at each origin.
        times: the times of each forecast, `(origin, lead)`.
    """
    origins = numbers(origins)
    times = numbers(times)
    elapsed = np.median(times - origins[:, None], axis=0)
    return Past(errors, "origins", elapsed, np.abs(np.subtract.outer(origins, origins)))


def _errors_of_rows_or_groups(fc: xr.DataTree, held: xr.DataTree, data: xr.Dataset) -> Past:
    """Return the errors of one forecast of held-out rows, or groups of a population.

    Args:
        fc: the forecast that is to be recalibrated.
        held: the forecast of the held-out rows or groups.
        data: the held-out data.
    """
    check_forecast(held, "predictions")
    _refuse_other_model(fc, held)
    ours, theirs = (tree.attrs.get("posterior_sha256", "") for tree in (fc, held))
    if ours and theirs and ours != theirs:
        raise MismatchError(
            "these forecasts are from fits to other data: rows are held out of one fit"
        )
    predictions = held["predictions"].to_dataset()
    index = index_of(predictions)
    members = held.attrs.get("members")
    of_members = all(members in variable.dims for variable in predictions.data_vars.values())
    # Forecasts made by hand do not say whether they are series.
    series = held.attrs.get("series", index == "time" or are_dates(predictions[index]))
    if series and not of_members:
        raise MismatchError(
            f"data along '{index}' hold together: one forecast of them is one witness, however "
            "many they are. Give "
            "what bd.weighting.leave_future_out returned, or a list of pairs from several origins"
        )
    errors = held_out_errors(held, data)
    if not of_members:
        return Past(errors.rename(lead="origin").expand_dims("lead"), "rows")
    # All held-out data of a group count as one unit, since they are dependent.
    values = errors[["error", "pit"]].stack(datum=("lead", "value"), create_index=False)
    values = values.rename(member="origin", datum="value").expand_dims(("lead", "member"))
    return Past(values.assign(censored=errors["censored"].sum("lead")), "members")


def _refuse_other_model(fc: xr.DataTree, other: xr.DataTree) -> None:
    """Check that a past forecast is one of the same model, and a plain forecast.

    Args:
        fc: the forecast that is to be recalibrated.
        other: the past forecast, or a result of `leave_future_out`.

    Raises:
        MismatchError: if it is of another model, recalibrated, or a what-if.
    """
    if RECALIBRATED in other.attrs:
        raise MismatchError(
            f"what was held out was forecast {other.attrs[RECALIBRATED]}: give the model's own "
            "forecasts"
        )
    if other.attrs.get("what_if", 0):
        raise MismatchError(
            "what was held out was forecast as a what-if, by no model that was fitted"
        )
    if "mixture" in other.attrs and "mixture" not in fc.attrs:
        raise MismatchError(
            "what was held out was forecast by a mixture: recalibrate by the errors of this model"
        )
    ours, theirs = (tree.attrs.get("signature", "") for tree in (fc, other))
    if ours and theirs and ours != theirs:
        raise MismatchError(
            "what was held out was forecast by another model: recalibrate by the errors of this one"
        )
    if "mixture" in fc.attrs and "mixture" not in other.attrs:
        raise MismatchError(
            "a mixture has errors of its own: give a list of pairs, each a mixture from an earlier "
            "origin and the data"
        )


def _refuse_seen(fc: xr.DataTree, times: np.ndarray) -> None:
    """Check that all errors are at times up to the end of the fit.

    Args:
        fc: the forecast that is to be recalibrated.
        times: the times of the errors.

    Raises:
        MismatchError: if some are later, at times that are to be forecast.
    """
    if times.max() > (end := fitted_until(fc)):
        raise MismatchError(
            f"the errors reach to {in_words(times.max())}, but the forecast begins after "
            f"{in_words(end)}: "
            "it would learn from "
            "the data that it is to forecast; hold out data up to there"
        )


def known_counts(found: Mapping[Any, CalibrationErrors], units: str) -> str:
    """Return the number of held-out units in words.

    Args:
        found: errors by observable and lead.
        units: what is counted, such as "origins".

    Returns:
        Words such as `9 to 12 origins held out`.
    """
    counts = [each.held_out for each in found.values()]
    least = min(counts)
    most = max(counts)
    return f"{least}{f' to {most}' if least < most else ''} {units} held out"

"""Whether another forecast of held-out data is better: a rival's, or a baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from .._findings import Finding, Level
from .._statistics.convergence import thinned
from .._statistics.dependence import error_of_mean
from ..scores.draws_at_data import Ensembles, crps_at, lower_by, mean_crps
from .residuals import share_beyond

_BEATEN, _CLEARLY = 0.02, 0.002  # share of replicates for which the baseline leads by more
_LEAD = 0.05  # share of a score by which another forecast must be better
_REPLICATES = 500  # of held-out data
_VALUES = 400  # held-out values at which forecasts are compared, approximately
_FEWEST_TIMES = 20  # that are kept before places are left out


class _Lead(NamedTuple):
    """By how much the CRPS of another forecast is lower at each value, in units of our mean CRPS;
    and for replicates.

    The mean lead is a ratio of two means. `residual` has the same standard error (delta method): it
    is the lead minus the mean lead times our own relative score.

    Shapes: `grid` and `residual` are that of the data, time first, NaN where nothing is compared;
    `replicates` is `(replicate, value)`.
    """

    grid: np.ndarray
    residual: np.ndarray
    replicates: np.ndarray


def lead_of(own: Ensembles, other: Ensembles, data: xr.Dataset) -> tuple[float, float, int]:
    """By which share of its own CRPS one forecast is worse than another.

    Args:
        own: draws and observations of each observable.
        other: those of the other forecast.
        data: the observations, with time as first dimension.

    Returns:
        The share, its standard error, which allows for dependent errors, and the number of values;
        NaN, NaN and 0 if no value can be compared.
    """
    leads = _leads(own, other, data, replicates=0)
    values = _values(leads)
    return (
        (float(values.mean()), _error(leads), values.size) if values.size else (np.nan, np.nan, 0)
    )


def against_rival(
    name: str, own: Ensembles, other: Ensembles, data: xr.Dataset
) -> Iterator[Finding]:
    """Whether a rival's CRPS is lower by more than a twentieth and more than the standard error.

    Args:
        name: that of the rival.
        own: draws and observations of each observable.
        other: the rival's.
        data: the observations, with time as first dimension.
    """
    leads = _leads(own, other, data, replicates=0)
    values = _values(leads)
    if not values.size:
        return
    if values.mean() > max(_LEAD, _error(leads)):
        yield _better(name, "warning", leads, own, other)
    else:
        yield _finding(
            "good", f"against {name}", "its forecast of held-out data is not better than this one"
        )


def against_baseline(
    name: str, own: Ensembles, other: Ensembles, data: xr.Dataset
) -> Iterator[Finding]:
    """Whether a baseline forecasts better than it would by chance, compared with replicates of the
    held-out data.

    Args:
        name: that of the baseline.
        own: draws and observations of each observable.
        other: the baseline's.
        data: the observations, with time as first dimension.
    """
    leads = _leads(own, other, data)
    values = _values(leads)
    if not values.size:
        return
    number = min(len(lead.replicates) for lead in leads)
    replicates = np.concatenate([lead.replicates[:number] for lead in leads], axis=1).mean(axis=1)
    usual = share_beyond(replicates, float(values.mean()))
    if values.mean() > _LEAD and usual < _BEATEN:
        yield _better(name, "bad" if usual < _CLEARLY else "warning", leads, own, other)


def _better(
    name: str, level: Level, leads: Sequence[_Lead], own: Ensembles, other: Ensembles
) -> Finding:
    """The finding: the lead is that of all values, as in the scores; its error may come from some
    of them.
    """
    ours, theirs = (np.array([mean_crps(*e[n]) for n in own]) for e in (own, other))
    lower = lower_by(ours, theirs, _numbers(own))
    number, among = _values(leads).size, int(_numbers(own).sum())
    of = (
        f"{among} value{'s' if among > 1 else ''}"
        if number == among
        else f"{number} of {among} values"
    )
    several = ", on average over the observables" if len(own) > 1 else ""
    error = _error(leads)
    error_said = f"standard error {error:.0%}" if np.isfinite(error) else "standard error unknown"
    return _finding(
        level, f"against {name}",
        f"{name} forecasts the held-out data better: its CRPS is {lower:.0%} lower{several} "
        f"({error_said}, of {of})",
        f"prefer {name}, or find what makes this forecast worse: a correction that the data do not "
        "bear out, or an "
        "equation that does not hold ahead",
    )  # fmt: skip


def _values(leads: Sequence[_Lead]) -> np.ndarray:
    """All finite leads, concatenated."""
    return np.concatenate([lead.grid[np.isfinite(lead.grid)] for lead in leads])


def _error(leads: Sequence[_Lead]) -> float:
    """The standard error of the mean of the leads."""
    return error_of_mean([lead.residual for lead in leads])


def _numbers(ensembles: Ensembles) -> np.ndarray:
    return np.array([np.isfinite(observed).sum() for _, observed in ensembles.values()])


def _leads(
    own: Ensembles, other: Ensembles, data: xr.Dataset, replicates: int = _REPLICATES
) -> list[_Lead]:
    """The lead of another forecast, observable by observable."""
    return [_lead(pair, other[name][0], data[name].shape, replicates) for name, pair in own.items()]


def _lead(
    own: tuple[np.ndarray, np.ndarray], other: np.ndarray, shape: tuple[int, ...], replicates: int
) -> _Lead:
    draws, observed = own
    grid = np.full((2, observed.size), np.nan)
    known = np.isfinite(observed) & np.isfinite(draws).any(axis=0) & np.isfinite(other).any(axis=0)
    seen = np.flatnonzero(_some(known.reshape(shape)).ravel())
    whole = draws[np.isfinite(draws[:, seen]).all(axis=1)][:, seen]
    if not seen.size or len(whole) < 2:
        return _Lead(grid[0].reshape(shape), grid[1].reshape(shape), np.zeros((replicates, 0)))
    made = whole[thinned(len(whole), replicates)]
    each = np.concatenate([observed[None, seen], made])
    ours = np.stack([crps_at(column, y) for column, y in zip(whole.T, each.T, strict=True)], axis=1)
    theirs = np.stack(
        [crps_at(d[np.isfinite(d)], y) for d, y in zip(other[:, seen].T, each.T, strict=True)],
        axis=1,
    )
    mean = np.maximum(ours.mean(axis=1, keepdims=True), 1e-300)
    lead = (ours - theirs) / mean
    grid[:, seen] = lead[0], lead[0] - lead[0].mean() * ours[0] / mean[0]
    return _Lead(grid[0].reshape(shape), grid[1].reshape(shape), lead[1:])


def _some(known: np.ndarray) -> np.ndarray:
    """Which values are compared: all, or those at evenly spaced times and places.

    All chosen places of a time are kept, so that dependence in time and space can be estimated.
    """
    number = int(known.sum())
    if number <= _VALUES:
        return known
    places = max(number // len(known), 1)
    times = thinned(len(known), max(_VALUES // places, min(len(known), _FEWEST_TIMES)))
    flat = known.reshape(len(known), -1)
    columns = thinned(
        flat.shape[1], max(_VALUES * flat.shape[1] // max(int(flat[times].sum()), 1), 1)
    )
    kept = np.zeros_like(flat)
    kept[np.ix_(times, columns)] = flat[np.ix_(times, columns)]
    return kept.reshape(known.shape)


def _finding(level: Level, subject: str, message: str, remedy: str = "") -> Finding:
    return Finding(level, subject, message, remedy, aspect="model")

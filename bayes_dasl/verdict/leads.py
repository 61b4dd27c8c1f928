"""Comparison of a forecast with competitors and baselines on held-out data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from .._findings import Finding, Level, model_finding
from .._statistics.convergence import thinned
from .._statistics.dependence import error_of_mean
from ..scores.draws_at_data import Ensembles, crps_at, lower_by, mean_crps
from .residuals import share_beyond

# A baseline with a larger lead in less than this share of replicates gives a warning, or a bad
# finding.
_BEATEN, _CLEARLY = 0.02, 0.002
# Another forecast must have a CRPS that is lower by this share.
_LEAD = 0.05
# Replicates of held-out data, and the approximate number of values that are compared.
_REPLICATES, _VALUES = 500, 400
# The least number of times to which data are thinned; beyond that, places are thinned.
_FEWEST_TIMES = 20


class _Lead(NamedTuple):
    r"""By how much another forecast is better at each value, relative to our mean CRPS.

    The lead is $l_i = (c_i - c'_i) / \bar c$ with our CRPS $c_i$ of value $i$, their CRPS $c'_i$
    and our mean CRPS $\bar c$. The residual $l_i - \bar l\, c_i / \bar c$ has the standard error of
    the ratio $\bar l$ (delta method).

    Args:
        grid: the lead at each value, in the shape of the data, time first; NaN where not compared.
        residual: the residual at each value, in the same form.
        replicates: the lead in data simulated from our forecast, `(replicate, value)`.
    """

    grid: np.ndarray
    residual: np.ndarray
    replicates: np.ndarray


def lead_of(own: Ensembles, other: Ensembles, data: xr.Dataset) -> tuple[float, float, int]:
    """Return the mean lead of another forecast: by how much its CRPS is lower, relative to ours.

    Args:
        own: our draws and observations of each observable.
        other: draws of the other forecast.
        data: the observations, with time as first dimension.

    Returns:
        The lead, its standard error, which allows for dependent errors, and the number of values;
        NaN, NaN and 0 if no value can be compared.
    """
    leads = _crps_leads(own, other, data, replicates=0)
    values = _finite_leads(leads)
    if not values.size:
        return np.nan, np.nan, 0
    return float(values.mean()), _lead_error(leads), values.size


def against_competitor(
    name: str, own: Ensembles, other: Ensembles, data: xr.Dataset
) -> Iterator[Finding]:
    """Yield a finding on a competing model: whether its CRPS is clearly lower, by at least 5 %.

    Args:
        name: the name of the competing model.
        own: our draws and observations of each observable.
        other: draws and observations of the competing model.
        data: the observations, with time as first dimension.

    Yields:
        At most one finding.
    """
    leads = _crps_leads(own, other, data, replicates=0)
    values = _finite_leads(leads)
    if not values.size:
        return
    if values.mean() > max(_LEAD, _lead_error(leads)):
        yield _better_finding(name, "warning", leads, own, other)
    else:
        yield model_finding(
            "good", f"against {name}", "its forecast of held-out data is not better than this one"
        )


def against_baseline(
    name: str, own: Ensembles, other: Ensembles, data: xr.Dataset
) -> Iterator[Finding]:
    """Yield a finding on a baseline whose lead is larger than chance explains.

    Chance is estimated from data simulated with our forecast.

    Args:
        name: the name of the baseline.
        own: our draws and observations of each observable.
        other: draws and observations of the baseline.
        data: the observations, with time as first dimension.

    Yields:
        At most one finding.
    """
    leads = _crps_leads(own, other, data)
    values = _finite_leads(leads)
    if not values.size:
        return
    # The mean lead in data that our forecast simulates, where the baseline leads by chance alone.
    number = min(len(lead.replicates) for lead in leads)
    replicates = np.concatenate([lead.replicates[:number] for lead in leads], axis=1).mean(axis=1)
    usual = share_beyond(replicates, float(values.mean()))
    if values.mean() > _LEAD and usual < _BEATEN:
        yield _better_finding(name, "bad" if usual < _CLEARLY else "warning", leads, own, other)


def _better_finding(
    name: str, level: Level, leads: Sequence[_Lead], own: Ensembles, other: Ensembles
) -> Finding:
    """Return the finding that another forecast is better; it states the lead over all values.

    Args:
        name: the name of the other forecast.
        level: the level of the finding.
        leads: the lead for each observable, at the values that are compared.
        own: our draws and observations of each observable.
        other: draws and observations of the other forecast.
    """
    ours, theirs = (np.array([mean_crps(*e[n]) for n in own]) for e in (own, other))
    counts = np.array([np.isfinite(observed).sum() for _, observed in own.values()])
    lower = lower_by(ours, theirs, counts)
    number = _finite_leads(leads).size
    among = int(counts.sum())
    plural = "s" if among > 1 else ""
    of = f"{among} value{plural}" if number == among else f"{number} of {among} values"
    several = ", on average over the observables" if len(own) > 1 else ""
    error = _lead_error(leads)
    error_said = f"standard error {error:.0%}" if np.isfinite(error) else "standard error unknown"
    return model_finding(
        level,
        f"against {name}",
        f"{name} forecasts the held-out data better: its CRPS is {lower:.0%} lower{several} "
        f"({error_said}, of {of})",
        f"prefer {name}, or find what makes this forecast worse: a correction that the data do not "
        "bear out, or an "
        "equation that does not hold ahead",
    )


def _finite_leads(leads: Sequence[_Lead]) -> np.ndarray:
    """Return the leads of all compared values of all observables, as one array."""
    return np.concatenate([lead.grid[np.isfinite(lead.grid)] for lead in leads])


def _lead_error(leads: Sequence[_Lead]) -> float:
    """Return the standard error of the mean lead over all observables."""
    return error_of_mean([lead.residual for lead in leads])


def _crps_leads(
    own: Ensembles, other: Ensembles, data: xr.Dataset, replicates: int = _REPLICATES
) -> list[_Lead]:
    """Return the lead of another forecast for each observable."""
    return [
        _crps_lead(pair, other[name][0], data[name].shape, replicates) for name, pair in own.items()
    ]


def _crps_lead(
    own: tuple[np.ndarray, np.ndarray], other: np.ndarray, shape: tuple[int, ...], replicates: int
) -> _Lead:
    # 1. Values that both forecasts have, thinned, and our draws that are finite at all of them.
    """Return the lead of another forecast for one observable.

    Args:
        own: our draws `(draw, datum)` and the observations `(datum,)`.
        other: draws `(draw, datum)` of the other forecast.
        shape: the shape of the data, time first.
        replicates: the number of data sets simulated from our draws.
    """
    draws, observed = own
    grid = np.full((2, observed.size), np.nan)
    both = np.isfinite(draws).any(axis=0) & np.isfinite(other).any(axis=0)
    known = np.isfinite(observed) & both
    seen = np.flatnonzero(_compared_values(known.reshape(shape)))
    whole = draws[:, seen]
    whole = whole[np.isfinite(whole).all(axis=1)]
    if not seen.size or len(whole) < 2:
        return _Lead(grid[0].reshape(shape), grid[1].reshape(shape), np.zeros((replicates, 0)))
    # 2. The CRPS of both forecasts for the data (first row) and for data that our draws simulate.
    made = whole[thinned(len(whole), replicates)]
    targets = np.concatenate([observed[None, seen], made]).T
    finite = (column[np.isfinite(column)] for column in other[:, seen].T)
    ours, theirs = (
        np.stack([*map(crps_at, columns, targets)], axis=1) for columns in (whole.T, finite)
    )
    # 3. Leads in units of our mean CRPS.
    mean = np.maximum(ours.mean(axis=1, keepdims=True), 1e-300)
    lead = (ours - theirs) / mean
    own_lead = lead[0]
    grid[:, seen] = own_lead, own_lead - own_lead.mean() * ours[0] / mean[0]
    return _Lead(grid[0].reshape(shape), grid[1].reshape(shape), lead[1:])


def _compared_values(known: np.ndarray) -> np.ndarray:
    """Flag the values that are compared: all, or those at evenly spaced times and places.

    All chosen places of a time are kept, so that dependence in time and space can be estimated.

    Args:
        known: flags of the values that can be compared, time first.
    """
    number = int(known.sum())
    if number <= _VALUES:
        return known
    places = max(number // len(known), 1)
    times = thinned(len(known), max(_VALUES // places, min(len(known), _FEWEST_TIMES)))
    flat = known.reshape(len(known), -1)
    width = flat.shape[1]
    left = max(int(flat[times].sum()), 1)
    columns = thinned(width, max(_VALUES * width // left, 1))
    kept = np.zeros_like(flat)
    chosen = np.ix_(times, columns)
    kept[chosen] = flat[chosen]
    return kept.reshape(known.shape)

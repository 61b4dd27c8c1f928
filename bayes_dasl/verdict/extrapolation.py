"""Extrapolation of unknown functions beyond the range of their inputs in the fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import bdtr

from .._findings import Finding, model_finding
from ..data.datasets import index_of
from ..errors import MismatchError
from ..scores.draws_at_data import Ensembles, covered
from ..scores.matching import Span, fitted_between, matched
from .coverage import coverage_finding, finite_at, scorable

EXTRAPOLATION = "extrapolation"
# Share of its range by which an input may leave it.
_SLACK = 0.05
# Share of rows up to which nothing is reported.
_FEW = 0.05
# Probability of so few values in 90 % intervals.
_TOO_FEW_COVERED = 0.05


class Leaving(NamedTuple):
    """Rows of a forecast, and those in which a function leaves the range of its fitted inputs."""

    function: str
    rows: np.ndarray
    outside: np.ndarray
    inputs: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]


def leaving(post: xr.DataTree, fc: xr.DataTree) -> list[Leaving]:
    """The unknown functions that a forecast evaluates beyond their training range, with the rows.

    Each input has its own range, widened by a twentieth at each end. Only rows that were not
    fitted, and whose inputs are known, count.

    Returns:
        One entry for each function.
    """
    if any("function_inputs" not in tree.children for tree in (post, fc)):
        return []
    seen, ahead = (tree["function_inputs"].to_dataset() for tree in (post, fc))
    index = index_of(ahead)
    ahead = ahead.isel(
        {index: ~_fitted(ahead[index].values, seen[index].values, fitted_between(fc))}
    )
    # 1. Rows in which each input of each function leaves its range.
    found: dict[str, list[tuple[str, np.ndarray, tuple[float, float]]]] = {}
    for name, variable in ahead.data_vars.items():
        known = seen[name].values if name in seen else np.zeros(0)
        known = known[np.isfinite(known)]
        if not known.size or not variable.size:
            continue
        ends = float(known.min()), float(known.max())
        slack = _SLACK * (ends[1] - ends[0])
        beyond = (variable.values < ends[0] - slack) | (variable.values > ends[1] + slack)
        inputs = found.setdefault(variable.attrs["function"], [])
        inputs.append((variable.attrs["input"], beyond, ends))
    # 2. By function: rows in which any input does so, and the inputs that do.
    result = []
    for function, inputs in found.items():
        outside = np.any([beyond for _, beyond, _ in inputs], axis=0)
        left = [(name, ends) for name, beyond, ends in inputs if beyond.any()]
        names, ranges = zip(*left, strict=True) if left else ((), ())
        result.append(Leaving(function, ahead[index].values, outside, names, ranges))
    return result


def _fitted(labels: np.ndarray, seen: np.ndarray, span: Span) -> np.ndarray:
    """Return which rows of a forecast were fitted; none without a span."""
    start, end = span
    if end is None:
        return np.zeros(labels.shape, bool)
    return np.isin(labels, seen) & (labels <= end) & (True if start is None else labels >= start)


def extrapolation_findings(
    post: xr.DataTree, fc: xr.DataTree, test: xr.Dataset | None
) -> Iterator[Finding]:
    """Findings on forecasts beyond the training range of an unknown function.

    Args:
        post: the posterior.
        fc: a forecast from it.
        test: the held-out data.

    Returns:
        A finding for each function that leaves its range in more than a few rows.
    """
    for left in leaving(post, fc):
        if left.outside.mean() <= _FEW:
            continue
        ranges = " and ".join(
            f"{n} ({low:.3g} to {high:.3g})"
            for n, (low, high) in zip(left.inputs, left.ranges, strict=True)
        )
        message = (
            f"in {left.outside.sum()} of {left.outside.size} rows ahead "
            f"({left.outside.mean():.0%}) the forecast "
            f"leaves the range of {ranges} over which this function was fitted"
        )
        yield _extrapolation_finding(left, message, fc, test)


def _extrapolation_finding(
    left: Leaving, message: str, fc: xr.DataTree, test: xr.Dataset | None
) -> Finding:
    """The finding on a function, by held-out data in its rows outside the range."""
    subject = f"{EXTRAPOLATION} of {left.function}"
    ensembles, common = _there(fc, test, left.rows[left.outside])
    scored = scorable({name: finite_at(*pair) for name, pair in ensembles.items()})
    if not scored:
        return model_finding(
            "warning",
            subject,
            f"{message}; nothing has checked it there",
            "hold out data from there; without them the forecast there rests on the prior of the "
            "function",
        )
    found = coverage_finding(ensembles, scored, common)
    message, level, remedy = f"{message}; there {found.message}", found.level, ""
    if level == "inconclusive" and not _few(ensembles):
        remedy = f"{found.remedy} there"
    elif level != "good":
        # Few values inside may come from one shared error, but do not support the forecast.
        level = "warning"
        remedy = (
            "do not rely on the forecast there: fit data from there, or give the function a wider "
            "prior"
        )
    return model_finding(level, subject, message, remedy)


def _few(ensembles: Ensembles) -> bool:
    """Whether the 90 % intervals hold too few of the values for independent errors."""
    held = np.concatenate([covered(draws, observed, 90) for draws, observed in ensembles.values()])
    return bool(bdtr(np.nansum(held), np.isfinite(held).sum(), 0.9) < _TOO_FEW_COVERED)


def _there(
    fc: xr.DataTree, test: xr.Dataset | None, rows: np.ndarray
) -> tuple[Ensembles, xr.Dataset]:
    """Draws and held-out values at some rows, by observable; empty without such rows."""
    index = index_of(fc["predictions"].to_dataset())
    if test is None or not (some := np.isin(test[index].values, rows)).any():
        return {}, xr.Dataset()
    try:
        return matched(fc, test.isel({index: some}))
    except MismatchError:
        return {}, xr.Dataset()

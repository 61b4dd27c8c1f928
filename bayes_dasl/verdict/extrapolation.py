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
# Share of the fitted range by which an input may lie beyond it.
_SLACK = 0.05
# Share of rows up to which nothing is reported.
_FEW = 0.05
# A coverage is too low if so few values lie in 90 % intervals with less than this probability.
_TOO_FEW_COVERED = 0.05


class Leaving(NamedTuple):
    """Rows of a forecast in which a function leaves the range of its inputs in the fit.

    Args:
        function: the name of the function.
        rows: the index of the rows that are compared.
        outside: flags of these rows in which an input lies outside its fitted range.
        inputs: the inputs that lie outside in some row.
        ranges: the fitted range of each of these inputs, lower and upper end.
    """

    function: str
    rows: np.ndarray
    outside: np.ndarray
    inputs: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]


def leaving(post: xr.DataTree, fc: xr.DataTree) -> list[Leaving]:
    """Find rows in which a forecast evaluates unknown functions beyond their fitted range.

    Each input has its own range, widened by a twentieth at each end. Rows that were fitted are
    ignored.

    Args:
        post: the posterior.
        fc: a forecast from it.

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
    # 2. For each function: rows in which any input leaves its range, and the names of such inputs.
    result = []
    for function, inputs in found.items():
        outside = np.any([beyond for _, beyond, _ in inputs], axis=0)
        left = [(name, ends) for name, beyond, ends in inputs if beyond.any()]
        names, ranges = zip(*left, strict=True) if left else ((), ())
        result.append(Leaving(function, ahead[index].values, outside, names, ranges))
    return result


def _fitted(labels: np.ndarray, seen: np.ndarray, span: Span) -> np.ndarray:
    """Flag the rows of a forecast that were fitted.

    Args:
        labels: the index of the rows of the forecast.
        seen: the index of the rows of the fit.
        span: the first and last fitted time whose inputs the forecast shares. Without an end, no
            row counts as fitted.
    """
    start, end = span
    if end is None:
        return np.zeros(labels.shape, bool)
    return np.isin(labels, seen) & (labels <= end) & (True if start is None else labels >= start)


def extrapolation_findings(
    post: xr.DataTree, fc: xr.DataTree, test: xr.Dataset | None
) -> Iterator[Finding]:
    """Yield findings on forecasts beyond the fitted range of an unknown function.

    Args:
        post: the posterior.
        fc: a forecast from it.
        test: the held-out data, if there are any.

    Yields:
        A finding for each function that leaves its range in more than 5 % of the rows.
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
    """Return the finding on a function, by held-out data in its rows outside the range.

    Args:
        left: the function and its rows.
        message: the beginning of the message.
        fc: the forecast.
        test: the held-out data, if there are any.
    """
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
    """Return whether too few values lie in their 90 % intervals, if errors are independent."""
    held = np.concatenate([covered(draws, observed, 90) for draws, observed in ensembles.values()])
    return bool(bdtr(np.nansum(held), np.isfinite(held).sum(), 0.9) < _TOO_FEW_COVERED)


def _there(
    fc: xr.DataTree, test: xr.Dataset | None, rows: np.ndarray
) -> tuple[Ensembles, xr.Dataset]:
    """Return draws and held-out values at some rows, by observable, and the values as a dataset.

    Both are empty if there are no held-out data at these rows.

    Args:
        fc: the forecast.
        test: the held-out data, if there are any.
        rows: the index of the rows.
    """
    index = index_of(fc["predictions"].to_dataset())
    if test is None or not (some := np.isin(test[index].values, rows)).any():
        return {}, xr.Dataset()
    try:
        return matched(fc, test.isel({index: some}))
    except MismatchError:
        return {}, xr.Dataset()

"""Scores, verdicts and the mixture of a run, prepared for `scores.json` and `forecast.csv`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .._findings import Diagnosis
from ..data.datasets import place_of
from ..data.dates import as_attribute
from ..extremes.exceedance_and_return_levels import exceedance, is_series, return_levels, unseen
from ..reports.options import ReportOptions
from ..scores.forecast_quantiles import quantiles
from ..scores.metrics import check_metrics, measured_by
from ..scores.scores import score, score_baselines
from ..weighting.comparison import Comparison
from ..weighting.judged_mixtures import MIXTURE, Mixed


def results(
    forecasts: Mapping[str, xr.DataTree],
    train: xr.Dataset,
    test: xr.Dataset,
    verdicts: Mapping[str, Diagnosis],
    mixture: Mixed | None,
    comparison: object,
) -> dict[str, Any]:
    """Return scores and verdicts, and the mixture or the reason why there is none.

    Args:
        forecasts: forecasts by name.
        train: the training data.
        test: the test data.
        verdicts: the verdict on each model by name.
        mixture: the mixture and its verdict, if there is one.
        comparison: without a mixture, the reason as text, or None if the study mixes no forecasts.
            It is not used with a mixture.

    Returns:
        A dict for JSON: `scores` and `baselines` by name, observable and score; `attrs` of these
        tables; `diagnosis` by name; `mixture` with the weights, with `why_not`, or None.
    """
    if mixture:
        verdicts = {MIXTURE: mixture.diagnosis, **verdicts}
    tables = {name: score(fc, test) for name, fc in forecasts.items()}
    baselines = score_baselines(train, test)
    why_not = {"why_not": comparison} if comparison else None
    return {
        "scores": {name: _rows_as_dicts(table) for name, table in tables.items()},
        "baselines": {name: _rows_as_dicts(table) for name, table in baselines.items()},
        "attrs": {name: table.attrs for name, table in (tables | baselines).items()},
        "diagnosis": {name: verdict.to_dict() for name, verdict in verdicts.items()},
        "mixture": _mixture_as_dict(mixture) if mixture else why_not,
    }


def table_of(forecast: xr.DataTree) -> str:
    """Return the quantiles of a forecast as CSV text, with seven significant digits.

    Text that a spreadsheet would read as a formula gets a leading apostrophe.

    Args:
        forecast: the forecast.

    Returns:
        The text of the CSV file.
    """
    table = quantiles(forecast)
    # The columns after the units are quantiles.
    numbers = table.columns[list(table.columns).index("units") + 1 :]
    rounded = {name: table[name].map(lambda x: float(f"{x:.7g}")) for name in numbers}
    return table.assign(**rounded).map(_no_formula).rename(columns=_no_formula).to_csv(index=False)


def _no_formula(cell: Any) -> Any:
    """Return text with a leading apostrophe if a spreadsheet would run it as a formula.

    Other cells are returned unchanged.

    Source: OWASP, CSV injection.
    """
    # Harmless names such as "-" get one too.
    starts = ("=", "+", "-", "@", "\t", "\r")
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(starts) else cell


def check_asked(study: Any, times: xr.DataArray) -> None:
    """Check, before any fit, that the report of a study can show its options.

    Args:
        study: the `Study`.
        times: all times that the study forecasts.

    Raises:
        MismatchError: if an option names an unknown observable.
        DataError: if a window, a block or a metric does not suit the data.
    """
    test = study.test[list(study.model.observables)]
    ahead = test[study.index].values
    # Held-out groups have no separate period after the training data.
    during = None if isinstance(study.split, Mapping) else (ahead.min(), ahead.max())
    study.options.check(study.model.observables, times, during)
    check_metrics(test, study.options.metrics)


def asked(
    forecasts: Mapping[str, xr.DataTree], test: xr.Dataset, options: ReportOptions
) -> dict[str, Any]:
    """Return the metrics and probabilities that the options of a report ask for.

    Args:
        forecasts: forecasts by name.
        test: the test data.
        options: the options.

    Returns:
        `metrics` of every forecast; `exceedance` (probabilities) and `return_levels` by observable,
        of the first forecast only. Keys that the options do not ask for are absent.
    """
    first = next(iter(forecasts.values()))
    found: dict[str, Any] = {}
    if options.metrics:
        tables = {name: measured_by(fc, test, options.metrics) for name, fc in forecasts.items()}
        found["metrics"] = {name: _rows_as_dicts(table) for name, table in tables.items()}
    during = unseen(first)
    # Fields and groups have no single probability over time.
    for name in filter(lambda name: is_series(first, name), options.thresholds):
        below = name in options.below
        levels = []
        for level in options.levels(name):
            result = exceedance(first, name, level, below=below, during=during)
            ever, times = _number_or_none(result["ever"]), _number_or_none(result["times"])
            levels.append(
                {
                    "level": result.attrs["level"],
                    "ever": ever,
                    "times": times,
                }
            )
        said = {"direction": result.attrs["direction"], "levels": levels}
        found.setdefault("exceedance", {})[name] = said
    for name in filter(lambda name: is_series(first, name), options.return_periods):
        periods = options.periods(name)
        table = return_levels(first, name, periods, block=options.block, during=during)
        found.setdefault("return_levels", {})[name] = table.attrs | {
            "levels": _rows_as_dicts(table)
        }
    return found


def told_split(study: Any) -> Any:
    """Return the split of a study for JSON: a time, or lists of held-out groups by dimension."""
    if isinstance(study.split, Mapping):
        return {dim: np.asarray(members).tolist() for dim, members in study.split.items()}
    return as_attribute(place_of(study.data, study.index, study.split))


def _rows_as_dicts(table: pd.DataFrame) -> dict[str, dict[str, float | bool | None]]:
    """Return a table as nested dicts by row and column.

    NaN and infinity become None, since JSON has neither.
    """
    # Unlike `iterrows`, `to_dict` keeps truth values as they are.
    return {
        str(row): {str(name): _number_or_none(value) for name, value in values.items()}
        for row, values in table.to_dict("index").items()
    }


def _number_or_none(value: Any) -> float | bool | None:
    """Return a finite number or a truth value as it is; NaN and infinity become None."""
    if isinstance(value, bool):
        return value
    return float(value) if np.isfinite(value) else None


def _mixture_as_dict(found: Mixed) -> dict[str, Any]:
    """Return the weights of a mixture, the comparison that gave them, and its findings.

    Returns:
        A dict for JSON. A comparison by past forecasts adds `windows`, `origins` and `horizon`.
    """
    comparison = found.comparison
    # Only weights by past forecasts have origins.
    windows = {}
    if isinstance(comparison, Comparison):
        windows = {
            "windows": comparison.windows,
            "origins": comparison.by_lead.attrs["origins"],
            "horizon": comparison.by_lead.sizes["lead"],
        }
    return {
        "weights": comparison.weights,
        "weighed_by": comparison.weighed_by,
        "why": comparison.why,
        **windows,
        "comparison": _rows_as_dicts(comparison.table),
        "findings": [dataclasses.asdict(finding) for finding in comparison.findings],
        "words": list(found.words),
    }

"""What a run says of scores and of its mixture, as JSON has it, which knows no NaN."""

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
    """Scores, verdicts, and what is said of the mixture of the forecasts, or why there is none."""
    verdicts = ({MIXTURE: mixture.diagnosis} if mixture else {}) | dict(verdicts)
    why_not = {"why_not": comparison} if comparison else None
    return _scored(forecasts, train, test, verdicts) | {
        "mixture": _told(mixture) if mixture else why_not
    }


def table_of(forecast: xr.DataTree) -> str:
    """Quantiles of a forecast as CSV, to seven digits; times and places as they are.

    A text that a spreadsheet would take for a formula begins with an apostrophe, which spreadsheets
    do not show.
    """
    table = quantiles(forecast)
    numbers = table.columns[list(table.columns).index("units") + 1 :]
    rounded = {name: table[name].map(lambda x: float(f"{x:.7g}")) for name in numbers}
    return table.assign(**rounded).map(_no_formula).rename(columns=_no_formula).to_csv(index=False)


def _no_formula(cell: Any) -> Any:
    # Source: OWASP, CSV injection; a name such as "-" or "+1" is guarded, too.
    return (
        f"'{cell}"
        if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        else cell
    )


def check_asked(study: Any, times: xr.DataArray) -> None:
    """Refuse, before any fit, what no report of a study could show.

    Args:
        study: the study.
        times: all that it forecasts.

    Raises:
        MismatchError: if so.
        DataError: likewise.
    """
    held = study.test[list(study.model.observables)]
    ahead = held[study.index].values
    during = None if isinstance(study.split, Mapping) else (ahead.min(), ahead.max())
    study.options.check(study.model.observables, times, during)
    check_metrics(held, study.options.metrics)


def asked(
    forecasts: Mapping[str, xr.DataTree], test: xr.Dataset, options: ReportOptions
) -> dict[str, Any]:
    """What the options of a report ask for: metrics of every forecast, thresholds and return levels
    of the first.
    """
    first = next(iter(forecasts.values()))
    found: dict[str, Any] = {}
    if options.metrics:
        tables = {name: measured_by(fc, test, options.metrics) for name, fc in forecasts.items()}
        found["metrics"] = {name: _plain(table) for name, table in tables.items()}
    during = unseen(first)
    for name in (name for name in options.thresholds if is_series(first, name)):
        each = [
            exceedance(first, name, at, below=name in options.below, during=during)
            for at in options.levels(name)
        ]
        levels = [
            {"level": e.attrs["level"]} | {what: _number(e[what]) for what in ("ever", "times")}
            for e in each
        ]
        found.setdefault("exceedance", {})[name] = {
            "direction": each[0].attrs["direction"],
            "levels": levels,
        }
    for name in (name for name in options.return_periods if is_series(first, name)):
        table = return_levels(
            first, name, options.periods(name), block=options.block, during=during
        )
        found.setdefault("return_levels", {})[name] = table.attrs | {"levels": _plain(table)}
    return found


def told_split(study: Any) -> Any:
    """Where the data of a study are split, as JSON has it."""
    if isinstance(study.split, Mapping):
        return {dim: np.asarray(members).tolist() for dim, members in study.split.items()}
    return as_attribute(place_of(study.data, study.index, study.split))


def _scored(
    forecasts: Mapping[str, xr.DataTree],
    train: xr.Dataset,
    test: xr.Dataset,
    verdicts: Mapping[str, Diagnosis],
) -> dict[str, Any]:
    """Forecasts and baselines on the test data, and the verdicts."""
    tables, others = (
        {name: score(fc, test) for name, fc in forecasts.items()},
        score_baselines(train, test),
    )
    return {
        "scores": {name: _plain(table) for name, table in tables.items()},
        "baselines": {name: _plain(table) for name, table in others.items()},
        "attrs": {name: table.attrs for name, table in (tables | others).items()},
        "diagnosis": {name: verdict.to_dict() for name, verdict in verdicts.items()},
    }


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float | bool | None]]:
    """A table by its rows."""

    def plain(value: Any) -> float | bool | None:
        return value if isinstance(value, bool) else _number(value)

    rows = table.to_dict("index")  # unlike `iterrows` this keeps truth values as they are
    return {
        str(row): {str(name): plain(value) for name, value in values.items()}
        for row, values in rows.items()
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _told(found: Mixed) -> dict[str, Any]:
    """The weights of a mixture, what they come from, and what is said of it."""
    comparison, windows = found.comparison, {}
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
        "comparison": _plain(comparison.table),
        "findings": [dataclasses.asdict(finding) for finding in comparison.findings],
        "words": list(found.words),
    }

"""Scores of forecasts and baselines against data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from .._statistics.blocks import blocks_of, draws_at
from ..data.censoring import alike, with_bounds
from ..data.datasets import in_units, index_of, units_of
from .baselines import baseline_ensembles, refuse_absent
from .ensemble_scores import LEVELS, Part, ScoreTable, at_each, score_table, scored, table_of
from .log_score import exact_log_scores
from .matching import (
    in_units_of_forecast,
    recalibration_label,
    repeats,
    shared,
)


def score(fc: xr.DataTree, data: xr.Dataset) -> ScoreTable:
    """Score a forecast against the data, one row for each observable and one for `all`.

    Only times that the forecast and the data share count; `attrs["times_left_out"]` says how many
    of the data are not forecast. The places or members of the forecast count, all of which the data
    must have. Missing observations are left out, and so are draws that are not finite (a failed
    solve); `attrs["failed_draws"]` counts those, of members each once. Row `all` is the mean over
    the observables that have data, NaN where one of them is; its coverages are shares of all
    values, and its `n` is their number.

    The log score is exact: minus the log of the mean over draws of the density, or mass, that the
    noise of each draw gives to the datum. A handmade forecast without the group `noise` has a
    kernel density estimate instead, and NaN for whole numbers, whose probabilities draws alone do
    not give. `attrs["log_score"]` says which by observable, and so does the printed table where it
    is not exact.

    The log score of a censored datum is the log of the forecast probability of its bounds. For
    other scores, draws within its bounds count as equal to it, and draws beyond a detection limit
    as equal to the limit.

    For a recalibrated forecast, named by `attrs["recalibrated"]` and the printed table, coverages
    beyond its known intervals are NaN.

    Args:
        fc: the result of `forecast` or `recalibrate`.
        data: a dataset with the observables, NaN where missing.

    Returns:
        A table with a row for each observable, which prints whole however narrow the terminal is.

    Units: mse in squared units of the observable; rmse, mae, crps and interval_score_90 in its
    units; log_score in nats, of a density in the inverse units; coverages are shares. Lower is
    better, but for these.

    Raises:
        MismatchError: if an observable is not in the data, or no time is shared.
        DataError: for units of another dimension than the forecast's (others are converted).

    Example:
        ```python
        fc = bd.forecast(model, post, test)
        table = bd.score(fc, test)
        print(table[["crps", "coverage_90"]])
        ```
    """
    data = in_units_of_forecast(fc, data)
    predictions, noise, common = shared(fc, data)
    # Each observable is read block by block.
    rows = {
        name: scored(_score_parts(name, predictions, noise, common))
        for name in map(str, predictions.data_vars)
    }
    table = table_of(rows)
    # Several predictive draws of an ensemble member count once.
    failed = [~row.whole for row in rows.values()]
    table.attrs["failed_draws"] = int(np.any(failed, axis=0).sum()) // repeats(fc)
    index = index_of(common)
    table.attrs["times_left_out"] = data.sizes[index] - common.sizes[index]
    return _as_far_as_known(table, fc)


def score_each(fc: xr.DataTree, data: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return CRPS and log score of each datum at shared times.

    Args:
        fc: the result of `forecast`.
        data: a dataset with the observables, NaN where missing.

    Returns:
        Datasets `crps` and `log_score`.
    """
    predictions, noise, common = shared(fc, in_units_of_forecast(fc, data))
    found = {}
    for name in map(str, predictions.data_vars):
        at = [at_each(*part) for part in _score_parts(name, predictions, noise, common)]
        for score in ("crps", "log_score"):
            values = np.concatenate([part[score] for part in at]).reshape(common[name].shape)
            found.setdefault(score, {})[name] = (common[name].dims, values)
    return {score: xr.Dataset(values, common.coords) for score, values in found.items()}


def _as_far_as_known(table: ScoreTable, fc: xr.DataTree) -> ScoreTable:
    """The table without unknown coverages of a recalibrated forecast, and with its label."""
    # A margin for rounding of the level.
    unknown = [level for level in LEVELS if level / 100 > fc.attrs.get("known_level", 1.0) + 1e-9]
    table[[f"coverage_{level}" for level in unknown]] = np.nan
    table.attrs |= recalibration_label(fc)
    return table


def _score_parts(
    name: str, predictions: xr.Dataset, noise: xr.Dataset, observed: xr.Dataset
) -> Iterator[Part]:
    """Yield an observable in blocks, read from a stored forecast if there is one."""
    needed = predictions[[name]], noise.filter_by_attrs(observable=name), observed[[name]]
    for at in blocks_of(predictions[name]):
        here = [part.isel(at, missing_dims="ignore").compute() for part in needed]
        exact = exact_log_scores(*here).get(name)
        draws = draws_at(here[0][name], dict.fromkeys(at, slice(None)))
        seen = here[2][name]
        yield alike(draws, seen), seen.values.ravel(), exact


def score_baselines(
    train: xr.Dataset, test: xr.Dataset, *, observables: Sequence[str] | None = None
) -> dict[str, pd.DataFrame]:
    """Scores of the `baselines` of the training data on the test data, as tables by name.

    `observables` are all variables of the training data by default; name them if the data hold
    forcings too.

    Returns:
        Tables as of `score`, by the name of the baseline.

    Raises:
        MismatchError: if an observable is not in both data sets.
    """
    names = [str(name) for name in (train.data_vars if observables is None else observables)]
    refuse_absent(names, train, "training")
    refuse_absent(names, test, "test")
    test = in_units(test, units_of(train), doubtful=True)
    data = {}
    for name in names:
        data[name] = with_bounds(test[name], test, test[name].attrs).astype(float)
    tables = {}
    for label, draws in baseline_ensembles(train[names], test[names]):
        pairs = {}
        for name in names:
            # Draws are in the order of the training data.
            seen = data[name].transpose(*train[name].transpose(index_of(train), ...).dims)
            pairs[name] = alike(draws[name], seen), seen.values.ravel()
        tables[label] = score_table(pairs)
    return tables

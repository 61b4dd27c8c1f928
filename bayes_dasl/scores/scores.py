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

    Only times that forecast and data share are scored; `attrs["times_left_out"]` is the number of
    times of the data without a forecast. The data must have all places or groups of the forecast,
    and only these are scored. Missing observations are left out. So are draws that are not finite,
    after a failed solve; `attrs["failed_draws"]` is their number. Several predictive draws of one
    ensemble member count as one. In the row `all`, coverages are shares of all values, and `n` is
    the number of values. Other scores are means over the observables that have data, NaN if one of
    them is NaN.

    The log score is exact: minus the log of the mean over draws of the density, or probability,
    that the noise of each draw gives to the datum. A forecast made by hand, without the group
    `noise`, has a kernel density estimate instead. For integers this is NaN, since draws alone do
    not give their probabilities. `attrs["log_score"]` states the kind for each observable, and the
    printed table states it if it is not exact.

    The log score of a censored datum is minus the log of the forecast probability between its
    bounds. For other scores, draws within the bounds count as equal to the datum, and draws beyond
    a detection limit as equal to the limit.

    A recalibrated forecast is labelled in `attrs["recalibrated"]` and below the printed table.
    Coverages of wider intervals than it knows are NaN.

    Args:
        fc: the result of `forecast` or `recalibrate`.
        data: a dataset with the observables, NaN where missing.

    Returns:
        A table with a row for each observable. It prints all columns, also in a narrow terminal.

    Units: mse in squared units of the observable; rmse, mae, crps and interval_score_90 in its
    units; log_score in nats, for a density in the inverse units; coverages are shares. Lower scores
    are better; coverages should equal their level.

    Raises:
        MismatchError: if an observable is not in the data, or no time is shared.
        DataError: for units of another dimension than those of the forecast. Units of the same
            dimension are converted.

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
        Two datasets by the name of the score, "crps" and "log_score", with a variable for each
        observable.
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
    """Add the label of a recalibrated forecast to a table, and set unknown coverages to NaN.

    Coverages are unknown above the largest level for which the forecast was recalibrated.
    """
    # A margin for rounding of the level.
    unknown = [level for level in LEVELS if level / 100 > fc.attrs.get("known_level", 1.0) + 1e-9]
    table[[f"coverage_{level}" for level in unknown]] = np.nan
    table.attrs |= recalibration_label(fc)
    return table


def _score_parts(
    name: str, predictions: xr.Dataset, noise: xr.Dataset, observed: xr.Dataset
) -> Iterator[Part]:
    """Yield draws, data and log scores of one observable, block by block.

    Blocks are read one at a time if the forecast is stored in a file.

    Args:
        name: the observable.
        predictions: the predictive draws of all observables.
        noise: the parameters of their noise.
        observed: the data.
    """
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
    """Score the `baselines` of the training data on the test data.

    Args:
        train: the training data.
        test: the test data.
        observables: the observables. By default all variables of the training data; name the
            observables if the data hold forcings too.

    Returns:
        Tables as from `score`, by the name of the baseline.

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

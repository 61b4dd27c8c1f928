"""Times that a study forecasts, and new observations and forcings read from a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import xarray as xr

from ..data.datasets import in_units, place_of, units_of
from ..data.dates import are_dates, in_words, refuse_mixed, seconds
from ..data.forcing_files import read_series
from ..data.input_table import COLUMNS, DATE_FORMAT, MISSING
from ..errors import DataError
from ..layers.layer import begins
from ..model import Model, check_shapes
from ..prediction.posterior import fitted_observables
from ..reports.options import ReportOptions

_PLOTTED_TIMES = 100


@runtime_checkable
class Series(Protocol):
    """The attributes of a `Study` that the functions of this module read."""

    @property
    def data(self) -> xr.Dataset: ...

    @property
    def index(self) -> str: ...

    @property
    def forced(self) -> bool: ...

    @property
    def model(self) -> Model: ...

    @property
    def models(self) -> Mapping[str, Model]: ...

    @property
    def options(self) -> ReportOptions: ...


def forecast_times(study: Series) -> xr.Dataset:
    """Return the times of the data, with times between them for smooth curves where possible.

    No times are added in between if forcings or known errors come from the data, or if a layer
    takes discrete steps. None are added either if there are thresholds or return periods. Each time
    has independent noise, so more times would exceed a level more often.

    Args:
        study: the study.

    Returns:
        The data themselves, or a dataset that has only coordinates.
    """
    counted = study.options.thresholds or study.options.return_periods
    if study.forced or counted or any(model.reader.variables for model in study.models.values()):
        return study.data
    index = study.data[study.index]
    # Divide each step into equal parts, for about 100 times in all.
    parts = max(1, round(_PLOTTED_TIMES / index.size))
    if parts == 1:
        return study.data
    number = np.arange((index.size - 1) * parts + 1)
    if are_dates(index):
        times = index.values.astype(np.promote_types(index.dtype, "M8[ms]"))
        steps = np.append(np.diff(times), np.timedelta64(0, "ms"))
        between = times[number // parts] + steps[number // parts] * (number % parts) // parts
    else:
        places = np.arange(index.size)
        between = np.interp(number / parts, places, np.asarray(index.values, dtype=float))
    # Coordinates of other dimensions, such as groups, stay.
    coords: dict[str, Any] = {
        str(name): values
        for name, values in study.data.coords.items()
        if name != study.index and values.dims == (name,)
    }
    coords[study.index] = study.index, between, index.attrs
    found = xr.Dataset(coords=coords)
    solved = all(_is_solved_at(model, found) for model in study.models.values())
    return found if solved else study.data


def _is_solved_at(model: Model, times: xr.Dataset) -> bool:
    """Whether a model accepts some times; its layer is traced for this, but not compiled."""
    try:
        check_shapes(model, model.inputs(times))
    except DataError:
        return False
    return True


def future_times(study: Series, until: Any, step: float) -> np.ndarray:
    """Return the times of the data, and evenly spaced times from their start to `until`.

    The times of the data are kept so that verdicts can still use the held-out data.

    Args:
        study: the study.
        until: the last time, as a number or a date.
        step: distance of the evenly spaced times. For dates it is in the model's unit of time, or
            in days if the model states none.

    Returns:
        The times in increasing order.

    Raises:
        DataError: if `until` is not after the start or the step is not positive, or if a model
            needs forcings, whose future a study does not know.
    """
    if study.forced:
        raise DataError(
            "this study needs forcings: give a file of them by --forcing, or forecast in Python, "
            "with bd.forecast(model, post, dataset)"
        )
    known = study.data[study.index].values
    until = place_of(study.data, study.index, until)
    if are_dates(known):
        start = known[0]
        each = seconds(step, study.model.layer.units.get(study.index, ""))
        if not (each > np.timedelta64(0, "ms") and start < until):
            raise DataError(
                f"until must lie after {in_words(start)} and the step must be positive, both finite"
            )
        return np.union1d(known, np.arange(start, until + each / 2, each))
    # Numbers have a step in the units of the index.
    start = float(known[0])
    if not (0 < step < np.inf and start < until < np.inf):
        raise DataError(
            f"until must lie after {start:g} and the step must be positive, both finite"
        )
    times = np.unique(known.astype(float))
    ahead = np.arange(start, until + step / 2, step)
    # Times that differ by rounding only are the same.
    close = {"method": "nearest", "tolerance": 1e-6 * step}
    nearest = pd.Index(times).get_indexer(pd.Index(ahead), **close)
    return np.union1d(times, ahead[nearest < 0])


def new_rows(study: Series, path: str | Path) -> xr.Dataset:
    """Read new observations and forcings of a time series, and join them with the study's data.

    Args:
        study: the study.
        path: a CSV table or a netCDF file with the index, observables, and the forcings of all
            models.

    Returns:
        The rows of the data and of the file. Rows of the file replace rows of the data at the same
        times.

    Raises:
        ReadError: if the file cannot be read.
        DataError: if the file lacks the index or a forcing, holds no observable, or has dates where
            the data have numbers; or if the data are no single time series.
    """
    index = study.index
    models = study.models.values()
    each = (name for model in models for name in (*model.observables, *model.reader.variables))
    seen = tuple(dict.fromkeys(each))
    # A table cannot hold data with dimensions of places or groups.
    places = [
        dim for name in study.model.observables for dim in study.data[name].dims if dim != index
    ]
    if places:
        raise DataError(
            f"a table of new rows is of a series, but the data have the dimension '{places[0]}': "
            "bd.update"
        )
    found = read_series(path, index, _forcings_of(study), also=seen, **_as_written(study))
    if not any(name in found for name in study.model.observables):
        raise DataError(
            f"{path} holds no observable: it needs {', '.join(study.model.observables)}"
        )
    refuse_mixed(found, index, study.data[index], "the data of the study")
    return _joined_with_data(
        study, [str(name) for name in found.data_vars if name in study.data], found
    )


def _joined_with_data(study: Series, names: list[str], found: xr.Dataset) -> xr.Dataset:
    """Join variables of the study's data with those of a file.

    Rows of the file replace rows of the data at the same times.

    Args:
        study: the study.
        names: names of the variables.
        found: the variables read from the file.
    """
    index = study.index
    known = study.data[names].reset_coords(drop=True)
    found = in_units(found, units_of(known), doubtful=True)
    # Rows of the file replace rows at the same times.
    before = known.isel({index: ~np.isin(known[index].values, found[index].values)})
    return xr.concat([before, found], index, data_vars="all", join="outer").sortby(index)


def _forcings_of(study: Series) -> tuple[str, ...]:
    """Return the names of the forcings of all models, each once."""
    models = study.models.values()
    return tuple(dict.fromkeys(name for model in models for name in model.layer.forcings))


def unknown_to(model: Model, post: xr.DataTree, rows: xr.Dataset) -> xr.Dataset:
    """Remove the observations that a posterior has already used.

    An observation counts as used if the fitted data have the same value at the same index.

    Args:
        model: the model.
        post: its posterior.
        rows: observations and forcings along the index.

    Returns:
        The rows with new observations, where used values are NaN. After the fitted data, rows
        without observations are kept up to the last new observation, since their forcings are
        needed.

    Raises:
        DataError: if no observation is new, or if rows with forcings between the fitted data and
            the new rows are missing.
    """
    known = fitted_observables(post)
    (index,) = rows.dims
    observed = [name for name in known.data_vars if name in rows]
    # 1. Set used values to NaN. A value that has been corrected since counts as new.
    for name in observed:
        old = known[name].drop_duplicates(index).reindex({index: rows[index]})
        same = np.isclose(old, rows[name], rtol=1e-9, atol=0.0)
        rows = rows.assign({name: rows[name].where(~same)})
    some = np.any([rows[name].notnull().values for name in observed], axis=0)
    if not some.any():
        raise DataError(
            "the posterior knows all observations of these rows already: there is nothing to "
            "update by"
        )
    # 2. Keep rows without an observation as far as their forcings lead to one.
    last = rows[index].values[np.flatnonzero(some)[-1]]
    leading = (rows[index].values > known[index].values[-1]) & (rows[index].values <= last)
    found = rows.isel({index: some | leading})
    # A layer that integrates needs forcings without a gap.
    if model.layer.forcings and begins(model.layer):
        _refuse_lacking_rows(model, known, found)
    return found


def _refuse_lacking_rows(model: Model, known: xr.Dataset, found: xr.Dataset) -> None:
    """Check that no rows with forcings are missing after the fitted data.

    Args:
        model: the model.
        known: the fitted data.
        found: the new rows.

    Raises:
        DataError: if a step to a new row is more than twice the longest step in the fitted data.
    """
    index = model.index
    old, new = (np.asarray(model.in_numbers(rows)[index].values, float) for rows in (known, found))
    if old.size < 2:
        return
    # Steps from the last known row on.
    ahead = new > old[-1]
    steps = np.diff(new[ahead], prepend=old[-1])
    lacking = np.flatnonzero(steps > 2 * np.diff(old).max())
    if lacking.size:
        dates = np.append(known[index].values[-1:], found[index].values[ahead])
        last, following = dates[lacking[0] : lacking[0] + 2]
        raise DataError(
            f"forcings are known up to {in_words(last)} and from {in_words(following)} on: give "
            "the rows "
            "between too"
        )


def future_forcings(study: Series, path: str | Path, until: Any = None) -> xr.Dataset:
    """Read forcings from a file, and join them with those of the data.

    Values of the file replace those of the data at the same times.

    Args:
        study: the study.
        path: a CSV table or a netCDF file with the index and the forcings of all models. A table
            may use the column names of the table that `from_table` read. Observations in the file
            are ignored; `new_observations` counts them.
        until: the last time to take from the file, as a number or a date; None takes all times.

    Returns:
        The forcings along the index.

    Raises:
        ReadError: if the file cannot be read.
        DataError: if the study has no forcings, or the file lacks the index or a forcing, or has
            dates where the data have numbers.
    """
    index = study.index
    names = _forcings_of(study)
    if not names:
        raise DataError("this study needs no forcings: leave out --forcing, and say --until when")
    ahead = read_series(path, index, names, **_as_written(study))
    refuse_mixed(ahead, index, study.data[index], "the data of the study")
    if until is not None:
        # Forcings beyond the last time are not needed.
        ahead = ahead.sel({index: ahead[index] <= place_of(study.data, index, until)})
    both = _joined_with_data(study, list(names), ahead)
    return both.assign({name: both[name].assign_attrs(study.data[name].attrs) for name in names})


def new_observations(study: Series, path: str | Path, fitted: xr.Dataset | None = None) -> int:
    """Count the observations in a file of forcings that neither data nor posterior contain.

    A forecast does not use such observations.

    Args:
        study: the study.
        path: as for `future_forcings`.
        fitted: the observables that the posterior was fitted to or updated with; None ignores them.

    Returns:
        The number of values at times without a value in the study's data and in `fitted`.

    Raises:
        ReadError: if the file cannot be read.
        DataError: if the file has dates where the data have numbers.
    """
    forcings = _forcings_of(study)
    observables = (name for model in study.models.values() for name in model.observables)
    observed = tuple(name for name in dict.fromkeys(observables) if name not in forcings)
    found = read_series(path, study.index, (), also=observed, **_as_written(study))
    if not found.data_vars:
        return 0
    refuse_mixed(found, study.index, study.data[study.index], "the data of the study")
    count = 0
    index = study.index
    for name, values in found.data_vars.items():
        new = np.ones(values.sizes[index], bool)
        for known in (study.data, fitted):
            if known is not None and name in known:
                times = known[name].dropna(index, how="all")[index]
                new &= ~np.isin(values[index].values, times.values)
        count += int(values.isel({index: new}).notnull().sum())
    return count


def _as_written(study: Series) -> dict[str, Any]:
    """Return how the user's table writes columns, dates and missing values.

    Returns:
        The arguments `columns`, `date_format` and `missing` of `read_series`.
    """
    attrs = study.data.attrs
    return {
        "columns": json.loads(attrs.get(COLUMNS, "{}")),
        "date_format": attrs.get(DATE_FORMAT),
        "missing": json.loads(attrs.get(MISSING, "[]")),
    }

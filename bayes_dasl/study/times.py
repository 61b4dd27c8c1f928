"""The times that a study forecasts: those of its data, and those beyond them;
forcings of a file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import xarray as xr

from ..data.datasets import in_units, place_of, units_of
from ..data.dates import are_dates, refuse_mixed, seconds, told
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
    """What is looked at here of a study."""

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
    """All times of the data and, where all models can be solved there, times between them for
    smooth curves.

    There are none between them where forcings or known errors are read from the data, or where a
    layer goes in steps, as a difference equation does. Neither are there where levels and return
    periods are asked for: each time that is forecast has noise of its own, so more times would
    exceed a level more often.
    """
    counted = study.options.thresholds or study.options.return_periods
    if study.forced or counted or any(model.reader.variables for model in study.models.values()):
        return study.data
    index = study.data[study.index]
    parts = max(1, round(_PLOTTED_TIMES / index.size))
    if parts == 1:
        return study.data
    number = np.arange((index.size - 1) * parts + 1)
    if are_dates(index):
        times = index.values.astype(np.promote_types(index.dtype, "M8[ms]"))
        steps = np.append(np.diff(times), np.timedelta64(0, "ms"))
        between = times[number // parts] + steps[number // parts] * (number % parts) // parts
    else:
        between = np.interp(
            number / parts, np.arange(index.size), np.asarray(index.values, dtype=float)
        )
    beside = {
        name: c
        for name, c in study.data.coords.items()
        if name != study.index and c.dims == (name,)
    }
    found = xr.Dataset(coords={study.index: (study.index, between, index.attrs), **beside})
    return (
        found if all(_is_solved_at(model, found) for model in study.models.values()) else study.data
    )


def _is_solved_at(model: Model, times: xr.Dataset) -> bool:
    """Whether the layer of a model accepts some times; it is traced for them, not compiled."""
    try:
        check_shapes(model, model.inputs(times))
    except DataError:
        return False
    return True


def future_times(study: Series, until: Any, step: float) -> np.ndarray:
    """Times from the start of the data to `until`, and those of the data: verdicts go on looking at
    what was held out.

    Args:
        study: the study.
        until: the last of these times, a number or a date.
        step: the time between two of them; of dates in the unit of time of the model, days unless
            it says another.

    Raises:
        DataError: if there are none, or if the model needs forcings, whose future a study does not
            know.
    """
    if study.forced:
        raise DataError(
            "this study needs forcings: give a file of them by --forcing, or forecast in Python, "
            "with "
            "bd.forecast(model, post, dataset)"
        )
    held, until = study.data[study.index].values, place_of(study.data, study.index, until)
    if are_dates(held):
        start, each = held[0], seconds(step, study.model.layer.units.get(study.index, ""))
        if not (each > np.timedelta64(0, "ms") and start < until):
            raise DataError(
                f"until must lie after {told(start)} and the step must be positive, both finite"
            )
        return np.union1d(held, np.arange(start, until + each / 2, each))
    start = float(held[0])
    if not (0 < step < np.inf and start < until < np.inf):
        raise DataError(
            f"until must lie after {start:g} and the step must be positive, both finite"
        )
    times, ahead = (
        np.unique(study.data[study.index].values.astype(float)),
        np.arange(start, until + step / 2, step),
    )
    there = (
        pd.Index(times).get_indexer(pd.Index(ahead), method="nearest", tolerance=1e-6 * step) >= 0
    )
    return np.union1d(times, ahead[~there])


def new_rows(study: Series, path: str | Path) -> xr.Dataset:
    """New observations of a series after those that the study holds out, and the forcings at their
    times.

    Args:
        study: the study.
        path: a CSV table or a netCDF file with the index, observables and the forcings of all
            models.

    Raises:
        ReadError: if the file cannot be read.
        DataError: if it lacks the index or a forcing, holds no observable, or has dates where the
            data have numbers.
    """
    models, index = study.models.values(), study.index
    forcings = tuple(dict.fromkeys(name for model in models for name in model.layer.forcings))
    seen = tuple(
        dict.fromkeys(
            name for model in models for name in (*model.observables, *model.reader.variables)
        )
    )
    places = [
        dim for name in study.model.observables for dim in study.data[name].dims if dim != index
    ]
    if places:
        raise DataError(
            f"a table of new rows is of a series, but the data have the dimension '{places[0]}': "
            "bd.update"
        )
    found = read_series(path, index, forcings, also=seen, **_as_written(study))
    if not any(name in found for name in study.model.observables):
        raise DataError(
            f"{path} holds no observable: it needs {', '.join(study.model.observables)}"
        )
    refuse_mixed(found, index, study.data[index], "the data of the study")
    known = study.data[[name for name in found.data_vars if name in study.data]].reset_coords(
        drop=True
    )
    found = in_units(found, units_of(known), doubtful=True)
    before = known.isel({index: ~np.isin(known[index].values, found[index].values)})
    return xr.concat([before, found], index, data_vars="all", join="outer").sortby(index)


def unknown_to(model: Model, post: xr.DataTree, rows: xr.Dataset) -> xr.Dataset:
    """Rows without the observations that a posterior knows already, by the same values.

    Raises:
        DataError: if nothing is left, or rows are lacking whose forcings lead from one to the next.
    """
    known = fitted_observables(post)
    (index,) = rows.dims
    observed = [name for name in known.data_vars if name in rows]
    for name in observed:
        held = known[name].drop_duplicates(index).reindex({index: rows[index]})
        rows = rows.assign(
            {name: rows[name].where(~np.isclose(held, rows[name], rtol=1e-9, atol=0.0))}
        )
    some = np.any([rows[name].notnull().values for name in observed], axis=0)
    if not some.any():
        raise DataError(
            "the posterior knows all observations of these rows already: there is nothing to "
            "update by"
        )
    # Rows without an observation stay as far as their forcings lead to one.
    last = rows[index].values[np.flatnonzero(some)[-1]]
    leading = (rows[index].values > known[index].values[-1]) & (rows[index].values <= last)
    found = rows.isel({index: some | leading})
    if model.layer.forcings and begins(model.layer):
        _refuse_lacking_rows(model, known, found)
    return found


def _refuse_lacking_rows(model: Model, known: xr.Dataset, found: xr.Dataset) -> None:
    """Raise DataError where new rows are further apart than twice any step of those that are
    known.
    """
    index = model.index
    old, new = (np.asarray(model.in_numbers(rows)[index].values, float) for rows in (known, found))
    times, dates = np.append(old[-1:], new[new > old[-1]]), found[index].values[new > old[-1]]
    lacking = (
        np.flatnonzero(np.diff(times) > 2 * np.diff(old).max(initial=0.0)) if old.size > 1 else []
    )
    for i in lacking[:1]:
        last = known[index].values[-1] if i == 0 else dates[i - 1]
        raise DataError(
            f"forcings are known up to {told(last)} and from {told(dates[i])} on: give the rows "
            "between too"
        )


def future_forcings(study: Series, path: str | Path, until: Any = None) -> xr.Dataset:
    """The forcings of the data and, after these, those of a file, which also stand for the data's
    at the same times.

    Args:
        study: the study.
        path: a CSV table or a netCDF file with the index and the forcings of all models. A table
            may have the columns of the one that `from_table` read. Observations in it are not used:
            see `new_observations`.
        until: the last time that is taken of it, a number or a date; all of it unless given.

    Raises:
        ReadError: if the file cannot be read.
        DataError: if it lacks the index or a forcing, or has dates where the data have numbers.
    """
    index = study.index
    names = tuple(
        dict.fromkeys(name for model in study.models.values() for name in model.layer.forcings)
    )
    if not names:
        raise DataError("this study needs no forcings: leave out --forcing, and say --until when")
    ahead = read_series(path, index, names, **_as_written(study))
    refuse_mixed(ahead, index, study.data[index], "the data of the study")
    if until is not None:
        ahead = ahead.sel({index: ahead[index] <= place_of(study.data, index, until)})
    known = study.data[list(names)].reset_coords(drop=True)
    ahead = in_units(ahead, units_of(known), doubtful=True)
    before = known.isel({index: ~np.isin(known[index].values, ahead[index].values)})
    both = xr.concat([before, ahead], index, data_vars="all", join="outer").sortby(index)
    return both.assign({name: both[name].assign_attrs(study.data[name].attrs) for name in names})


def new_observations(study: Series, path: str | Path, fitted: xr.Dataset | None = None) -> int:
    """How many observations a file of forcings holds that neither the data of a study nor its
    posterior know.

    A forecast takes no notice of them.

    Args:
        study: the study.
        path: as for `future_forcings`.
        fitted: the observables that the posterior knows, also after an update.

    Raises:
        as `read_series`.
    """
    seen = tuple(
        dict.fromkeys(name for model in study.models.values() for name in model.observables)
    )
    names = {name for model in study.models.values() for name in model.layer.forcings}
    observed = tuple(name for name in seen if name not in names)
    found = read_series(path, study.index, (), also=observed, **_as_written(study))
    if not found.data_vars:
        return 0
    refuse_mixed(found, study.index, study.data[study.index], "the data of the study")
    count, index = 0, study.index
    for name, values in found.data_vars.items():
        new = np.ones(values.sizes[index], bool)
        for known in (study.data, fitted):
            if known is not None and name in known:
                new &= ~np.isin(
                    values[index].values, known[name].dropna(index, how="all")[index].values
                )
        count += int(values.isel({index: new}).notnull().sum())
    return count


def _as_written(study: Series) -> dict[str, Any]:
    """How the user's table writes the data: its columns, where they are called otherwise, dates and
    missing values.
    """
    attrs = study.data.attrs
    return {
        "columns": json.loads(attrs.get(COLUMNS, "{}")),
        "date_format": attrs.get(DATE_FORMAT),
        "missing": json.loads(attrs.get(MISSING, "[]")),
    }

"""`write_study`: a study file for a table, which runs as it is."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .._runs.files import write_text
from .._runs.folder import check_name
from ..data.dates import are_dates, in_words, seconds_in
from ..data.guess_columns import Guess, guess_columns
from ..data.input_table import InputTable, bare
from ..data.tables import as_name, from_table
from ..errors import DataError, WriteError
from .study_text import Facts, Series, text_of

_FEWEST = 5
# Share of the times that are training data.
_TRAINING = 0.8
# Most times of a study that is fitted in minutes.
_MOST = 2000
# Units of time by the longest step, in seconds, between dates that are counted in them.
_UNITS = {60: "min", 6 * 3600: "h", 20 * 86400: "day", 200 * 86400: "month"}
_NAMES = ("second", "minute", "hour", "day", "week", "month", "year")
_YEAR = 365.25
_COUNTS = ("count", "case", "number", "death", "birth", "individual", "egg", "offspring")


def write_study(
    name: str, table: Path, *, force: bool = False, **columns: Any
) -> tuple[Path, list[str]]:
    """Write a study file for a table; it runs as it is and says what to edit.

    Args:
        name: name of the study, and of the file without `.py`.
        table: a CSV or Parquet file.
        force: whether to replace the file if it exists.
        columns: roles of columns, as for `guess_columns`.

    Returns:
        The file, and what was guessed, in lines.

    Raises:
        WriteError: if the file exists.
        DataError: if the table cannot be read, or has too few times.
    """
    name = name.removesuffix(".py")
    check_name(name, "a study")
    path = Path(f"{as_name(name, ())}.py")
    if path.exists() and not force:
        raise WriteError(f"{path} exists: choose another name, or replace it by --force")
    guess = guess_columns(table, **columns)
    facts = _facts(name, table, path, guess)
    write_text(path, text_of(facts))
    return path, _said(guess)


def _said(guess: Guess) -> list[str]:
    """Return what was guessed, in lines."""
    lines = [f"times: {guess.time}"]
    if guess.subject:
        lines.append(f"subjects: {guess.subject}")
    lines.append(f"forecast: {', '.join(guess.values)}")
    if guess.forcings:
        lines.append(f"forcings: {', '.join(guess.forcings)}")
    for label, why in guess.left_out.items():
        lines.append(f"left out: {label}, which {why}")
    return lines


def _facts(name: str, table: Path, path: Path, guess: Guess) -> Facts:
    """Read the table by its guessed columns, and collect what the text of a study needs."""
    # 1. Read the table as the study will.
    columns = (*guess.values, *guess.forcings)
    names: dict[str, str] = {}
    for label in columns:
        names[label] = as_name(bare(label).lower(), {"time", "subject", *names.values()})
    renamed = {label: new for label, new in names.items() if new != bare(label)}
    replicates = guess.subject is None and bool(_repeated_times(table, guess))
    options: dict[str, Any] = {
        "time": guess.time,
        "subject": guess.subject,
        "forcings": list(guess.forcings),
        "names": renamed,
        "missing": list(guess.missing),
        "date_format": next(iter(guess.date_formats), None),
        "replicates": replicates,
        "units": _unit_of_times(table, guess),
    }
    chosen = {option: value for option, value in options.items() if value}
    data = from_table(table, list(guess.values), **chosen)
    # 2. Choose the rows.
    dated = are_dates(data["time"])
    step = None
    if dated and guess.forcings and not guess.subject:
        step = _regular_step(data["time"].values)
        data = data if step is None else data.reindex(time=_grid(data["time"].values, step))
    last = _MOST if data.sizes["time"] > _MOST else None
    data = data if last is None else data.isel(time=slice(-last, None))
    # 3. Split the data, and describe the training data.
    split, held_out = _split(data, [names[label] for label in guess.values])
    train = data.drop_sel(subject=held_out) if held_out else data.sel(time=data["time"] <= split)
    times = _as_numbers(train["time"].values)
    unit = _unit(data["time"].values) if dated else data["time"].attrs.get("units", "")
    return Facts(
        name=name,
        file=path.name,
        table=Path(os.path.relpath(table, path.parent)).as_posix(),
        values=list(guess.values),
        options=chosen,
        formats=guess.date_formats[1:],
        step=None if step is None else int(step / np.timedelta64(1, "s")),
        last=last,
        split=in_words(split) if dated else float(split),
        held_out=held_out,
        unit=unit,
        span=_in_unit(np.ptp(times), unit, dated),
        between=_in_unit(float(np.median(np.diff(np.unique(times)))), unit, dated),
        yearly=bool(dated and not guess.subject and np.ptp(times) > 1.5 * _YEAR * 86400),
        series=[_series(train, names[label], label) for label in guess.values],
        forcings=[_series(data, names[label], label) for label in guess.forcings],
        left_out=guess.left_out,
        members=data["subject"].values.tolist() if guess.subject else [],
    )


def _repeated_times(table: Path, guess: Guess) -> int:
    """Count the rows that have the time of an earlier row."""
    return int(InputTable(table).frame[guess.time].duplicated().sum())


def _unit_of_times(table: Path, guess: Guess) -> dict[str, str]:
    """Return the unit of numeric times whose column has the name of a unit, such as `day`."""
    unit = guess.time.lower().removesuffix("s")
    numeric = pd.api.types.is_numeric_dtype(InputTable(table).frame[guess.time])
    is_unit = unit in _NAMES and numeric and not guess.date_formats
    return {guess.time: unit} if is_unit else {}


def _as_numbers(times: np.ndarray) -> np.ndarray:
    """Return times as numbers; dates as seconds since the first."""
    if are_dates(times):
        return (times - times[0]) / np.timedelta64(1, "s")
    return np.asarray(times, float)


def _regular_step(times: np.ndarray) -> np.timedelta64 | None:
    """Return the step of a regular series of dates that lacks some rows; else None."""
    steps = np.diff(times)
    step = np.median(steps.astype(np.int64)).astype("m8[ns]")
    whole = steps.astype(np.int64) % step.astype(np.int64) == 0
    return step if whole.all() and (steps > step).any() and (steps == step).mean() > 0.5 else None


def _grid(times: np.ndarray, step: np.timedelta64) -> np.ndarray:
    """Return all dates of a regular series."""
    return np.arange(times[0], times[-1] + step, step)


def _unit(times: np.ndarray) -> str:
    """Return the unit of time that suits the steps between dates."""
    step = float(np.median(np.diff(np.unique(_as_numbers(times)))))
    return next((unit for longest, unit in _UNITS.items() if step < longest), "year")


def _in_unit(seconds: float, unit: str, dated: bool) -> float:
    """Return a length of time in a unit; that of numbers stays as it is."""
    return float(seconds / seconds_in(unit)) if dated else float(seconds)


def _split(data: xr.Dataset, names: list[str]) -> tuple[Any, list[Any]]:
    """Return the last time of the training data, and subjects that are held out instead.

    Raises:
        DataError: if there are too few times.
    """
    seen = data[names].to_array().notnull()
    of_times = seen.any([dim for dim in seen.dims if dim != "time"])
    times = data["time"].values[of_times.values]
    once = np.unique(times)
    if once.size < _FEWEST:
        raise DataError(f"a forecast needs values at {_FEWEST} times or more, not {once.size}")
    split = once[int(_TRAINING * once.size) - 1]
    if "subject" not in data.dims:
        return split, []
    # Each subject needs training data; else whole subjects are held out.
    known = seen.sel(time=data["time"] <= split).any("variable").sum("time").values
    members = data["subject"].values
    if known.min() >= 2 or members.size < _FEWEST:
        return split, []
    return split, members[int(_TRAINING * members.size) :].tolist()


def _series(data: xr.Dataset, name: str, label: str) -> Series:
    """Describe the values of a column."""
    found = data[name].dropna("time", how="all")
    values = found.values[np.isfinite(found.values)]
    low, high = (float(end) for end in np.quantile(values, [0.02, 0.98]))
    whole = bool((values >= 0).all() and (values == np.round(values)).all())
    if whole and any(word in name for word in _COUNTS):
        kind = "count"
    elif values.min() > 0 and values.max() > 20 * values.min():
        kind = "positive"
    else:
        kind = "real"
    gaps = data[name].isnull()
    first = found.values[0]
    return Series(
        name=name,
        label=label,
        units=data[name].attrs.get("units", ""),
        kind=kind,
        low=low,
        high=high,
        mean=float(values.mean()),
        spread=float(values.std()) or 1.0,
        first=float(np.nanmean(first)),
        gaps=int(gaps.sum()),
        open_ended=bool(gaps.values.reshape(len(gaps), -1)[[0, -1]].any()),
    )

"""Baseline forecasts without science, which a model must beat to be worth its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..data.datasets import index_of
from ..data.dates import are_dates, numbers, seconds_in, unit_of
from ..errors import DataError, MismatchError, ModelError

# The fewest pairs at a lead time, or values of a season, for an ensemble.
FEWEST = 5
SEASONAL, SEASONAL_NAIVE = "seasonal climatology", "seasonal naive"
# Draws of a public baseline.
_MOST = 1000
BASELINES = ("climatology", "persistence", SEASONAL)
_DAYS = 365.2425
_SEASON = 15.5 / _DAYS
# Data that cover this share of a year count as a whole year: daily data end a day too early.
_WHOLE = 0.99
# Days in a year of the calendars of netCDF.
_CALENDARS = {"noleap": 365, "365_day": 365, "all_leap": 366, "366_day": 366, "360_day": 360}


def climatology(train: xr.Dataset, times: ArrayLike) -> xr.Dataset:
    """Forecast all training values of a place as an ensemble, which is the same at every time.

    A place, or a group, without training values gets quantiles of the training values of all
    others.

    Args:
        train: the training data, NaN where missing.
        times: the times of the forecast.

    Shapes: each variable is `(draw, time, …)`, NaN in a draw whose training value is missing.

    Returns:
        The ensemble.
    """

    def members(_: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:
        return values

    found = _ensemble_forecast(train, times, members)
    for name, variable in train.data_vars.items():
        known = variable.values[np.isfinite(variable.values.astype(float))].astype(float)
        unseen = variable.isnull().all(index_of(train))
        if known.size and unseen.any():
            share = (np.arange(found.sizes["draw"]) + 0.5) / found.sizes["draw"]
            alike_all = xr.DataArray(np.quantile(known, share), dims="draw")
            found[name] = found[name].where(~unseen, alike_all).transpose(*found[name].dims)
    return found


def persistence(train: xr.Dataset, times: ArrayLike) -> xr.Dataset:
    r"""Forecast the last value, plus changes of training values over the same lead time.

    $x_k(t) = y(t_n) + y(t_j) - y(t_i)$ for the training pairs $k = (i, j)$ with
    $t_j - t_i \approx t - t_n$

    Here $x_k$ is draw $k$ of the ensemble, $y$ are training values, and $t_n$ is the last training
    time before $t$. The pairs are those within half a typical time step of the lead, and at least
    the five nearest. If all training values have the same time, they are the ensemble. Replicates
    at $t_n$ take turns as last value. Before all training times, the first value replaces the last
    one, and changes are subtracted. Memory for each forecast time grows with the number of training
    values.

    Args:
        train: the training data, NaN where missing.
        times: the times of the forecast.

    Shapes: each variable is `(draw, time, …)`, padded with NaN where a lead time has fewer pairs.

    Returns:
        The ensemble.
    """
    return _ensemble_forecast(train, times, _persistence_members)


def seasonal_climatology(train: xr.Dataset, times: ArrayLike) -> xr.Dataset:
    """Forecast the training values of all years within 15 days of the day of the year.

    If fewer than five values lie within 15 days, the five nearest in season are used.

    Args:
        train: the training data, NaN where missing.
        times: the times of the forecast.

    Shapes: each variable is `(draw, time, …)`, padded with NaN where a season has fewer values.

    Returns:
        The ensemble.

    Raises:
        DataError: if the index states no unit of time.
    """
    year = _length_of_year(train)

    def members(seen: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:
        apart = np.abs((seen - t + year / 2) % year - year / 2)
        rank = min(FEWEST, seen.size) - 1
        return values[apart <= max(np.partition(apart, rank)[rank], _SEASON * year)]

    return _ensemble_forecast(train, times, members)


def seasonal_naive(train: xr.Dataset, times: ArrayLike) -> xr.Dataset:
    r"""Forecast the last value of the same season, plus changes over the same number of years.

    $x_k(t) = y(t - m a) + y(t_j) - y(t_j - m a)$

    Here $x_k$ is draw $k$ of the ensemble, $y$ are training values, and $a$ is a year. The number
    $m$ of years is the smallest for which $t - m a$ is a training time. The training pairs $k =
    (t_j - m a, t_j)$ lie within 15 days of the season of $t$. With fewer than five such pairs, the
    pairs of all seasons are used. Times that differ by less than half a typical step count as
    equal.

    Args:
        train: the training data, NaN where missing.
        times: the times of the forecast.

    Shapes: each variable is `(draw, time, …)`, padded with NaN where a season has fewer pairs.

    Returns:
        The ensemble.

    Raises:
        DataError: if the index states no unit of time.

    Source: Hyndman & Athanasopoulos (2021), Forecasting: Principles and Practice, section 5.2.
    """
    year = _length_of_year(train)

    def members(seen: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:
        return values if seen.size < 2 else _a_year_on(seen, values, t, year)

    return _ensemble_forecast(train, times, members)


def baseline_forecasts(
    train: xr.Dataset, data: xr.Dataset, *, observables: Sequence[str] | None = None
) -> dict[str, xr.DataTree]:
    """Return baseline forecasts by name, for `score` and `pit`.

    "climatology" repeats all training values, and "persistence" continues from the last one. For at
    least two years of seasonal data there are two more. "seasonal climatology" repeats values
    within 15 days of the same day of the year. "seasonal naive" continues from the value a year
    before.

    Each forecast has at most 1000 draws. They are quantiles of the baseline's ensemble at each
    time, so that a draw is not a path through time.

    Args:
        train: the training data, NaN where missing.
        data: a dataset of the times that are forecast, such as the test data.
        observables: variables of the training data; all by default. Name them if the data hold
            forcings too.

    Returns:
        Forecasts with the group `predictions`, `(chain, draw, time, …)`, in the units of the
        training data.

    Raises:
        MismatchError: for an observable that the training data lack.
        DataError: for an observable without a value in the training data.

    Example:
        ```python
        train, test = bd.split(data, time=6.0)
        for name, fc in bd.scores.baseline_forecasts(train, test, observables=["y"]).items():
            print(name, bd.score(fc, test))
        ```
    """
    names = [str(name) for name in (train.data_vars if observables is None else observables)]
    refuse_absent(names, train, "training")
    for name in names:
        if not train[name].notnull().any():
            raise DataError(
                f"the training data hold no value of '{name}', which a baseline could go on from"
            )
    every = baselines(train[names])
    if SEASONAL in every:
        every[SEASONAL_NAIVE] = seasonal_naive
    return {
        label: _as_forecast(baseline_at(one, train[names], data)) for label, one in every.items()
    }


def refuse_absent(names: Sequence[str], data: xr.Dataset, part: str) -> None:
    """Raise MismatchError for observables that the data lack.

    Args:
        names: the observables.
        data: a dataset.
        part: its name for the message, such as "training".
    """
    if absent := [name for name in names if name not in data.data_vars]:
        raise MismatchError(
            f"the {part} data lack the observables {', '.join(absent)}; "
            f"they hold {', '.join(map(str, data.data_vars)) or 'nothing'}"
        )


def baselines(train: xr.Dataset) -> dict[str, Callable[[xr.Dataset, ArrayLike], xr.Dataset]]:
    """Return the baselines that some training data allow, by name.

    Seasonal climatology needs an index with a unit of time, and at least two years of data. Each
    year must have at least four rows on average.

    Returns:
        Functions of training data and times, by name.
    """
    found = {"climatology": climatology, "persistence": persistence}
    year = _year_or_none(train)
    time = np.asarray(train[index_of(train)].values)
    if year is None or time.dtype.kind not in "iufM" or time.size < 2:
        return found
    years = float(np.ptp(numbers(time[[0, -1]]))) / year
    if years >= 2 * _WHOLE and time.size >= 4 * years:
        found[SEASONAL] = seasonal_climatology
    return found


def _length_of_year(data: xr.Dataset) -> float:
    """Return the length of a year in the units of the index.

    Raises:
        DataError: if the index has no unit of time.
    """
    year = _year_or_none(data)
    if year is None:
        raise DataError(
            f"'{index_of(data)}' has no unit of time such as 'day' or 'h' in attrs['units']"
        )
    return year


def _year_or_none(data: xr.Dataset) -> float | None:
    """Return the length of a year in the units of the index; None if these are no unit of time."""
    index = data[index_of(data)]
    if are_dates(index):
        return _DAYS
    unit = unit_of(str(index.attrs.get("units", "")))
    # Short units differ by case: `H` is no hour.
    if not unit or (len(unit) < 3 and not unit.islower()):
        return None
    try:
        seconds = seconds_in(unit)
    except ModelError:
        return None
    # Months and years have no calendar.
    if seconds >= seconds_in("month"):
        return seconds_in("year") / seconds
    return seconds_in("day") / seconds * _CALENDARS.get(index.attrs.get("calendar", ""), _DAYS)


def baseline_at(
    baseline: Callable[[xr.Dataset, ArrayLike], xr.Dataset], train: xr.Dataset, test: xr.Dataset
) -> xr.Dataset:
    """Return the ensemble of a baseline at the times and places of the test data.

    The test data may have places that the training data lack.

    Args:
        baseline: one of `baselines`.
        train: the training data, with the observables alone.
        test: the test data.

    Returns:
        The ensemble, `(draw, time, …)`.
    """
    index = index_of(test)
    both = [
        dim for dim in test.dims if dim != index and dim in test.indexes and dim in train.indexes
    ]
    # The training data get all places of the test data, with NaN at new ones.
    other = [dim for dim in both if not test.indexes[dim].equals(train.indexes[dim])]
    united = {dim: train.indexes[dim].union(test.indexes[dim]) for dim in other}
    whole = train.reindex(united)
    return baseline(whole, test[index].values).sel({dim: test[dim].values for dim in other})


def baseline_ensembles(
    train: xr.Dataset, test: xr.Dataset
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the name of each baseline, and its draws `(draw, datum)` by observable."""
    for label, baseline in baselines(train).items():
        members = baseline_at(baseline, train, test)
        flat = {}
        for name in train.data_vars:
            values = members[name].values
            flat[str(name)] = values.reshape(len(values), math.prod(values.shape[1:]))
        yield label, flat


def _ensemble_forecast(
    train: xr.Dataset,
    times: ArrayLike,
    members_at: Callable[[np.ndarray, np.ndarray, float], np.ndarray],
) -> xr.Dataset:
    """Return an ensemble forecast of each observable and place at each time.

    Args:
        train: the training data, NaN where missing.
        times: the times of the forecast.
        members_at: a function that returns the ensemble at one time. Its arguments are the times
            with a training value at this place, these values, and the time of the forecast.

    Returns:
        Ensembles `(draw, time, …)` by observable, padded with NaN to the size of the largest.
    """
    index = index_of(train)
    time = np.atleast_1d(np.asarray(times))
    known = numbers(train[index].values)

    def ensemble(y: np.ndarray) -> np.ndarray:
        there = np.isfinite(y)
        seen = known[there]
        values = y[there]
        if not seen.size:
            return np.empty((0, time.size))
        return _members_by_time([members_at(seen, values, float(t)) for t in numbers(time)])

    # 1. The ensemble of each observable at each place.
    members = {}
    for name, variable in train.data_vars.items():
        columns = variable.transpose(index, ...).values.astype(float).reshape(len(known), -1).T
        members[name] = [ensemble(y) for y in columns]
    draws = max((block.shape[0] for blocks in members.values() for block in blocks), default=0)
    # 2. Arrays of all places, padded to the size of the largest ensemble.
    variables = {}
    for name, blocks in members.items():
        places = train[name].transpose(index, ...).dims[1:]
        values = np.stack([_padded_with_nan(block, draws) for block in blocks], axis=-1)
        shape = (draws, len(time), *(train.sizes[place] for place in places))
        variables[name] = (("draw", index, *places), values.reshape(shape), train[name].attrs)
    coords = {"draw": np.arange(draws), index: (index, time, train[index].attrs)}
    return xr.Dataset(variables, coords={**train.coords, **coords})


def _a_year_on(seen: np.ndarray, values: np.ndarray, t: float, year: float) -> np.ndarray:
    """Return the ensemble of `seasonal_naive` at one time.

    Args:
        seen: the times of the training values.
        values: the training values.
        t: the time of the forecast.
        year: the length of a year.
    """
    # A little more than half a step, so that rounding keeps equal times together.
    width = _half_step(seen) * (1 + 1e-9)
    # 1. The last year with a value at this season, or else the year with the nearest value.
    years = np.arange(1, max(int((t - seen[0]) / year), 1) + 1)
    apart = np.abs(seen - (t - years * year)[:, None]).min(axis=1)
    back = years[np.argmax(apart <= width) if (apart <= width).any() else np.argmin(apart)]
    last = values[np.argmin(np.abs(seen - (t - back * year)))]
    # 2. Changes over `back` years, of this season only if it has enough of them.
    earlier = np.clip(np.searchsorted(seen, seen - back * year - width), 0, seen.size - 1)
    pairs = np.abs(seen[earlier] - (seen - back * year)) <= width
    changes = values - values[earlier]
    in_season = np.abs((seen - t + year / 2) % year - year / 2) <= _SEASON * year
    some = changes[pairs & in_season]
    some = some if some.size >= FEWEST else changes[pairs]
    return last + (some if some.size else np.zeros(1))


def _as_forecast(ensemble: xr.Dataset) -> xr.DataTree:
    """Return a forecast with equally many draws at each time, from an ensemble padded with NaN.

    Draws are quantiles of the finite members at each time.
    """
    draws = min(_MOST, max(ensemble.sizes["draw"], 1))
    level = (np.arange(draws) + 0.5) / draws
    found = {}
    for name, members in ensemble.data_vars.items():
        # NaN come last, so that the first ones are quantiles.
        ordered = np.sort(members.values, axis=0)
        number = np.isfinite(ordered).sum(axis=0)
        ranks = np.floor(level.reshape(-1, *[1] * number.ndim) * number).astype(int)
        values = np.take_along_axis(ordered, ranks, axis=0)[None]
        found[name] = (("chain", "draw", *members.dims[1:]), values, members.attrs)
    coords = {"chain": [0], "draw": np.arange(draws)}
    kept = {name: held for name, held in ensemble.coords.items() if "draw" not in held.dims}
    return xr.DataTree.from_dict({"predictions": xr.Dataset(found, coords={**kept, **coords})})


def _members_by_time(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return ensembles of several times as one array `(draw, time)`, padded with NaN."""
    most = max(map(len, columns), default=0)
    members = np.full((most, len(columns)), np.nan)
    for column, found in enumerate(columns):
        members[: found.size, column] = found
    return members


def _padded_with_nan(block: np.ndarray, draws: int) -> np.ndarray:
    missing = ((0, draws - block.shape[0]), (0, 0))
    return np.pad(block, missing, constant_values=np.nan)


def _persistence_members(seen: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:
    """Return the ensemble of `persistence` at one time.

    Args:
        seen: the times of the training values.
        values: the training values.
        t: the time of the forecast.
    """
    if np.ptp(seen) == 0:
        return values
    last = max(int(np.searchsorted(seen, t, side="right")) - 1, 0)
    sign = 1.0 if seen[last] <= t else -1.0
    replicates = values[seen == seen[last]]
    earlier, later = _pairs_at_lead(seen, abs(t - seen[last]), _half_step(seen))
    changes = values[later] - values[earlier]
    return replicates[np.arange(earlier.size) % replicates.size] + sign * changes


def _half_step(seen: np.ndarray) -> float:
    """Return half of the median step between distinct times."""
    return float(np.median(np.diff(np.unique(seen)))) / 2


def _pairs_at_lead(seen: np.ndarray, lead: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of pairs of times whose distance is about a lead time.

    These are all pairs whose distance differs from the lead by at most `width`, and at least the
    five nearest pairs and their ties.

    Returns:
        The indices of the earlier times, and the indices of the later times.
    """
    first = np.arange(seen.size)
    at = np.maximum(np.searchsorted(seen, seen + lead), first + 1)
    # For each earlier time, five candidates on either side of the lead suffice: they include the
    # five nearest pairs of all.
    near = at[:, None] + np.arange(-FEWEST, FEWEST)
    inside = (near > first[:, None]) & (near < seen.size)
    later = seen[np.clip(near, 0, seen.size - 1)]
    distance = np.abs(later - seen[:, None] - lead)[inside]
    rank = min(FEWEST, distance.size) - 1
    fewest = np.partition(distance, rank)[rank]
    # A little above the tie, so that rounding of the times keeps equal leads together.
    rounding = 4 * np.spacing(np.abs(seen).max() + lead)
    width = max(fewest, width) * (1 + 1e-9) + rounding
    begin = np.maximum(np.searchsorted(seen, seen + lead - width, side="left"), first + 1)
    number = np.maximum(np.searchsorted(seen, seen + lead + width, side="right") - begin, 0)
    earlier = np.repeat(first, number)
    within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    return earlier, np.repeat(begin, number) + within

"""Forecasts that know no science: what a model must beat to be worth its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from ..data.datasets import in_units, index_of, units_of
from ..errors import MismatchError
from .scores import score_table

FEWEST_DIFFERENCES = 5


def climatology(train: xr.Dataset, times: ArrayLike) -> xr.Dataset:
    """Forecast, at every time, the ensemble of all training values (of a field, at each place its own).

    Shapes: each variable is `(draw, time, …)`, NaN in a draw where the training value is missing.
    """
    time = np.atleast_1d(np.asarray(times, float))

    def ensemble(_: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.tile(values[:, None], (1, time.size))

    return _forecast(train, time, ensemble)


def persistence(train: xr.Dataset, times: ArrayLike) -> xr.Dataset:
    r"""Forecast the last value observed before, dressed with the changes seen over the same lead time.

    $x_k(t) = y(t_n) + y(t_j) - y(t_i)$ for the training pairs $k = (i, j)$ with
    $t_j - t_i \approx t - t_n$

    The pairs are those within half a typical time step of the lead, and at least the five nearest; training values of a
    single time are repeated as they are, and replicates of the last time are taken in turn. Before all training times
    it is the first value with the changes taken backwards. Memory grows with the number of training values, for each
    time asked for.

    Shapes: each variable is `(draw, time, …)`, padded with NaN where a lead time has fewer pairs.
    """
    time = np.atleast_1d(np.asarray(times, float))

    def ensemble(seen: np.ndarray, values: np.ndarray) -> np.ndarray:
        if seen.size == 0:
            return np.empty((0, time.size))
        columns = [_dressed(seen, values, float(t)) for t in time]
        members = np.full((max(map(len, columns)), time.size), np.nan)
        for column, found in enumerate(columns):
            members[: found.size, column] = found
        return members

    return _forecast(train, time, ensemble)


def score_baselines(
    train: xr.Dataset, test: xr.Dataset, *, observables: Sequence[str] | None = None
) -> dict[str, pd.DataFrame]:
    """Score climatology and persistence on the test data, with the columns of `score`.

    `observables` defaults to every variable of the training data; name them where the data hold
    forcings too.

    Raises: MismatchError if an observable is not in both data sets.
    """
    names = [str(name) for name in (train.data_vars if observables is None else observables)]
    for part, data in (("training", train), ("test", test)):
        absent = [name for name in names if name not in data.data_vars]
        if absent:
            raise MismatchError(
                f"the {part} data lack the observables {', '.join(absent)}; "
                f"they hold {', '.join(map(str, data.data_vars)) or 'nothing'}"
            )
    test = in_units(test, units_of(train), doubtful=True)
    tables = {}
    for baseline in (climatology, persistence):
        members = baseline(train[names], test[index_of(test[names])].values)
        tables[baseline.__name__] = score_table(
            {
                name: (
                    members[name].values.reshape(members.sizes["draw"], test[name].size),
                    test[name].transpose(*members[name].dims[1:]).values.astype(float).ravel(),
                )
                for name in names
            }
        )
    return tables


def _forecast(
    train: xr.Dataset, time: np.ndarray, ensemble: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> xr.Dataset:
    """Apply `ensemble(times, values)` to the observed part of each variable."""
    index = index_of(train)
    known = np.asarray(train[index].values, float)
    members = {}
    for name, variable in train.data_vars.items():
        columns = variable.transpose(index, ...).values.astype(float).reshape(len(known), -1).T
        members[name] = [ensemble(known[np.isfinite(y)], y[np.isfinite(y)]) for y in columns]
    draws = max((block.shape[0] for blocks in members.values() for block in blocks), default=0)
    variables = {}
    for name, blocks in members.items():
        places = train[name].transpose(index, ...).dims[1:]
        values = np.stack([_padded(block, draws) for block in blocks], axis=-1)
        shape = (draws, len(time), *(train.sizes[place] for place in places))
        variables[name] = (("draw", index, *places), values.reshape(shape), train[name].attrs)
    coords = {"draw": np.arange(draws), index: (index, time, train[index].attrs)}
    return xr.Dataset(variables, coords={**train.coords, **coords})


def _padded(block: np.ndarray, draws: int) -> np.ndarray:
    missing = ((0, draws - block.shape[0]), (0, 0))
    return np.pad(block, missing, constant_values=np.nan)


def _dressed(seen: np.ndarray, values: np.ndarray, t: float) -> np.ndarray:
    """The last value before `t` with each change over the same lead; of one training value, that value.

    Replicates of the last time are taken in turn.
    """
    if np.ptp(seen) == 0:
        return values
    last = max(int(np.searchsorted(seen, t, side="right")) - 1, 0)
    sign = 1.0 if seen[last] <= t else -1.0
    replicates = values[seen == seen[last]]
    earlier, later = _pairs(seen, abs(t - seen[last]), float(np.median(np.diff(np.unique(seen)))) / 2)
    return replicates[np.arange(earlier.size) % replicates.size] + sign * (values[later] - values[earlier])


def _pairs(seen: np.ndarray, lead: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the pairs of times whose distance is within `width` of the lead, and of the five nearest with ties."""
    first = np.arange(seen.size)
    at = np.maximum(np.searchsorted(seen, seen + lead), first + 1)
    # The five nearest pairs of all are among the five nearest on either side for each earlier time.
    near = at[:, None] + np.arange(-FEWEST_DIFFERENCES, FEWEST_DIFFERENCES)
    inside = (near > first[:, None]) & (near < seen.size)
    distance = np.abs(seen[np.clip(near, 0, seen.size - 1)] - seen[:, None] - lead)[inside]
    rank = min(FEWEST_DIFFERENCES, distance.size) - 1
    fewest = np.partition(distance, rank)[rank]
    # A little above the tie, so that rounding of the times keeps equal leads together.
    width = max(fewest, width) * (1 + 1e-9) + 4 * np.spacing(np.abs(seen).max() + lead)
    begin = np.maximum(np.searchsorted(seen, seen + lead - width, side="left"), first + 1)
    number = np.maximum(np.searchsorted(seen, seen + lead + width, side="right") - begin, 0)
    earlier = np.repeat(first, number)
    within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    return earlier, np.repeat(begin, number) + within

"""Forecasts that know no science: what a model must beat to be worth its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from ..data.datasets import index_of
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
    r"""Forecast the last observed value, dressed with the changes seen over the same lead time.

    $x_k(t) = y(t_n) + y(t_j) - y(t_i)$ for the training pairs $k = (i, j)$ with
    $t_j - t_i \approx t - t_n$

    The pairs are those within half a typical time step of the lead, and at least the five nearest;
    a single training value is repeated as it is.

    Shapes: each variable is `(draw, time, …)`, padded with NaN where a lead time has fewer pairs.
    """
    time = np.atleast_1d(np.asarray(times, float))

    def ensemble(seen: np.ndarray, values: np.ndarray) -> np.ndarray:
        if seen.size == 0:
            return np.empty((0, time.size))
        leads, changes = _changes(seen, values)
        step = float(np.median(np.diff(seen))) if seen.size > 1 else 0.0
        members = np.full((leads.size, time.size), np.nan)
        for column, t in enumerate(time):
            near = changes[_nearest(leads, t - seen[-1], step / 2)]
            members[: near.size, column] = values[-1] + near
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


def _changes(seen: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lead times and changes of value between all ordered pairs of training times."""
    if seen.size == 1:
        return np.zeros(1), np.zeros(1)
    earlier, later = np.triu_indices(seen.size, 1)
    return seen[later] - seen[earlier], values[later] - values[earlier]


def _nearest(leads: np.ndarray, lead: float, width: float) -> np.ndarray:
    """Indices of the pairs within `width` of the lead, and of the five nearest with their ties."""
    distance = np.abs(leads - lead)
    fewest = min(FEWEST_DIFFERENCES, distance.size) - 1
    # A little above the tie, so that rounding of the times keeps equal leads together.
    limit = max(np.sort(distance)[fewest], width) * (1 + 1e-9)
    return np.flatnonzero(distance <= limit)

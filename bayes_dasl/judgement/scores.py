"""How good a forecast is: errors, proper scores, coverage and probability integral transforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from .._statistics.blocks import blocks_of, draws_at
from ..data.datasets import checked_times, in_units, index_of, occurrence, units_of
from ..data.units import agree
from ..errors import DataError, MismatchError
from .log_score import EXACT, KERNEL, UNKNOWN, are_whole, exact_log_scores, kernel_log_scores

LEVELS = (50, 80, 90, 95)
COLUMNS = (
    *("mse", "rmse", "mae", "crps", "interval_score_90", "log_score"),
    *(f"coverage_{level}" for level in LEVELS),
    "n",
)
_FIRST = ("crps", "log_score", "rmse", "mae", "coverage_90")  # what a narrow terminal shows
POINTWISE = tuple(name for name in COLUMNS if name not in ("rmse", "n"))

type Ensembles = Mapping[str, tuple[np.ndarray, np.ndarray]]
type Part = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Draws `(draw, datum)`, data `(datum,)` and, where they are known, exact log scores `(datum,)`."""


class ScoreTable(pd.DataFrame):
    """A table of which every column is printed, however narrow the terminal is, and what was left out of it."""

    @property
    def _constructor(self) -> type["ScoreTable"]:
        return ScoreTable

    def __repr__(self) -> str:
        return "\n".join([self.to_string(line_width=100), *self._notes()])

    def _notes(self) -> list[str]:
        kinds = self.attrs.get("log_score", {})
        said = [f"log_score of {name}: {kind}" for name, kind in kinds.items() if kind != EXACT and name in self.index]
        failed, times = (int(self.attrs.get(name, 0)) for name in ("failed_draws", "times_left_out"))
        said += [f"left out: {failed} draws that are not finite"] if failed else []
        return said + ([f"left out: {times} times of the data that are not forecast"] if times else [])


def score(fc: xr.DataTree, data: xr.Dataset) -> ScoreTable:
    """Score a forecast against the data, one row for each observable and one for `all`.

    Only times that the forecast and the data share count; `attrs["times_left_out"]` says how many of the data are not
    forecast. Missing observations are left out, and so are draws that are not finite (a failed solve);
    `attrs["failed_draws"]` counts those, of members each once. Row `all` is the mean over the observables that have
    data, NaN where one of them is; its coverages are shares of all values, and its `n` is their number.

    The log score is exact: minus the log of the mean over draws of the density, or mass, that the noise of each draw
    gives to the datum. A forecast without the group `noise`, made by hand, has draws only: then it is that of a kernel
    density of these, which is an estimate, and NaN where draws and data are whole numbers, of which draws alone give no
    mass. `attrs["log_score"]` says which by observable, and so does the printed table where it is not exact.

    Args:
        fc: what `forecast` returned.
        data: a dataset with the observables, NaN where missing.

    Units: mse in squared units of the observable; rmse, mae, crps and interval_score_90 in its
    units; log_score in nats, of a density in the inverse units; coverages are shares. Lower is better, but for these.
    Raises: MismatchError if an observable is not in the data, or no time is shared; DataError for units of another
    dimension than the forecast's (others are converted).
    """
    data = in_units_of_forecast(fc, data)
    predictions, noise, common = shared(fc, data)
    rows = {name: _scored(_parts(name, predictions, noise, common)) for name in map(str, predictions.data_vars)}
    table = _table(rows)
    failed = [~row.whole for row in rows.values()]
    table.attrs["failed_draws"] = int(np.any(failed, axis=0).sum()) // repeats(fc)
    index = index_of(common)
    table.attrs["times_left_out"] = data.sizes[index] - common.sizes[index]
    return table


def pit(fc: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    r"""Return the probability integral transform of each observation; NaN where it is missing.

    $p = (\#\{x < y\} + u\,(\#\{x = y\} + 1)) / (m + 1)$ for $m$ draws $x$ and $u \sim U(0, 1)$

    For a calibrated forecast it is uniform, also for counts; the $u$ come from a fixed seed.

    Args:
        fc: what `forecast` returned.
        data: a dataset with the observables, NaN where missing.

    Shapes: each observable has the dimensions of the data, over the times that the forecast and the data share.
    Raises: MismatchError as for `score`.
    """
    data = in_units_of_forecast(fc, data)
    predictions, _, common = shared(fc, data)
    rng, ranks = np.random.default_rng(0), {}
    for name, variable in predictions.data_vars.items():
        whole = np.all([_finite(draws_at(variable, at)) for at in blocks_of(variable)], axis=0)
        found = [
            _ranks(draws_at(variable, at)[whole], common[name].isel(at).values.ravel(), rng)
            for at in blocks_of(variable)
        ]
        ranks[name] = np.concatenate(found).reshape(common[name].shape)
    return xr.Dataset({name: (common[name].dims, v, {"units": ""}) for name, v in ranks.items()}, common.coords)


type Span = tuple[float | None, float | None]
"""From when until when data were fitted, as far as that is known."""


def fitted_between(fc: xr.DataTree) -> Span:
    """From when until when the data of a forecast were fitted, under its forcings."""
    return fc.attrs.get("train_start"), fc.attrs.get("train_end")


def held_out(train: xr.Dataset, data: xr.Dataset, fitted: Span) -> xr.Dataset:
    """The data without those values that were fitted: at the same times and places, between two times.

    At the time of replicates of which one was fitted all are left out: none can be told from another.

    Under other forcings the same times are forecast: `fitted` says which are not, and has no end where all are.
    """
    start, end = fitted
    if end is None:
        return data
    index = train[index_of(train)]
    seen = train.sel({index.name: (index <= end) & (index >= (-np.inf if start is None else start))})

    def unseen(values: xr.DataArray) -> xr.DataArray:
        at = {dim: values[dim] for dim in values.dims if dim in values.coords}
        known = seen[values.name].notnull()
        if not known.indexes[index.name].is_unique:
            known = known.groupby(str(index.name)).any()
        return values.where(~(known.astype(float).reindex(at) > 0))

    return data.assign({name: unseen(data[name]) for name in seen.data_vars if name in data})


def consistency(tree: xr.DataTree) -> ScoreTable:
    """How far a posterior or a forecast breaks each constraint, one row for each law.

    `rms` is the root mean square over the law's numbers in the median draw, `rms_95` in the 95 % quantile of the draws,
    `within` the share of draws with less than one, all in units of what the constraint tolerates. Draws for which a law
    is not finite are left out; `attrs["failed_draws"]` says how many they are at most.

    Args:
        tree: what `fit` returned, judged at the times of its data, or what `forecast` returned, judged at its own.

    Raises: MismatchError if nothing was constrained.
    """
    if "mismatch" not in tree.children:
        raise MismatchError("nothing was constrained: give laws to bd.Model(…, constraints={name: f(values, inputs)})")
    rows, failed = {}, 0
    for name, variable in tree["mismatch"].data_vars.items():
        rms = variable.values[np.isfinite(variable.values)]
        failed = max(failed, variable.size - rms.size)
        median, high = np.quantile(rms, [0.5, 0.95]) if rms.size else (np.nan, np.nan)
        rows[str(name)] = {"rms": median, "rms_95": high, "within": np.mean(rms < 1) if rms.size else np.nan}
    table = ScoreTable(pd.DataFrame.from_dict(rows, orient="index"))
    table.attrs["failed_draws"] = failed
    table.index.name = "law"
    return table


def score_ensemble(
    draws: Float[np.ndarray, "draw time"], observed: Float[np.ndarray, " time"]
) -> dict[str, float | int]:
    """Score draws against observations; each score is the mean over the observed times.

    The CRPS is the fair estimator, unbiased whatever the number of draws. The log score is that of a Gaussian kernel
    density (Silverman's bandwidth), NaN where all draws are equal, or where all draws and observations are whole
    numbers.
    At each time the draws that are not finite are left out; where none is left, or without an observation, every score
    is NaN.

    Shapes: draws `(draw, time)`, observed `(time,)`, NaN where missing.
    Source: Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation.
    """
    return _scored([(np.asarray(draws, float), np.asarray(observed, float), None)]).scores


class _Scored(NamedTuple):
    """The scores of an observable, of which kind its log score is, and which draws `(draw,)` are finite throughout."""

    scores: dict[str, float | int]
    kind: str
    whole: np.ndarray


def _scored(parts: Iterable[Part]) -> _Scored:
    """Score an observable whose data come part by part."""
    columns, data, exact, numbers, whole = [], [], False, True, np.ones(1, bool)
    for draws, observed, log_scores in parts:
        exact = log_scores is not None
        numbers = numbers and are_whole(draws, observed)
        whole = whole & _finite(draws)
        columns.append(_at_times(draws, observed, log_scores))
        data.append(observed)
    at_times, seen = np.concatenate(columns, axis=1), np.isfinite(np.concatenate(data))
    if numbers and not exact:
        at_times[POINTWISE.index("log_score")] = np.nan
    # NumPy warns at the mean of nothing.
    means = at_times[:, seen].mean(axis=1) if seen.any() else np.full(len(POINTWISE), np.nan)
    scores = dict(zip(POINTWISE, map(float, means), strict=True))
    scores["rmse"] = float(np.sqrt(scores["mse"]))
    scores = {name: scores[name] for name in COLUMNS[:-1]} | {"n": int(seen.sum())}
    return _Scored(scores, EXACT if exact else UNKNOWN if numbers else KERNEL, whole)


def _at_times(draws: np.ndarray, observed: np.ndarray, log_scores: np.ndarray | None) -> np.ndarray:
    """Scores `(score, time)` in the order of POINTWISE; NaN where there is no observation or no finite draw."""
    at_times = np.full((len(POINTWISE), observed.size), np.nan)
    for times, obs, fct in _complete(draws, observed):
        at_times[:, times] = _pointwise(obs, fct, kernel=log_scores is None)
    if log_scores is not None:
        row = at_times[POINTWISE.index("log_score")]
        row[:] = np.where(np.isnan(at_times[0]), np.nan, log_scores)
    return at_times


def covered(draws: np.ndarray, observed: np.ndarray, level: int) -> np.ndarray:
    """Whether the central interval of draws `(draw, datum)` holds each datum, 1 or 0; NaN without a datum or a draw."""
    found = np.full(observed.size, np.nan)
    for times, obs, fct in _complete(draws, observed):
        low, high = _central(fct, level / 100)
        found[times] = (low <= obs) & (obs <= high)
    return found


def mean_crps(draws: np.ndarray, observed: np.ndarray) -> float:
    """The CRPS of `score_ensemble` alone, over the data that have draws."""
    at = [_crps(obs, fct) for _, obs, fct in _complete(draws, observed)]
    return float(np.concatenate(at).mean()) if at else np.nan


def lower_by(ours: np.ndarray, theirs: np.ndarray, number: np.ndarray) -> float:
    """By how much another mean score is lower, as a share of ours; of several observables on average over all data.

    Shapes: `(observable,)`, with the number of data of each; NaN where nothing is known of one.
    """
    known = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0)
    whole = known.any() and known[number > 0].all()
    return float(np.average(1 - theirs[known] / ours[known], weights=number[known])) if whole else np.nan


def _complete(draws: np.ndarray, observed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Data that have the same finite draws: which they are, they themselves, and these draws `(datum, draw)`."""
    finite, seen = np.isfinite(draws), np.isfinite(observed)
    for pattern in np.unique(finite[:, seen], axis=1).T:
        times = seen & (finite == pattern[:, None]).all(axis=0)
        if pattern.any():
            yield times, observed[times], draws[pattern][:, times].T


def score_table(ensembles: Ensembles) -> ScoreTable:
    """Tabulate `score_ensemble` of named (draws, observed) pairs, and as `all` their mean, or share of all data."""
    return _table({name: _scored([(*pair, None)]) for name, pair in ensembles.items()})


def _table(rows: Mapping[str, _Scored]) -> ScoreTable:
    of_each = {name: row.scores for name, row in rows.items()}
    table = ScoreTable(pd.DataFrame.from_dict(of_each, orient="index", columns=list(COLUMNS)))
    known = pd.DataFrame(table[table["n"] > 0])
    overall = known.mean(skipna=False)
    shares = [f"coverage_{level}" for level in LEVELS]
    if len(known):  # by whole numbers of data, so that equal shares are equal to the last bit
        counts = known["n"].to_numpy(float)
        overall[shares] = np.round(known[shares].to_numpy(float).T * counts).sum(axis=1) / counts.sum()
    overall["n"] = known["n"].sum()
    table.loc["all"] = overall
    table.index.name = "observable"
    table = ScoreTable(table.astype({"n": int}).reindex(columns=[*_FIRST, *(c for c in COLUMNS if c not in _FIRST)]))
    table.attrs["log_score"] = {name: row.kind for name, row in rows.items()}
    return table


def repeats(fc: xr.DataTree) -> int:
    """How many predictive draws a forecast has of each draw of the posterior."""
    drawn = fc["predictions"].sizes["draw"]
    return drawn // fc["conditional_mean"].sizes["draw"] if "conditional_mean" in fc.children else 1


def check_forecast(fc: object, *groups: str) -> None:
    """Raises: MismatchError for what is no forecast, which has these groups."""
    for group in groups:
        if not isinstance(fc, xr.DataTree) or group not in fc.children:
            raise MismatchError(f"this is no forecast: it has no group '{group}'; give the result of bd.forecast")


def matched(fc: xr.DataTree, data: xr.Dataset) -> tuple[Ensembles, xr.Dataset]:
    """Pair each observable's draws with its observations at the times that both have; and these observations.

    Shapes: draws `(draw, datum)` with chains merged, observed `(datum,)`: the places of a field are data in their turn.
    Raises: MismatchError for what is no forecast, if an observable is not in the data, no time is shared, or places or
    units differ; DataError for data that are no numbers.
    """
    predictions, _, observed = shared(fc, data)
    return paired(predictions, observed), observed


def paired(predictions: xr.Dataset, observed: xr.Dataset) -> Ensembles:
    """The draws of each observable `(draw, datum)` and its observations `(datum,)`, as `shared` returns them."""
    found = {}
    for name, variable in predictions.data_vars.items():
        draws = variable.values.reshape(variable.shape[0] * variable.shape[1], -1)
        found[str(name)] = draws, observed[name].values.ravel()
    return found


def _parts(name: str, predictions: xr.Dataset, noise: xr.Dataset, observed: xr.Dataset) -> Iterator[Part]:
    """An observable block by block, from the file where the forecast lies in one."""
    own = [parameter for parameter, held in noise.data_vars.items() if held.attrs.get("observable") == name]
    needed = predictions[[name]], noise[own], observed[[name]]
    for at in blocks_of(predictions[name]):
        here = [part.isel(at, missing_dims="ignore").compute() for part in needed]
        exact = exact_log_scores(*here).get(name)
        yield draws_at(here[0][name], dict.fromkeys(at, slice(None))), here[2][name].values.ravel(), exact


def shared(fc: xr.DataTree, data: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Predictions, what is kept of their noise, and observations, at the times that the forecast and the data share.

    Shapes: predictions `(chain, draw, time, …)`, observations `(time, …)`; a parameter of the noise may have less.
    Raises: MismatchError for what is no forecast, if an observable is not in the data, no time is shared, or the places
    differ; DataError for data that are no numbers.
    """
    check_forecast(fc, "predictions")
    index = index_of(fc["predictions"].to_dataset())
    checked_times(data, index)
    predictions = fc["predictions"].to_dataset()
    absent = [str(name) for name in predictions.data_vars if name not in data.data_vars]
    if absent:
        raise MismatchError(
            f"the data lack the observables {', '.join(absent)} that the forecast predicts; "
            f"the data hold {', '.join(map(str, data.data_vars)) or 'nothing'}"
        )
    _check_units(predictions, data)
    rows, columns = _shared_times(predictions[index].values, data[index].values, index)
    columns = _as_slice(columns)
    draws, observed = {}, {}
    for name, variable in predictions.data_vars.items():
        found = variable.transpose("chain", "draw", index, ...).isel({index: columns})
        _check_places(found, data[name])
        if data[name].dtype.kind not in "iufb":
            raise DataError(f"observable '{name}' must hold numbers, not {data[name].dtype}")
        if np.isinf(data[name].values).any():
            raise DataError(f"observable '{name}' is infinite; a missing value is NaN")
        draws[name] = found
        observed[name] = data[name].isel({index: rows}).transpose(*found.dims[2:]).astype(float)
    noise = fc["noise"].to_dataset() if "noise" in fc.children else xr.Dataset()
    return xr.Dataset(draws), noise.isel({index: columns}, missing_dims="ignore"), xr.Dataset(observed)


def _as_slice(columns: np.ndarray) -> np.ndarray | slice:
    """A file is read much faster by a slice, and of an array that is no copy."""
    whole = slice(int(columns[0]), int(columns[0]) + len(columns))
    return whole if np.array_equal(columns, np.arange(whole.start, whole.stop)) else columns


def in_units_of_forecast(fc: xr.DataTree, data: xr.Dataset) -> xr.Dataset:
    """Data in the units of a forecast, where both state them.

    Raises: DataError for units of another dimension, or of the index or a place.
    """
    if "predictions" not in fc.children:
        return data
    return in_units(data, units_of(fc["predictions"].to_dataset()), doubtful=True)


def _check_units(predictions: xr.Dataset, data: xr.Dataset) -> None:
    theirs, ours = units_of(predictions), units_of(data)
    for name in map(str, predictions.data_vars):
        if theirs[name] and ours[name] and agree(theirs[name], ours[name]) is False:
            raise MismatchError(f"'{name}' is forecast in '{theirs[name]}' but the data are in '{ours[name]}'")


def _check_places(draws: xr.DataArray, data: xr.DataArray) -> None:
    for place in draws.dims[3:]:
        if place not in data.dims or not np.array_equal(draws[place].values, data[place].values):
            raise MismatchError(f"'{data.name}' is forecast at other places '{place}' than those of the data")


def _shared_times(forecast: np.ndarray, data: np.ndarray, index: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices into `data` and into `forecast` of the times that both have, up to the rounding of either.

    Numbers of 32 bits are rounded so coarsely that one time may be near two others: only the nearest counts. The first
    of some replicates is paired with the first row that the forecast has at that time, the second with the second, so
    that their noise is drawn apart; where it has fewer rows they begin anew.
    """
    coarsest = max((np.finfo(x.dtype).eps if x.dtype.kind == "f" else 0.0) for x in (forecast, data))
    forecast, data = np.asarray(forecast, float), np.asarray(data, float)
    tolerance = max(4 * coarsest, 2e-13) * max(np.abs(forecast).max(), np.abs(data).max())
    gaps = np.concatenate([np.diff(np.sort(forecast)), np.diff(np.sort(data))])
    tolerance = min([tolerance, *(gaps[gaps > 0] / 4)])
    order = np.argsort(forecast, kind="stable")
    times, first, number = np.unique(forecast[order], return_index=True, return_counts=True)
    nearest = pd.Index(times).get_indexer(pd.Index(data), method="nearest", tolerance=tolerance)
    rows = np.flatnonzero(nearest >= 0)
    if rows.size == 0:
        raise MismatchError(
            f"no {index} of the data (from {data.min():g} to {data.max():g}) is in the forecast "
            f"(from {forecast.min():g} to {forecast.max():g}); forecast at the times of the data"
        )
    at = nearest[rows]
    return rows, order[first[at] + occurrence(at) % number[at]]


def _pointwise(obs: np.ndarray, fct: np.ndarray, *, kernel: bool) -> np.ndarray:
    """Scores `(score, time)` in the order of POINTWISE, for `fct` of shape `(time, draw)`."""
    scores = [
        (fct.mean(axis=1) - obs) ** 2,
        np.abs(np.median(fct, axis=1) - obs),
        _crps(obs, fct),
        _interval_score(obs, fct, 0.1),
        kernel_log_scores(obs, fct) if kernel else np.full(obs.size, np.nan),
    ]
    for level in LEVELS:
        low, high = _central(fct, level / 100)
        scores.append((low <= obs) & (obs <= high))
    return np.array(scores, float)


def _finite(draws: np.ndarray) -> np.ndarray:
    return np.all(np.isfinite(draws), axis=1)


def _central(fct: np.ndarray, mass: float) -> np.ndarray:
    return np.quantile(fct, [(1 - mass) / 2, (1 + mass) / 2], axis=1)


def _crps(obs: np.ndarray, fct: np.ndarray) -> np.ndarray:
    import scoringrules

    # The fair (probability-weighted-moment) estimator divides by m - 1.
    estimator = "pwm" if fct.shape[1] > 1 else "nrg"
    return np.reshape(scoringrules.crps_ensemble(obs, fct, estimator=estimator), obs.shape)


def _interval_score(obs: np.ndarray, fct: np.ndarray, alpha: float) -> np.ndarray:
    import scoringrules

    low, high = _central(fct, 1 - alpha)
    return np.reshape(scoringrules.interval_score(obs, low, high, alpha), obs.shape)


def _ranks(draws: np.ndarray, observed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    below = (draws < observed).sum(axis=0)
    equal = (draws == observed).sum(axis=0)
    uniform = rng.uniform(size=observed.size)
    values = (below + uniform * (equal + 1)) / (draws.shape[0] + 1)
    return np.where(np.isfinite(observed) & (draws.shape[0] > 0), values, np.nan)

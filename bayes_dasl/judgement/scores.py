"""How good a forecast is: errors, proper scores, coverage and probability integral transforms."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy.special import logsumexp

from .._statistics.blocks import blocks_of, draws_at
from ..data.datasets import checked_times, index_of
from ..errors import MismatchError

LEVELS = (50, 80, 90, 95)
COLUMNS = (
    *("mse", "rmse", "mae", "crps", "interval_score_90", "log_score"),
    *(f"coverage_{level}" for level in LEVELS),
    "n",
)
_FIRST = ("crps", "log_score", "rmse", "mae", "coverage_90")  # what a narrow terminal shows
POINTWISE = tuple(name for name in COLUMNS if name not in ("rmse", "n"))

type Ensembles = Mapping[str, tuple[np.ndarray, np.ndarray]]


class ScoreTable(pd.DataFrame):
    """Scores by observable, of which every column is printed, however narrow the terminal is."""

    @property
    def _constructor(self) -> type["ScoreTable"]:
        return ScoreTable

    def __repr__(self) -> str:
        return self.to_string(line_width=100)


def score(fc: xr.DataTree, data: xr.Dataset) -> ScoreTable:
    """Score a forecast against the data, one row for each observable and one for `all`.

    Only times that the forecast and the data share count; `attrs["times_left_out"]` says how many of the data are not
    forecast. Missing observations are left out, and so are draws that are not finite (a failed solve);
    `attrs["failed_draws"]` counts those. Row `all` is the mean over the observables that have data (and the sum, for
    `n`).

    Args:
        fc: what `forecast` returned.
        data: a dataset with the observables, NaN where missing.

    Units: mse in squared units of the observable; rmse, mae, crps and interval_score_90 in its
    units; log_score in nats; coverages are shares. Lower is better, but for the coverages.
    Raises: MismatchError if an observable is not in the data, or no time is shared.
    """
    matches, common = _matches(fc, data)
    rows, failed = {}, np.zeros(1, bool)
    for name, match in matches.items():
        scores, whole = [], np.ones(1, bool)
        for draws, observed in match:
            scores.append(_at_times(draws, observed))
            whole = whole & _finite(draws)
        rows[name] = _summary(np.concatenate(scores, axis=1), common[name].values.ravel())
        failed = failed | ~whole
    table = _table(rows)
    table.attrs["failed_draws"] = int(failed.sum())
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
    matches, common = _matches(fc, data)
    rng, ranks = np.random.default_rng(0), {}
    for name, match in matches.items():
        whole = np.ones(1, bool)
        for draws, _ in match:
            whole = whole & _finite(draws)
        of_blocks = [_ranks(draws[whole], observed, rng) for draws, observed in match]
        ranks[name] = np.concatenate(of_blocks).reshape(common[name].shape)
    return xr.Dataset({name: (common[name].dims, v, {"units": ""}) for name, v in ranks.items()}, common.coords)


type Span = tuple[float | None, float | None]
"""From when until when data were fitted, as far as that is known."""


def fitted_between(fc: xr.DataTree) -> Span:
    """From when until when the data of a forecast were fitted, under its forcings."""
    return fc.attrs.get("train_start"), fc.attrs.get("train_end")


def held_out(train: xr.Dataset, data: xr.Dataset, fitted: Span) -> xr.Dataset:
    """The data without those values that were fitted: at the same times and places, between two times.

    Under other forcings the same times are forecast: `fitted` says which are not, and has no end where all are.
    """
    start, end = fitted
    if end is None:
        return data
    index = train[index_of(train)]
    seen = train.sel({index.name: (index <= end) & (index >= (-np.inf if start is None else start))})

    def unseen(values: xr.DataArray) -> xr.DataArray:
        at = {dim: values[dim] for dim in values.dims if dim in values.coords}
        return values.where(seen[values.name].reindex(at).isnull())

    return data.assign({name: unseen(data[name]) for name in seen.data_vars if name in data})


def consistency(tree: xr.DataTree) -> pd.DataFrame:
    """How far a posterior or a forecast breaks each constraint, one row for each law.

    `rms` is the root mean square over the law's numbers in the median draw, `rms_95` in the 95 % quantile of the draws,
    `within` the share of draws with less than one, all in units of what the constraint tolerates.

    Args:
        tree: what `fit` returned, judged at the times of its data, or what `forecast` returned, judged at its own.

    Raises: MismatchError if nothing was constrained.
    """
    if "mismatch" not in tree.children:
        raise MismatchError("nothing was constrained: give laws to bd.Model(…, constraints={name: f(values, inputs)})")
    rows = {}
    for name, variable in tree["mismatch"].data_vars.items():
        rms = variable.values[np.isfinite(variable.values)]
        median, high = np.quantile(rms, [0.5, 0.95]) if rms.size else (np.nan, np.nan)
        rows[str(name)] = {"rms": median, "rms_95": high, "within": np.mean(rms < 1) if rms.size else np.nan}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "law"
    return table


def score_ensemble(
    draws: Float[np.ndarray, "draw time"], observed: Float[np.ndarray, " time"]
) -> dict[str, float | int]:
    """Score draws against observations; each score is the mean over the observed times.

    The CRPS is the fair estimator, unbiased whatever the number of draws. The log score is that
    of a Gaussian kernel density (Silverman's bandwidth); it is NaN where all draws are equal.
    At each time the draws that are not finite are left out; where none is left, or without an
    observation, every score is NaN.

    Shapes: draws `(draw, time)`, observed `(time,)`, NaN where missing.
    Source: Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation.
    """
    return _summary(_at_times(np.asarray(draws, float), np.asarray(observed, float)), np.asarray(observed, float))


def _at_times(draws: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Scores `(score, time)` in the order of POINTWISE; NaN where there is no observation or no finite draw."""
    seen = np.isfinite(observed)
    at_times = np.full((len(POINTWISE), observed.size), np.nan)
    finite = np.isfinite(draws)
    for pattern in np.unique(finite[:, seen], axis=1).T:
        times = seen & (finite == pattern[:, None]).all(axis=0)
        if pattern.any():
            at_times[:, times] = _pointwise(observed[times], draws[pattern][:, times].T)
    return at_times


def _summary(at_times: np.ndarray, observed: np.ndarray) -> dict[str, float | int]:
    """Means over the observed times."""
    seen = np.isfinite(observed)
    # NumPy warns at the mean of nothing.
    means = at_times[:, seen].mean(axis=1) if seen.any() else np.full(len(POINTWISE), np.nan)
    scores = dict(zip(POINTWISE, map(float, means), strict=True))
    scores["rmse"] = float(np.sqrt(scores["mse"]))
    return {name: scores[name] for name in COLUMNS[:-1]} | {"n": int(seen.sum())}


def score_table(ensembles: Ensembles) -> ScoreTable:
    """Tabulate `score_ensemble` of named (draws, observed) pairs, and their mean as `all`."""
    return _table({name: score_ensemble(draws, observed) for name, (draws, observed) in ensembles.items()})


def _table(rows: dict[str, dict[str, float | int]]) -> ScoreTable:
    table = ScoreTable(pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS)))
    overall = table[table["n"] > 0].mean()
    overall["n"] = table["n"].sum()
    table.loc["all"] = overall
    table.index.name = "observable"
    return ScoreTable(table.astype({"n": int}).reindex(columns=[*_FIRST, *(c for c in COLUMNS if c not in _FIRST)]))


def matched(fc: xr.DataTree, data: xr.Dataset) -> tuple[Ensembles, xr.Dataset]:
    """Pair each observable's draws with its observations at the times that both have; and those observations.

    Shapes: draws `(draw, datum)` with chains merged, observed `(datum,)`: the places of a field are data in their turn.
    Raises: MismatchError if an observable is not in the data, no time is shared, or the places differ.
    """
    matches, common = _matches(fc, data)
    return {name: match.whole() for name, match in matches.items()}, common


@dataclasses.dataclass(frozen=True)
class _Match:
    """Draws of an observable, and observations at some of their times, which are at `columns`."""

    draws: xr.DataArray
    observed: xr.DataArray
    columns: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Block by block, draws `(draw, datum)` and observed `(datum,)`."""
        for at in blocks_of(self.draws, {str(dim): size for dim, size in self.observed.sizes.items()}):
            yield self._at(at), self.observed.isel(at).values.ravel()

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        return self._at({str(dim): slice(None) for dim in self.observed.dims}), self.observed.values.ravel()

    def _at(self, at: Mapping[str, slice]) -> np.ndarray:
        index = str(self.observed.dims[0])
        columns = self.columns[at[index]]
        if np.array_equal(columns, np.arange(columns[0], columns[0] + len(columns))):
            # A file is read much faster by a slice, and of an array that is no copy.
            columns = slice(columns[0], columns[0] + len(columns))
        return draws_at(self.draws, {**at, index: columns})


def _matches(fc: xr.DataTree, data: xr.Dataset) -> tuple[dict[str, _Match], xr.Dataset]:
    """What `matched` says, block by block."""
    if "predictions" not in fc.children:
        raise MismatchError("this is no forecast: it has no group 'predictions'; give the result of bd.forecast")
    index = index_of(fc["predictions"].to_dataset())
    checked_times(data, index)
    predictions = fc["predictions"].to_dataset()
    absent = [str(name) for name in predictions.data_vars if name not in data.data_vars]
    if absent:
        raise MismatchError(
            f"the data lack the observables {', '.join(absent)} that the forecast predicts; "
            f"the data hold {', '.join(map(str, data.data_vars)) or 'nothing'}"
        )
    rows, columns = _shared_times(predictions[index].values, data[index].values, index)
    matches = {}
    for name, variable in predictions.data_vars.items():
        places = [dim for dim in variable.dims if dim not in ("chain", "draw", index)]
        _check_places(variable, places, data[name])
        observed = data[name].isel({index: rows}).transpose(index, *places).astype(float)
        matches[str(name)] = _Match(variable, observed, columns)
    return matches, xr.Dataset({name: match.observed for name, match in matches.items()})


def _check_places(draws: xr.DataArray, places: Sequence[Hashable], data: xr.DataArray) -> None:
    for place in places:
        if place not in data.dims or not np.array_equal(draws[place].values, data[place].values):
            raise MismatchError(f"'{data.name}' is forecast at other places '{place}' than those of the data")


def _shared_times(forecast: np.ndarray, data: np.ndarray, index: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices into `data` and into `forecast` of the times that both have, up to the rounding of either.

    Numbers of 32 bits are rounded so coarsely that one time may be near two others: only the nearest counts.
    """
    coarsest = max((np.finfo(x.dtype).eps if x.dtype.kind == "f" else 0.0) for x in (forecast, data))
    forecast, data = np.asarray(forecast, float), np.asarray(data, float)
    tolerance = max(4 * coarsest, 2e-13) * max(np.abs(forecast).max(), np.abs(data).max())
    gaps = np.concatenate([np.diff(np.sort(forecast)), np.diff(np.sort(data))])
    tolerance = min(tolerance, *(gaps[gaps > 0] / 4))
    columns = pd.Index(forecast).get_indexer(pd.Index(data), method="nearest", tolerance=tolerance)
    rows = np.flatnonzero(columns >= 0)
    if rows.size == 0:
        raise MismatchError(
            f"no {index} of the data (from {data.min():g} to {data.max():g}) is in the forecast "
            f"(from {forecast.min():g} to {forecast.max():g}); forecast at the times of the data"
        )
    return rows, columns[rows]


def _pointwise(obs: np.ndarray, fct: np.ndarray) -> np.ndarray:
    """Scores `(score, time)` in the order of POINTWISE, for `fct` of shape `(time, draw)`."""
    scores = [
        (fct.mean(axis=1) - obs) ** 2,
        np.abs(np.median(fct, axis=1) - obs),
        _crps(obs, fct),
        _interval_score(obs, fct, 0.1),
        _log_score(obs, fct),
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


def _log_score(obs: np.ndarray, fct: np.ndarray) -> np.ndarray:
    import scoringrules

    width = _bandwidth(fct)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scores = scoringrules.logs_ensemble(obs, fct, bw=width)
        # Far from every draw the density underflows and its logarithm is lost: sum in logarithms.
        log_kernels = -0.5 * ((obs[:, None] - fct) / width[:, None]) ** 2
    normaliser = np.log(fct.shape[1] * width * np.sqrt(2 * np.pi))
    far = np.reshape(np.isinf(scores), obs.shape)
    return np.where(far, normaliser - logsumexp(log_kernels, axis=1), scores)


def _bandwidth(fct: np.ndarray) -> np.ndarray:
    """Silverman's rule; the spread is the standard deviation where half the draws are equal."""
    deviation = fct.std(axis=1)
    quartiles = np.quantile(fct, [0.25, 0.75], axis=1)
    robust = np.diff(quartiles, axis=0)[0] / 1.34
    spread = np.where(robust > 0, np.minimum(deviation, robust), deviation)
    return np.where(spread > 0, 1.06 * spread * fct.shape[1] ** -0.2, np.nan)


def _ranks(draws: np.ndarray, observed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    below = (draws < observed).sum(axis=0)
    equal = (draws == observed).sum(axis=0)
    uniform = rng.uniform(size=observed.size)
    values = (below + uniform * (equal + 1)) / (draws.shape[0] + 1)
    return np.where(np.isfinite(observed) & (draws.shape[0] > 0), values, np.nan)

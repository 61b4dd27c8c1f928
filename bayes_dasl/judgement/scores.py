"""How good a forecast is: errors, proper scores, coverage and probability integral transforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from .._statistics.blocks import blocks_of, draws_at
from ..data.datasets import index_of
from ..errors import MismatchError
from .log_score import EXACT, KERNEL, UNKNOWN, are_whole, exact_log_scores, kernel_log_scores
from .matching import Ensembles, in_units_of_forecast, repeats, shared

LEVELS = (50, 80, 90, 95)
COLUMNS = (
    *("mse", "rmse", "mae", "crps", "interval_score_90", "log_score"),
    *(f"coverage_{level}" for level in LEVELS),
    "n",
)
_FIRST = ("crps", "log_score", "rmse", "mae", "coverage_90")  # what a narrow terminal shows
POINTWISE = tuple(name for name in COLUMNS if name not in ("rmse", "n"))

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


def _parts(name: str, predictions: xr.Dataset, noise: xr.Dataset, observed: xr.Dataset) -> Iterator[Part]:
    """An observable block by block, from the file where the forecast lies in one."""
    own = [parameter for parameter, held in noise.data_vars.items() if held.attrs.get("observable") == name]
    needed = predictions[[name]], noise[own], observed[[name]]
    for at in blocks_of(predictions[name]):
        here = [part.isel(at, missing_dims="ignore").compute() for part in needed]
        exact = exact_log_scores(*here).get(name)
        yield draws_at(here[0][name], dict.fromkeys(at, slice(None))), here[2][name].values.ravel(), exact


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

"""Scores of draws against data: errors, proper scores, coverage, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from .draws_at_data import central, complete, fair_crps, finite
from .log_score import EXACT, KERNEL, UNKNOWN, are_whole, kernel_log_scores

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
    """A table of which every column is printed, however narrow the terminal is, and what was left
    out of it.
    """

    @property
    def _constructor(self) -> type["ScoreTable"]:
        return ScoreTable

    def __repr__(self) -> str:
        return "\n".join([self.to_string(line_width=100), *self._notes()])

    def _notes(self) -> list[str]:
        kinds = self.attrs.get("log_score", {})
        said = [
            f"log_score of {name}: {kind}"
            for name, kind in kinds.items()
            if kind != EXACT and name in self.index
        ]
        failed, times = (
            int(self.attrs.get(name, 0)) for name in ("failed_draws", "times_left_out")
        )
        said += (
            [f"{self.attrs['recalibrated']}: no posterior predictive"]
            if "recalibrated" in self.attrs
            else []
        )
        said += [f"left out: {failed} draws that are not finite"] if failed else []
        return said + (
            [f"left out: {times} times of the data that are not forecast"] if times else []
        )


def score_ensemble(
    draws: Float[np.ndarray, "draw time"], observed: Float[np.ndarray, " time"]
) -> dict[str, float | int]:
    """Score draws against observations; each score is the mean over the observed times.

    The CRPS is the fair estimator, unbiased whatever the number of draws. The log score is that of
    a Gaussian kernel density (Silverman's bandwidth), NaN where all draws are equal, or where all
    draws and observations are whole numbers.
    At each time the draws that are not finite are left out; where none is left, or without an
    observation, every score is NaN.

    Shapes: draws `(draw, time)`, observed `(time,)`, NaN where missing.

    Source: Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation.
    """
    return scored([(np.asarray(draws, float), np.asarray(observed, float), None)]).scores


class Scored(NamedTuple):
    """The scores of an observable, of which kind its log score is, and which draws `(draw,)` are
    finite throughout.
    """

    scores: dict[str, float | int]
    kind: str
    whole: np.ndarray


def scored(parts: Iterable[Part]) -> Scored:
    """Score an observable whose data come part by part."""
    columns, data, exact, numbers, whole = [], [], False, True, np.ones(1, bool)
    for draws, observed, log_scores in parts:
        exact = log_scores is not None
        numbers = numbers and are_whole(draws, observed)
        whole = whole & finite(draws)
        columns.append(_scores_at(draws, observed, log_scores))
        data.append(observed)
    at_times, seen = np.concatenate(columns, axis=1), np.isfinite(np.concatenate(data))
    if numbers and not exact:
        at_times[POINTWISE.index("log_score")] = np.nan
    # NumPy warns at the mean of nothing.
    means = at_times[:, seen].mean(axis=1) if seen.any() else np.full(len(POINTWISE), np.nan)
    scores = dict(zip(POINTWISE, map(float, means), strict=True))
    scores["rmse"] = float(np.sqrt(scores["mse"]))
    scores = {name: scores[name] for name in COLUMNS[:-1]} | {"n": int(seen.sum())}
    return Scored(scores, EXACT if exact else UNKNOWN if numbers else KERNEL, whole)


def _scores_at(
    draws: np.ndarray, observed: np.ndarray, log_scores: np.ndarray | None
) -> np.ndarray:
    """Scores `(score, time)` in the order of POINTWISE; NaN where there is no observation or no
    finite draw.
    """
    at_times = np.full((len(POINTWISE), observed.size), np.nan)
    for times, obs, fct in complete(draws, observed):
        at_times[:, times] = _scores_of(obs, fct, kernel=log_scores is None)
    if log_scores is not None:
        row = at_times[POINTWISE.index("log_score")]
        row[:] = np.where(np.isnan(at_times[0]), np.nan, log_scores)
    return at_times


def at_each(
    draws: np.ndarray, observed: np.ndarray, log_scores: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Every score of each datum `(datum,)`, of what `scored` takes as a part; NaN where it is not
    known.
    """
    found = dict(zip(POINTWISE, _scores_at(draws, observed, log_scores), strict=True))
    unknown = log_scores is None and are_whole(draws, observed)
    return found | ({"log_score": np.full(observed.size, np.nan)} if unknown else {})


def score_table(ensembles: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> ScoreTable:
    """Tabulate `score_ensemble` of named (draws, observed) pairs, and as `all` their mean, or share
    of all data.
    """
    return table_of({name: scored([(*pair, None)]) for name, pair in ensembles.items()})


def table_of(rows: Mapping[str, Scored]) -> ScoreTable:
    of_each = {name: row.scores for name, row in rows.items()}
    table = ScoreTable(pd.DataFrame.from_dict(of_each, orient="index", columns=list(COLUMNS)))
    known = pd.DataFrame(table[table["n"] > 0])
    overall = known.mean(skipna=False)
    shares = [f"coverage_{level}" for level in LEVELS]
    if len(known):  # by whole numbers of data, so that equal shares are equal to the last bit
        counts = known["n"].to_numpy(float)
        overall[shares] = (
            np.round(known[shares].to_numpy(float).T * counts).sum(axis=1) / counts.sum()
        )
    overall["n"] = known["n"].sum()
    table.loc["all"] = overall
    table.index.name = "observable"
    table = ScoreTable(
        table.astype({"n": int}).reindex(
            columns=[*_FIRST, *(c for c in COLUMNS if c not in _FIRST)]
        )
    )
    table.attrs["log_score"] = {name: row.kind for name, row in rows.items()}
    return table


def _scores_of(obs: np.ndarray, fct: np.ndarray, *, kernel: bool) -> np.ndarray:
    """Scores `(score, time)` in the order of POINTWISE, for `fct` of shape `(time, draw)`."""
    scores = [
        (fct.mean(axis=1) - obs) ** 2,
        np.abs(np.median(fct, axis=1) - obs),
        fair_crps(obs, fct),
        _interval_score(obs, fct, 0.1),
        kernel_log_scores(obs, fct) if kernel else np.full(obs.size, np.nan),
    ]
    for level in LEVELS:
        low, high = central(fct, level / 100)
        scores.append((low <= obs) & (obs <= high))
    return np.array(scores, float)


def _interval_score(obs: np.ndarray, fct: np.ndarray, alpha: float) -> np.ndarray:
    import scoringrules

    low, high = central(fct, 1 - alpha)
    return np.reshape(scoringrules.interval_score(obs, low, high, alpha), obs.shape)

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
# Columns that a narrow terminal shows first.
_FIRST = ("crps", "log_score", "rmse", "mae", "coverage_90")
POINTWISE = tuple(name for name in COLUMNS if name not in ("rmse", "n"))

type Part = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Draws `(draw, datum)`, data `(datum,)`, and exact log scores `(datum,)` or None if unknown."""


class ScoreTable(pd.DataFrame):
    """A DataFrame that prints all its columns, in lines of at most 100 characters.

    Notes below the table state what `attrs` records: inexact log scores, recalibration, failed
    draws that were left out, and times of the data without a forecast.
    """

    @property
    def _constructor(self) -> type["ScoreTable"]:
        return ScoreTable

    def __repr__(self) -> str:
        return "\n".join([self.to_string(line_width=100), *self._notes_below()])

    def _repr_html_(self) -> str:
        from html import escape

        notes = "".join(f"<p>{escape(note)}</p>" for note in self._notes_below())
        return f"<div>{self.to_html(float_format='{:.4g}'.format)}{notes}</div>"

    def _notes_below(self) -> list[str]:
        """Return the notes below the printed table, one text for each line."""
        said = [
            f"log_score of {name}: {kind}"
            for name, kind in self.attrs.get("log_score", {}).items()
            if kind != EXACT and name in self.index
        ]
        if "recalibrated" in self.attrs:
            said.append(f"{self.attrs['recalibrated']}: no posterior predictive")
        if failed := int(self.attrs.get("failed_draws", 0)):
            said.append(f"left out: {failed} draws that are not finite")
        if times := int(self.attrs.get("times_left_out", 0)):
            said.append(f"left out: {times} times of the data that are not forecast")
        return said


def score_ensemble(
    draws: Float[np.ndarray, "draw time"], observed: Float[np.ndarray, " time"]
) -> dict[str, float | int]:
    """Score draws against observations; each score is the mean over the observed times.

    The CRPS is the fair estimator, unbiased whatever the number of draws. The log score uses a
    Gaussian kernel density (Silverman's bandwidth). It is NaN if all draws are equal, or if all
    draws and observations are integers. At each time, draws that are not finite are left out. A
    time without a finite draw makes the scores NaN, and without any observation every score is NaN.

    Shapes: draws `(draw, time)`, observed `(time,)`, NaN where missing.

    Returns:
        Scores by name, and the number `n` of data.

    Source: Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation.
    """
    return scored([(np.asarray(draws, float), np.asarray(observed, float), None)]).scores


class Scored(NamedTuple):
    """The scores of one observable.

    Args:
        scores: the mean scores by name, and the number `n` of data.
        kind: how the log score was computed: `EXACT`, `KERNEL` or `UNKNOWN` of `log_score.py`.
        whole: flags of the draws that are finite at all data.
    """

    scores: dict[str, float | int]
    kind: str
    whole: np.ndarray


def scored(parts: Iterable[Part]) -> Scored:
    """Score an observable whose data come in parts.

    Args:
        parts: draws, data and log scores of each part, with the same draws in all parts.

    Returns:
        The mean scores, the kind of the log score, and flags of the finite draws.
    """
    columns = []
    data = []
    exact = False
    numbers = True
    whole = np.ones(1, bool)
    for draws, observed, log_scores in parts:
        exact = log_scores is not None
        numbers = numbers and are_whole(draws, observed)
        whole = whole & finite(draws)
        columns.append(_scores_at(draws, observed, log_scores))
        data.append(observed)
    at_times = np.concatenate(columns, axis=1)
    seen = np.isfinite(np.concatenate(data))
    # Draws alone give no probability mass of whole numbers.
    if numbers and not exact:
        at_times[POINTWISE.index("log_score")] = np.nan
    means = np.full(len(POINTWISE), np.nan)
    # NumPy warns at the mean of nothing.
    if seen.any():
        means = at_times[:, seen].mean(axis=1)
    scores = dict(zip(POINTWISE, map(float, means), strict=True))
    scores["rmse"] = float(np.sqrt(scores["mse"]))
    scores = {name: scores[name] for name in COLUMNS[:-1]} | {"n": int(seen.sum())}
    return Scored(scores, EXACT if exact else UNKNOWN if numbers else KERNEL, whole)


def _scores_at(
    draws: np.ndarray, observed: np.ndarray, log_scores: np.ndarray | None
) -> np.ndarray:
    """Return the scores of each datum, in the order of POINTWISE.

    Args:
        draws: draws `(draw, datum)`.
        observed: the data, NaN where missing.
        log_scores: exact log scores `(datum,)`; None for kernel estimates from the draws.

    Returns:
        Scores `(score, datum)`; NaN where the datum is missing or has no finite draw.
    """
    at_times = np.full((len(POINTWISE), observed.size), np.nan)
    for times, obs, fct in complete(draws, observed):
        at_times[:, times] = _scores_of(obs, fct, kernel=log_scores is None)
    if log_scores is not None:
        # Exact log scores need no draws, but count only where the other scores are known.
        row = at_times[POINTWISE.index("log_score")]
        row[:] = np.where(np.isnan(at_times[0]), np.nan, log_scores)
    return at_times


def at_each(
    draws: np.ndarray, observed: np.ndarray, log_scores: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return the scores of each datum of one part.

    Args:
        draws: draws `(draw, datum)`.
        observed: the data, NaN where missing.
        log_scores: exact log scores `(datum,)`; None for kernel estimates from the draws.

    Returns:
        Scores `(datum,)` by name; NaN where unknown.
    """
    found = dict(zip(POINTWISE, _scores_at(draws, observed, log_scores), strict=True))
    unknown = log_scores is None and are_whole(draws, observed)
    return found | ({"log_score": np.full(observed.size, np.nan)} if unknown else {})


def score_table(ensembles: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> ScoreTable:
    """Return a table of the scores of named ensembles, with their mean in the row `all`.

    Args:
        ensembles: pairs of draws `(draw, datum)` and data `(datum,)`, by name.

    Returns:
        The table, with the scores of `score_ensemble`.
    """
    return table_of({name: scored([(*pair, None)]) for name, pair in ensembles.items()})


def table_of(rows: Mapping[str, Scored]) -> ScoreTable:
    """Return a table of scores by observable, with a summary of all observables in the row `all`.

    In this row, coverages are shares of all data and `n` is their number. Other scores are means
    over the observables with data.

    Args:
        rows: the scores of each observable, by its name.

    Returns:
        The table.
    """
    of_each = {name: row.scores for name, row in rows.items()}
    table = ScoreTable(pd.DataFrame.from_dict(of_each, orient="index", columns=list(COLUMNS)))
    known = pd.DataFrame(table[table["n"] > 0])
    overall = known.mean(skipna=False)
    shares = [f"coverage_{level}" for level in LEVELS]
    if len(known):
        # Shares of all data, by whole numbers, so that equal shares are equal exactly.
        counts = known["n"].to_numpy(float)
        hits = np.round(known[shares].to_numpy(float).T * counts)
        overall[shares] = hits.sum(axis=1) / counts.sum()
    overall["n"] = known["n"].sum()
    table.loc["all"] = overall
    table.index.name = "observable"
    order = dict.fromkeys((*_FIRST, *COLUMNS))
    table = ScoreTable(table.astype({"n": int})[list(order)])
    table.attrs["log_score"] = {name: row.kind for name, row in rows.items()}
    return table


def _scores_of(obs: np.ndarray, fct: np.ndarray, *, kernel: bool) -> np.ndarray:
    """Return the scores of draws at data without missing values, in the order of POINTWISE.

    Args:
        obs: the data, `(datum,)`.
        fct: finite draws `(datum, draw)`.
        kernel: whether to estimate the log score; it is NaN otherwise.

    Returns:
        Scores `(score, datum)`.
    """
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
    """Return the interval score of the central interval with mass 1 - alpha, for each datum."""
    import scoringrules

    low, high = central(fct, 1 - alpha)
    return np.reshape(scoringrules.interval_score(obs, low, high, alpha), obs.shape)

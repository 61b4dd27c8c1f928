"""The report's tables, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.summary import summary

from .._statistics.convergence import (
    effective_sizes,
    finite_draws,
    moving_quantities,
    rhat,
    thinned,
)
from ..plots import science_parameters
from ..scores.constraint_consistency import consistency
from ..scores.log_score import EXACT
from ..scores.metrics import Metric, measured_by
from ..verdict.chain_convergence import FEWEST_DRAWS
from ..weighting.comparison import Comparison
from ..weighting.factor_table import BayesFactors
from ._text import MISSING, fixed, listed, number, percent

MOST_PARAMETERS = 60
MOST_WEIGHTS = 100
LOSSES = {
    "crps": "CRPS",
    "log_score": "log score",
    "interval_score_90": "interval score",
    "rmse": "RMSE",
    "mae": "MAE",
}
COVERAGES = {f"coverage_{level}": level / 100 for level in (50, 80, 90, 95)}


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation and central 90 % interval of one parameter."""

    mean: str = MISSING
    sd: str = MISSING
    interval: str = MISSING


@dataclass(frozen=True)
class Quantiles:
    """Median and central 90 % interval of one parameter, which every distribution has."""

    median: str = MISSING
    interval: str = MISSING


@dataclass(frozen=True)
class ParameterRow:
    """One scalar science parameter."""

    name: str
    path: str
    units: str
    distribution: str
    prior: Quantiles
    posterior: Summary
    r_hat: str
    ess_bulk: str
    ess_tail: str


@dataclass(frozen=True)
class LawRow:
    """How far the forecast breaks one constraint, in units of what is tolerated."""

    name: str
    rms: str
    rms_95: str
    within: str


@dataclass(frozen=True)
class ModelRow:
    """How one model forecast within the training data, and its weight in the mixture."""

    name: str
    weight: str
    log_score: str
    log_difference: str
    crps: str
    crps_difference: str


@dataclass(frozen=True)
class EvidenceRow:
    """How probable the data are under one model, and its weight in the mixture."""

    name: str
    prior: str
    weight: str
    log_bayes_factor: str


@dataclass(frozen=True)
class WeightRow:
    """One array of network weights, summarised over its elements."""

    name: str
    path: str
    shape: str
    distribution: str
    prior_sd: str
    posterior_sd: str
    means: str
    r_hat: str
    ess: str
    checked: str


@dataclass(frozen=True)
class Cell:
    """One value of a score table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class ScoreGroup:
    """The scores of every forecast for one observable."""

    observable: str
    units: str
    n: int
    rows: list[tuple[str, list[Cell]]]


def summaries(post: xr.DataTree) -> pd.DataFrame:
    """Return a summary of the scalar science parameters, indexed by label; of how they mix as the
    verdict has it.
    """
    return _summary(science_parameters(post))


def parameter_rows(post: xr.DataTree, posterior: pd.DataFrame) -> list[ParameterRow]:
    """Return the first `MOST_PARAMETERS` science parameters, prior and posterior side by side."""
    scalars = dict(list(science_parameters(post).items())[:MOST_PARAMETERS])
    before = science_parameters(post, "prior") if "prior" in post.children else {}
    return [
        ParameterRow(
            name=name,
            path=str(scalar.attrs.get("path", name)),
            units=str(scalar.attrs.get("units", "")),
            distribution=str(scalar.attrs.get("prior", "")),
            prior=_quantiles(before[name].values) if name in before else Quantiles(),
            posterior=_brief(posterior.loc[name].to_dict()),
            r_hat=fixed(posterior.loc[name, "r_hat"], 3),
            ess_bulk=fixed(posterior.loc[name, "ess_bulk"], 0),
            ess_tail=fixed(posterior.loc[name, "ess_tail"], 0),
        )
        for name, scalar in scalars.items()
    ]


def weight_rows(post: xr.DataTree) -> list[WeightRow]:
    """Return one row for each array of network weights."""
    posterior = post["posterior"].dataset
    prior = post["prior"].dataset if "prior" in post.children else xr.Dataset()
    return [
        _weight_row(str(name), weights, prior.get(name))
        for name, weights in posterior.data_vars.items()
        if weights.attrs.get("group") == "network"
    ]


def score_groups(tables: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> list[ScoreGroup]:
    """Group the scores by observable, with the best value of each column marked.

    The lowest loss is best, and the coverage nearest to its nominal value; equals share the mark.
    """
    first = next(iter(tables.values()))
    observables = [str(name) for name in first.index if name != "all"]
    if len(observables) > 1:
        observables = ["all", *observables]
    return [
        ScoreGroup(
            observable=observable,
            units=units.get(observable, ""),
            n=int(first.loc[observable, "n"]),
            rows=_score_rows(tables, observable),
        )
        for observable in observables
    ]


def metric_groups(
    forecasts: Mapping[str, xr.DataTree], data: xr.Dataset, metrics: Mapping[str, Metric]
) -> list[tuple[str, int, list[tuple[str, list[str]]]]]:
    """Metrics of the user's choice by observable, with the number of its data, and then by
    forecast.
    """
    if not metrics:
        return []
    tables = {name: measured_by(fc, data, metrics) for name, fc in forecasts.items()}
    first = next(iter(tables.values()))
    found = []
    for row in first.index:
        cells = [
            (name, [*map(number, table.loc[row, [*metrics]])]) for name, table in tables.items()
        ]
        found.append((str(row), int(first.loc[row, "n"]), cells))
    return found


def estimated(tables: Mapping[str, pd.DataFrame]) -> str:
    """The forecasts, in words, that have no exact log score of some observable."""
    kinds = {name: table.attrs.get("log_score", {}).values() for name, table in tables.items()}
    names = [name for name, found in kinds.items() if any(kind != EXACT for kind in found)]
    return listed(names) if names else ""


def _summary(scalars: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    if not scalars:
        return pd.DataFrame(columns=["mean", "sd", "r_hat", "ess_bulk", "ess_tail"], dtype=float)
    # A label such as `rate[2]` is one scalar here, and coordinates that differ must not be aligned.
    dataset = xr.Dataset({k: v.drop_vars(set(v.coords)) for k, v in scalars.items()})
    table = pd.DataFrame(
        summary(dataset, kind="stats", ci_prob=0.9, ci_kind="eti", round_to="none")
    )
    values = np.stack([v.transpose("chain", "draw").values for v in scalars.values()], axis=2)
    mixing = dict(zip(("r_hat", "ess_bulk", "ess_tail"), _mixing(values), strict=True))
    return table.assign(**{name: pd.Series(found, list(scalars)) for name, found in mixing.items()})


def _mixing(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R-hat, bulk and tail ESS of `(chain, draw, quantity)`; NaN for what never moves, and of too
    few draws.
    """
    finite, _ = finite_draws(values.astype(float))
    found = np.full((3, values.shape[2]), np.nan)
    if finite.shape[1] >= FEWEST_DRAWS and (moving := moving_quantities(finite)).any():
        found[:, moving] = rhat(finite[..., moving]), *effective_sizes(finite[..., moving])
    return found[0], found[1], found[2]


def _brief(row: dict[str, float]) -> Summary:
    mean, sd, low, high = (row[column] for column in ("mean", "sd", "eti90_lb", "eti90_ub"))
    written = _written(sd, mean, low, high)
    return Summary(written(mean), written(sd), f"{written(low)} to {written(high)}")


def _quantiles(draws: np.ndarray) -> Quantiles:
    finite = draws[np.isfinite(draws)]
    if not finite.size:
        return Quantiles()
    low, median, high = np.quantile(finite, [0.05, 0.5, 0.95])
    written = _written((high - low) / 4, low, median, high)
    return Quantiles(written(median), f"{written(low)} to {written(high)}")


def _written(spread: float, *values: float) -> Callable[[float], str]:
    """How numbers that scatter by so much are written: with two digits of the spread, unless they
    are very large.
    """
    if not (math.isfinite(spread) and spread > 1e-5 and max(map(abs, values)) < 1e6):
        return number
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    return lambda value: fixed(value, decimals)


def _weight_row(name: str, weights: xr.DataArray, prior: xr.DataArray | None) -> WeightRow:
    inner = [dim for dim in weights.dims if dim not in ("chain", "draw")]
    flat = weights.transpose("chain", "draw", *inner).values
    flat = flat.reshape(*flat.shape[:2], -1)
    size = flat.shape[2]
    chosen = thinned(size, MOST_WEIGHTS)
    r_hat, bulk, _ = _mixing(flat[:, :, chosen])
    means = flat.mean(axis=(0, 1))
    return WeightRow(
        name=name,
        path=str(weights.attrs.get("path", name)),
        shape=" \N{MULTIPLICATION SIGN} ".join(str(weights.sizes[dim]) for dim in inner) or "1",
        distribution=str(weights.attrs.get("prior", "")),
        prior_sd=MISSING if prior is None else number(prior.std(["chain", "draw"]).mean(), 2),
        posterior_sd=number(flat.std(axis=(0, 1)).mean(), 2),
        means=f"{number(means.min(), 2)} to {number(means.max(), 2)}",
        r_hat=fixed(pd.Series(r_hat).max(), 3),
        ess=fixed(pd.Series(bulk).min(), 0),
        checked="" if len(chosen) == size else f"{len(chosen)} of {size} elements",
    )


def _score_rows(
    tables: Mapping[str, pd.DataFrame], observable: str
) -> list[tuple[str, list[Cell]]]:
    columns = [*LOSSES, *COVERAGES]
    values = np.array([[float(t.loc[observable, c]) for c in columns] for t in tables.values()])
    nominal = np.array([COVERAGES.get(c, 0.0) for c in columns])
    is_loss = np.array([c in LOSSES for c in columns])
    distance = np.where(is_loss, values, np.abs(values - nominal))
    finite = np.isfinite(distance)
    lowest = np.where(finite, distance, np.inf).min(axis=0)
    best = finite & (distance <= lowest + 1e-9 * np.maximum(np.abs(lowest), 1e-9))
    best &= (finite.sum(axis=0) > 1) & (best.sum(axis=0) < max(len(tables), 2))
    texts = [percent if c in COVERAGES else number for c in columns]
    found = []
    for i, name in enumerate(tables):
        cells = zip(texts, values[i], best[i], strict=True)
        found.append((name, [Cell(text(value), bool(is_best)) for text, value, is_best in cells]))
    return found


def model_rows(comparison: Comparison) -> list[ModelRow]:
    """Return one row for each model, the best one first; differences with their standard errors are
    to that one.
    """
    rows = comparison.table.iterrows()
    return [
        ModelRow(
            name=str(name),
            weight=fixed(row["weight"], 2),
            log_score=number(row["log_score"]),
            log_difference=_apart(row, "log_score", i),
            crps=number(row["crps"]),
            crps_difference=_apart(row, "crps", i),
        )
        for i, (name, row) in enumerate(rows)
    ]


def evidence_rows(factors: BayesFactors) -> list[EvidenceRow]:
    """Return one row for each model, in the order in which they were given."""
    return [
        EvidenceRow(
            name=str(name),
            prior=fixed(row["prior"], 2),
            weight=fixed(row["weight"], 2),
            log_bayes_factor=""
            if name == factors.base
            else f"{number(row['log_bayes_factor'])} ± {number(row['error'], 2)}",
        )
        for name, row in factors.table.iterrows()
    ]


def _apart(row: pd.Series, score: str, place: int) -> str:
    difference, error = row[f"{score}_difference"], row[f"{score}_error"]
    return f"{number(difference)} ± {number(error, 2)}" if place else ""


def law_rows(fc: xr.DataTree) -> list[LawRow]:
    """Return one row for each constraint of the model; none where nothing was constrained."""
    if "mismatch" not in fc.children:
        return []
    table = consistency(fc)
    return [
        LawRow(str(name), number(row["rms"]), number(row["rms_95"]), percent(row["within"]))
        for name, row in table.iterrows()
    ]

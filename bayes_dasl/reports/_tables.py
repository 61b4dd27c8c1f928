"""Tables of the report: rows of formatted text, as dicts by column."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

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

type Row = dict[str, Any]
"""Formatted cells by column."""

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
_MIXING = ("r_hat", "ess_bulk", "ess_tail")


def summaries(post: xr.DataTree) -> pd.DataFrame:
    """Summarise each scalar science parameter.

    Returns:
        A table with a row per label, such as `rate[2]`. Its columns hold mean, sd, the ends of the
        90 % interval (`eti90_lb` and `eti90_ub`), R-hat and ESS.
    """
    scalars = science_parameters(post)
    if not scalars:
        return pd.DataFrame(columns=["mean", "sd", *_MIXING], dtype=float)
    # Each label, such as `rate[2]`, is a scalar here: coordinates that differ must not be aligned.
    dataset = xr.Dataset({label: v.drop_vars(set(v.coords)) for label, v in scalars.items()})
    options = {
        "kind": "stats",
        "ci_prob": 0.9,
        "ci_kind": "eti",
        "round_to": "none",
    }
    table = pd.DataFrame(summary(dataset, **options))
    # ArviZ has its own R-hat and ESS; the page must agree with the verdict.
    values = np.stack([v.transpose("chain", "draw").values for v in scalars.values()], axis=2)
    return table.join(_mixing(values).set_index(pd.Index(scalars)))


def parameter_rows(post: xr.DataTree, posterior: pd.DataFrame) -> list[Row]:
    """Return one row for each of the first `MOST_PARAMETERS` scalar science parameters.

    Args:
        post: the posterior with its prior draws.
        posterior: the result of `summaries`.

    Returns:
        Rows with `prior` and `posterior` as nested dicts, and convergence diagnostics.
    """
    # A page with hundreds of parameters would be too long to read.
    scalars = dict(list(science_parameters(post).items())[:MOST_PARAMETERS])
    before = science_parameters(post, "prior") if "prior" in post.children else {}
    rows = []
    for name, scalar in scalars.items():
        found = posterior.loc[name]
        mean, sd, low, high = found[["mean", "sd", "eti90_lb", "eti90_ub"]]
        write = _writer(sd, mean, low, high)
        row = {
            "name": name,
            **_described(name, scalar),
            "units": str(scalar.attrs.get("units", "")),
            "prior": _quantiles(before[name].values if name in before else np.array([])),
            "posterior": {
                "mean": write(mean),
                "sd": write(sd),
                "interval": f"{write(low)} to {write(high)}",
            },
            "r_hat": fixed(found["r_hat"], 3),
            "ess_bulk": fixed(found["ess_bulk"], 0),
            "ess_tail": fixed(found["ess_tail"], 0),
        }
        rows.append(row)
    return rows


def _described(name: str, variable: xr.DataArray) -> Row:
    """Return the path of a parameter in the model, and its prior distribution, as text."""
    attrs = variable.attrs
    return {"path": str(attrs.get("path", name)), "distribution": str(attrs.get("prior", ""))}


def weight_rows(post: xr.DataTree) -> list[Row]:
    """Return one row for each array of network weights."""
    posterior = post["posterior"].dataset
    prior = post["prior"].dataset if "prior" in post.children else xr.Dataset()
    return [
        _weight_row(str(name), weights, prior.get(name))
        for name, weights in posterior.data_vars.items()
        if weights.attrs.get("group") == "network"
    ]


def _weight_row(name: str, weights: xr.DataArray, prior: xr.DataArray | None) -> Row:
    """Summarise the draws of one array of network weights over its elements.

    Args:
        name: name of the array.
        weights: posterior draws.
        prior: prior draws, if there are any.
    """
    draws = weights.transpose("chain", "draw", ...)
    shape = draws.shape[2:]
    flat = draws.values.reshape(*draws.shape[:2], -1)
    size = flat.shape[2]
    # R-hat of thousands of weights would take long: look at some of them.
    chosen = thinned(size, MOST_WEIGHTS)
    mixing = _mixing(flat[:, :, chosen])
    means = flat.mean(axis=(0, 1))
    return {
        "name": name,
        **_described(name, weights),
        "shape": " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) or "1",
        "prior_sd": MISSING if prior is None else number(prior.std(["chain", "draw"]).mean(), 2),
        "posterior_sd": number(flat.std(axis=(0, 1)).mean(), 2),
        "means": f"{number(means.min(), 2)} to {number(means.max(), 2)}",
        "r_hat": fixed(mixing["r_hat"].max(), 3),
        "ess": fixed(mixing["ess_bulk"].min(), 0),
        "checked": "" if len(chosen) == size else f"{len(chosen)} of {size} elements",
    }


def _mixing(values: np.ndarray) -> pd.DataFrame:
    """Return R-hat, bulk ESS and tail ESS of each quantity as a table.

    They are NaN for constants, and for all quantities if there are too few draws.

    Shapes: `values` is `(chain, draw, quantity)`.
    """
    finite, _ = finite_draws(values.astype(float))
    found = np.full((3, values.shape[2]), np.nan)
    if finite.shape[1] >= FEWEST_DRAWS and (moving := moving_quantities(finite)).any():
        found[:, moving] = rhat(finite[..., moving]), *effective_sizes(finite[..., moving])
    return pd.DataFrame(dict(zip(_MIXING, found, strict=True)))


def _quantiles(draws: np.ndarray) -> Row:
    """Return median and central 90 % interval of draws as text.

    The prior has no mean in this table, since some distributions have none.
    """
    finite = draws[np.isfinite(draws)]
    if not finite.size:
        return {"median": MISSING, "interval": MISSING}
    low, median, high = np.quantile(finite, [0.05, 0.5, 0.95])
    write = _writer((high - low) / 4, low, median, high)
    return {"median": write(median), "interval": f"{write(low)} to {write(high)}"}


def _writer(spread: float, *values: float) -> Callable[[float], str]:
    """Return a function that formats values of one parameter.

    It shows two significant digits of the spread. Very large values, or a very small spread, get
    three significant digits each.

    Args:
        spread: standard deviation of the parameter.
        *values: all values to be formatted, which decide whether they are very large.
    """
    if not (math.isfinite(spread) and spread > 1e-5 and max(map(abs, values)) < 1e6):
        return number
    # A spread of 0.012 has its second digit at the third decimal.
    decimals = max(0, 1 - math.floor(math.log10(spread)))
    return lambda value: fixed(value, decimals)


def score_groups(tables: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> list[Row]:
    """Return the scores by observable and forecast, with the best value of each column marked.

    The lowest loss is best, and the coverage nearest to its nominal value; ties share the mark.

    Args:
        tables: tables of scores by name of the forecast.
        units: units by observable.

    Returns:
        A dict per observable: `observable`, `units`, `n` (the number of test values), and `rows`,
        the result of `_score_cells`.
    """
    first: Any = next(iter(tables.values()))
    observables = [str(name) for name in first.index if name != "all"]
    if len(observables) > 1:
        # With one observable, "all" would repeat it.
        observables = ["all", *observables]
    groups = []
    for observable in observables:
        scores = pd.DataFrame({name: table.loc[observable] for name, table in tables.items()}).T
        row = {"observable": observable, "units": units.get(observable, "")}
        groups.append(row | {"n": int(first.loc[observable, "n"]), "rows": _score_cells(scores)})
    return groups


def _score_cells(scores: pd.DataFrame) -> list[tuple[str, list[Row]]]:
    """Format the scores of one observable.

    Args:
        scores: a table with a row per forecast.

    Returns:
        The name of each forecast with its cells; a cell has `text` and `best`, whether it is
        marked.
    """
    values: Any = scores[[*LOSSES, *COVERAGES]].astype(float)
    # 1. The distance from the ideal: the loss itself, or |coverage − nominal|.
    distance = values.assign(**{name: (values[name] - p).abs() for name, p in COVERAGES.items()})
    distance = distance.where(np.isfinite(distance))
    # 2. The best are those within rounding of the lowest.
    lowest = distance.min()
    best = distance <= lowest + 1e-9 * lowest.abs().clip(lower=1e-9)
    # 3. No mark if there is nothing to compare with, or all are equal.
    best &= (distance.count() > 1) & (best.sum() < max(len(scores), 2))
    texts = values.apply(lambda column: column.map(percent if column.name in COVERAGES else number))
    return [
        (
            str(name),
            [
                {"text": text, "best": mark}
                for text, mark in zip(texts.loc[name], best.loc[name], strict=True)
            ],
        )
        for name in scores.index
    ]


def metric_groups(
    forecasts: Mapping[str, xr.DataTree], data: xr.Dataset, metrics: Mapping[str, Metric]
) -> list[tuple[str, int, list[tuple[str, list[str]]]]]:
    """Return the user's metrics as text.

    Args:
        forecasts: forecasts by name.
        data: the test data.
        metrics: functions by name.

    Returns:
        A tuple per observable: its name, the number of its data, and pairs of a forecast's name and
        its values as text.
    """
    if not metrics:
        return []
    tables: dict[str, Any] = {n: measured_by(fc, data, metrics) for n, fc in forecasts.items()}
    texts = {name: table[[*metrics]].map(number) for name, table in tables.items()}
    first = next(iter(tables.values()))
    return [
        (str(row), int(n), [(name, list(table.loc[row])) for name, table in texts.items()])
        for row, n in first["n"].items()
    ]


def estimated(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return the names of forecasts whose log score is not exact for some observable.

    Such log scores are kernel density estimates. The names are joined as text.
    """
    kinds = {name: table.attrs.get("log_score", {}).values() for name, table in tables.items()}
    names = [name for name, found in kinds.items() if any(kind != EXACT for kind in found)]
    return listed(names) if names else ""


def model_rows(comparison: Comparison) -> list[Row]:
    """Return one row per model of a comparison by past forecasts, the best first.

    The columns `log_difference` and `crps_difference` are differences to the best model, with their
    standard errors.
    """
    table: Any = comparison.table
    rows = table[["log_score", "crps"]].map(number)
    rows["weight"] = table["weight"].map(lambda weight: fixed(weight, 2))
    for score, column in (("log_score", "log_difference"), ("crps", "crps_difference")):
        rows[column] = _with_errors(table[f"{score}_difference"], table[f"{score}_error"])
    # The best model has no difference to itself.
    rows.iloc[0, rows.columns.get_indexer(["log_difference", "crps_difference"])] = ""
    return _records(rows)


def evidence_rows(factors: BayesFactors) -> list[Row]:
    """Return one row per model of a comparison by Bayes factors, in its order.

    The columns are `name`, `prior`, `weight` and `log_bayes_factor` with its standard error.
    """
    table: Any = factors.table
    rows = table[["prior", "weight"]].map(lambda share: fixed(share, 2))
    rows["log_bayes_factor"] = _with_errors(table["log_bayes_factor"], table["error"])
    # The base model has no Bayes factor with itself.
    rows.loc[factors.base, "log_bayes_factor"] = ""
    return _records(rows)


def law_rows(fc: xr.DataTree) -> list[Row]:
    """Return one row per constraint of the model; none if the model has no constraints.

    `rms` and `rms_95` are root mean square residuals; `within` is the share of draws within the
    tolerance.
    """
    if "constraint_residual" not in fc.children:
        return []
    table = consistency(fc)
    rows = table[["rms", "rms_95"]].map(number)
    return _records(rows.assign(within=table["within"].map(percent)))


def _with_errors(values: pd.Series, errors: pd.Series) -> pd.Series:
    """Format values with their standard errors as `value ± error`."""
    return values.map(number) + " ± " + errors.map(lambda error: number(error, 2))


def _records(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a table as dicts, with the index as the entry `name`."""
    return table.rename_axis("name").reset_index().to_dict("records")

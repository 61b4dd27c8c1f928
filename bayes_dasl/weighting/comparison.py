"""Comparison of models by past forecasts: score differences, errors and mixture weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from .._findings import Finding, model_finding
from .._statistics.dependence import error_of_mean
from .._statistics.importance import largest_pareto_k
from ..errors import MismatchError
from .weight_table import WeightTable

# With fewer windows, standard errors are rough.
_FEW = 5
# With this many windows the correlation of their scores can be estimated.
_MANY = 20
# The level of the interval that excludes zero if a difference is significant.
_SURE = 0.95
# The Monte-Carlo error of a log density, in nats, from which it depends on fewer than four draws.
_COARSEST = 0.5
SCORES = ("log_score", "crps")


@dataclass(frozen=True)
class Comparison(WeightTable):
    """Scores of models that forecast the same windows of a time series.

    Args:
        table: a row for each model, the best one first. `log_score` is minus the log joint density
            of a window, in nats. `crps` is the mean over observables and leads, in their units.
            Both are means over origins; lower is better. `log_score_difference` and
            `crps_difference` are mean differences from the first model over the same windows;
            `log_score_error` and `crps_error` are their standard errors. `weight` is the weight in
            a mixture. `refits` is the number of origins after the first at which the model was
            fitted again.
        findings: findings on the differences, with a warning if they may be chance.
        by_lead: scores of single data, their differences and errors, by `model`, `observable` and
            `lead`. `step` is the lead in units of the index, if it is the same at all origins.
        windows: the effective number of disjoint windows.
        why: the reason why `bd.weighting.model_weights` did not use evidence; empty if there is
            none.
    """

    by_lead: xr.Dataset
    windows: float
    weighed_by: ClassVar[str] = "forecasts"

    @property
    def weights(self) -> dict[str, float]:
        """Weights by model, in the given order, for `bd.mixture`."""
        # The table is in the order of the scores.
        ranked = super().weights
        return {str(name): ranked[str(name)] for name in self.by_lead["model"].values}


def compare(results: Mapping[str, xr.DataTree]) -> Comparison:
    r"""Compare models by their forecasts from the same origins of the same time series.

    The window of an origin is the times that are forecast from it; their number is the horizon.

    **Differences** are paired, window by window, since a window that is hard to forecast is hard
    for all models. Windows that share times are not independent. The correlation of windows i and j
    is taken as the share $\rho_{ij}$ of times that they have in common. Let $n$ be the number of
    windows, $s^2$ the variance of the differences, and $\bar\rho$ the mean of $\rho_{ij}$ over
    pairs of windows. Then the squared standard error is

    $\frac{s^2}{1 - \bar\rho} \left(\frac{1}{n} + \frac{n - 1}{n} \bar\rho\right)$.

    This is $s^2 / n$ for disjoint windows. From 20 windows on, the error is at least that of a
    first-order autoregression over windows. For log scores, it is at least the Monte-Carlo error of
    the densities.

    **A difference is significant** if its 95 % interval excludes zero. The interval is that of
    Student's t with $m - 1$ degrees of freedom, where $m$ is the effective number of disjoint
    windows. Its half-width is 2 standard errors for many windows, 4.3 for three, and 13 for two.

    **Windows without a usable density.** A window is left out of log scores and weights if its data
    have probability zero under all models. If the joint density of a model depends on fewer than
    four draws, the product of the densities of single data replaces it. This is then done for all
    models in that window.

    **Mixture weights** $w$ are those of stacking with a Dirichlet prior:

    $\max_w \frac{m}{n} \sum_i \log \sum_k w_k\, p_{ik} + \sum_k \log w_k$,

    where $p_{ik}$ is the joint density of window i under model k. Without the last term, stacking
    would put all weight on a model that is slightly better in each of three windows. The prior acts
    as if each model had been best in one further window. So among K models, a model that is far
    better in all $m$ windows has the weight $(m + 1) / (m + K)$, and equal models have equal
    weights.

    Args:
        results: the result of `leave_future_out` for each model, by name, with the same data,
            origins and horizon.

    Returns:
        A table of scores, differences and weights, which `print` shows with its findings.

    Raises:
        MismatchError: if there are fewer than two results, some are no results of
            `leave_future_out`, or their data, origins or observables differ.

    Source: Yao, Vehtari, Simpson & Gelman (2018), Using stacking to average Bayesian predictive
    distributions; Diebold & Mariano (1995), Comparing predictive accuracy, for paired differences
    of windows that overlap.

    Example:
        ```python
        results = {
            name: bd.weighting.leave_future_out(model, train, origins=3, horizon=2)
            for name, model in models.items()
        }
        comparison = bd.compare(results)
        print(comparison)
        ```
    """
    # 1. Log densities of windows. Some model must give the data a positive density.
    found = _checked_results(results)
    names = list(found)
    of_all = xr.concat(
        found.values(), pd.Index(names, name="model"), combine_attrs="drop_conflicts"
    )
    shared = shared_times(of_all["time"].values)
    density, coarse = _window_densities(of_all)
    possible = np.isfinite(density.max(axis=0))
    windows = independent(shared[np.ix_(possible, possible)])
    # 2. Weights of a mixture.
    weights = stacking_weights(density[:, possible], windows)
    # 3. Mean scores, and differences from the model with the best log score; unknown ones are last.
    at_origin = {"log_score": np.where(possible, -density, np.nan)}
    at_origin["crps"] = _window_means(of_all["crps"])
    ranks = np.nan_to_num(paired(at_origin["log_score"], shared)[0], nan=np.inf, posinf=np.inf)
    best = int(np.argmin(ranks))
    columns = {}
    for score, values in at_origin.items():
        columns |= _differences(score, values, best, shared)
    density_errors = np.where(coarse, 0.0, of_all["density_error"].values)[:, possible]
    monte_carlo = _density_error_of_means(density_errors, best)
    columns["log_score_error"] = np.maximum(columns["log_score_error"], monte_carlo)
    # 4. The table with the best model first, and findings.
    refits = of_all["refitted"].isel(origin=slice(1, None)).sum("origin").values.astype(int)
    columns |= {"weight": weights, "refits": refits}
    table = pd.DataFrame(columns, index=pd.Index(names, name="model"))
    first = np.where(np.arange(len(names)) == best, -np.inf, columns["log_score"])
    table = table.iloc[np.argsort(first, kind="stable")]
    findings = (
        *_comparison_findings(table, of_all, windows),
        *_coarse_density_findings(coarse),
        *_impossible_data_findings(possible),
    )
    return Comparison(table, findings, _lead_scores(of_all, best, shared), windows)


def _differences(
    score: str, values: np.ndarray, best: int, shared: np.ndarray
) -> dict[str, np.ndarray]:
    """Return mean scores over windows, mean differences from the best model, and errors.

    Args:
        score: name of the score.
        values: the score in each window, with the dimension of windows last.
        best: index of the best model.
        shared: the result of `shared_times`.

    Returns:
        Arrays with the keys `score`, `score_difference` and `score_error`, where `score` stands for
        the name.
    """
    # Both scores may be infinite, where the difference is unknown.
    with np.errstate(invalid="ignore"):
        above = values - values[best]
    difference, error = paired(above, shared)
    mean, _ = paired(values, shared)
    return {score: mean, f"{score}_difference": difference, f"{score}_error": error}


def _window_densities(
    of_all: xr.Dataset,
) -> tuple[Float[np.ndarray, "model window"], Bool[np.ndarray, " window"]]:
    """Return the log density of each window under each model.

    Args:
        of_all: results of `leave_future_out` along the dimension `model`.

    Returns:
        The log densities, and a mask of windows in which a product of densities of single data
        replaces the joint density.
    """
    # An unknown density counts as zero.
    joint = of_all["log_density"].fillna(-np.inf).values
    finite = np.isfinite(joint)
    coarse = ((of_all["density_error"].values >= _COARSEST) & finite).any(axis=0)
    scores = of_all["log_score"].transpose("model", "origin", ...).values
    alone = -scores.reshape(*joint.shape, -1)
    found = np.where(np.isnan(alone).all(axis=-1), -np.inf, np.nansum(alone, axis=-1))
    return np.where(coarse & finite, found, joint), coarse


def _coarse_density_findings(coarse: Bool[np.ndarray, " window"]) -> Iterator[Finding]:
    if coarse.any():
        yield model_finding(
            "warning",
            "joint densities",
            f"in {coarse.sum()} of {coarse.size} windows that of a "
            "model hangs on fewer "
            "than four draws: there each datum is taken by itself, which does not see whether "
            "errors hold together",
            "take more draws, or shorter windows",
        )


class Lead(NamedTuple):
    """By how much the best model is better than another model.

    Args:
        kind: "clear" or "chance" for a difference that is significant or not, "impossible" if the
            data have probability zero under the other model, or "unknown".
        far: the difference of their log scores, in words.
    """

    kind: str
    far: str


def lead_over(table: pd.DataFrame, name: str, windows: float) -> Lead:
    """Compare the first model in the table of a comparison with another one.

    Args:
        table: the table of a `Comparison`.
        name: name of the other model.
        windows: the effective number of disjoint windows.

    Returns:
        Whether the difference of log scores is significant, and its size.
    """
    difference, error = table.loc[name, ["log_score_difference", "log_score_error"]].astype(float)
    far = f"{difference:.3g} nats in a window"
    # A single window has no standard error.
    if np.isfinite(error):
        far += f", standard error {error:.2g}"
    if np.isnan(difference):
        return Lead("unknown", far)
    if difference == np.inf:
        return Lead("impossible", far)
    return Lead("clear" if difference > clearly(windows) * error else "chance", far)


def lowest_crps(table: pd.DataFrame) -> str:
    """Return the name of the model with the lowest CRPS in the table of a comparison.

    Args:
        table: the table of a `Comparison`.

    Returns:
        The name.
    """
    return str(table["crps"].astype(float).fillna(np.inf).idxmin())


def clearly(windows: float) -> float:
    """Return half the width of a 95 % interval in units of standard errors.

    Args:
        windows: the effective number of disjoint windows.

    Returns:
        The quantile of Student's t; infinite for a single window.
    """
    return float(stdtrit(windows - 1, 0.5 + _SURE / 2)) if windows > 1 else np.inf


def _density_error_of_means(errors: np.ndarray, best: int) -> np.ndarray:
    """Return the Monte-Carlo error of mean differences of log densities from the best model.

    Args:
        errors: standard errors of the log densities, `(model, window)`.
        best: index of the best model.

    Returns:
        The errors, `(model,)`; zero for the best model.
    """
    # Few windows may agree by chance, so their standard deviation alone is no reliable error.
    of_sum = np.sqrt((errors**2 + errors[best] ** 2).sum(axis=1))
    other = np.arange(len(errors)) != best
    return np.where(other, of_sum / max(errors.shape[1], 1), 0.0)


def stacking_weights(
    density: Float[np.ndarray, "model window"], windows: float
) -> Float[np.ndarray, " model"]:
    r"""Compute the mixture weights of `compare`.

    Args:
        density: log joint densities of windows. Each window has a finite density under some model.
        windows: the effective number of disjoint windows.

    Returns:
        Weights that sum to one.
    """
    number = len(density)
    weights = np.full(number, 1 / number)
    if not density.size:
        return weights
    relative = np.exp(density - density.max(axis=0))
    # Expectation–maximisation: each step raises the target, which is strictly concave.
    # w_k ← (1 + m mean_i w_k p_ik / Σ_j w_j p_ij) / (K + m)
    for _ in range(100_000):
        part = weights[:, None] * relative
        new = (1 + windows * (part / part.sum(axis=0)).mean(axis=1)) / (number + windows)
        if np.abs(new - weights).max() < 1e-12:
            break
        weights = new
    return weights


def shared_times(times: np.ndarray) -> Float[np.ndarray, "window window"]:
    """Return the share of times that each pair of windows has in common.

    Args:
        times: the times of each window, `(window, lead)`.

    Returns:
        A symmetric matrix with ones on its diagonal.
    """
    each, at = np.unique(times, return_inverse=True)
    there = np.zeros((len(times), len(each)))
    np.put_along_axis(there, at.reshape(times.shape), 1.0, axis=1)
    return there @ there.T / times.shape[1]


def independent(shared: Float[np.ndarray, "window window"]) -> float:
    r"""Compute the effective number of disjoint windows.

    It is $n^2 / \sum_{ij} \rho_{ij}$ for $n$ windows, where $\rho_{ij}$ is the share of times that
    windows i and j have in common.

    Args:
        shared: the result of `shared_times`.

    Returns:
        The number; 0 without windows.
    """
    return float(len(shared) ** 2 / shared.sum()) if len(shared) else 0.0


def paired(
    differences: Float[np.ndarray, "... window"], shared: Float[np.ndarray, "window window"]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Compute the mean over windows and its standard error, as described in `compare`.

    Args:
        differences: values with windows along the last dimension; NaN values are left out.
        shared: the result of `shared_times`.

    Returns:
        Means and errors. The error of a single window, or of infinite values, is NaN.
    """
    flat = differences.reshape(-1, differences.shape[-1])
    means, errors = np.full((2, len(flat)), np.nan)
    for i, row in enumerate(flat):
        here = ~np.isnan(row)
        values, number = row[here], int(here.sum())
        if number:
            # Scores may be infinite with either sign.
            with np.errstate(invalid="ignore"):
                means[i] = values.mean()
        if number > 1 and np.isfinite(values).all():
            # s² / (1 - ρ̄) · (1/n + (n - 1)/n ρ̄), with ρ̄ the mean over pairs of windows.
            together = shared[np.ix_(here, here)]
            total = together.sum()
            mean = (total - number) / (number * (number - 1))
            errors[i] = np.sqrt(values.var(ddof=1) / (1 - mean) * total) / number
            if number >= _MANY:
                # Scores may be correlated even between windows that share no time.
                errors[i] = max(errors[i], error_of_mean([values]))
    shape = differences.shape[:-1]
    return means.reshape(shape), errors.reshape(shape)


def _window_means(scores: xr.DataArray) -> Float[np.ndarray, "model window"]:
    """Average scores over leads, then over observables.

    A missing score is left out if all models lack it; otherwise it counts as infinite.
    """
    there = scores.notnull().any("model")
    of_each = scores.fillna(np.inf).where(there).mean("lead").mean("observable")
    return of_each.transpose("model", "origin").values


def _lead_scores(of_all: xr.Dataset, best: int, shared: np.ndarray) -> xr.Dataset:
    """Return the dataset `by_lead` of a `Comparison`.

    Args:
        of_all: results of `leave_future_out` along the dimension `model`.
        best: index of the best model.
        shared: the result of `shared_times`.
    """
    found = {}
    for score in SCORES:
        values = of_all[score].transpose("model", "observable", "lead", "origin").values
        parts = _differences(score, values, best, shared)
        found |= {name: (("model", "observable", "lead"), part) for name, part in parts.items()}
    names = ("model", "observable", "units", "lead")
    by_lead = xr.Dataset(found, {name: of_all[name].variable for name in names})
    steps = of_all["time"] - of_all["origin"]
    first = steps.isel(origin=0)
    same = np.isclose(steps, first, rtol=1e-9) if steps.dtype.kind == "f" else steps == first
    if bool(same.all()):
        by_lead = by_lead.assign_coords(step=("lead", first.values, of_all["time"].attrs))
    best_name = str(of_all["model"].values[best])
    index = of_all.attrs.get("index", "time")
    return by_lead.assign_attrs(best=best_name, index=index, origins=of_all.sizes["origin"])


def _checked_results(results: Mapping[str, xr.DataTree]) -> dict[str, xr.Dataset]:
    """Check results of `leave_future_out`, and return them as datasets by name.

    The observables of all datasets are in the same order.

    Raises:
        MismatchError: if there are fewer than two results, some are no results of
            `leave_future_out`, or their data, origins or observables differ.
    """
    if not isinstance(results, Mapping) or len(results) < 2:
        raise MismatchError(
            "compare takes a dict of two results of bd.weighting.leave_future_out or more, by name"
        )
    found: dict[str, xr.Dataset] = {}
    for name, result in results.items():
        if not (
            isinstance(result, xr.DataTree)
            and {"log_density", "draws", *SCORES} <= {*map(str, result.data_vars)}
        ):
            raise MismatchError(
                f"'{name}' is no result of bd.weighting.leave_future_out: models are compared by "
                "forecasts of the same windows"
            )
        found[str(name)] = result.to_dataset()
    first, *others = found
    for name in others:
        for what, same in _agreements(found[first], found[name]).items():
            if not same:
                raise MismatchError(
                    f"'{first}' and '{name}' have other {what}: give bd.weighting.leave_future_out "
                    "the same data, origins and "
                    "horizon for each model"
                )
        found[name] = (
            found[name]
            .sel(observable=found[first]["observable"])
            .assign_coords(units=found[first]["units"])
        )
    return found


def _agreements(one: xr.Dataset, other: xr.Dataset) -> dict[str, bool]:
    """Return whether properties that must be equal are equal in two results, by property."""
    units = [of["units"].to_series().to_dict() for of in (one, other)]
    return {
        "observables": {*units[0]} == {*units[1]},
        "units": units[0] == units[1],
        "origins": np.array_equal(one["origin"], other["origin"]),
        "times ahead": np.array_equal(one["time"], other["time"]),
        "data": one.attrs.get("data_sha256") == other.attrs.get("data_sha256"),
    }


def _comparison_findings(
    table: pd.DataFrame, of_all: xr.Dataset, windows: float
) -> Iterator[Finding]:
    first, *others = map(str, table.index)
    for name in others:
        subject = f"{first} against {name}"
        lead = lead_over(table, name, windows)
        if lead.kind == "unknown":
            yield model_finding("warning", subject, "no window tells them apart")
        elif lead.kind == "impossible":
            failed = bool((of_all["draws"].sel(model=name) == 0).any())
            fails = "has a solver that fails in all draws of a window"
            said = fails if failed else "rules out data that came"
            yield model_finding("good", subject, f"{name} {said}")
        elif lead.kind == "clear":
            yield model_finding("good", subject, f"it forecasts better by {lead.far}")
        else:
            yield model_finding(
                "warning",
                subject,
                f"the difference may be chance: {lead.far}",
                "mix them by their weights, or compare more windows",
            )
    lowest = lowest_crps(table)
    if lowest != first:
        difference, error = table.loc[lowest, ["crps_difference", "crps_error"]].astype(float)
        yield model_finding(
            "warning",
            "CRPS",
            f"the CRPS of {lowest} is lower than that of {first}, by {-difference:.3g} "
            f"(standard error {error:.2g})",
            "see at which leads and how far out: the log score punishes what a forecast rules out, "
            "the CRPS its distance",
        )
    if windows < _FEW:
        yield model_finding(
            "warning",
            "windows",
            f"these count as {windows:.2g} that share nothing: standard "
            "errors are rough "
            "themselves",
            "take more origins, or a shorter horizon",
        )
    for name in of_all["model"].values:
        of_model = of_all.sel(model=name)
        largest = np.array([largest_pareto_k(int(draws)) for draws in of_model["draws"].values])
        alone = (of_model["density_pareto_k"].values >= largest) & (of_model["bridged"].values == 0)
        bad = int((alone & (of_model["density_error"].values < _COARSEST)).sum())
        if bad:
            yield Finding(
                "warning",
                f"densities of {name}",
                f"at {bad} of {of_model.sizes['origin']} "
                "origins the joint density "
                f"hangs on a few draws (k-hat from {largest.min():.2g} on) and is likely too low",
                "take more draws, windows that lie side by side, or the scores by lead instead",
            )


def _impossible_data_findings(possible: np.ndarray) -> Iterator[Finding]:
    number = int((~possible).sum())
    if number:
        yield model_finding(
            "warning",
            "impossible data",
            f"in {number} of {possible.size} windows no model thinks "
            "what came possible: "
            "log scores and weights are those of the others",
            "see what all models rule out: the support of the noise, or where their solvers fail",
        )

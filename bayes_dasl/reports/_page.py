"""The report as HTML text, rendered from posterior, forecast and data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import xarray as xr

from .._findings import LEVELS, Finding
from ..data.datasets import index_of
from ..data.dates import are_dates, in_words
from ..errors import MismatchError
from ..model import Model
from ..plots import epistemic_parts, science_parameters
from ..prediction.posterior import (
    are_chains,
    fitted_observables,
    of_particles,
    with_what_is_censored,
)
from ..scores.baselines import BASELINES
from ..scores.decomposition import decompose
from ..scores.draws_at_data import lower_by
from ..scores.failures import usable_draws
from ..scores.matching import (
    RECALIBRATED,
    check_forecast,
    fitted_between,
    held_out,
    in_units_of_forecast,
)
from ..scores.pit_values import pit
from ..scores.scores import score, score_baselines
from ..verdict.diagnosis import diagnose
from ..weighting.equal_weights import EqualWeights
from ..weighting.factor_table import BayesFactors
from ..weighting.judged_mixtures import MIXTURE, Mixed, Weighed
from . import _events, _figures, _methods, _tables
from ._cards import Card
from ._text import MISSING, count, fixed, listed, number, percent, seconds
from .options import ReportOptions

SYMBOLS = {
    "good": "✓",
    "inconclusive": "?",
    "warning": "!",
    "bad": "✕",
}
VERSIONS = ("bayes_dasl", "python", "jax", "numpyro", "diffrax", "blackjax")


@dataclass(frozen=True)
class Scored:
    """Scores of every forecast on the test data.

    Args:
        tables: tables of scores by name of the forecast, including competitors and baselines. The
            forecast that the page is about comes first.
        pit: PIT (probability integral transform) values of the forecast that the page is about.
        name: name of that forecast.
        data: the test data at the times of that forecast.
    """

    tables: dict[str, pd.DataFrame]
    pit: xr.Dataset
    name: str
    data: xr.Dataset

    @property
    def own(self) -> pd.DataFrame:
        """The scores of the forecast that the page is about."""
        return self.tables[self.name]


def render(
    post: xr.DataTree,
    fc: xr.DataTree,
    test: xr.Dataset | None,
    *,
    title: str,
    name: str,
    competitors: Mapping[str, xr.DataTree],
    derived: xr.Dataset | None = None,
    mixture: Mixed | None = None,
    model: Model | None = None,
    description: Any,
    options: ReportOptions,
) -> str:
    """Render the page as HTML text.

    Args:
        post: the posterior.
        fc: the forecast of the model.
        test: the held-out data, if there are any.
        title: title of the page.
        name: name of the model.
        competitors: forecasts of other models by name.
        derived: the result of `evaluate`, if there is one.
        mixture: the mixture with its verdict; the page is then about the mixture.
        model: the fitted model, if it is known.
        description: the result of `describe(model)`; None without a model.
        options: options of the report.

    Raises:
        MismatchError: if an argument has a wrong type, or a name is used twice.
        DataError: if the forecast cannot show what the options ask for.
    """
    # 1. Refuse bad arguments before any work.
    _check_report_arguments(post, fc, name, competitors, mixture)
    _events.refuse(fc, options)
    # 2. The data: only values that were not fitted are scored.
    train = fitted_observables(post)
    known = with_what_is_censored(post)
    observables = [str(v) for v in fc["predictions"].data_vars]
    shown = observables[: _figures.MOST_OBSERVABLES]
    diagnosis = diagnose(post, fc, test, competitors=competitors)
    summary = _tables.summaries(post)
    options = options.with_origin_of(test)
    test, all_fitted = _unfitted(fc, train, test, observables)
    # 3. The subject of the page: the model, or a mixture with its models beside it.
    about, head, others = fc, name, competitors
    if mixture is not None:
        about, head, others = mixture.forecast, MIXTURE, {name: fc, **competitors}
    scored = None
    if test is not None:
        scored = _score_all(about, train, test, head, others, observables)
    units = _units_by_observable(fc, observables)
    recalibrated = {
        competitor: found
        for competitor, found in competitors.items()
        if RECALIBRATED in found.attrs
    }
    of = "" if mixture is None else f" of {name}"
    # 4. The sections, in the order of the page.
    context = {
        "title": title,
        "name": name,
        "head": head,
        "mixture": mixture and _mixture_section(mixture, others, known, test, shown),
        "subtitle": _subtitle(fc, train, test, all_fitted),
        "diagnosis": diagnosis,
        **_by_level(diagnosis.findings),
        "symbols": SYMBOLS,
        "facts": _key_facts(post, about, summary, scored, units, of),
        "forecast": _figures.forecast_cards(about, known, test, shown),
        "closer": _events.window_cards(about, known, test, shown, options),
        "events": _events.event_cards(about, options),
        "no_events": _events.not_drawn(about, options),
        "recalibrated": _figures.recalibrated_cards(recalibrated, known, test, shown),
        "not_posterior": [
            f"{competitor} is {f.attrs[RECALIBRATED]}" for competitor, f in recalibrated.items()
        ],
        "fields": any(_figures.is_field(fc, name) for name in shown),
        "curves": not all(_figures.is_field(fc, name) for name in shown),
        "failed": _count_failed(about),
        "observables": observables,
        "shown": shown,
        **_score_section(scored, units, {head: about, **others}, options),
        "mixed_units": len({units[name] for name in observables}) > 1,
        **_variance_section(fc, shown, "" if mixture is None else name),
        "laws": _tables.law_rows(fc),
        "functions": _figures.function_cards(model, post),
        "derived": _figures.derived_cards(fc, derived),
        "not_drawn": _figures.not_drawn(fc, derived),
        "parameters": _tables.parameter_rows(post, summary),
        "parameter_total": len(summary),
        "weights": _tables.weight_rows(post),
        "densities": _density_cards(post),
        "chains": are_chains(post),
        "ranks": _rank_cards(post, summary) if are_chains(post) else [],
        "training": _figures.training_cards(post),
        "most_panels": _figures.MOST_PANELS,
        "methods": _methods.methods(model, description, post, fc, train, options),
        "provenance": _provenance(post, fc),
        "percent": percent,
    }
    return _environment().get_template("template.html").render(context)


def _score_section(
    scored: Scored | None,
    units: Mapping[str, str],
    forecasts: Mapping[str, xr.DataTree],
    options: ReportOptions,
) -> dict[str, Any]:
    """Return the template variables on scores, metrics and calibration.

    Args:
        scored: the scores; None without test data, which leaves all but the column names empty.
        units: units by observable.
        forecasts: forecasts by name, that of the page first.
        options: options of the report.
    """
    section = {
        "losses": _tables.LOSSES,
        "coverages": list(_tables.COVERAGES.values()),
        "metrics": list(options.metrics),
        **dict.fromkeys(("skill", "estimated"), ""),
        **{key: [] for key in ("scores", "measured", "calibration")},
    }
    if scored is None:
        return section
    series = bool(forecasts[scored.name].attrs.get("series", True))
    return section | {
        "skill": _skill(scored, units),
        "scores": _tables.score_groups(scored.tables, units),
        "measured": _tables.metric_groups(forecasts, scored.data, options.metrics),
        "estimated": _tables.estimated(scored.tables),
        "calibration": _figures.calibration_cards(scored.pit, scored.own, series=series),
    }


def _variance_section(fc: xr.DataTree, shown: list[str], of: str) -> dict[str, Any]:
    """Return the template variables on the parts of the predictive variance.

    Args:
        fc: the forecast.
        shown: names of the observables that the page shows.
        of: name of the model for the titles; empty if the page shows one model.

    Returns:
        `decomposition`: the cards; the other keys are flags for the explanations in the text. They
        say which parts are drawn, and whether one of them is negative.
    """
    parts = _variance_parts(fc, shown)
    drawn = _epistemic_parts_drawn(parts)
    negative = [name for name in ("interaction", "unknown") if name in drawn]
    return {
        "split": "interaction" in drawn,
        **{name: name in drawn for name in ("unknown", "forcing", "process")},
        "negative": any(bool((drawn[name] < 0).any()) for name in negative),
        "decomposition": _figures.decomposition_cards(parts, fitted_between(fc), of),
    }


def _by_level(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Sort findings into faults and passed checks.

    Returns:
        `faults`: all findings that are not good, the worst first; `passed`: the good ones.
    """
    findings = list(findings)
    faults = [finding for finding in findings if finding.level != "good"]
    return {
        "faults": sorted(faults, key=lambda finding: -LEVELS.index(finding.level)),
        "passed": [finding for finding in findings if finding.level == "good"],
    }


def _mixture_section(
    mixture: Mixed,
    members: Mapping[str, xr.DataTree],
    train: xr.Dataset,
    test: xr.Dataset | None,
    shown: list[str],
) -> dict[str, Any]:
    """Return the template variables that only the page of a mixture has.

    Args:
        mixture: the mixture with its verdict.
        members: forecasts of its models by name.
        train: the fitted data.
        test: the held-out data, if there are any.
        shown: names of the observables that the page shows.
    """
    fitted = fitted_between(mixture.forecast)
    parts = _variance_parts(mixture.forecast, shown)
    return {
        "names": listed(list(members)),
        "words": mixture.words,
        "diagnosis": mixture.diagnosis,
        **_by_level(mixture.diagnosis.findings),
        **_of_weights(mixture.comparison),
        "said": mixture.comparison.findings,
        "members": _figures.member_cards(members, train, test, shown),
        "decomposition": _figures.decomposition_cards(parts, fitted, MIXTURE),
    }


def _of_weights(comparison: Weighed) -> dict[str, Any]:
    """Return the template variables that explain the weights of a mixture.

    Returns:
        `base`: name of the base model, for weights by Bayes factors; `rows`: rows of the table;
        `cards`: figures. A comparison by past forecasts adds `origins` and `horizon` in words.
    """
    found: dict[str, Any] = {
        "base": "",
        "rows": [],
        "cards": [],
    }
    if isinstance(comparison, EqualWeights):
        return found
    if isinstance(comparison, BayesFactors):
        return found | {"base": comparison.base, "rows": _tables.evidence_rows(comparison)}
    return found | {
        "rows": _tables.model_rows(comparison),
        "origins": count(comparison.by_lead.attrs["origins"], "origin"),
        "horizon": count(comparison.by_lead.sizes["lead"], "observed time"),
        "cards": _figures.comparison_cards(comparison),
    }


def _check_report_arguments(
    post: xr.DataTree,
    fc: xr.DataTree,
    name: str,
    competitors: Mapping[str, xr.DataTree],
    mixture: Mixed | None,
) -> None:
    """Check the arguments of a report.

    Raises:
        MismatchError: if an argument has a wrong type, or a competitor has the name of the model, a
            baseline or the mixture.
    """
    needed = {"posterior", "observed_data"}
    if not isinstance(post, xr.DataTree) or not needed <= set(post.children):
        raise MismatchError("this is no posterior: it lacks a group of those that bd.fit returns")
    check_forecast(fc, "predictions", "conditional_mean", "conditional_variance")
    if not isinstance(competitors, Mapping):
        raise MismatchError(
            f"competitors must be a dict of forecasts by name, not {type(competitors).__name__}"
        )
    if mixture is not None and not isinstance(mixture, Mixed):
        raise MismatchError(f"mixture is what judge_mixture returned, not {type(mixture).__name__}")
    taken = {name, *BASELINES, *([] if mixture is None else [MIXTURE])} & set(competitors)
    if taken:
        raise MismatchError(f"a competitor needs a name of its own, not {listed(sorted(taken))}")


def _environment() -> jinja2.Environment:
    """Return the Jinja environment, which escapes HTML and raises for undefined variables."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _unfitted(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, observables: list[str]
) -> tuple[xr.Dataset | None, bool]:
    """Remove the fitted values from the test data.

    Returns:
        The test data, NaN where they were fitted, or None if nothing is left to score; and a flag.
        The flag is True if there were test values, but all of them were fitted.
    """
    if test is None:
        return None, False
    test = in_units_of_forecast(fc, test)
    # A test set without any value was not fitted: it has nothing to score.
    left = held_out(train, test, fitted_between(fc))
    seen = [name for name in observables if name in left]
    had_values = any(test[name].notnull().any() for name in seen)
    has_values = any(left[name].notnull().any() for name in seen)
    all_fitted = had_values and not has_values
    return (None if all_fitted else left), all_fitted


def _score_all(
    fc: xr.DataTree,
    train: xr.Dataset,
    test: xr.Dataset,
    name: str,
    competitors: Mapping[str, xr.DataTree],
    observables: list[str],
) -> Scored:
    """Score a forecast, its competitors and the baselines on the same rows of the test data.

    Args:
        fc: the forecast that the page is about.
        train: the fitted data, for the baselines.
        test: the test data; only times of `fc` are scored.
        name: name of the forecast.
        competitors: other forecasts by name.
        observables: names of the observables.
    """
    transform = pit(fc, test)
    index = index_of(transform)
    common = test.isel({index: np.isin(test[index].values, transform[index].values)})
    tables = {name: score(fc, common)}
    tables |= {other: score(competitor, common) for other, competitor in competitors.items()}
    tables |= score_baselines(train, common, observables=observables)
    return Scored(tables, transform, name, common)


def _variance_parts(fc: xr.DataTree, shown: list[str]) -> xr.Dataset:
    """Return the parts of the predictive variance by observable and time.

    The parts of a field are averaged over its places.
    """
    predictions = fc["predictions"].to_dataset()
    # `decompose` takes observables with the same dimensions.
    alike: dict[tuple, list[str]] = {}
    for name in shown:
        alike.setdefault(predictions[name].dims, []).append(name)
    index = index_of(predictions)
    found: list[Any] = []
    for names in alike.values():
        parts = decompose(fc, names)
        places = [dim for dim in parts.dims if dim not in ("observable", index)]
        found.append(parts.mean(places))
    joined: Any = xr.concat(found, "observable")
    return joined


def _epistemic_parts_drawn(parts: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the parts of the epistemic variance that are drawn for any observable, by name."""
    found: dict[str, list[xr.DataArray]] = {}
    for name in parts["observable"].values:
        for part, values in epistemic_parts(parts.sel(observable=name)).items():
            # `concat` cannot join observables whose coordinates `units` differ.
            found.setdefault(part, []).append(values.drop_vars("units", errors="ignore"))
    return {part: xr.concat(values, "observable") for part, values in found.items()}


def _units_by_observable(fc: xr.DataTree, observables: list[str]) -> dict[str, str]:
    """Return units by observable, with the key "all" for units that all observables share.

    "all" is an empty string if the units differ.
    """
    predictions = fc["predictions"].dataset
    units = {name: str(predictions[name].attrs.get("units", "")) for name in observables}
    shared = set(units.values())
    return units | {"all": shared.pop() if len(shared) == 1 else ""}


def _subtitle(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, all_fitted: bool
) -> list[str]:
    """Return phrases on the times that were fitted and forecast, and on reservations.

    Args:
        fc: the forecast.
        train: the fitted data.
        test: the held-out data, if there are any.
        all_fitted: whether all test values that the user gave were fitted.
    """
    index = index_of(train)
    fitted = train[index]
    unit = str(fitted.attrs.get("units", ""))
    said = [f"fitted on {_span(fitted.values)}"]
    # With test data, the forecast counts only where it can be scored.
    times = (fc["predictions"].dataset if test is None else test)[index].values
    start, end = fitted_between(fc)
    before = times[:0] if start is None else times[times < start]
    after = times if end is None else times[times > end]
    said += [f"forecast over {_span(part)}" for part in (before, after) if part.size]
    said[-1] += f" ({unit})" if unit else ""
    if fc.attrs.get("what_if", 0):
        said.append("what if: the forecast is of another model than the fitted one")
    if all_fitted:
        said.append("the data given here were fitted: none are held out")
    elif test is None:
        said.append("no held-out data")
    return said


def _span(time: np.ndarray) -> str:
    """Return the first and the last time as text, such as `0–12`."""
    dates = are_dates(time)
    first, last = (
        in_words(at) if dates else f"{float(at):.10g}" for at in (time.min(), time.max())
    )
    between = " to " if dates else "\N{EN DASH}"
    return f"{first}{between}{last}" if last != first else first


def _skill(scored: Scored, units: Mapping[str, str]) -> str:
    """Return a sentence on the CRPS of the forecast, compared with every other forecast."""
    # NaN if no test value lies at a time of the forecast.
    crps, n = scored.own.loc["all", ["crps", "n"]]
    if not np.isfinite(crps):
        return "No test value could be scored."
    unit = f" {units['all']}" if units["all"] else ""
    said = [
        _against(name, scored.own, table)
        for name, table in scored.tables.items()
        if name != scored.name and np.isfinite(table.loc["all", "crps"])
    ]
    several = "on average over the observables " if len(scored.own) > 2 else ""
    compared = f": {several}{'; '.join(said)}" if said else ""
    return (
        f"On {count(int(n), 'held-out value')} its CRPS (a mean distance between forecast and "
        f"truth) is {number(crps)}{unit}{compared}."
    )


def _against(name: str, own: pd.DataFrame, other: pd.DataFrame) -> str:
    """Compare two forecasts by their CRPS, in words.

    The difference is a share of the higher CRPS, averaged over observables as in the verdict.

    Args:
        name: name of the other forecast.
        own: scores of the forecast that the page is about.
        other: scores of the other forecast.
    """
    rows = [
        row for row in own.index if row != "all" and row in other.index and own.loc[row, "n"] > 0
    ]
    ours = own.loc[rows, "crps"].to_numpy(float)
    theirs = other.loc[rows, "crps"].to_numpy(float)
    n = own.loc[rows, "n"].to_numpy(float)
    # Differences below half a per cent would be shown as 0 %.
    mean = number(other.loc["all", "crps"])
    if (lower := lower_by(ours, theirs, n)) > 0.005:
        return f"that of {name} is {percent(lower)} lower ({mean})"
    if (lower := lower_by(theirs, ours, n)) > 0.005:
        return f"{percent(lower)} lower than that of {name} ({mean})"
    return f"level with {name} ({mean})"


def _key_facts(
    post: xr.DataTree,
    fc: xr.DataTree,
    summary: pd.DataFrame,
    scored: Scored | None,
    units: Mapping[str, str],
    of: str,
) -> list[tuple[str, str, str]]:
    """Return the four numbers at the top of the page, or three for draws that are no chains.

    Args:
        post: the posterior.
        fc: the forecast that the page is about.
        summary: the result of `summaries`.
        scored: the scores; None without test data.
        units: units by observable.
        of: words that name the model in a page about a mixture; else empty.

    Returns:
        A tuple of label, value and unit for each number.
    """
    # 1. The forecast: its scores, or without test data its draws.
    if scored:
        crps, cover = scored.own.loc["all", ["crps", "coverage_90"]]
        facts = [
            ("CRPS", number(crps), units["all"] or "mean over observables"),
            ("90 % coverage", percent(cover), "of test values inside"),
        ]
    else:
        failed, draws = _count_failed(fc)
        runs = count(post["posterior"].sizes["chain"], "run" if of_particles(post) else "chain")
        facts = [
            ("forecast draws", fixed(draws, 0), runs),
            ("failed forecast draws", fixed(failed, 0), "left out"),
        ]
    # 2. The sampling: R-hat and ESS of chains, or the kind of draws of other engines.
    if not are_chains(post):
        draws = fixed(post["posterior"].sizes["draw"], 0)
        return [*facts, ("draws", draws, str(post.attrs.get("draws_are", "")))]
    worst, lowest = fixed(summary["r_hat"].max(), 3), fixed(summary["ess_bulk"].min(), 0)
    whose = f"science parameters{of}"
    mixing = ("largest R-hat", worst, whose)
    # Chains that are too short for R-hat have it of groups of chains.
    if "nested_rhat" in post.attrs:
        mixing = ("nested R-hat", fixed(post.attrs["nested_rhat"], 3), "of superchains")
    return [*facts, mixing, ("lowest bulk ESS", lowest, whose)]


def _count_failed(fc: xr.DataTree) -> tuple[int, int]:
    """Count the posterior draws that failed or are not finite.

    A posterior draw with several predictive draws counts once.

    Returns:
        The number of failed draws, and the number of all draws.
    """
    usable = usable_draws(fc)
    return int((~usable).sum()), usable.size


def _density_cards(post: xr.DataTree) -> list[Card]:
    """Draw prior and posterior of the first `MOST_PANELS` science parameters."""
    names = list(science_parameters(post))[: _figures.MOST_PANELS]
    return _figures.density_cards(post, names) if names else []


def _rank_cards(post: xr.DataTree, summary: pd.DataFrame) -> list[Card]:
    """Draw rank plots of the science parameters with the largest R-hat.

    Args:
        post: the posterior.
        summary: the result of `summaries`, whose order of parameters is kept.
    """
    # NaN, the R-hat of constants, comes last.
    worst = np.argsort(-summary["r_hat"].to_numpy(), kind="stable")[: _figures.MOST_PANELS]
    names = [str(summary.index[i]) for i in sorted(worst)]
    chains = post["posterior"].sizes["chain"]
    return _figures.rank_cards(post, names, chains) if names else []


def _provenance(post: xr.DataTree, fc: xr.DataTree) -> list[tuple[str, str]]:
    """Return versions, random seeds, times and hashes, which allow to repeat a fit.

    Returns:
        Pairs of label and value.
    """
    # Results of older versions lack some attributes: show a dash for them.
    attrs: Mapping[str, Any] = {str(k): v for k, v in post.attrs.items()}
    versions = [f"{v} {attrs[f'version_{v}']}" for v in VERSIONS if f"version_{v}" in attrs]
    sizes = post["posterior"].sizes
    # An interrupted run has fewer draws than asked for.
    kept = f"{count(sizes['chain'], 'chain')} of {count(sizes['draw'], 'draw')}"
    if int(attrs.get("interrupted", 0)):
        kept += f"; interrupted, {attrs.get('draws_requested', '?')} a chain were asked for"
    wall = f"{seconds(attrs.get('wall_time_s'))} in all"
    if "sampling_time_s" in attrs:
        wall += f", of which sampling {seconds(attrs['sampling_time_s'])}"
    rows = [
        ("engine", attrs.get("engine", MISSING)),
        ("draws kept", kept),
        (
            "random key",
            f"{attrs.get('key', MISSING)} (fit), {fc.attrs.get('key', MISSING)} (forecast)",
        ),
        ("data SHA-256", attrs.get("data_sha256", MISSING)),
        ("fitted", attrs.get("created", MISSING)),
        ("forecast", fc.attrs.get("created", MISSING)),
        ("model of the forecast", fc.attrs.get("model", MISSING)),
        ("wall time", f"{wall}; forecast {seconds(fc.attrs.get('wall_time_s'))}"),
        ("machine", ", ".join(str(attrs[k]) for k in ("platform", "devices") if k in attrs)),
        ("versions", ", ".join(versions)),
    ]
    return [(label, str(value) or MISSING) for label, value in rows]

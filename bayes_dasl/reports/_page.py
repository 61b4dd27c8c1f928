"""The report as HTML text, rendered from posterior, forecast and data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import xarray as xr

from .._findings import LEVELS, Finding
from ..data.datasets import index_of
from ..errors import MismatchError
from ..model import Model
from ..plots import epistemic_parts, science_parameters
from ..prediction.posterior import (
    are_chains,
    fitted_observables,
    with_what_is_censored,
)
from ..scores.baselines import BASELINES
from ..scores.decomposition import decompose
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
from ..verdict.finding_help import finding_name, help_address
from ..weighting.equal_weights import EqualWeights
from ..weighting.factor_table import BayesFactors
from ..weighting.judged_mixtures import MIXTURE, Mixed, Weighed
from . import _events, _figures, _methods, _summary, _tables
from ._cards import Card
from ._text import MISSING, count, listed, percent, seconds
from .options import ReportOptions

FIRST = 2
"""Forecasts above the verdict, which have the first screen to themselves."""
MOST_FAULTS = 3
MOST_ROWS = 8
"""Findings and parameters of a report of one page."""
SYMBOLS = {
    "good": "✓",
    "inconclusive": "?",
    "warning": "!",
    "bad": "✕",
    _summary.UNCHECKED: "\N{EN DASH}",
}


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
    drawn = _figures.forecast_cards(about, known, test, shown)
    context = {
        "title": title,
        "name": name,
        "head": head,
        "mixture": mixture and _mixture_section(mixture, others, known, test, shown),
        "subtitle": _summary.subtitle(fc, train, test, all_fitted),
        "brief": options.brief,
        "badges": _summary.badges(mixture.diagnosis if mixture else diagnosis),
        "skill": _summary.skill(scored, units),
        "help_address": help_address,
        "finding_name": finding_name,
        "diagnosis": diagnosis,
        **_by_level(diagnosis.findings),
        "symbols": SYMBOLS,
        "facts": _summary.key_facts(post, about, summary, scored, units, of),
        "forecast": drawn[:FIRST],
        "more": drawn[FIRST:],
        "closer": _events.window_cards(about, known, test, shown, options),
        "events": _events.event_cards(about, options),
        "no_events": _events.not_drawn(about, options),
        "recalibrated": _figures.recalibrated_cards(recalibrated, known, test, shown),
        "not_posterior": [
            f"{competitor} is {f.attrs[RECALIBRATED]}" for competitor, f in recalibrated.items()
        ],
        "fields": any(_figures.is_field(fc, name) for name in shown),
        "curves": not all(_figures.is_field(fc, name) for name in shown),
        "failed": _summary.count_failed(about),
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
        "most_faults": MOST_FAULTS if options.brief else None,
        "most_rows": MOST_ROWS,
        "methods": _methods.methods(model, description, post, fc, train, options, summary, scored),
        "provenance": _provenance(post, fc),
        "percent": percent,
    }
    return _environment().get_template("template.html").render(context)


def _score_section(
    scored: _summary.Scored | None,
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
        "estimated": "",
        **{key: [] for key in ("scores", "measured", "calibration")},
    }
    if scored is None:
        return section
    series = bool(forecasts[scored.name].attrs.get("series", True))
    return section | {
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
) -> _summary.Scored:
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
    return _summary.Scored(tables, transform, name, common)


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
    sizes = post["posterior"].sizes
    # An interrupted run has fewer draws than asked for.
    kept = f"{count(sizes['chain'], 'chain')} of {count(sizes['draw'], 'draw')}"
    if int(attrs.get("interrupted", 0)):
        kept += f"; interrupted, {attrs.get('draws_requested', '?')} a chain were asked for"
    wall = f"{seconds(attrs.get('wall_time_s'))} in all"
    if "sampling_time_s" in attrs:
        wall += f", of which sampling {seconds(attrs['sampling_time_s'])}"
    rows = [
        ("engine", _methods.engine_name(post)),
        ("draws kept", kept),
        ("data SHA-256", attrs.get("data_sha256", MISSING)),
        ("fitted", attrs.get("created", MISSING)),
        ("forecast", fc.attrs.get("created", MISSING)),
        ("model of the forecast", fc.attrs.get("model", MISSING)),
        ("wall time", f"{wall}; forecast {seconds(fc.attrs.get('wall_time_s'))}"),
        ("machine", ", ".join(str(attrs[k]) for k in ("platform", "devices") if k in attrs)),
    ]
    return [(label, str(value) or MISSING) for label, value in rows]

"""From posterior, forecast and data to the text of the page."""

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
from ..data.dates import are_dates, told
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

SYMBOLS = {"good": "✓", "inconclusive": "?", "warning": "!", "bad": "✕"}
VERSIONS = ("bayes_dasl", "python", "jax", "numpyro", "diffrax", "blackjax")


@dataclass(frozen=True)
class Scored:
    """The scores of every forecast on the test data, this model's first."""

    tables: dict[str, pd.DataFrame]
    pit: xr.Dataset
    name: str
    data: xr.Dataset

    @property
    def own(self) -> pd.DataFrame:
        return self.tables[self.name]


def render(
    post: xr.DataTree,
    fc: xr.DataTree,
    test: xr.Dataset | None,
    *,
    title: str,
    name: str,
    rivals: Mapping[str, xr.DataTree],
    derived: xr.Dataset | None = None,
    mixture: Mixed | None = None,
    model: Model | None = None,
    description: Any,
    options: ReportOptions,
) -> str:
    """Return the page as HTML."""
    _check_arguments(post, fc, name, rivals, mixture)
    _events.refuse(fc, options)
    train = fitted_observables(post)
    observables = [str(v) for v in fc["predictions"].data_vars]
    shown = observables[: _figures.MOST_OBSERVABLES]
    diagnosis = diagnose(post, fc, test, rivals=rivals)
    summary = _tables.summaries(post)
    options = options.told_of(test)
    test, all_fitted = _held_out(fc, train, test, observables)
    # What the page is about: the mixture where there is one, beside which each of its models
    # stands.
    about, head, members = (
        (fc, name, rivals) if mixture is None else (mixture.forecast, MIXTURE, {name: fc, **rivals})
    )
    scored = None if test is None else _scored(about, train, test, head, members, observables)
    units = _units(fc, observables)
    recalibrated = {rival: found for rival, found in rivals.items() if RECALIBRATED in found.attrs}
    known = with_what_is_censored(post)
    return (
        _environment()
        .get_template("template.html")
        .render(
            title=title,
            name=name,
            head=head,
            mixture=None if mixture is None else _of_mixture(mixture, members, known, test, shown),
            subtitle=_subtitle(fc, train, test, all_fitted),
            diagnosis=diagnosis,
            faults=_faults(diagnosis.findings),
            passed=[f for f in diagnosis.findings if f.level == "good"],
            symbols=SYMBOLS,
            skill=_skill(scored, units) if scored else "",
            facts=_facts(
                post, about, summary, scored, units, "" if mixture is None else f" of {name}"
            ),
            forecast=_figures.forecast_cards(about, known, test, shown),
            closer=_events.window_cards(about, known, test, shown, options),
            events=_events.event_cards(about, options),
            no_events=_events.not_drawn(about, options),
            recalibrated=_figures.recalibrated_cards(recalibrated, known, test, shown),
            not_posterior=[
                f"{rival} is {found.attrs[RECALIBRATED]}" for rival, found in recalibrated.items()
            ],
            fields=any(_figures.is_field(fc, name) for name in shown),
            curves=not all(_figures.is_field(fc, name) for name in shown),
            failed=_failed(about),
            observables=observables,
            shown=shown,
            scores=_tables.score_groups(scored.tables, units) if scored else [],
            mixed_units=len({units[name] for name in observables}) > 1,
            losses=_tables.LOSSES,
            metrics=list(options.metrics),
            measured=_tables.metric_groups({head: about, **members}, scored.data, options.metrics)
            if scored
            else [],
            estimated=_tables.estimated(scored.tables) if scored else "",
            coverages=list(_tables.COVERAGES.values()),
            calibration=_figures.calibration_cards(
                scored.pit, scored.own, series=bool(fc.attrs.get("series", True))
            )
            if scored
            else [],
            split="interaction" in (told := _told(parts := _parts(fc, shown))),
            unknown="unknown" in told,
            forcing="forcing" in told,
            process="process" in told,
            negative=any(
                bool((told[name] < 0).any()) for name in ("interaction", "unknown") if name in told
            ),
            decomposition=_figures.decomposition_cards(
                parts, fitted_between(fc), "" if mixture is None else name
            ),
            laws=_tables.law_rows(fc),
            functions=_figures.function_cards(model, post),
            derived=_figures.derived_cards(fc, derived),
            not_drawn=_figures.not_drawn(fc, derived),
            parameters=_tables.parameter_rows(post, summary),
            parameter_total=len(summary),
            weights=_tables.weight_rows(post),
            densities=_densities(post),
            chains=are_chains(post),
            ranks=_ranks(post, summary) if are_chains(post) else [],
            training=_figures.training_cards(post),
            most_panels=_figures.MOST_PANELS,
            methods=_methods.methods(model, description, post, fc, train, options),
            provenance=_provenance(post, fc),
            percent=percent,
        )
    )


def _faults(findings: Iterable[Finding]) -> list[Finding]:
    """What is not good, the worst first."""
    return sorted((f for f in findings if f.level != "good"), key=lambda f: -LEVELS.index(f.level))


def _of_mixture(
    mixture: Mixed,
    members: Mapping[str, xr.DataTree],
    train: xr.Dataset,
    test: xr.Dataset | None,
    shown: list[str],
) -> dict[str, Any]:
    """What the page has beside, of a forecast that is a mixture."""
    findings, parts = mixture.diagnosis.findings, _parts(mixture.forecast, shown)
    return {
        "names": listed(list(members)),
        "words": mixture.words,
        "diagnosis": mixture.diagnosis,
        "faults": _faults(findings),
        "passed": [f for f in findings if f.level == "good"],
        **_of_weights(mixture.comparison),
        "said": mixture.comparison.findings,
        "members": _figures.member_cards(members, train, test, shown),
        "decomposition": _figures.decomposition_cards(
            parts, fitted_between(mixture.forecast), MIXTURE
        ),
    }


def _of_weights(comparison: Weighed) -> dict[str, Any]:
    """What the weights of a mixture come from."""
    if isinstance(comparison, BayesFactors):
        return {"base": comparison.base, "rows": _tables.evidence_rows(comparison), "cards": []}
    if isinstance(comparison, EqualWeights):
        return {"base": "", "rows": [], "cards": []}
    return {
        "base": "",
        "rows": _tables.model_rows(comparison),
        "origins": count(comparison.by_lead.attrs["origins"], "origin"),
        "horizon": count(comparison.by_lead.sizes["lead"], "observed time"),
        "cards": _figures.comparison_cards(comparison),
    }


def _check_arguments(
    post: xr.DataTree,
    fc: xr.DataTree,
    name: str,
    rivals: Mapping[str, xr.DataTree],
    mixture: Mixed | None,
) -> None:
    if not isinstance(post, xr.DataTree) or not {"posterior", "observed_data"} <= set(
        post.children
    ):
        raise MismatchError("this is no posterior: it lacks a group of those that bd.fit returns")
    check_forecast(fc, "predictions", "conditional_mean", "conditional_variance")
    if not isinstance(rivals, Mapping):
        raise MismatchError(
            f"rivals must be a dict of forecasts by name, not {type(rivals).__name__}"
        )
    if mixture is not None and not isinstance(mixture, Mixed):
        raise MismatchError(f"mixture is what judge_mixture returned, not {type(mixture).__name__}")
    taken = {name, *BASELINES, *([] if mixture is None else [MIXTURE])} & set(rivals)
    if taken:
        raise MismatchError(f"a rival needs a name of its own, not {listed(sorted(taken))}")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _held_out(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, observables: list[str]
) -> tuple[xr.Dataset | None, bool]:
    """The test data without values that were fitted, or none where nothing is left; and whether
    that is so.
    """
    if test is None:
        return test, False
    test = in_units_of_forecast(fc, test)
    left = held_out(train, test, fitted_between(fc))
    seen = [name for name in observables if name in left]
    none = (
        bool(seen)
        and any(test[n].notnull().any() for n in seen)
        and not any(left[n].notnull().any() for n in seen)
    )
    return (None if none else left), none


def _scored(
    fc: xr.DataTree,
    train: xr.Dataset,
    test: xr.Dataset,
    name: str,
    rivals: Mapping[str, xr.DataTree],
    observables: list[str],
) -> Scored:
    transform = pit(fc, test)
    index = index_of(transform)
    common = test.isel({index: np.isin(test[index].values, transform[index].values)})
    tables = {name: score(fc, common)}
    tables |= {other: score(rival, common) for other, rival in rivals.items()}
    tables |= score_baselines(train, common, observables=observables)
    return Scored(tables, transform, name, common)


def _parts(fc: xr.DataTree, shown: list[str]) -> xr.Dataset:
    """The parts of the variance over time; those of a field are means over its places."""
    predictions = fc["predictions"].to_dataset()
    alike: dict[tuple, list[str]] = {}
    for name in shown:
        alike.setdefault(predictions[name].dims, []).append(name)
    parts = [decompose(fc, names) for names in alike.values()]
    index = index_of(predictions)
    return xr.concat(
        [p.mean([d for d in p.dims if d not in ("observable", index)]) for p in parts], "observable"
    )


def _told(parts: xr.Dataset) -> dict[str, xr.DataArray]:
    """The parts of the epistemic variance that are drawn for some observable."""
    found: dict[str, list[xr.DataArray]] = {}
    for name in parts["observable"].values:
        for part, values in epistemic_parts(parts.sel(observable=name)).items():
            found.setdefault(part, []).append(values.drop_vars("units", errors="ignore"))
    return {part: xr.concat(each, "observable") for part, each in found.items()}


def _units(fc: xr.DataTree, observables: list[str]) -> dict[str, str]:
    predictions = fc["predictions"].dataset
    units = {name: str(predictions[name].attrs.get("units", "")) for name in observables}
    shared = set(units.values())
    return units | {"all": shared.pop() if len(shared) == 1 else ""}


def _subtitle(
    fc: xr.DataTree, train: xr.Dataset, test: xr.Dataset | None, all_fitted: bool
) -> list[str]:
    index = index_of(train)
    fitted = train[index]
    unit = str(fitted.attrs.get("units", ""))
    said = [f"fitted on {_span(fitted.values)}"]
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
    first, last = time.min(), time.max()
    first, last = (told(at) if are_dates(time) else f"{float(at):.10g}" for at in (first, last))
    between = " to " if are_dates(time) else "\N{EN DASH}"
    return f"{first}{between}{last}" if last != first else first


def _skill(scored: Scored, units: Mapping[str, str]) -> str:
    own = float(scored.own.loc["all", "crps"])
    n = int(scored.own.loc["all", "n"])
    if not np.isfinite(own):
        return "No test value could be scored."
    unit = f" {units['all']}" if units["all"] else ""
    others = {
        k: t
        for k, t in scored.tables.items()
        if k != scored.name and np.isfinite(t.loc["all", "crps"])
    }
    said = [_against(name, scored.own, table) for name, table in others.items()]
    several = "on average over the observables " if len(scored.own) > 2 else ""
    compared = f": {several}{'; '.join(said)}" if said else ""
    return (
        f"On {count(n, 'held-out value')} its CRPS (a mean distance between forecast and truth) "
        f"is {number(own)}{unit}{compared}."
    )


def _against(name: str, own: pd.DataFrame, other: pd.DataFrame) -> str:
    """Which is lower, and by what share of the other, as the verdict says it."""
    rows = [
        row for row in own.index if row != "all" and row in other.index and own.loc[row, "n"] > 0
    ]
    ours, theirs, n = (
        t.loc[rows, c].to_numpy(float) for t, c in ((own, "crps"), (other, "crps"), (own, "n"))
    )
    mean = number(other.loc["all", "crps"])
    if (lower := lower_by(ours, theirs, n)) > 0.005:
        return f"that of {name} is {percent(lower)} lower ({mean})"
    if (lower := lower_by(theirs, ours, n)) > 0.005:
        return f"{percent(lower)} lower than that of {name} ({mean})"
    return f"level with {name} ({mean})"


def _facts(
    post: xr.DataTree,
    fc: xr.DataTree,
    summary: pd.DataFrame,
    scored: Scored | None,
    units: Mapping[str, str],
    of: str,
) -> list[tuple[str, str, str]]:
    failed, draws = _failed(fc)
    facts = [
        (
            "forecast draws",
            fixed(draws, 0),
            count(post["posterior"].sizes["chain"], "run" if of_particles(post) else "chain"),
        ),
        ("failed forecast draws", fixed(failed, 0), "left out"),
    ]
    if scored:
        crps, cover = scored.own.loc["all", ["crps", "coverage_90"]]
        facts = [
            ("CRPS", number(crps), units["all"] or "mean over observables"),
            ("90 % coverage", percent(cover), "of test values inside"),
        ]
    if not are_chains(post):
        return [*facts, _origin(post)]
    worst = fixed(summary["r_hat"].max(), 3) if len(summary) else MISSING
    lowest = fixed(summary["ess_bulk"].min(), 0) if len(summary) else MISSING
    mixing = ("largest R-hat", worst, f"science parameters{of}")
    if "nested_rhat" in post.attrs:  # chains too short for R-hat itself
        mixing = ("nested R-hat", fixed(post.attrs["nested_rhat"], 3), "of superchains")
    return [
        *facts,
        mixing,
        ("lowest bulk ESS", lowest, f"science parameters{of}"),
    ]


def _origin(post: xr.DataTree) -> tuple[str, str, str]:
    """What the draws of an engine without chains are."""
    attrs, draws = post.attrs, post["posterior"].sizes["draw"]
    return "draws", fixed(draws, 0), str(attrs.get("draws_are", ""))


def _failed(fc: xr.DataTree) -> tuple[int, int]:
    """How many draws failed in the solver or are not finite, and how many there are; a repeated
    member counts once.
    """
    usable = usable_draws(fc)
    return int((~usable).sum()), usable.size


def _densities(post: xr.DataTree) -> list[Card]:
    names = list(science_parameters(post))[: _figures.MOST_PANELS]
    return _figures.density_cards(post, names) if names else []


def _ranks(post: xr.DataTree, summary: pd.DataFrame) -> list[Card]:
    """The parameters that mix worst are the ones to look at, in the order of the table."""
    worst = np.argsort(-summary["r_hat"].to_numpy(), kind="stable")[: _figures.MOST_PANELS]
    names = [str(summary.index[i]) for i in sorted(worst)]
    chains = post["posterior"].sizes["chain"]
    return _figures.rank_cards(post, names, chains) if names else []


def _provenance(post: xr.DataTree, fc: xr.DataTree) -> list[tuple[str, str]]:
    attrs: Mapping[str, Any] = {str(k): v for k, v in post.attrs.items()}
    versions = [f"{v} {attrs[f'version_{v}']}" for v in VERSIONS if f"version_{v}" in attrs]
    sizes = post["posterior"].sizes
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

"""Verdict on a mixture of the forecasts of several models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from .._findings import Diagnosis, Finding
from ..errors import MismatchError
from ..scores.matching import check_forecast
from ..verdict.adequacy import crps_apart, forecast_findings
from ..verdict.extrapolation import EXTRAPOLATION
from .comparison import Comparison, lead_over, lowest_crps
from .equal_weights import EqualWeights
from .factor_table import BayesFactors

MIXTURE = "mixture"
"""The name of a mixture among the names of models and baselines."""
# Share of a CRPS below which two forecasts are level, and the standard errors of a clear lead.
_LEVEL = 0.005
_CHANCE = 2.0  # standard errors
# Extrapolation hardly matters for models with a smaller weight.
_SLIGHT = 0.05


type Weighed = Comparison | BayesFactors | EqualWeights
"""A table of models with the weights of a mixture."""


@dataclass(frozen=True)
class Mixed:
    """A mixture of forecasts with its verdict.

    Args:
        forecast: the result of `bd.mixture`.
        comparison: the table with the weights of the mixture.
        diagnosis: the verdict on the sampling of each model, and on the mixture as a forecast.
        words: sentences on the weights and how they were computed, on which models forecast the end
            of the training data best if past forecasts gave the weights, and on how the models
            compare on the held-out data.
    """

    forecast: xr.DataTree
    comparison: Weighed
    diagnosis: Diagnosis
    words: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.words, str(self.diagnosis)])

    __repr__ = __str__


def judge_mixture(
    mixture: xr.DataTree,
    comparison: Weighed,
    forecasts: Mapping[str, xr.DataTree],
    verdicts: Mapping[str, Diagnosis],
    post: xr.DataTree,
    test: xr.Dataset,
    *,
    own: str,
    science: str | None = None,
) -> Mixed:
    """Diagnose a mixture of forecasts, and compare the forecasts of its models.

    Args:
        mixture: the result of `bd.mixture`.
        comparison: the table with its weights: the result of `bd.weighting.model_weights`,
            `bd.compare` or `bd.weighting.bayes_factors`.
        forecasts: the forecasts of the models, by name.
        verdicts: the result of `bd.diagnose` for each model, by name.
        post: the posterior of one of the models, from which the training data are taken.
        test: held-out data.
        own: name of the model with which the others are compared.
        science: name of the model that is the science of `own` without a network, if there is one.

    Returns:
        The mixture with its verdict, and sentences that compare its models.

    Raises:
        MismatchError: if `mixture` is no forecast, or `own` is not among the forecasts.
    """
    check_forecast(mixture, "predictions", "conditional_mean", "conditional_variance")
    if own not in forecasts:
        raise MismatchError(
            f"own is the name of one of the forecasts, {', '.join(forecasts)}, not {own!r}"
        )
    # Findings on the sampling of all models, and on extrapolation by models with a relevant weight.
    sampling = (_sampling_finding(name, verdicts[name]) for name in forecasts if name in verdicts)
    weighty = [
        name for name, weight in comparison.weights.items() if weight > _SLIGHT and name in verdicts
    ]
    beyond = (finding for name in weighty for finding in _extrapolation(name, verdicts[name]))
    diagnosis = Diagnosis(
        (*sampling, *forecast_findings(post, mixture, test, forecasts), *beyond), of=MIXTURE
    )
    words = (
        *_weights_in_words(comparison),
        *_mixture_held_out(forecasts, post, test, own, science),
    )
    return Mixed(mixture, comparison, diagnosis, words)


def _sampling_finding(name: str, verdict: Diagnosis) -> Finding:
    remedy = f"see the verdict on {name}"
    return Finding(verdict.sampling, f"sampling of {name}", verdict.of_the_sampling, remedy)


def _extrapolation(name: str, verdict: Diagnosis) -> Iterator[Finding]:
    """Yield the findings of a model on unknown functions beyond their training range.

    Args:
        name: name of the model.
        verdict: the verdict on the model.
    """
    for finding in verdict.findings:
        if finding.subject.startswith(EXTRAPOLATION):
            yield replace(finding, subject=f"{name}: {finding.subject}")


def _weights_in_words(comparison: Weighed) -> Iterator[str]:
    """Yield sentences on the weights of a mixture, and on how they were computed."""
    shares = [f"{name} ({weight:.2f})" for name, weight in comparison.weights.items()]
    mixture = f"A mixture of {', '.join(shares[:-1])} and {shares[-1]}"
    if isinstance(comparison, BayesFactors):
        before = comparison.table.loc[comparison.base, "prior"]
        yield (
            f"{mixture}, weighed by how probable the training data are under each. Before them the "
            "probability that "
            f"{comparison.base} lacks nothing was {before:.2g}."
        )
        yield from (f"{finding.subject}: {finding.message}." for finding in comparison.findings)
        return
    if isinstance(comparison, EqualWeights):
        yield f"{mixture}, which are equal: {comparison.why}."
        return
    leads = comparison.by_lead.sizes["lead"]
    number = comparison.by_lead.attrs["origins"]
    times = "time" if leads == 1 else f"{leads} times"
    origins = "one origin" if number == 1 else f"{number} origins"
    yield (
        f"{mixture}, weighed by how well each forecast the next {times} from {origins} within the "
        "training data."
    )
    if comparison.why:
        yield f"Past forecasts weigh them because {comparison.why}."
    if any(finding.subject == "windows" for finding in comparison.findings):
        count = f"{comparison.windows:.2g} that share nothing"
        yield f"These windows count as {count}: weights and standard errors are rough."
    yield from _past_leads(comparison)


def _past_leads(comparison: Comparison) -> Iterator[str]:
    """Yield sentences on which models forecast the end of the training data better."""
    table = comparison.table
    first, *others = map(str, table.index)
    for name in others:
        lead = lead_over(table, name, comparison.windows)
        yield {
            "unknown": f"Within the training data nothing tells {first} from {name}.",
            "impossible": f"Within the training data {name} rules out what came.",
            "clear": f"Within the training data {first} forecast better than {name}: {lead.far}.",
            "chance": f"Within the training data {first} is ahead of {name}, which may be chance: "
            f"{lead.far}.",
        }[lead.kind]
    lowest = lowest_crps(table)
    if lowest != first:
        lower = -float(table.loc[lowest, "crps_difference"])
        yield f"By the CRPS it is {lowest} that is ahead there: its CRPS is {lower:.3g} lower."


def _mixture_held_out(
    forecasts: Mapping[str, xr.DataTree],
    post: xr.DataTree,
    test: xr.Dataset,
    own: str,
    science: str | None,
) -> Iterator[str]:
    """Yield sentences that compare the CRPS of one model on held-out data with each other model.

    Args:
        forecasts: the forecasts by name of the model.
        post: a posterior, from which the training data are taken.
        test: held-out data.
        own: name of the model that is compared with the others.
        science: name of its science model without a network, if there is one.
    """
    for other in (name for name in forecasts if name != own):
        better, worse = other, own
        share, error, number = crps_apart(post, forecasts[own], forecasts[other], test)
        # The share is in units of the worse CRPS, so compute it again in the other order.
        if share < 0:
            better, worse = own, other
            share, error, number = crps_apart(post, forecasts[other], forecasts[own], test)
        if not np.isfinite(share):
            continue
        if share < _LEVEL:
            yield f"On the held-out data {own} and {other} are level."
            continue
        chance = ", which may be chance" if not share > _CHANCE * error else ""
        several = len(forecasts[own]["predictions"].data_vars) > 1
        average = ", on average over the observables," if several else ""
        yield (
            f"On the held-out data the CRPS of {better} is{average} {share:.0%} lower than that of "
            f"{worse} (standard "
            f"error {error:.0%}, of {number} values){chance}."
        )
        if other == science:
            how = "worse" if worse == own else "better"
            yield f"So {own} forecast them {how} than its science alone{chance}."
